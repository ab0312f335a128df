"""Model folders: written whole or not at all, and counted without loading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

from kepo.errors import ConfigError
from kepo.files import replacing


@contextmanager
def model_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder beside `out` that takes its place when the block ends without an error.

    What was in `out` stays untouched until then, so an interrupted export leaves either the old model or none.

    Args:
        out: The folder to make; its parents are made too.
        overwrite: Allow `out` to hold a model already. A folder with other content is never replaced.

    Raises:
        ConfigError: `out` is a file, or a folder that may not be replaced.
    """
    out = Path(out).absolute()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose the name of a folder for the model")
    if out.exists() and any(out.iterdir()):
        if not overwrite:
            raise ConfigError(f"{out} is not empty; choose another folder, or pass --overwrite (overwrite=True)")
        if not (out / "config.json").is_file():
            raise ConfigError(f"{out} holds no model (no config.json), so it is not overwritten; choose another folder")
    with replacing(out) as partial:
        partial.mkdir()
        yield partial


def count_parameters(folder: Path) -> int:
    """Numbers stored in the safetensors files of a model folder; tied weights count once. Reads the headers only."""
    from safetensors import safe_open

    total = 0
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total
