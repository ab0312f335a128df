"""The local teacher against plain forward passes of the same tiny models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from kepo.errors import KepoError, TeacherError
from kepo.models.encoding import encode, micro_batches
from kepo.models.head import output_head
from kepo.teachers.base import ScoreRequest, Teacher
from kepo.teachers.local import LocalTeacher
from kepo.types import Prompt
from tests.tiny_models import (
    ARCHITECTURES_TEXT,
    ARCHITECTURES_VLM,
    UnavailableHere,
    build_text_model,
    build_tokenizer,
    build_vlm,
    tiny_image,
)

Folders = Any


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """`folders("llava")`: the folder of that tiny model, built once."""
    root, built = tmp_path_factory.mktemp("models"), {}

    def get(architecture: str) -> Path:
        if architecture not in built:
            build = build_text_model if architecture in ARCHITECTURES_TEXT else build_vlm
            try:
                built[architecture] = build(root / architecture, architecture)
            except UnavailableHere as reason:
                pytest.skip(str(reason))
        return built[architecture]

    return get


@pytest.fixture(scope="module")
def llama(folders: Folders) -> LocalTeacher:
    return LocalTeacher(folders("llama"), batch_size=2)


@pytest.fixture(scope="module")
def llava(folders: Folders) -> LocalTeacher:
    return LocalTeacher(folders("llava"), batch_size=2)


def ask(text: str, *colours: int) -> Prompt:
    """A user's question with one image per colour."""
    images = [{"type": "image", "image": tiny_image(colour)} for colour in colours]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}] if images else text}]


def requests_for(vlm: bool) -> list[ScoreRequest]:
    """Rows of different lengths, in an order that sorting changes; with images for a vision-language model."""
    rows = [
        ScoreRequest(ask("What does the image show? Give the letter of the right option."), (40, 41, 42, 2)),
        ScoreRequest(ask("What is 12 plus 30?"), (50,)),
        ScoreRequest(ask("Is it A) MRI or B) CT?"), tuple(range(60, 71))),
    ]
    if vlm:
        rows.insert(1, ScoreRequest(ask("What does the image show?", 3), (99, 44, 2)))
        rows.append(ScoreRequest(ask("Why?", 5), (17, 18, 19, 20, 21, 2)))
    return rows


def plain_logps(folder: Path, request: ScoreRequest, vlm: bool) -> torch.Tensor:
    """(T, V) log-probabilities from a whole forward of one unpadded row, with the processor's own settings."""
    auto = AutoModelForImageTextToText if vlm else AutoModelForCausalLM
    model, processor = auto.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    prompt = request.prompt
    if vlm and isinstance(prompt[0]["content"], str):
        prompt = [{"role": "user", "content": [{"type": "text", "text": prompt[0]["content"]}]}]
    inputs = dict(
        processor.apply_chat_template(
            [prompt], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    )
    completion = torch.tensor([request.completion_ids])
    for name, value in {"input_ids": completion, "attention_mask": torch.ones_like(completion)}.items():
        inputs[name] = torch.cat([inputs[name], value], dim=1)
    for name in {"token_type_ids", "mm_token_type_ids"} & set(inputs):
        inputs[name] = torch.cat([inputs[name], torch.zeros_like(completion)], dim=1)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    return logits[-completion.size(1) - 1 : -1].log_softmax(-1)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES_TEXT, *ARCHITECTURES_VLM])
def test_scores_are_those_of_a_plain_forward_of_each_row(folders: Folders, architecture: str) -> None:
    folder, vlm = folders(architecture), architecture in ARCHITECTURES_VLM
    teacher = LocalTeacher(folder, batch_size=2)
    rows = requests_for(vlm)
    for row, scores in zip(rows, teacher.score(rows), strict=True):
        expected = plain_logps(folder, row, vlm)
        assert scores.hidden.shape == (len(row.completion_ids), 32)
        ids = torch.tensor(row.completion_ids)
        torch.testing.assert_close(scores.token_logps, expected.gather(1, ids[:, None])[:, 0], atol=2e-5, rtol=1e-4)
        # The head makes the full distribution of the same states, softcap included.
        logps = teacher.head.logits(scores.hidden).log_softmax(-1)
        torch.testing.assert_close(logps, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "llava"])
