"""A tiny, untrained model with the real tokenizer of PhantomVQA."""

from __future__ import annotations

from pathlib import Path

import pytest

from kepo.models.llava import LlavaSize, build_llava
from kepo.phantom.tokenizer import phantom_tokenizer


@pytest.fixture(scope="session")
def phantom_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    phantom_tokenizer().save_pretrained(folder / "tokenizer")
    size = LlavaSize(vision_width=32, vision_layers=1, text_width=32, text_layers=1)
    return build_llava(folder / "model", [], size=size, tokenizer_from=folder / "tokenizer", seed=1)
