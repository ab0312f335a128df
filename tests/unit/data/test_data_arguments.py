"""Data settings, from the command line to questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kepo.data import DataArguments, load_questions, load_splits, split_questions, to_dataset
from kepo.data.files import load_jsonl
from kepo.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six questions in set.jsonl: four CT (two tasks), one MRI, one without modality; an image each."""
    rows = [
        {
            "question": f"q{n}?",
            "answer": "A",
            "options": ["x", "y"],
            "image": f"{n}.png",
            "modality": modality,
            "task": task,
        }
        for n, (modality, task) in enumerate(
            [("CT", "one"), ("CT", "two"), ("MRI", "one"), ("CT", "one"), ("CT", "two"), (None, None)]
        )
    ]
    for n in range(6):
        Image.new("L", (4, 4), n).save(tmp_path / f"{n}.png")
    (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def ids(args: DataArguments) -> list[str]:
    return [question.id for question in load_questions(args)]


def test_defaults() -> None:
    args = DataArguments()
    assert (args.data_format, args.num_train, args.num_eval, args.split_seed) == ("auto", None, 0, 42)
    assert (args.prompt_style, args.image_size, args.reasoning_tasks, args.reasoning_config) == (
        "think",
        None,
        [],
        None,
    )


def test_from_the_command_line() -> None:
    from transformers import HfArgumentParser

    line = [
        "--data_path",
        "x.jsonl",
        "--reasoning_tasks",
        "gcd",
        "lcm",
        "--reasoning_config",
        '{"a": 1}',
        "--num_train",
        "5",
    ]
    (args,) = HfArgumentParser(DataArguments).parse_args_into_dataclasses([*line, "--prompt_style", "answer"])
    assert (args.data_path, args.num_train, args.prompt_style) == ("x.jsonl", 5, "answer")
    assert args.reasoning_tasks == ["gcd", "lcm"]
    assert args.reasoning_config == {"a": 1}
    (args,) = HfArgumentParser(DataArguments).parse_dict({"reasoning_config": {"a": 1}})
    assert args.reasoning_config == {"a": 1}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"data_format": "xlsx"},
            "data_format 'xlsx' is unknown; use one of auto, csv, tsv, jsonl, json, parquet, dataset",
        ),
        ({"data_preset": "vqa"}, "there is no preset 'vqa'; there are omnimedvqa, vqa-rad, slake"),
        ({"prompt_style": "loud"}, "prompt_style 'loud' is unknown; use one of think, answer, plain"),
        ({"num_train": 0}, "num_train is 0; give at least 1"),
        ({"num_eval": -1}, "num_eval is -1"),
        ({"image_size": 0}, "image_size is 0"),
        ({"reasoning_config": "{"}, "reasoning_config '{' is not JSON"),
        ({"reasoning_config": "[1]"}, r"reasoning_config \[1\] is not a record"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DataArguments(**settings)


def test_the_format_is_told_by_name_and_contents(folder: Path) -> None:
    everything = [f"set-{n}" for n in range(1, 7)]
    assert ids(DataArguments(data_path=str(folder / "set.jsonl"))) == everything
    dataset = to_dataset(load_jsonl(folder / "set.jsonl"), "plain")
    dataset.save_to_disk(str(folder / "saved"))
    dataset.to_parquet(str(folder / "set.parquet"))
    assert ids(DataArguments(data_path=str(folder / "saved"))) == everything
    assert ids(DataArguments(data_path=str(folder / "set.parquet"))) == everything
    (folder / "renamed.txt").write_text((folder / "set.jsonl").read_text())
    named = DataArguments(data_path=str(folder / "renamed.txt"), data_format="jsonl", image_root=str(folder / "sub"))
    assert load_questions(named)[0].images == (folder / "sub" / "0.png",)


def test_omnimedvqa_is_recognized(mini_omnimedvqa: Path) -> None:
    args = DataArguments(data_path=str(mini_omnimedvqa), modality="mri", num_train=200, num_eval=100)
    train, evaluation = load_splits(args)
    assert {question.modality for question in [*train, *evaluation]} == {"MRI"}
    assert (len(train), len(evaluation)) == (200, 100)
    assert not {q.images for q in train} & {q.images for q in evaluation}


@pytest.mark.parametrize(
    ("name", "settings", "error", "says"),
    [
        (None, {}, ConfigError, "data_path is not set"),
        ("none.jsonl", {}, DataError, "there is no such file or folder"),
        (
            "0.png",
            {},
            DataError,
            r"not a .csv, .tsv, .jsonl, .json, .parquet file, .*set data_format to one of csv, tsv",
        ),
        (".", {}, DataError, "not a .csv, .tsv, .jsonl, .json, .parquet file"),
        (
            "set.jsonl",
            {"data_split": "train"},
            ConfigError,
            "data_split 'train': data of the format 'jsonl' has no splits",
        ),
        (".", {"data_format": "omnimedvqa", "image_root": "x"}, ConfigError, "image_root: .* remove the setting"),
        (None, {"data_format": "reasoning_gym"}, ConfigError, "needs reasoning_tasks"),
        (None, {"reasoning_tasks": ["gcd"]}, ConfigError, "set num_train"),
        (
            "set.jsonl",
            {"modality": "PET"},
            DataError,
            "modality 'PET': no question has modality 'pet'; present are CT, MRI",
        ),
        ("set.jsonl", {"modality": "CT, PET"}, DataError, "no question has modality 'pet'"),
        ("set.jsonl", {"task_filter": "three"}, DataError, "task_filter 'three': .*; present are one, two"),
        ("set.jsonl", {"task_filter": " , "}, DataError, "task_filter ' , ': "),
    ],
)
def test_what_cannot_be_loaded(folder: Path, name, settings: dict[str, Any], error: type, says: str) -> None:
    args = DataArguments(data_path=None if name is None else str(folder / name), **settings)
    with pytest.raises(error, match=says):
        load_questions(args)


def test_filters(folder: Path) -> None:
    path = str(folder / "set.jsonl")
    assert ids(DataArguments(data_path=path, modality="ct")) == ["set-1", "set-2", "set-4", "set-5"]
    assert ids(DataArguments(data_path=path, modality="MRI, CT", task_filter="One")) == ["set-1", "set-3", "set-4"]


def test_splits(folder: Path) -> None:
    args = DataArguments(data_path=str(folder / "set.jsonl"), num_train=3, num_eval=2)
    train, evaluation = load_splits(args)
    assert (len(train), len(evaluation)) == (3, 2)
    assert (train, evaluation) == split_questions(args, load_questions(args))
    other = split_questions(DataArguments(split_seed=1, num_train=3, num_eval=2), load_questions(args))
    assert other != (train, evaluation)
    with pytest.raises(DataError, match="9 for training and 0 for evaluation were asked for, but there are 6"):
        load_splits(DataArguments(data_path=str(folder / "set.jsonl"), num_train=9))


def test_load_splits_checks_the_images_it_hands_out(folder: Path) -> None:
    (folder / "5.png").unlink()
    args = DataArguments(data_path=str(folder / "set.jsonl"))
    with pytest.raises(DataError, match=r"question 'set-6', field 'images': .*5\.png does not exist"):
        load_splits(args)
    args.modality = "CT"
    assert len(load_splits(args)[0]) == 4


def test_reasoning_tasks_are_shared_out() -> None:
    pytest.importorskip("reasoning_gym")
    args = DataArguments(reasoning_tasks=["gcd", "chain_sum"], num_train=4, num_eval=3, split_seed=7)
    questions = load_questions(args)
    assert [question.task for question in questions] == ["gcd"] * 4 + ["chain_sum"] * 4
    assert [len(side) for side in split_questions(args, questions)] == [4, 3]


def test_reasoning_config_for_all_or_by_task() -> None:
    pytest.importorskip("reasoning_gym")
    shared = DataArguments(
        reasoning_tasks=["chain_sum"], num_train=2, reasoning_config={"min_terms": 5, "max_terms": 5}
    )
    assert [question.metadata["num_terms"] for question in load_questions(shared)] == [5, 5]
    by_task = DataArguments(
        reasoning_tasks=["gcd", "chain_sum"],
        num_train=2,
        reasoning_config=json.dumps({"chain_sum": {"min_terms": 3, "max_terms": 3}}),
    )
    assert load_questions(by_task)[1].metadata["num_terms"] == 3