def test_a_row_scores_the_same_alone_and_among_others(folders: Folders, architecture: str) -> None:
    rows = requests_for(architecture == "llava")
    alone = [LocalTeacher(folders(architecture), batch_size=1).score([row])[0] for row in rows]
    together = LocalTeacher(folders(architecture), batch_size=8).score(rows)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.hidden, other.hidden, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(one.token_logps, other.token_logps, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES_TEXT, *ARCHITECTURES_VLM])
def test_a_prompt_is_computed_once_for_its_rows(folders: Folders, architecture: str) -> None:
    folder, colours = folders(architecture), (3,) if architecture in ARCHITECTURES_VLM else ()
    shared, plain = (LocalTeacher(folder, share_prompt=share) for share in (True, False))
    prompts = [ask("What does the image show? Give the letter of the right option.", *colours), ask("Why?", *colours)]
    ids = [tuple(encode(shared.processor, [prompt], None, "cpu")["input_ids"][0].tolist()) for prompt in prompts]
    rows = [
        ScoreRequest(ask(text, *colours), completion, ids[place])  # images as objects of their own, as a data set gives
        for place, text in ((0, "What does the image show? Give the letter of the right option."), (1, "Why?"))
        for completion in ((40, 41, 42, 2), (50,), tuple(range(60, 71)))
    ]
    seen: dict[bool, int] = {True: 0, False: 0}
    for share, teacher in ((True, shared), (False, plain)):

        def count(_module: Any, _args: Any, output: Any, share: bool = share) -> None:
            seen[share] += output.last_hidden_state.shape[:2].numel()

        teacher.score(rows[:3])  # the first batch is checked
        teacher._backbone.register_forward_hook(count)
    for one, other in zip(shared.score(rows), plain.score(rows), strict=True):
        torch.testing.assert_close(one.hidden, other.hidden, atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(one.token_logps, other.token_logps, atol=2e-5, rtol=1e-4)
    completions = 4 + 1 + 11
    assert seen[True] == 2 * (max(map(len, ids)) + completions)
    assert seen[True] < 0.6 * seen[False]


def test_log_probabilities_that_nobody_asks_for_are_not_computed(
    llama: LocalTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [replace(row, token_logps=False) for row in requests_for(vlm=False)]
    with_logps = llama.score(requests_for(vlm=False))
    monkeypatch.setattr("kepo.teachers.local.chunked_token_logps", lambda *_: pytest.fail("the head was used"))
    llama._shared._checked = True
    for one, other in zip(llama.score(rows), with_logps, strict=True):
        assert one.token_logps is None
        torch.testing.assert_close(one.hidden, other.hidden)


def test_rows_of_one_prompt_with_other_images_are_apart(llava: LocalTeacher) -> None:
    ids = tuple(encode(llava.processor, [ask("Why?", 1)], None, "cpu")["input_ids"][0].tolist())
    rows = [ScoreRequest(ask("Why?", colour), (40, 41), ids) for colour in (1, 2, 1)]
    first, second, third = llava.score(rows)
    assert not torch.allclose(first.hidden, second.hidden, atol=1e-3)
    torch.testing.assert_close(first.hidden, third.hidden, atol=2e-5, rtol=1e-4)


def test_padding_does_not_shift_absolute_positions() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=128, vocab_size=len(tokenizer))
    model = GPT2LMHeadModel(config)
    model.transformer.wpe.weight.data.normal_(0.0, 1.0)
    rows = requests_for(vlm=False)
    together = LocalTeacher(model, tokenizer).score(rows)
    for row, scores in zip(rows, together, strict=True):
        alone = LocalTeacher(model, tokenizer).score([row])[0]
        torch.testing.assert_close(alone.token_logps, scores.token_logps, atol=2e-5, rtol=1e-4)


def test_the_image_and_its_row_belong_together(llava: LocalTeacher) -> None:
    first, second = ScoreRequest(ask("Why?", 1), (40, 41)), ScoreRequest(ask("Why?", 6), (40, 41))
    forwards = [scores.token_logps for scores in llava.score([first, second])]
    backwards = [scores.token_logps for scores in llava.score([second, first])]
    torch.testing.assert_close(forwards, backwards[::-1])
    assert (forwards[0] - forwards[1]).abs().max() > 1e-3


def test_hidden_states_hold_no_memory_of_the_prompt_and_no_graph(llama: LocalTeacher) -> None:
    scores = llama.score([ScoreRequest(ask("What is 12 plus 30?"), (50, 51))])[0]
    assert scores.hidden.untyped_storage().nbytes() == 2 * 32 * 4
    assert not scores.hidden.requires_grad
    assert not scores.hidden.is_inference()  # an inference tensor could not enter the student's loss
    assert not any(parameter.requires_grad for parameter in llama.model.parameters())


def test_temperature_divides_the_logits_of_the_token_logps(folders: Folders) -> None:
    rows = requests_for(vlm=False)[:1]
    warm = LocalTeacher(folders("llama"), temperature=2.0).score(rows)[0]
    expected = (LocalTeacher(folders("llama")).head.logits(warm.hidden) / 2).log_softmax(-1)
    torch.testing.assert_close(
        warm.token_logps, expected.gather(1, torch.tensor(rows[0].completion_ids)[:, None])[:, 0]
    )


def test_plain_text_prompts_need_no_template(folders: Folders) -> None:
    tokenizer = build_tokenizer(chat_template=None)
    teacher = LocalTeacher(folders("llama"), tokenizer)
    scores = teacher.score([ScoreRequest("12 plus 30", (40,)), ScoreRequest("A) MRI B) CT", (41, 42))])
    with torch.no_grad():
        ids = torch.tensor([[*tokenizer("12 plus 30")["input_ids"], 40]])
        expected = teacher.model(ids).logits[0, -2].log_softmax(-1)[40]
    torch.testing.assert_close(scores[0].token_logps[0], expected, atol=2e-5, rtol=1e-4)
    with pytest.raises(TeacherError, match=r"no chat template.*chat_template\.jinja"):
        teacher.check_prompt(ask("Why?"))
    with pytest.raises(TeacherError, match="no chat template"):
        teacher.score([ScoreRequest(ask("Why?"), (40,))])


def test_its_name_is_the_folder_as_it_was_given(folders: Folders) -> None:
    folder = str(folders("llama"))
    named = LocalTeacher(f"{folder}/")
    assert named.name == f"{folder}/"
    assert LocalTeacher(named.model).name == named.model.config._name_or_path


def test_nothing_to_do_costs_nothing(llama: LocalTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "model", None)
    assert llama.write_hints([]) == []
    monkeypatch.undo()
    assert llama.score([]) == []


def test_an_unsharded_teacher_never_asks_other_processes(folders: Folders) -> None:
    def never(_count: int) -> int:
        raise AssertionError

    teacher = LocalTeacher(folders("llama"))
    teacher.place("cpu", None, never)
    assert len(teacher.score(requests_for(vlm=False))) == 3
    pinned = LocalTeacher(folders("llama"), device="cpu")
    pinned.place("meta", lambda _model: pytest.fail("a teacher with a device is not sharded"), never)
    assert pinned.model.device == torch.device("cpu")
    assert len(pinned.score(requests_for(vlm=False))) == 3


class Wrapper(torch.nn.Module):
    """Stands in for a sharded model and writes down its forward passes."""

    def __init__(self, module: Any, log: list[str | int]) -> None:
        super().__init__()
        self.module, self.log = module, log

    def forward(self, **inputs: Any) -> Any:
        self.log.append("image" if "pixel_values" in inputs else "text")
        return self.module(**inputs)


def sharded(folder: Path, most: list[int]) -> tuple[LocalTeacher, list[str | int]]:
    """A teacher whose other processes need `most` forward passes (of text first, then with images), and its log.

    The log holds, in order, every number asked for and every forward pass.
    """
    teacher, log = LocalTeacher(folder, batch_size=2, share_prompt=False), []

    def max_over_processes(count: int) -> int:
        asked = sum(isinstance(entry, int) for entry in log)
        log.append(count)
        return max(count, most[asked % len(most)])

    teacher.place("cpu", lambda model: Wrapper(model, log), max_over_processes)
    return teacher, log


def test_a_sharded_teacher_runs_as_often_as_the_busiest_process(folders: Folders) -> None:
    teacher, log = sharded(folders("llava"), [3, 2])
    assert teacher.score([]) == []
    # Every process asks before it runs, and runs the image tower equally often.
    assert log == [0, "text", "text", "text", 0, "image", "image"]
    log.clear()
    rows = requests_for(vlm=True)  # two micro-batches of text, one with images
    scores = teacher.score(rows)
    assert log == [2, "text", "text", "text", 1, "image", "image"]
    expected = LocalTeacher(folders("llava"), batch_size=2).score(rows)
    for one, other in zip(scores, expected, strict=True):
        torch.testing.assert_close(one.token_logps, other.token_logps)


def test_sharded_processes_check_shared_prompts_together(folders: Folders) -> None:
    """As soon as rows share a prompt on one of them, all compare, and hear whether one found a difference."""
    teacher, asked = LocalTeacher(folders("llama"), batch_size=2), []

    def max_over_processes(count: int) -> int:
        asked.append(count)
        return count

    teacher.place("cpu", lambda model: Wrapper(model, []), max_over_processes)
    row = ScoreRequest("Why?", (40, 41), (30, 31, 32))
    teacher.score([row])
    assert asked == [1, 1]  # passes, rows that share a prompt
    teacher.score([row, row])
    teacher.score([row, row])
    assert asked[2:] == [1, 2, 0, 1]  # passes, rows that share, differences found; then passes alone


def test_a_sharded_teacher_keeps_a_whole_head(folders: Folders) -> None:
    teacher, _ = sharded(folders("llama"), [1])
    weight = teacher.model.module.get_output_embeddings().weight
    torch.testing.assert_close(teacher.head.weight, weight.detach())
    assert teacher.head.weight.data_ptr() != weight.data_ptr()
    assert not teacher.head.weight.requires_grad


def test_a_sharded_text_model_only_agrees_on_text(folders: Folders) -> None:
    teacher, log = sharded(folders("llama"), [1])
    teacher.score([])
    assert log == [0, "text"]


def test_greedy_hints_are_the_model_s_own_continuation(folders: Folders) -> None:
    teacher = LocalTeacher(folders("llava"), batch_size=2, hint_temperature=0, hint_max_new_tokens=6)
    conversations = [ask("What does the image show? Give the letter.", 2), ask("Why?"), ask("Why?", 4)]
    hints = teacher.write_hints(conversations)
    for conversation, hint in zip(conversations, hints, strict=True):
        ids = encode(teacher.processor, [conversation], None, "cpu")
        new: list[int] = []
        for _ in range(6):  # one token at a time, each from a whole forward pass
            step = {**ids, **encode_with(ids, new)}
            with torch.no_grad():
                new.append(int(teacher.model(**step).logits[0, -1].argmax()))
            if new[-1] == teacher.processor.tokenizer.eos_token_id:
                break
        assert hint == teacher.processor.tokenizer.decode(new, skip_special_tokens=True)


def encode_with(fields: dict[str, Any], new: list[int]) -> dict[str, torch.Tensor]:
    tail = torch.tensor([new], dtype=torch.long).reshape(1, -1)
    ids = torch.cat([fields["input_ids"], tail], dim=1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def test_sampled_hints_follow_the_global_seed(folders: Folders) -> None:
    teacher = LocalTeacher(folders("llama"), hint_max_new_tokens=12)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(teacher.write_hints([ask("Why?"), ask("What is 12 plus 30?")]))
    assert drawn[0] == drawn[1] != drawn[2]
    assert "<|" not in "".join(drawn[0])


def test_completion_ids_are_appended_as_they_are(llama: LocalTeacher) -> None:
    inputs = encode(llama.processor, [ask("Why?"), ask("What is 12 plus 30?")], [(7, 300, 9), (11,)], "cpu")
    assert inputs["input_ids"][:, -3:].tolist() == [[7, 300, 9], [11, 0, 0]]
    assert inputs["attention_mask"][:, -3:].tolist() == [[1, 1, 1], [1, 0, 0]]
    padding = inputs["input_ids"].size(1) - 3 - len(encode(llama.processor, [ask("Why?")], None, "cpu")["input_ids"][0])
    assert padding > 0
    assert inputs["attention_mask"][0].tolist() == [0] * padding + [1] * (inputs["input_ids"].size(1) - padding)


def test_content_may_be_text_or_parts_for_either_kind_of_model(llama: LocalTeacher, llava: LocalTeacher) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Why?", "image": None}]}]
    for teacher in (llama, llava):
        as_parts, as_text = (encode(teacher.processor, [p], None, "cpu")["input_ids"] for p in (parts, ask("Why?")))
        assert as_parts.tolist() == as_text.tolist()


def test_a_text_model_refuses_images_and_mixed_prompts(llama: LocalTeacher) -> None:
    with pytest.raises(TeacherError, match=r"'image'.*text model"):
        llama.score([ScoreRequest(ask("Why?", 1), (40,))])
    with pytest.raises(TeacherError, match="1 of 2 prompts are plain text"):
        encode(llama.processor, ["Why?", ask("Why?")], None, "cpu")


def test_micro_batches_hold_whole_groups() -> None:
    """Groups of two, three and one row, the first two of which would fill up a list of four and begin another."""
    batches = micro_batches(["Why?"] * 6, [9, 9, 1, 1, 1, 5], 4, with_images=False, groups=[0, 0, 2, 2, 2, 5])
    assert batches == [[2, 3, 4, 5], [0, 1]]
    assert micro_batches(["Why?"] * 5, [1] * 5, 2, with_images=False, groups=[0] * 5) == [[0, 1], [2, 3], [4]]


def test_micro_batches_hold_rows_of_similar_length() -> None:
    prompts = ["", ask("x" * 40), "", ask("Why?", 1), ""]
    # Lengths with the prompt's 46 // 4 = 11 tokens: 5, 12, 1, -, 9.
    assert micro_batches(prompts, [5, 1, 1, 7, 9], 2, with_images=False) == [[2, 0], [4, 1]]
    assert micro_batches(prompts, [5, 1, 1, 7, 9], 2, with_images=True) == [[3]]


def test_a_student_of_the_same_family_is_welcome(folders: Folders, tmp_path: Path) -> None:
    padded = LocalTeacher(build_text_model(tmp_path, "llama", vocab_padding=24))
    student = AutoProcessor.from_pretrained(folders("llava"))
    padded.check_student(student.tokenizer, len(student.tokenizer))
    padded.check_student(student, len(student.tokenizer) + 100)
    assert padded.head.weight.shape[0] == len(student.tokenizer) + 24


def test_a_student_of_another_family_is_refused(llama: LocalTeacher) -> None:
    stranger = build_tokenizer(["<|stranger|>"])
    with pytest.raises(TeacherError) as refusal:
        llama.check_student(stranger, len(stranger))
    text = str(refusal.value)
    assert "1 are unknown here (for example '<|stranger|>')" in text
    common = set(stranger.get_vocab()) & set(llama.processor.get_vocab())
    moved = [token for token in common if stranger.get_vocab()[token] != llama.processor.get_vocab()[token]]
    assert moved
    assert f"{len(moved)} have another id" in text
    assert "distillation_weight: 0" in text


def test_token_ids_beyond_the_teacher_s_vocabulary_are_named(llama: LocalTeacher) -> None:
    with pytest.raises(TeacherError, match="Row 1 holds token id 9999"):
        llama.score([ScoreRequest(ask("Why?"), (40,)), ScoreRequest(ask("Why?"), (9999,))])


def test_what_cannot_be_loaded_is_named(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"no config\.json.*safetensors"):
        LocalTeacher(tmp_path)
    (tmp_path / "config.json").write_text((folders("llama") / "config.json").read_text())
    with pytest.raises(TeacherError, match="could not be loaded from"):
        LocalTeacher(tmp_path)  # no weights
    (tmp_path / "model.safetensors").write_bytes((folders("llama") / "model.safetensors").read_bytes())
    with pytest.raises(TeacherError, match="processor could not be loaded"):
        LocalTeacher(tmp_path)
    model = LocalTeacher(tmp_path, build_tokenizer()).model
    model.config._name_or_path = ""
    with pytest.raises(TeacherError, match="pass processor="):
        LocalTeacher(model)


def test_settings_that_cannot_work_are_refused(folders: Folders) -> None:
    for setting in ({"batch_size": 0}, {"temperature": 0.0}, {"hint_temperature": -1.0}, {"hint_max_new_tokens": 0}):
        with pytest.raises(TeacherError, match=next(iter(setting))):
            LocalTeacher(folders("llama"), **setting)


def test_it_is_a_teacher_and_takes_a_loaded_model(folders: Folders) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders("llama"))
    teacher = LocalTeacher(model)
    assert isinstance(teacher, Teacher)
    assert teacher.processor.chat_template
    assert LocalTeacher(folders("llama"), dtype=torch.bfloat16).head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", ["llava", "idefics3", "gemma3"])
def test_a_teacher_in_half_precision_reads_images(folders: Folders, architecture: str) -> None:
    rows = [ScoreRequest(ask("What does the image show?", 3), (99, 44, 2))]
    half = LocalTeacher(folders(architecture), dtype=torch.bfloat16).score(rows)[0]
    assert half.hidden.dtype == torch.bfloat16
    assert half.token_logps.dtype == torch.float32
    torch.testing.assert_close(
        half.token_logps, LocalTeacher(folders(architecture)).score(rows)[0].token_logps, atol=0.3, rtol=0.1
    )


def config_like(**values: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(hidden_size=32, num_attention_heads=2, num_hidden_layers=1, vocab_size=8, **values)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ({}, 1.0),
        ({"logit_scale": None}, 1.0),
        ({"logit_scale": 0.25}, 0.25),
        ({"logits_scaling": 4.0}, 0.25),
        ({"output_multiplier": 0.5}, 0.5),
        ({"lm_head_multiplier": 2.0}, 2.0),
    ],
)
def test_factors_on_the_logits_are_read_from_the_configuration(values: dict[str, Any], scale: float) -> None:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(config_like(**values))
    assert output_head(model).scale == scale
    assert output_head(model).softcap is None
    model.config.model_type = "hyperclovax"
    assert output_head(model).scale == (4.0 if "logits_scaling" in values else scale)


