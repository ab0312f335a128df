"""Archives in MedMNIST's published layout, small and seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kepo.data.readers.medmnist import medmnist_sets

COUNTS = {"train": 12, "val": 4, "test": 6}
GREY = {"chestmnist", "octmnist", "pneumoniamnist", "breastmnist", "tissuemnist"}


def arrays(name: str, side: int = 28) -> dict[str, Any]:
    """What a file of the set holds: uint8 images, and labels [N,1], or [N,14] flags for ChestMNIST."""
    entry, rng = medmnist_sets()[name], np.random.default_rng(7)
    colours = () if name in GREY or name.startswith("organ") else (3,)
    held: dict[str, Any] = {}
    for split, count in COUNTS.items():
        held[f"{split}_images"] = rng.integers(0, 256, (count, side, side, *colours), dtype=np.uint8)
        if entry.get("multi_label"):
            flags = rng.integers(0, 2, (count, len(entry["labels"])), dtype=np.uint8)
            flags[0] = 0
            held[f"{split}_labels"] = flags
        else:
            held[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % len(entry["labels"])).reshape(-1, 1)
    return held


def archive(folder: Path, name: str, file: str | None = None, **changes: Any) -> Path:
    path = folder / (file or f"{name}.npz")
    np.savez_compressed(path, **{**arrays(name), **changes})
    return path
