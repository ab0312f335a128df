"""Starting points for training that need no model hub."""

from kepo.models.folder import count_parameters
from kepo.models.llava import SIZES, build_llava, tokenizer_texts
from kepo.models.smollm2 import export_smollm2
from kepo.models.tokenizer import train_tokenizer

__all__ = ["SIZES", "build_llava", "count_parameters", "export_smollm2", "tokenizer_texts", "train_tokenizer"]