def test_a_factor_that_nobody_reads_is_noticed(folders: Folders) -> None:
    teacher = LocalTeacher(folders("llama"))
    plain = teacher.model.lm_head.forward
    teacher.model.lm_head.forward = lambda hidden: 3.0 * plain(hidden)
    with pytest.raises(KepoError, match="not the product of its hidden states"):
        teacher.score(requests_for(vlm=False))


def test_adapters_are_seen_through(folders: Folders) -> None:
    from peft import LoraConfig, get_peft_model

    rows = requests_for(vlm=False)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folders("llama")),
        LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False),
    )
    scores = LocalTeacher(model, build_tokenizer()).score(rows)
    without = LocalTeacher(folders("llama")).score(rows)
    assert (scores[0].token_logps - without[0].token_logps).abs().max() > 1e-3
    on_head = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folders("llama")), LoraConfig(target_modules=["lm_head"])
    )
    with pytest.raises(KepoError, match="LoRA adapter"):
        output_head(on_head)


# --- the student's own prompt ids -----------------------------------------------------------------------------------


def given(teacher: LocalTeacher, request: ScoreRequest, before: tuple[int, ...] = ()) -> ScoreRequest:
    """The request with prompt ids: those of the teacher's own template, behind `before`."""
    ids = encode(teacher.processor, [request.prompt], None, "cpu")["input_ids"][0].tolist()
    return replace(request, prompt_ids=(*before, *ids))


