"""Downloading MedMNIST: the real client against a server on this machine, and the library's own table of addresses."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kepo.data.readers import medmnist
from kepo.data.readers.medmnist import download_medmnist, medmnist_sets, medmnist_source, published
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


def addresses(file: Path, address: str, checksum: str | None = None) -> dict[str, dict[str, str]]:
    name, _, size = file.stem.partition("_")
    suffix = f"_{size}" if size else ""
    digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    return {name: {f"url{suffix}": f"{address}/{file.name}?download=1", f"MD5{suffix}": checksum or digest}}


@needs_pooch
@pytest.mark.parametrize(("size", "file"), [(28, "breastmnist.npz"), (64, "breastmnist_64.npz")])
def test_a_set_is_fetched_once_and_read(
    size: int, file: str, served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = served
    original = archive(folder, "breastmnist", file)
    table = addresses(original, address)
    monkeypatch.setattr(medmnist, "published", lambda: table)
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
    table = addresses(file, address, checksum="0" * 32)
    monkeypatch.setattr(medmnist, "published", lambda: table)
    with pytest.raises(DataError, match=r"breastmnist\.npz: it could not be fetched.*MD5 is 0{32}"):
        download_medmnist(["breastmnist"], tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npz"))
    file.unlink()
    with pytest.raises(DataError, match="404"):
        download_medmnist(["breastmnist"], tmp_path / "cache")


@needs_library
def test_the_table_of_sets_agrees_with_the_library() -> None:
    info = published()
    for name, entry in medmnist_sets().items():
        assert info[name]["python_class"] == entry["title"]
        assert info[name]["license"] == entry.get("license", "CC BY 4.0")
        assert len(info[name]["label"]) == len(entry["labels"])
        assert ("multi-label" in info[name]["task"]) == entry.get("multi_label", False)
        assert all(f"{key}{suffix}" in info[name] for key in ("url", "MD5") for suffix in ("", "_64", "_128", "_224"))
    assert {name for name in info if not name.endswith("3d")} == set(medmnist_sets())


def test_without_the_library_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps 'medmnist"):
        download_medmnist(["pathmnist"], tmp_path)


def test_unknown_sets_and_sizes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'organmnist3d'; the 2-D sets are pathmnist"):
        download_medmnist(["organmnist3d"], tmp_path)
    with pytest.raises(ConfigError, match="size 32"):
        download_medmnist(["pathmnist"], tmp_path, 32)
