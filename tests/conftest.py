"""Fixtures for the tests of every room."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def mini_omnimedvqa() -> Path:
    """A small stand-in for OmniMedVQA with real images, in its published layout; not part of this repository."""
    named = os.environ.get("KEPO_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data" / "mini_omnimedvqa"
    if not (folder / "QA_information").is_dir():
        pytest.skip(f"no real-image test data at {folder}; set KEPO_TEST_DATA to the folder that holds it")
    return folder
