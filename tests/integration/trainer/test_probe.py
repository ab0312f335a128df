"""The probe on tiny models: what would make a run useless is refused when the trainer is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from kepo import KEPOTrainer
from kepo.errors import ConfigError, DataError
from kepo.prompts import build_prompt
from kepo.rewards import choice_accuracy, exact_match, think_format
from kepo.trainer.probe import WHOLE
from kepo.trainer.students import load_adapter
from kepo.types import Question
from tests.tiny_runs import even_start, questions

GRPO: dict[str, Any] = {"teacher": None, "distillation_weight": 0.0, "exploration": "none"}


def _texts(*texts: str, **columns: Any) -> Dataset:
    count = len(texts)
    rows = {"prompt": [[{"role": "user", "content": text}] for text in texts], "answer": ["A"] * count}
    return Dataset.from_dict({**rows, "options": [["MRI", "CT"]] * count, **columns})


def test_a_perfect_completion_is_paid_and_an_incorrect_one_is_not(make_trainer: Callable[..., KEPOTrainer]) -> None:
    trainer = make_trainer((choice_accuracy, even_start), **GRPO)
    probe = trainer.probe(WHOLE, "answer")
    assert (probe.completion, probe.incorrect) == ("<answer>A</answer>", "<answer>B</answer>")
    assert probe.rewards[0].correctness
    assert (probe.rewards[0].perfect, probe.rewards[0].incorrect) == (1.0, 0.0)
    assert (probe.rows, probe.per_batch, probe.rewarded_rows) == (8, 2, 8)
    assert "What does image 0 show?<|eos|><|assistant|>" in probe.prompt
    assert 0 < probe.longest_prompt < 100
    assert probe.context == 1024
    assert probe.trainable == probe.parameters > 0


def test_a_correctness_reward_of_ones_own_is_a_note(make_trainer: Callable[..., KEPOTrainer]) -> None:
    def never(completions: Any, **_: Any) -> list[float]:
        return [0.0] * len(completions)

    trainer = make_trainer((never,), **GRPO)
    assert trainer.first_look.notes == ()  # it was not called
    [note] = trainer.probe(WHOLE, "answer").notes
    assert "function of your own" in note


def test_a_reward_that_fails_on_a_row_names_it(make_trainer: Callable[..., KEPOTrainer]) -> None:
    def shout(completions: Any, level: list[str], **_: Any) -> list[float]:
        return [float(len(one.upper())) for one in level]

    dataset = questions().add_column("level", ["x", "x", None, *["x"] * 5])
    trainer = make_trainer((shout,), dataset=dataset, **GRPO)
    with pytest.raises(DataError, match=r"'shout' fails on train_dataset, row 2 \(id 'q2'\): AttributeError"):
        trainer.probe(WHOLE, "answer")


def test_tags_that_the_decoder_drops(make_trainer: Callable[..., KEPOTrainer], monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(trainer: Any, ids: Any) -> list[str]:
        texts = trainer.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.replace("<answer>", "").replace("</answer>", "") for text in texts]

    monkeypatch.setattr(KEPOTrainer, "decode_completions", decode)
    with pytest.raises(ConfigError, match="drops <answer>, </answer>"):
        make_trainer((choice_accuracy,), **GRPO).probe(WHOLE, "answer")


def test_max_completion_length_must_hold_an_answer(make_trainer: Callable[..., KEPOTrainer]) -> None:
    with pytest.raises(ConfigError, match="max_completion_length is 1, but the shortest perfect completion"):
        make_trainer((choice_accuracy,), max_completion_length=1, **GRPO)


def test_the_prompt_says_in_which_form_it_wants_the_answer(make_trainer: Callable[..., KEPOTrainer]) -> None:
    """No style is told to the trainer of a script; it is not refused, or warned of, for a form it did not ask for."""
    questions_asked = [
        Question(id=f"q{i}", text=f"What is in {i}?", answer="A", options=("MRI", "CT")) for i in range(8)
    ]
    answers = _texts(*(str(build_prompt(one, "answer")[0]["content"]) for one in questions_asked))
    rewards = (choice_accuracy, think_format)
    look = make_trainer(rewards, dataset=answers, max_completion_length=4, **GRPO).first_look
    assert look.completion == "<answer>A</answer>"
    assert ["think_format gives 0" in note for note in look.notes] == [True]

    thought = _texts(*(str(build_prompt(one, "think")[0]["content"]) for one in questions_asked))
    look = make_trainer(rewards, dataset=thought, max_completion_length=20, **GRPO).first_look
    assert (look.completion, look.notes) == ("<think>Reasoning.</think>\n<answer>A</answer>", ())

    own = make_trainer(rewards, max_completion_length=4, **GRPO).first_look  # in the user's own words
    assert own.notes == ()


def test_a_prompt_beyond_the_context(make_trainer: Callable[..., KEPOTrainer]) -> None:
    dataset = _texts("short", "long " * 700, "short")
    with pytest.raises(DataError, match=r"row 1: its prompt takes \d+ tokens.* reads 1024"):
        make_trainer((choice_accuracy,), dataset=dataset, **GRPO)


def test_a_template_that_refuses_a_system_message(make_trainer: Callable[..., KEPOTrainer], student: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student)
    refusal = "{{ raise_exception('System role not supported') if messages[0]['role'] == 'system' }}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    user = {"role": "user", "content": "What?"}
    prompts = [[user], [user], [{"role": "system", "content": "Be short."}, user]]
    dataset = Dataset.from_dict({"prompt": prompts, "answer": ["x"] * 3})
    with pytest.raises(DataError, match=r"row 2: .*refuses its prompt.*System role not supported"):
        make_trainer((exact_match,), dataset=dataset, processing_class=tokenizer, **GRPO)


def test_a_frozen_adapter_is_refused(make_trainer: Callable[..., KEPOTrainer], student: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(student)
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(student), LoraConfig(r=2, target_modules="all-linear")
    )
    adapted.save_pretrained(tmp_path / "adapter")

    def load(**how: Any) -> Any:
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(student), tmp_path / "adapter", **how)

    for beta in (0.0, 0.1):
        with pytest.raises(ConfigError, match="'default' of the model is frozen"):
            make_trainer(model=load(), processing_class=tokenizer, beta=beta, **GRPO)
    trainer = make_trainer(model=load(is_trainable=True), processing_class=tokenizer, beta=0.1, **GRPO)
    assert 0 < trainer.first_look.trainable < trainer.first_look.parameters


def test_a_run_of_no_step_is_an_error(make_trainer: Callable[..., KEPOTrainer]) -> None:
    def one() -> Iterator[dict[str, Any]]:
        yield {"prompt": [{"role": "user", "content": "What?"}], "answer": "A", "options": ["MRI", "CT"]}

    trainer = make_trainer(dataset=IterableDataset.from_generator(one), **GRPO)
    assert trainer.first_look.rows is None
    with pytest.raises(DataError, match="without one optimizer step"):
        trainer.train()
    trainer = make_trainer(max_steps=0, **GRPO)  # of which transformers makes one step
    with pytest.raises(ConfigError, match="max_steps is 0"):
        trainer.train()


def test_an_adapter_folder_goes_on_or_is_merged(student: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(student), settings)
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder)
    ids = torch.tensor([[5, 6, 7]])
    expected = adapted(ids).logits

    merged = load_adapter(str(folder), {}, go_on=False)
    assert not isinstance(merged, PeftModel)
    assert all(parameter.requires_grad for parameter in merged.parameters())
    torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=1e-4)

    further = load_adapter(str(folder), {}, go_on=True)
    assert {name.split(".")[-3] for name, p in further.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    torch.testing.assert_close(further(ids).logits, expected, atol=1e-4, rtol=1e-4)


def test_rows_with_and_without_images(make_trainer: Callable[..., KEPOTrainer], vlm: str) -> None:
    dataset = questions(images=True)
    assert make_trainer(model=vlm, dataset=dataset, **GRPO).first_look.images == 8
    mixed = dataset.map(lambda row, number: {"images": row["images"] if number != 5 else []}, with_indices=True)
    with pytest.raises(DataError, match=r"row 5 \(id 'q5'\) has no image"):
        make_trainer(model=vlm, dataset=mixed, **GRPO)
