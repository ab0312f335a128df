"""What a script for TRL's `GRPOTrainer` passes works with `KEPOTrainer` in its place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trl
from datasets import Dataset, IterableDataset
from trl import GRPOConfig, GRPOTrainer

from kepo import KEPOConfig, KEPOTrainer, LocalTeacher
from kepo.errors import ConfigError, DataError
from kepo.runs.rollouts import read_rollouts
from tests.tiny_models import build_text_model, build_tokenizer
from tests.tiny_runs import SHORT_RUN, even_start, questions

TAUGHT: dict[str, Any] = {"exploration": "none", "gate": "always"}


@pytest.fixture(scope="session")
def tool_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A student whose chat template renders tools; TRL knows it by its text."""
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    folder = tmp_path_factory.mktemp("models") / "tools"
    return str(build_text_model(folder, "llama", tokenizer=build_tokenizer(chat_template=template)))


def _distilled(trainer: KEPOTrainer) -> float:
    """The distillation loss of the first step."""
    trainer.train()
    return float(next(log["distillation/loss"] for log in trainer.state.log_history if "distillation/loss" in log))


def test_positional_arguments_are_those_of_trl() -> None:
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD
    theirs = [p.name for p in inspect.signature(GRPOTrainer.__init__).parameters.values() if p.kind == positional]
    ours = [p.name for p in inspect.signature(KEPOTrainer.__init__).parameters.values() if p.kind == positional]
    assert ours == theirs
    assert inspect.signature(KEPOTrainer.__init__).parameters["teacher"].kind == inspect.Parameter.KEYWORD_ONLY


def test_evaluation_data_and_processor_may_be_positional(
    config: Callable[..., KEPOConfig], student: str, teacher_folder: str
) -> None:
    processor, held_out = build_tokenizer(), questions(4)
    teacher = LocalTeacher(teacher_folder)
    trainer = KEPOTrainer(student, even_start, config(**TAUGHT), questions(), held_out, processor, teacher=teacher)
    assert trainer.eval_dataset is held_out
    assert trainer.processing_class is processor


def test_a_grpo_config_keeps_its_fields_and_gets_the_defaults_of_kepo(
    student: str, teacher_folder: str, tmp_path: Path
) -> None:
    fields = {**SHORT_RUN, "per_device_train_batch_size": 2, "num_generations": 4, "max_completion_length": 6}
    fields |= {"generation_batch_size": 8, "beta": 0.1, "scale_rewards": False, "lr_scheduler_type": "cosine"}
    given = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **fields)
    given.temperature = 0.5  # changed after it was made
    trainer = KEPOTrainer(student, even_start, given, questions(), teacher=LocalTeacher(teacher_folder))
    made, default = trainer.args, KEPOConfig(str(tmp_path))
    assert isinstance(made, KEPOConfig)
    for name in vars(given):
        if not name.startswith("_") and name not in ("distributed_state", "deepspeed_plugin"):
            assert getattr(made, name) == getattr(given, name), name
    for name in ("exploration", "distillation_weight", "gate", "num_injected"):
        assert getattr(made, name) == getattr(default, name)


def test_a_grpo_config_without_teacher_says_what_to_write(student: str, tmp_path: Path) -> None:
    given = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **SHORT_RUN)
    with pytest.raises(ConfigError, match=r"Pass teacher=.*KEPOConfig\(.*distillation_weight=0.*exploration='none'"):
        KEPOTrainer(student, even_start, given, questions())


def test_other_arguments_are_refused(student: str, tmp_path: Path) -> None:
    from transformers import TrainingArguments

    with pytest.raises(ConfigError, match=r"TrainingArguments.*KEPOConfig"):
        KEPOTrainer(student, even_start, TrainingArguments(str(tmp_path), use_cpu=True), questions())  # type: ignore[arg-type]


def test_two_rewards_of_one_name_have_names_of_their_own(make_trainer: Callable[..., KEPOTrainer]) -> None:
    def one(name: float) -> Any:
        def same_name(completions: Any, **_: Any) -> list[float]:
            return [name] * len(completions)

        return same_name

    trainer = make_trainer((one(0.0), one(1.0)), correctness_reward="same_name_2", exploration="none")
    assert _distilled(trainer) > 0, "the gate looks at the second reward, which is 1"
    log = read_rollouts(trainer.args.output_dir)
    assert set(log["reward/same_name"].to_pylist()) == {0.0}
    assert set(log["reward/same_name_2"].to_pylist()) == {1.0}


