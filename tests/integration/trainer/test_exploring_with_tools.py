"""Exploration where rollouts have several turns, or are parsed: hinted samples are made by TRL's own loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kepo import KEPOConfig, KEPOTrainer, ScriptedTeacher
from kepo.errors import ConfigError
from kepo.prompts import hinted_prompt
from kepo.rewards import choice_accuracy
from kepo.runs import read_rollouts
from kepo.teachers.base import ScoreRequest, SparseScores
from tests.tiny_models import EOS
from tests.tiny_runs import questions
from tests.tool_models import build_tool_model, says

CALL = '<tool_call>{"name": "look_up", "arguments": {"word": "border"}}</tool_call>'
FOUND = "it is an MRI"
SENT = f"<|tool|>{FOUND}{EOS}<|assistant|>"  # what the chat template writes of the tool
RIGHT, WRONG = "<answer>A</answer>", "<answer>B</answer>"


def look_up(word: str) -> str:
    """Look a word up.

    Args:
        word: The word.

    Returns:
        What is known of it.
    """
    return FOUND if word == "border" else "nothing"


async def look_up_later(word: str) -> str:
    """Look a word up.

    Args:
        word: The word.

    Returns:
        What is known of it.
    """
    return look_up(word)


def script(text: str) -> str:
    """Only with a hint the student calls the tool, and only with its result it answers right."""
    asked = text.rsplit("<|user|>", 1)[1]
    if FOUND in asked:
        return RIGHT + EOS
    return (f"I look.{CALL}" if "Hint:" in asked else WRONG) + EOS


def own_token(request: ScoreRequest) -> SparseScores:
    ids = torch.tensor(request.completion_ids)
    logps = torch.full((len(ids),), -0.1)
    return SparseScores(ids=ids[:, None], logps=logps[:, None], token_logps=logps)


@pytest.fixture(scope="module")
def tool_student(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_tool_model(tmp_path_factory.mktemp("models") / "tools")


@pytest.fixture
def make(tool_student: str, config: Callable[..., KEPOConfig]) -> Callable[..., KEPOTrainer]:
    """A trainer whose student says what `script` makes of the text so far; other keywords are config fields."""

    def make(
        script: Callable[[str], str] = script,
        rewards: Any = (choice_accuracy,),
        dataset: Any = None,
        grpo: dict[str, Any] | None = None,
        **fields: Any,
    ) -> KEPOTrainer:
        teacher = ScriptedTeacher(hints="<hint>look at the border</hint>", scores=own_token)
        args = config(**{"max_completion_length": 120, **fields})
        data = questions() if dataset is None else dataset
        trainer = KEPOTrainer(tool_student, list(rewards), args, data, teacher=teacher, **(grpo or {}))
        trainer.model.generate = says(trainer, script)
        return trainer

    return make


def _one_batch(trainer: KEPOTrainer) -> dict[str, Any]:
    trainer.model.train()
    trainer.create_optimizer_and_scheduler(1)
    trainer.current_gradient_accumulation_steps = 1
    return trainer.make_generation_batch(next(iter(trainer.get_train_dataloader())))


def _written(trainer: KEPOTrainer, batch: dict[str, Any], row: int, by_tool: bool) -> str:
    mask = batch["completion_mask"][row].bool() & (batch["tool_mask"][row].bool() != by_tool)
    return trainer.processing_class.decode(batch["completion_ids"][row][mask])


@pytest.mark.parametrize("tool", [look_up, look_up_later], ids=["sync", "async"])
def test_a_rescue_of_several_turns_is_masked_gated_and_rewarded_as_a_rollout_is(
    make: Callable[..., KEPOTrainer], tool: Any, tmp_path: Path
) -> None:
    seen: list[Any] = []

    def remember(completions: Any, **_: Any) -> list[float]:
        seen.extend(completions)
        return [0.0] * len(completions)

    name = tool.__name__
    said = f"I look.{CALL.replace('look_up', name)}{EOS}{RIGHT}{EOS}"
    trainer = make(
        lambda text: script(text).replace("look_up", name),
        (choice_accuracy, remember),
        grpo={"tools": [tool]},
        exploration_attempts=1,
    )
    batch = _one_batch(trainer)
    rows = batch["injected"].nonzero().flatten().tolist()
    assert batch["injected"].view(2, 4).sum(1).tolist() == [2, 2]
    for row in rows:
        assert _written(trainer, batch, row, by_tool=True) == SENT
        assert _written(trainer, batch, row, by_tool=False) == said
        gated = batch["gate_weights"][row].bool()
        assert torch.equal(gated, batch["completion_mask"][row].bool() & batch["tool_mask"][row].bool())
        assert [message["role"] for message in seen[row]] == ["assistant", "tool", "assistant"]
        assert seen[row][0]["tool_calls"][0]["function"] == {"name": name, "arguments": {"word": "border"}}
        assert (seen[row][1]["content"], seen[row][2]["content"]) == (FOUND, RIGHT)
    assert (batch["advantages"][rows] > 0).all()
    prompts = trainer.processing_class.batch_decode(batch["prompt_ids"])
    assert not any("Hint:" in text for text in prompts)
    assert len(set(prompts)) == 2
    others = ~batch["injected"]
    assert (batch["tool_mask"][others] == 1).all()
    assert not batch["gate_weights"][others].any()
    assert torch.isfinite(trainer.compute_loss(trainer.model, batch))
    metrics = trainer._metrics["train"]
    assert metrics["tools/call_frequency"] == [0.0], "those of the rollouts, without the samples of exploration"
    assert metrics["exploration/rescued_groups"] == [1.0]
    written = len(trainer.processing_class(said)["input_ids"])
    assert metrics["exploration/sampled_tokens"] == [4.0 * written], "without what the tool said"
    completions = {row["completion"] for row in read_rollouts(tmp_path / "run").to_pylist() if row["injected"]}
    assert len(completions) == 1
    logged = completions.pop()
    assert all(part in logged for part in (name, "border", FOUND, RIGHT))


def test_what_a_replaced_rollout_had_of_a_tool_goes_with_it(make: Callable[..., KEPOTrainer]) -> None:
    def other_way_round(text: str) -> str:
        asked = text.rsplit("<|user|>", 1)[1]
        if "Hint:" in asked:
            return RIGHT + EOS
        return (WRONG if FOUND in asked else CALL) + EOS

    trainer = make(other_way_round, grpo={"tools": [look_up]})
    batch = _one_batch(trainer)
    assert (batch["tool_mask"][batch["injected"]] == 1).all()
    for row in (~batch["injected"]).nonzero().flatten().tolist():
        assert _written(trainer, batch, row, by_tool=True) == SENT
    assert trainer._metrics["train"]["tools/call_frequency"] == [1.0]


@pytest.mark.parametrize("correction", ["shaped", "importance"])
def test_corrections_read_the_prompt_with_its_tools(make: Callable[..., KEPOTrainer], correction: str) -> None:
    trainer = make(grpo={"tools": [look_up]}, injection_correction=correction)
    batch = _one_batch(trainer)
    assert torch.isfinite(trainer.compute_loss(trainer.model, batch))
    if correction == "shaped":
        return
    row = int(batch["injected"].nonzero()[0])
    length = int(batch["completion_mask"][row].sum())
    tokenizer = trainer.processing_class
    question = tokenizer.decode(batch["prompt_ids"][row]).rsplit("<|user|>", 1)[1].split(EOS)[0]
    hinted = hinted_prompt([{"role": "user", "content": question}], "look at the border")
    prompt = tokenizer.apply_chat_template(hinted, tools=[look_up], add_generation_prompt=True, return_dict=False)
    ids = torch.tensor([[*prompt, *batch["completion_ids"][row, :length].tolist()]])
    with torch.no_grad():
        logps = trainer.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = logps.gather(1, ids[0, len(prompt) :, None])[:, 0]
    torch.testing.assert_close(batch["hinted_per_token_logps"][row, :length], expected, rtol=1e-4, atol=1e-4)


def test_a_rescue_that_the_tools_leave_no_room_for_is_none(make: Callable[..., KEPOTrainer]) -> None:
    whole = make(grpo={"tools": [look_up]})
    length = max(_one_batch(whole)["completion_mask"].sum(1).tolist())
    for budget, injected in ((length, 4), (length - 1, 0)):
        trainer = make(grpo={"tools": [look_up]}, max_completion_length=budget)
        assert _one_batch(trainer)["injected"].sum() == injected


# --- response schemas -------------------------------------------------------------------------------------------------

THOUGHT = f"<think>it may be B</think>{RIGHT}{EOS}"
MESSAGE = {"role": "assistant", "reasoning_content": "it may be B", "content": RIGHT}


def test_hinted_samples_reach_rewards_in_the_form_of_rollouts(make: Callable[..., KEPOTrainer]) -> None:
    seen: list[Any] = []

    def right(completions: Any, **_: Any) -> list[float]:
        seen.extend(message for (message,) in completions)
        return [float(message["content"] == RIGHT and "reasoning_content" in message) for (message,) in completions]

    def think(text: str) -> str:
        return THOUGHT if "Hint:" in text else f"<think>{WRONG}</think>{WRONG}{EOS}"

    batch = _one_batch(make(think, (right,), exploration_attempts=1))
    assert batch["injected"].sum() == 4
    rollout = {"role": "assistant", "reasoning_content": WRONG, "content": WRONG}
    assert seen == [rollout] * 8 + [MESSAGE] * 4


def test_references_reach_rewards_in_the_form_of_rollouts(make: Callable[..., KEPOTrainer]) -> None:
    seen: list[Any] = []

    def remember(completions: Any, **_: Any) -> list[float]:
        seen.extend(completions)
        return [0.0] * len(completions)

    dataset = questions().add_column("reference", [THOUGHT.removesuffix(EOS)] * 8)
    _one_batch(make(lambda _: WRONG + EOS, (remember,), dataset, exploration="none", lmbda=0.0))
    assert seen == [[MESSAGE]] * 8


def test_references_beside_a_rollout_func_have_a_mask_of_their_own(make: Callable[..., KEPOTrainer]) -> None:
    seen: list[Any] = []

    def roll_out(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        rows = len(prompts)
        ids = [trainer.processing_class(WRONG + EOS)["input_ids"] for _ in prompts]
        logps, mask = [[-0.1] * len(row) for row in ids], [[1, 0, *[1] * (len(row) - 2)] for row in ids]
        return {
            "prompt_ids": [[5]] * rows,
            "completion_ids": ids,
            "logprobs": logps,
            "env_mask": mask,
            "score": [0.5] * rows,
        }

    def scored(completions: Any, score: list[Any], **_: Any) -> list[Any]:
        seen.extend(score)
        return score

    dataset = questions().add_column("reference", [f"<think>it is long</think>{RIGHT}"] * 8)
    fields = {"exploration": "none", "lmbda": 0.5, "rollout_log": False}
    trainer = make(script, (choice_accuracy, scored), dataset, {"rollout_func": roll_out}, seed=4, **fields)
    batch = _one_batch(trainer)
    texts = trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    replaced = [RIGHT in text for text in texts]
    assert len(set(replaced)) == 2, "one group of each kind; another seed draws other groups"
    for row, is_reference in enumerate(replaced):
        mask = batch["tool_mask"][row][batch["completion_mask"][row].bool()].tolist()
        assert mask == ([1] * len(mask) if is_reference else [1, 0, *[1] * (len(mask) - 2)])
    assert seen == [None if is_reference else 0.5 for is_reference in replaced]


# --- cut samples ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("exploration", ["hint", "resample"])
def test_a_cut_sample_is_no_rescue(
    make: Callable[..., KEPOTrainer], exploration: str, masked: bool, tmp_path: Path
) -> None:
    calls: list[int] = []

    def reward(completions: Any, answer: list[str], **columns: Any) -> list[float]:
        calls.append(len(completions))
        return choice_accuracy(completions, answer, **columns)

    rollouts = iter([WRONG + EOS] * 8)

    def cut(text: str) -> str:
        return next(rollouts, RIGHT)  # no end token

    fields = {"exploration": exploration, "mask_truncated_completions": masked, "exploration_attempts": 2}
    trainer = make(cut, (reward,), num_injected=1, **fields)
    batch = _one_batch(trainer)
    assert not batch["injected"].any()
    assert not batch["advantages"].any()
    metrics = trainer._metrics["train"]
    assert metrics["exploration/rescued_groups"] == [0.0]
    assert metrics["exploration/truncated_samples"] == [4.0]  # two groups, two attempts
    assert calls == [8], "a cut sample is not even verified"
    rows = read_rollouts(tmp_path / "run").to_pylist()
    assert {row["exploration_failure"] for row in rows} == {"no finished sample"}


def test_a_group_is_rescued_when_its_samples_take_part_in_the_loss(make: Callable[..., KEPOTrainer]) -> None:
    # All rollouts replaced by correct ones: no advantage is left, and without distillation nothing is learned.
    for weight, rescued in ((0.0, 0.0), (1.0, 1.0)):
        trainer = make(grpo={"tools": [look_up]}, num_injected=4, distillation_weight=weight)
        batch = _one_batch(trainer)
        assert batch["injected"].all()
        assert not batch["advantages"].any()
        assert trainer._metrics["train"]["exploration/rescued_groups"] == [rescued]


# --- what is refused --------------------------------------------------------------------------------------------------


class Environment:
    """An environment with a state."""

    def reset(self, **_: Any) -> None:
        """Begin."""


@pytest.mark.parametrize(
    ("grpo", "fields", "said"),
    [
        ({"rollout_func": print}, {}, "exploration samples again.*rollout_func.*Set exploration to 'none'"),
        (
            {"environment_factory": Environment},
            {},
            "exploration is 'hint'.*environment.*functions without state as tools",
        ),
        ({"environment_factory": Environment}, {"exploration": "none", "lmbda": 0.5}, r"lmbda is 0\.5.*lmbda to 1"),
    ],
)
def test_what_keeps_a_state_of_its_own_is_refused(
    make: Callable[..., KEPOTrainer], grpo: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    dataset = questions().add_column("reference", [RIGHT] * 8)
    with pytest.raises(ConfigError, match=said):
        make(grpo=grpo, dataset=dataset, **fields)
