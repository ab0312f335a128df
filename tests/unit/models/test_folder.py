"""A model folder is written whole or not at all, and nothing else is ever replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kepo.errors import ConfigError
from kepo.models.folder import count_parameters, model_folder


def _write(out: Path, text: str, **options: bool) -> None:
    with model_folder(out, **options) as folder:
        (folder / "config.json").write_text(text)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_parents_are_made_and_nothing_is_left_beside(tmp_path: Path) -> None:
    _write(tmp_path / "a" / "model", "new")
    assert (tmp_path / "a" / "model" / "config.json").read_text() == "new"
    assert _names(tmp_path / "a") == ["model"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    _write(tmp_path / "model", "new")
    assert _names(tmp_path / "model") == ["config.json"]


def test_a_model_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "model"
    _write(out, "old")
    (out / "stale.safetensors").write_text("x")
    with pytest.raises(ConfigError, match=r"is not empty.*--overwrite"):
        _write(out, "new")
    assert (out / "config.json").read_text() == "old"
    _write(out, "new", overwrite=True)
    assert _names(out) == ["config.json"]
    assert (out / "config.json").read_text() == "new"
    assert _names(tmp_path) == ["model"]


def test_a_failed_export_leaves_the_old_model(tmp_path: Path) -> None:
    out = tmp_path / "model"
    _write(out, "old")
    with pytest.raises(TypeError, match="data must be str"):
        _write(out, None, overwrite=True)  # type: ignore[arg-type]
    assert (out / "config.json").read_text() == "old"
    assert _names(tmp_path) == ["model"]


def test_what_is_no_model_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds no model"):
        _write(tmp_path, "new", overwrite=True)
    with pytest.raises(ConfigError, match="is a file"):
        _write(tmp_path / "thesis.tex", "new", overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_parameters_are_counted_over_all_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, tmp_path / "model-1.safetensors")
    save_file({"c": torch.zeros(5, 1, 2)}, tmp_path / "model-2.safetensors")
    assert count_parameters(tmp_path) == 6 + 4 + 10
