"""Downloading MedMNIST: the real client against a server on this machine; checksums and addresses are the library's."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kepo.data.readers import medmnist
from kepo.data.readers.medmnist import download_medmnist, medmnist_sets, medmnist_source
from kepo.errors import ConfigError, DataError, MissingExtraError
from tests.medmnist_files import COUNTS, archive

needs_pooch = pytest.mark.skipif(importlib.util.find_spec("pooch") is None, reason="pooch is not installed")
needs_library = pytest.mark.skipif(importlib.util.find_spec("medmnist") is None, reason="medmnist is not installed")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def serve(file: Path, address: str, monkeypatch: pytest.MonkeyPatch, checksum: str | None = None) -> None:
    """Makes the client fetch from `address`, and expect `checksum` or that of `file`."""
    name, _, size = file.stem.partition("_")
    digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    sets = {**medmnist_sets(), name: {**medmnist_sets()[name], "md5": {int(size or 28): checksum or digest}}}
    monkeypatch.setattr(medmnist, "medmnist_sets", lambda: sets)
    monkeypatch.setattr(medmnist, "_ADDRESS", address + "/{}?download=1")


@needs_pooch
@pytest.mark.parametrize(("size", "file"), [(28, "breastmnist.npz"), (64, "breastmnist_64.npz")])
def test_a_set_is_fetched_once_and_read(
    size: int, file: str, served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    original = archive(folder, "breastmnist", file)
    serve(original, address, monkeypatch)
    (fetched,) = download_medmnist(["BreastMNIST"], tmp_path / "cache", size)
    assert fetched == tmp_path / "cache" / file
    assert fetched.read_bytes() == original.read_bytes()
    rows = list(medmnist_source([fetched], tmp_path / "unpacked", seed=1).rows)
    assert len(rows) == sum(COUNTS.values())
    original.unlink()
    # What is there and whole is not asked for again.
    assert download_medmnist(["breastmnist"], tmp_path / "cache", size) == [fetched]


@needs_pooch
def test_what_is_not_the_published_file_is_refused(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    file = archive(folder, "breastmnist")
    serve(file, address, monkeypatch, checksum="0" * 32)
    with pytest.raises(DataError, match=r"breastmnist\.npz: it could not be fetched.*MD5 is 0{32}"):
        download_medmnist(["breastmnist"], tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npz"))
    file.unlink()
    with pytest.raises(DataError, match="404"):
        download_medmnist(["breastmnist"], tmp_path / "cache")


@needs_library
def test_the_table_of_sets_agrees_with_the_library() -> None:
    # Read, not imported: the package imports torchvision.
    (folder,) = importlib.util.find_spec("medmnist").submodule_search_locations  # type: ignore[union-attr, misc]
    text = (Path(folder) / "info.py").read_text(encoding="utf-8")
    info = ast.literal_eval(re.split(r"^INFO = ", text, flags=re.MULTILINE)[1])
    for name, entry in medmnist_sets().items():
        assert info[name]["python_class"] == entry["title"]
        assert info[name]["license"] == entry.get("license", "CC BY 4.0")
        assert len(info[name]["label"]) == len(entry["labels"])
        assert ("multi-label" in info[name]["task"]) == entry.get("multi_label", False)
        for size, suffix in {28: "", 64: "_64", 128: "_128", 224: "_224"}.items():
            assert info[name][f"MD5{suffix}"] == entry["md5"][size]
            assert info[name][f"url{suffix}"] == medmnist._ADDRESS.format(f"{name}{suffix}.npz")
    assert {name for name in info if not name.endswith("3d")} == set(medmnist_sets())


def test_without_the_client_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kepo\[medmnist\]'"):
        download_medmnist(["pathmnist"], tmp_path)


def test_unknown_sets_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no set 'organmnist3d' of size 28; there are pathmnist"):
        download_medmnist(["organmnist3d"], tmp_path)
    with pytest.raises(ConfigError, match="of size 32"):
        download_medmnist(["pathmnist"], tmp_path, 32)
