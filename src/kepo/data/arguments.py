"""Data settings for config files and the command line, and what they load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from kepo.data.images import check_images
from kepo.data.omnimedvqa import QUESTION_FOLDER
from kepo.data.readers.presets import load_preset
from kepo.data.readers.published import load_omnimedvqa
from kepo.data.readers.questions import load_dataset_folder, load_hub_dataset, load_table
from kepo.data.readers.rows import KINDS
from kepo.data.readers.saved import is_hub_name
from kepo.data.readers.table import TableMap
from kepo.data.reasoning import load_reasoning_gym
from kepo.data.split import shuffle_options, split_disjoint
from kepo.errors import ConfigError, DataError
from kepo.prompts import PROMPT_STYLES, PromptStyle
from kepo.types import Question

DataFormat: TypeAlias = Literal[
    "auto", "csv", "tsv", "jsonl", "json", "parquet", "dataset", "hub", "omnimedvqa", "reasoning_gym"
]

SftThink: TypeAlias = Literal["reasoning", "option"]
_FORMATS: tuple[str, ...] = get_args(DataFormat)


@dataclass
class DataArguments:
    """Which questions, and how they are shown to the policy. Fields are documented by their help texts."""

    data_format: DataFormat = field(
        default="auto", metadata={"help": "What data_path is; 'auto': by name and contents."}
    )
    data_path: str | None = field(
        default=None,
        metadata={
            "help": "A .csv, .tsv, .jsonl, .json or .parquet file, a folder from save_to_disk, that of OmniMedVQA, or "
            "OWNER/NAME on the Hugging Face hub."
        },
    )
    data_preset: str | None = field(default=None, metadata={"help": "Layout of the rows, such as r1-v (docs/data.md)."})
    image_root: str | None = field(
        default=None, metadata={"help": "Folder of the image paths; default: that of data_path."}
    )
    data_columns: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Where fields stand, as JSON: {question: COLUMN, answer: COLUMN, ...}."}
    )
    data_answer: str = field(
        default="auto", metadata={"help": "How answers are written: letter, text, index, index_from_1, letter_or_text."}
    )
    data_split: str | None = field(default=None, metadata={"help": "Split of a data set that has several."})
    data_config: str | None = field(default=None, metadata={"help": "Configuration of a data set of the hub."})
    reasoning_tasks: list[str] = field(
        default_factory=list,
        metadata={"help": "reasoning-gym tasks; num_train + num_eval questions are shared out over them."},
    )
    reasoning_config: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Settings of the reasoning tasks, as JSON: the same for all, or one record per task name."},
    )
    modality: str | None = field(default=None, metadata={"help": "Keep only these modalities (comma-separated)."})
    task_filter: str | None = field(default=None, metadata={"help": "Keep only these tasks (comma-separated)."})
    num_train: int | None = field(default=None, metadata={"help": "Questions to train on; default: all."})
    num_eval: int = field(default=0, metadata={"help": "Questions held out for evaluation during training."})
    split_seed: int = field(default=42, metadata={"help": "Seeds the split and the reasoning tasks."})
    prompt_style: PromptStyle = field(
        default="think",
        metadata={"help": "'think': reasoning, then answer. 'answer': answer only. 'plain': the bare question."},
    )
    image_size: int | None = field(default=None, metadata={"help": "Resize images to this side, in pixels; None: no."})
    option_shuffles: int = field(default=0, metadata={"help": "Copies of each training question, options reordered."})
    sft_think: SftThink = field(
        default="reasoning",
        metadata={
            "help": "<think> of supervised targets: 'reasoning' (of the metadata) or 'option' (the correct one)."
        },
    )

    def __post_init__(self) -> None:
        """Raises ConfigError for a setting that cannot work."""
        if self.data_format not in _FORMATS:
            raise ConfigError(f"data_format {self.data_format!r} is unknown; use one of {', '.join(_FORMATS)}")
        if self.prompt_style not in PROMPT_STYLES:
            raise ConfigError(f"prompt_style {self.prompt_style!r} is unknown; use one of {', '.join(PROMPT_STYLES)}")
        if self.num_train is not None and self.num_train < 1:
            raise ConfigError(f"num_train is {self.num_train}; give at least 1, or leave it out for all questions")
        if self.num_eval < 0:
            raise ConfigError(f"num_eval is {self.num_eval}; give 0 or more")
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"image_size is {self.image_size}; give at least 1 pixel, or leave it out")
        if self.data_preset is not None:
            load_preset(self.data_preset)
        self.reasoning_config = _json_record(self.reasoning_config, "reasoning_config")
        self.data_columns = _json_record(self.data_columns, "data_columns")
        self.said_columns()

    def said_columns(self) -> TableMap | None:
        """What `data_columns` and `data_answer` say; None where they say nothing."""
        columns = self.data_columns if isinstance(self.data_columns, dict) else {}
        said = TableMap(columns, answer=self.data_answer)  # type: ignore[arg-type]
        return None if said == TableMap() else said


def _json_record(value: dict[str, Any] | str | None, name: str) -> dict[str, Any] | None:
    try:
        record = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} {value!r} is not JSON: {error}") from error
    if record is not None and not isinstance(record, dict):
        raise ConfigError(f'{name} {record!r} is not a record; write it as {{"setting": value}}')
    return record


def load_splits(args: DataArguments) -> tuple[list[Question], list[Question]]:
    """Questions to train on and to evaluate on, their images checked: all that a training run needs."""
    train, evaluation = split_questions(args, load_questions(args))
    check_images([*train, *evaluation])
    return shuffle_options(train, args.option_shuffles, args.split_seed), evaluation


def load_questions(args: DataArguments) -> list[Question]:
    """All questions that `args` names, filtered by modality and task; images are not opened."""
    questions = _load(args)
    if not questions:
        raise DataError(f"{args.data_path}: there is not one question in it; check data_path and data_format")
    return _keep(_keep(questions, "modality", args.modality, "modality"), "task", args.task_filter, "task_filter")


def split_questions(args: DataArguments, questions: Sequence[Question]) -> tuple[list[Question], list[Question]]:
    """(train, evaluation) by `num_train`, `num_eval` and `split_seed`; see `kepo.data.split.split_disjoint`.

    Args:
        args: `num_train`, `num_eval` and `split_seed` count.
        questions: To draw from; image files are opened when `num_eval` is above 0.
    """
    return split_disjoint(questions, args.num_train, args.num_eval, args.split_seed)


def _load(args: DataArguments) -> list[Question]:
    data_format = _detected(args) if args.data_format == "auto" else args.data_format
    if data_format == "reasoning_gym":
        return _load_reasoning(args)
    path, root = _data_path(args), None if args.image_root is None else Path(args.image_root)
    for name, formats in (("data_split", ("dataset", "hub")), ("data_config", ("hub",))):
        if getattr(args, name) is not None and data_format not in formats:
            problem = (
                f"data of the format {data_format!r} has no {'splits' if name == 'data_split' else 'configurations'}"
            )
            raise ConfigError(f"{name} {getattr(args, name)!r}: {problem}; remove it")
    if data_format == "omnimedvqa":
        for name in ("image_root", "data_preset", "data_columns"):
            if getattr(args, name) is not None:
                raise ConfigError(f"{name}: the folder of OmniMedVQA has images and answers; remove the setting")
        return load_omnimedvqa(path)
    layout: dict[str, Any] = {"preset": args.data_preset, "columns": args.said_columns()}
    if data_format == "hub":
        return load_hub_dataset(str(args.data_path), args.data_split, args.data_config, root, **layout)
    if data_format == "dataset":
        return load_dataset_folder(path, args.data_split, root, **layout)
    return load_table(path, root, kind=data_format, **layout)


def _data_path(args: DataArguments) -> Path:
    if not args.data_path:
        raise ConfigError(f"data_path is not set, and data_format {args.data_format!r} reads from there; set it")
    return Path(args.data_path)


def _detected(args: DataArguments) -> str:
    if not args.data_path and args.reasoning_tasks:
        return "reasoning_gym"
    path = _data_path(args)
    if not path.exists():
        if is_hub_name(str(args.data_path)):
            return "hub"
        raise DataError(f"{path}: there is no such file or folder; check data_path")
    suffix = path.suffix.lower().removeprefix(".")
    if path.is_file() and suffix in KINDS:
        return suffix
    if (path / QUESTION_FOLDER).is_dir():
        return "omnimedvqa"
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return "dataset"
    raise DataError(
        f"{path}: not a {', '.join(f'.{kind}' for kind in KINDS)} file, a folder from save_to_disk, or that of "
        f"OmniMedVQA; give one of these, or set data_format to one of {', '.join(_FORMATS[1:])}"
    )


def _load_reasoning(args: DataArguments) -> list[Question]:
    """As many questions per task, so that there are enough to draw num_train + num_eval from."""
    tasks = list(dict.fromkeys(args.reasoning_tasks))
    if not tasks:
        raise ConfigError("data_format 'reasoning_gym' needs reasoning_tasks; name at least one task")
    if args.num_train is None:
        raise ConfigError("reasoning tasks have no end: set num_train to say how many questions to train on")
    per_task = -(-(args.num_train + args.num_eval) // len(tasks))
    config = args.reasoning_config if isinstance(args.reasoning_config, dict) else {}
    by_task = bool(config) and set(config) <= set(tasks)
    return [
        question
        for task in tasks
        for question in load_reasoning_gym(task, per_task, args.split_seed, config.get(task) if by_task else config)
    ]


def _keep(questions: list[Question], attribute: str, wanted: str | None, setting: str) -> list[Question]:
    """The questions whose `attribute` is one of the comma-separated `wanted`, ignoring case."""
    if wanted is None:
        return questions
    present = {str(value).casefold(): str(value) for q in questions if (value := getattr(q, attribute)) is not None}
    names = [name.strip().casefold() for name in wanted.split(",") if name.strip()]
    unknown = [name for name in names if name not in present]
    if unknown or not names:
        listed = ", ".join(sorted(present.values())) or "none at all"
        missing = f"no question has {attribute} {', '.join(unknown)!r}"
        raise DataError(f"{setting} {wanted!r}: {missing}; present are {listed}")
    return [question for question in questions if str(getattr(question, attribute)).casefold() in names]