@pytest.mark.parametrize("architecture", [*ARCHITECTURES_TEXT, *ARCHITECTURES_VLM])
def test_given_prompt_ids_are_read_as_if_the_teacher_had_written_them(folders: Folders, architecture: str) -> None:
    teacher = LocalTeacher(folders(architecture), batch_size=3)
    requests = requests_for(architecture in ARCHITECTURES_VLM)
    own, same = teacher.score(requests), teacher.score([given(teacher, request) for request in requests])
    other = teacher.score([given(teacher, request, before=(70, 71, 72)) for request in requests])
    for one, two, three in zip(own, same, other, strict=True):
        torch.testing.assert_close(one.token_logps, two.token_logps, rtol=0, atol=1e-6)
        assert (one.token_logps - three.token_logps).abs().max() > 1e-3


def test_given_prompt_ids_need_no_template(folders: Folders) -> None:
    bare = LocalTeacher(folders("llama"), build_tokenizer(chat_template=None))
    [scores] = bare.score([ScoreRequest(ask("Why?"), (50, 51), prompt_ids=(40, 41, 42))])
    [plain] = LocalTeacher(folders("llama")).score([ScoreRequest(ask("Why?"), (50, 51), prompt_ids=(40, 41, 42))])
    assert torch.equal(scores.token_logps, plain.token_logps)


def test_a_text_model_refuses_images_beside_given_ids(llama: LocalTeacher) -> None:
    with pytest.raises(TeacherError, match="type 'image'"):
        llama.score([ScoreRequest(ask("Why?", 3), (50,), prompt_ids=(40, 41))])


def test_images_that_tools_returned_are_seen(llava: LocalTeacher) -> None:
    image = llava.processor.tokenizer.convert_tokens_to_ids("<image>")
    asked = given(llava, ScoreRequest(ask("Why?", 3), (50, *[image] * 4, 51, 52)))
    here, there = (replace(asked, tool_images=(tiny_image(colour),)) for colour in (5, 6))
    one, two = llava.score([here, there])
    assert torch.equal(one.token_logps[:2], two.token_logps[:2])
    assert not torch.allclose(one.token_logps[2:], two.token_logps[2:])
    with pytest.raises(TeacherError, match=r"take 7 tokens for the student and 8 for the teacher.*returned by tools"):
        llava.score([replace(here, completion_ids=(50, *[image] * 3, 51))])
