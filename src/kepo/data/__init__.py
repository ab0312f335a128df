"""Data: questions from files, published data sets and procedural tasks, and data sets in TRL's format from them."""

from kepo.data.arguments import DataArguments, load_questions, load_splits, split_questions
from kepo.data.dataset import default_completion, to_dataset, to_sft_dataset
from kepo.data.files import load_dataset_folder, load_jsonl, load_parquet, load_table
from kepo.data.images import check_images
from kepo.data.omnimedvqa import MODALITIES
from kepo.data.readers.published import load_omnimedvqa
from kepo.data.reasoning import load_reasoning_gym
from kepo.data.schema import question_from_row
from kepo.data.split import split_disjoint

__all__ = [
    "MODALITIES",
    "DataArguments",
    "check_images",
    "default_completion",
    "load_dataset_folder",
    "load_jsonl",
    "load_omnimedvqa",
    "load_parquet",
    "load_questions",
    "load_reasoning_gym",
    "load_splits",
    "load_table",
    "question_from_row",
    "split_disjoint",
    "split_questions",
    "to_dataset",
    "to_sft_dataset",
]
