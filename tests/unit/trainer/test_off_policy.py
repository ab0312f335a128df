"""The data's own completions in the place of rollouts: whole groups, exact tokens, whatever the number of processes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from kepo.errors import ConfigError, DataError
from kepo.trainer.checks import check_dataset
from kepo.trainer.generation_batch import GenerationBatch, Rollouts, put_references
from kepo.types import Sample
from tests.tiny_models import build_text_model, build_tokenizer
from tests.tiny_runs import SHORT_RUN, even_start

REFERENCES = [f"<think>look {i}</think>\n<answer>A</answer>" for i in range(4)]
GROUP = 4


def _questions(reference: bool = True) -> Dataset:
    rows: dict[str, list[Any]] = {
        "prompt": [[{"role": "user", "content": f"What is {i} plus 30?"}] for i in range(4)],
        "answer": ["A"] * 4,
    }
    if reference:
        rows["reference"] = REFERENCES
    return Dataset.from_dict(rows)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(build_text_model(folder / "student", seed=0)), str(build_text_model(folder / "teacher", seed=1))


@pytest.fixture
def make_trainer(models: tuple[str, str], tmp_path: Path) -> Callable[..., KEPOTrainer]:
    def make(dataset: Dataset | None = None, **fields: Any) -> KEPOTrainer:
        defaults: dict[str, Any] = dict(
            output_dir=str(tmp_path / "run"),
            per_device_train_batch_size=2 * GROUP,
            num_generations=GROUP,
            max_completion_length=24,
            exploration="none",
            gate="always",
            learning_rate=1e-2,
            max_steps=2,
        )
        student, teacher = models
        args = KEPOConfig(**{**SHORT_RUN, **defaults, **fields})
        data = _questions() if dataset is None else dataset
        return KEPOTrainer(student, [even_start], args, data, teacher=LocalTeacher(teacher))

    return make


def _one_batch(trainer: KEPOTrainer) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    trainer.create_optimizer_and_scheduler(1)
    trainer.current_gradient_accumulation_steps = 1
    return rows, trainer.make_generation_batch(rows)


def _completions(batch: dict[str, Any]) -> list[list[int]]:
    pairs = zip(batch["completion_ids"], batch["completion_mask"].bool(), strict=True)
    return [ids[mask].tolist() for ids, mask in pairs]


# --- in the trainer -------------------------------------------------------------------------------------------------


def test_without_own_rollouts_every_row_is_its_reference_with_its_end(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(lmbda=0.0)
    rows, batch = _one_batch(trainer)
    tokenizer = trainer.processing_class
    expected = [[*tokenizer(row["reference"])["input_ids"], tokenizer.eos_token_id] for row in rows]
    assert _completions(batch) == expected
    assert len({tuple(ids) for ids in expected}) == 2, "two groups, each with one reference"


def test_the_loss_is_the_teachers_divergence_on_the_references(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(lmbda=0.0, policy_weight=0.0, divergence_interpolation=0.0)
    rows, batch = _one_batch(trainer)
    loss = trainer.compute_loss(trainer.model, batch)
    assert isinstance(trainer.teacher, LocalTeacher)
    divergences = []
    for row in rows:  # each row alone, without padding: sum_v p_T (log p_T - log p_S), in float64
        tokenizer = trainer.processing_class
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        completion = [*tokenizer(row["reference"])["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([[*prompt, *completion]])
        with torch.no_grad():
            student, teacher = (
                model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
                for model in (trainer.model, trainer.teacher.model)
            )
        divergences.append((teacher.exp() * (teacher - student)).sum(-1))
    expected = torch.cat(divergences).mean()
    torch.testing.assert_close(loss.detach().double(), expected, rtol=1e-4, atol=1e-6)
    assert expected > 0.1


def test_a_reference_that_is_longer_than_a_rollout_may_be_is_left_out_and_counted(
    make_trainer: Callable[..., KEPOTrainer],
) -> None:
    tokenizer = _tokenizer()
    lengths = [len(tokenizer(text)["input_ids"]) + 1 for text in REFERENCES]  # with the end token
    assert len(set(lengths)) == 1
    for budget, replaced in ((lengths[0], 2 * GROUP), (lengths[0] - 1, 0)):
        trainer = make_trainer(lmbda=0.0, max_completion_length=budget)
        rows, batch = _one_batch(trainer)
        texts = trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
        written = [text == row["reference"] for text, row in zip(texts, rows, strict=True)]
        assert sum(written) == replaced
        assert trainer._metrics["train"]["references/rows"] == [replaced]
        assert trainer._metrics["train"]["references/truncated"] == [2 * GROUP - replaced]


def test_on_policy_runs_never_look_at_references(
    make_trainer: Callable[..., KEPOTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kepo.trainer.trainer.put_references", None)
    weights = []
    for dataset in (_questions(), _questions(reference=False)):
        trainer = make_trainer(dataset, lmbda=1.0)
        trainer.train()
        weights.append({name: parameter.detach() for name, parameter in trainer.model.named_parameters()})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_mixed_run_trains_on_both(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer(lmbda=0.5, max_steps=4)
    seen: list[bool] = []
    compute = trainer.compute_batch_loss

    def remember(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        texts = trainer.processing_class.batch_decode(inputs["completion_ids"], skip_special_tokens=True)
        seen.extend(text in REFERENCES for text in texts)
        return compute(model, inputs)

    trainer.compute_batch_loss = remember
    trainer.train()
    assert len(set(seen)) == 2
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


# --- which groups -----------------------------------------------------------------------------------------------------


@functools.cache
def _tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def _replaced(
    share: float, rows: int = 16, processes: int = 1, step: int = 0, seed: int = 3, logprobs: bool = False
) -> tuple[list[bool], list[Rollouts]]:
    """Which rows of a global batch of `rows` are replaced, on `processes` processes."""
    tokenizer = _tokenizer()
    local = rows // processes
    found: list[bool] = []
    all_rollouts = []
    for process in range(processes):
        args: Any = SimpleNamespace(lmbda=share, seed=seed, num_generations=GROUP)
        sampled = [[-0.1, -0.2]] * local if logprobs else None
        rollouts = Rollouts([[1]] * local, [[5, 6]] * local, None, ["sampled"] * local, sampled, {}, None, [])
        prompt = [{"role": "user", "content": "?"}]

        def as_sample(prompt: Any, prompt_ids: Any, text: str) -> Sample:
            return Sample(tuple(tokenizer(text)["input_ids"]), text)

        batch = GenerationBatch([{"reference": "look"}] * local, process * local, [prompt] * local)
        put_references(batch, rollouts, args, step, as_sample)
        found += [completion != "sampled" for completion in rollouts.completions]
        all_rollouts.append(rollouts)
    return found, all_rollouts


def test_groups_are_replaced_as_a_whole_and_drawn_anew_in_every_step() -> None:
    patterns = set()
    for step in range(6):
        rows, _ = _replaced(0.5, step=step)
        assert all(len(set(rows[start : start + GROUP])) == 1 for start in range(0, 16, GROUP))
        patterns.add(tuple(rows))
    assert len(patterns) > 1


@pytest.mark.parametrize("processes", [2, 4, 8], ids=["groups whole", "one group each", "groups over two"])
def test_the_same_groups_are_replaced_on_any_number_of_processes(processes: int) -> None:
    for step in range(4):
        assert _replaced(0.5, processes=processes, step=step)[0] == _replaced(0.5, step=step)[0]


def test_the_share_is_that_of_the_groups_left_on_policy() -> None:
    rows = [row for step in range(100) for row in _replaced(0.8, step=step)[0][::GROUP]]
    assert 1 - sum(rows) / len(rows) == pytest.approx(0.8, abs=0.06)  # 3 standard errors of 400 groups


def test_another_seed_draws_other_groups() -> None:
    first, second = ([_replaced(0.5, step=step, seed=seed)[0] for step in range(6)] for seed in (1, 2))
    assert first != second


def test_a_reference_has_no_sampling_probabilities_and_the_form_of_a_rollout() -> None:
    _, (rollouts,) = _replaced(0.0, rows=4, logprobs=True)
    assert rollouts.logprobs == [[None] * len(rollouts.completion_ids[0])] * 4
    assert rollouts.completions[0] == [{"role": "assistant", "content": "look"}]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_its_range_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(ConfigError, match=f"lmbda is {share}; it must be between 0 and 1"):
        KEPOConfig(output_dir=str(tmp_path), exploration="none", lmbda=share)


def test_references_cannot_be_explored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lmbda is 0\.5 with exploration='hint'.*Set exploration to 'none'"):
        KEPOConfig(output_dir=str(tmp_path), lmbda=0.5)


def test_data_without_references_is_refused_before_anything_is_loaded() -> None:
    mixed, on_policy, off_policy = (SimpleNamespace(lmbda=lmbda) for lmbda in (0.5, 1.0, 0.0))
    with pytest.raises(DataError, match=r"lmbda is 0\.5.*no column 'reference'.*or set lmbda to 1"):
        check_dataset(mixed, _questions(reference=False))  # type: ignore[arg-type]
    check_dataset(on_policy, _questions(reference=False))  # type: ignore[arg-type]
    check_dataset(off_policy, _questions())  # type: ignore[arg-type]