@pytest.mark.parametrize(
    ("options", "logged"),
    [
        ([{"A": "MRI", "B": "CT"}] * 8, ["MRI", "CT"]),
        ([[1, 2]] * 8, ["1", "2"]),
        (["A) MRI B) CT"] * 8, ["A) MRI B) CT"]),
        ([3] * 8, ["3"]),
        ([None] * 8, []),
    ],
    ids=["record", "numbers", "text", "number", "none"],
)
def test_columns_of_other_types(make_trainer: Callable[..., KEPOTrainer], options: Any, logged: list[str]) -> None:
    rows = questions().remove_columns(["options", "task", "modality"])
    rows = rows.add_column("options", options).add_column("task", list(range(8)))
    rows = rows.add_column("modality", [["MRI", "CT"]] * 8).add_column("question", [{"text": "?", "lines": 1}] * 8)
    trainer = make_trainer(dataset=rows, exploration_attempts=1)
    trainer.train()
    row = read_rollouts(trainer.args.output_dir).to_pylist()[0]
    assert row["options"] == logged
    assert row["task"] in {str(number) for number in range(8)}
    assert row["modality"] == '["MRI", "CT"]'
    assert row["question"] == '{"text": "?", "lines": 1}'


def test_a_stream_that_comes_once_loses_no_row(make_trainer: Callable[..., KEPOTrainer]) -> None:
    once = iter([{"prompt": f"question {number}", "answer": "A"} for number in range(8)])
    seen: list[str] = []

    def rows() -> Iterator[dict[str, str]]:
        yield from once

    def remember(prompts: list[str], completions: Any, **_: Any) -> list[float]:
        seen.extend(prompts)
        return [float(place % 2) for place in range(len(completions))]

    stream = IterableDataset.from_generator(rows)
    assert isinstance(stream, IterableDataset)
    trainer = make_trainer((remember,), dataset=stream, max_steps=4, **TAUGHT)
    assert _distilled(trainer) > 0
    assert sorted(set(seen)) == [f"question {number}" for number in range(8)]


def test_a_stream_of_conversations_needs_a_template_too(
    make_trainer: Callable[..., KEPOTrainer], tmp_path: Path
) -> None:
    bare = build_text_model(tmp_path / "bare", "llama", tokenizer=build_tokenizer(chat_template=None))
    trainer = make_trainer(
        model=str(bare), dataset=questions().to_iterable_dataset(), teacher=None, exploration="none",
        distillation_weight=0.0,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="chat template"):
        trainer.train()


def test_rollouts_of_ones_own_need_no_template(
    config: Callable[..., KEPOConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    bare = build_text_model(tmp_path / "bare", "llama", tokenizer=build_tokenizer(chat_template=None))

    def roll(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        ids = [[20 + place, 30, trainer.eos_token_ids[0]] for place in range(len(prompts))]
        return {"prompt_ids": [[5, 6, 7]] * len(prompts), "completion_ids": ids, "logprobs": None}

    args = config(exploration="none", distillation_weight=0.0)
    trainer = KEPOTrainer(str(bare), even_start, args, questions(), rollout_func=roll)
    trainer.train()
    assert trainer.state.global_step == 1


class Counter:
    """An environment that makes its own prompt and its own reward."""

    def reset(self, **_: Any) -> str:
        """Begin again."""
        return "Count to three."

    def add(self, number: int) -> int:
        """
        Add.

        Args:
            number: What to add.

        Returns:
            It.
        """
        return number

    def get_reward(self) -> float:
        """One for every other rollout."""
        Counter.asked += 1
        return float(Counter.asked % 2)

    asked = 0


@pytest.mark.parametrize("data", [None, {"level": [1, 2, 3, 4]}], ids=["no data", "data without prompt"])
def test_an_environment_owns_data_and_reward(
    config: Callable[..., KEPOConfig], tool_model: str, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    trainer = KEPOTrainer(
        model=tool_model,
        args=config(**TAUGHT, correctness_reward="Counter"),
        train_dataset=None if data is None else Dataset.from_dict(data),
        environment_factory=Counter,
        teacher=LocalTeacher(tool_model),
    )
    assert trainer.reward_func_names == ["Counter"]
    trainer.train()
    assert any("distillation/loss" in log for log in trainer.state.log_history)
    assert set(read_rollouts(trainer.args.output_dir)["reward/Counter"].to_pylist()) == {0.0, 1.0}


def test_a_reward_that_the_environment_does_not_have_is_said(
    config: Callable[..., KEPOConfig], tool_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    args = config(exploration="none", distillation_weight=0.0, correctness_reward="truth")
    with pytest.raises(ConfigError, match=r"'truth'.*Counter"):
        KEPOTrainer(model=tool_model, args=args, environment_factory=Counter)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (questions(0), "eval_dataset has no rows"),
        ({"easy": questions(4), "hard": questions(0)}, "eval_dataset 'hard' has no rows"),
        ({"easy": questions(4), "hard": questions(4).remove_columns("answer")}, "'answer'.*eval_dataset 'hard' has"),
    ],
)
def test_evaluation_data_are_checked_before_training(
    make_trainer: Callable[..., KEPOTrainer], data: Any, words: str
) -> None:
    def compare(completions: Any, answer: Any, **_: Any) -> list[float]:
        return [0.0] * len(completions)

    with pytest.raises(DataError, match=words):
        make_trainer((compare,), eval_dataset=data, **TAUGHT)
