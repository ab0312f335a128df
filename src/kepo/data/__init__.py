"""Data: questions from files, published data sets and procedural tasks, and data sets in TRL's format from them."""

from kepo.data.arguments import DataArguments, load_questions, load_splits, split_questions
from kepo.data.dataset import to_dataset, to_sft_dataset
from kepo.data.files import load_dataset_folder, load_jsonl, load_table
from kepo.data.images import check_images
from kepo.data.omnimedvqa import MODALITIES
from kepo.data.readers.published import load_omnimedvqa
from kepo.data.reasoning import load_reasoning_gym

__all__ = [
    "MODALITIES",
    "DataArguments",
    "check_images",
    "load_dataset_folder",
    "load_jsonl",
    "load_omnimedvqa",
    "load_questions",
    "load_reasoning_gym",
    "load_splits",
    "load_table",
    "split_questions",
    "to_dataset",
    "to_sft_dataset",
]
