"""MedMNIST: archives in the published layout become questions; damaged ones say what is wrong."""

from __future__ import annotations

import pickle
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kepo.data import MODALITIES
from kepo.data.readers.medmnist import NO_FINDING, ArrayImage, medmnist_sets, medmnist_source
from kepo.data.sources import LazyImage, Unusable
from kepo.errors import ConfigError, DataError
from kepo.types import Question
from tests.medmnist_files import COUNTS, archive, arrays


def read(files: list[Path], folder: Path, **settings: Any) -> list[Question | Unusable]:
    return list(medmnist_source(files, folder / "unpacked", **{"seed": 1, **settings}).rows)


def questions(files: list[Path], folder: Path, **settings: Any) -> list[Question]:
    rows = read(files, folder, **settings)
    assert all(isinstance(row, Question) for row in rows)
    return [row for row in rows if isinstance(row, Question)]


@pytest.mark.parametrize("name", medmnist_sets())
def test_every_set_keeps_labels_images_and_splits(name: str, tmp_path: Path) -> None:
    file, held, entry = archive(tmp_path, name), arrays(name), medmnist_sets()[name]
    found = questions([file], tmp_path)
    assert Counter(q.metadata["split"] for q in found) == {"train": 12, "validation": 4, "test": 6}
    assert len({q.id for q in found}) == len(found)
    for split in COUNTS:
        of_split = [q for q in found if q.id.startswith(f"{name}-{split}-")]
        for question, image, label in zip(
            of_split, held[f"{split}_images"], held[f"{split}_labels"].tolist(), strict=True
        ):
            np.testing.assert_array_equal(np.array(question.images[0].load()), image)
            if entry.get("multi_label"):
                present = {text for text, flag in zip(entry["labels"], label, strict=True) if flag}
                assert set(question.metadata["labels"]) == present
                # The right option is the only one of the options that is present.
                assert present & set(question.options) == ({question.answer_text} if present else set())
                assert present or question.answer_text == NO_FINDING
                # An option that is there only where it is right would give the answer away without the image.
                assert NO_FINDING in question.options
            else:
                assert question.answer_text == entry["labels"][label[0]]
    assert {q.modality for q in found} <= set(MODALITIES)
    assert all(2 <= len(q.options) <= 4 and len(set(q.options)) == len(q.options) for q in found)
    assert {q.metadata["dataset"] for q in found} == {entry["title"]}


def test_options_depend_on_the_seed_and_the_question_alone(tmp_path: Path) -> None:
    path, blood = archive(tmp_path, "pathmnist"), archive(tmp_path, "bloodmnist")
    alone, beside = questions([path], tmp_path), questions([blood, path], tmp_path)
    assert [q.options for q in alone] == [q.options for q in beside if q.id.startswith("path")]
    assert [q.options for q in alone] != [q.options for q in questions([path], tmp_path, seed=2)]
    assert len({q.answer for q in alone}) == 4
    assert {len(q.options) for q in questions([path], tmp_path, max_options=9)} == {9}
    # As they were drawn ever since: a data set that was prepared before stays what it is.
    assert questions([blood], tmp_path, seed=3)[0].options == ("monocyte", "eosinophil", "basophil", "erythroblast")


def test_source_says_licenses_files_and_that_the_split_is_given(tmp_path: Path) -> None:
    files = [archive(tmp_path, "dermamnist", "dermamnist_64.npz"), archive(tmp_path, "chestmnist")]
    source = medmnist_source(files, tmp_path / "unpacked", seed=1)
    assert [source.license_of(title) for title in ("DermaMNIST", "ChestMNIST")] == ["CC BY-NC 4.0", "CC BY 4.0"]
    assert source.files == tuple(files)
    assert source.split_given
    assert any(NO_FINDING in note for note in source.notes)


def test_images_are_small_to_send_and_read_by_other_processes(tmp_path: Path) -> None:
    image = questions([archive(tmp_path, "pathmnist")], tmp_path)[3].images[0]
    assert isinstance(image, LazyImage)
    sent = pickle.dumps(image)
    assert len(sent) < 1000
    assert pickle.loads(sent).load().mode == "RGB"  # noqa: S301
    assert isinstance(image, ArrayImage)
    image.file.write_bytes(image.file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="mmap length is greater than file size"):
        image.load()


def test_unpacking_again_touches_nothing_and_another_archive_is_kept_apart(tmp_path: Path) -> None:
    file = archive(tmp_path, "breastmnist")
    first = questions([file], tmp_path)[0].images[0]
    before = {unpacked: unpacked.stat().st_mtime_ns for unpacked in (tmp_path / "unpacked").iterdir()}
    assert questions([file], tmp_path)[0].images[0] == first
    assert {unpacked: unpacked.stat().st_mtime_ns for unpacked in before} == before
    archive(tmp_path, "breastmnist", train_images=np.zeros((12, 28, 28), np.uint8))
    again = questions([file], tmp_path)[0].images[0]
    assert again.file != first.file
    assert again.load().getextrema() == (0, 0)


def test_arrays_in_the_order_of_fortran_are_read_as_well(tmp_path: Path) -> None:
    held = arrays("breastmnist")["train_images"]
    file = archive(tmp_path, "breastmnist", train_images=np.asfortranarray(held))
    np.testing.assert_array_equal(np.array(questions([file], tmp_path)[3].images[0].load()), held[3])


@pytest.mark.parametrize(
    ("name", "column", "value", "reason"),
    [("pathmnist", "val_labels", 9, "labels are 0 to 8"), ("chestmnist", "val_labels", 2, "flags are 0 or 1")],
)
def test_a_label_that_does_not_exist_is_a_row_that_cannot_be_used(
    name: str, column: str, value: int, reason: str, tmp_path: Path
) -> None:
    labels = arrays(name)[column]
    labels[2, 0] = value
    rows = read([archive(tmp_path, name, **{column: labels})], tmp_path)
    assert len(rows) == sum(COUNTS.values())
    (bad,) = [row for row in rows if isinstance(row, Unusable)]
    assert (bad.source, bad.row, bad.field) == (f"{name}.npz", 3, column)
    assert reason in bad.reason
    assert str(value) in bad.value


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"train_labels": np.zeros((11, 1), np.uint8)}, r"'train_labels'.*\(12, 1\).*12 images"),
        ({"train_labels": np.zeros((12, 14), np.uint8)}, "'train_labels'"),
        ({"train_labels": np.zeros((12, 1), np.float32)}, "'train_labels': float32"),
        ({"train_images": np.zeros((12, 28, 28, 28), np.uint8)}, "2-D images"),
        ({"train_images": np.zeros((12, 28, 28), np.uint16)}, "uint16"),
        ({"train_images": np.array([{"a": 1}] * 12, dtype=object)}, "not an array that can be used"),
    ],
)
def test_arrays_that_do_not_fit_stop_with_the_file(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        read([archive(tmp_path, "breastmnist", **changes)], tmp_path)


def test_an_archive_that_is_not_whole_stops_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    file = archive(tmp_path, "bloodmnist")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 0xFF
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"bloodmnist\.npz: not a whole \.npz archive"):
        read([file], tmp_path)
    assert not list((tmp_path / "unpacked").glob("*.part"))
    file.write_bytes(b"not a zip")
    with pytest.raises(DataError, match="not a whole"):
        read([file], tmp_path)
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("../../evil.npy", b"x")
    with pytest.raises(DataError, match="array 'train_images'"):
        read([file], tmp_path)


def test_too_little_disk_space_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kepo.data.readers import medmnist

    usage = medmnist.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(medmnist.shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(DataError, match="GB of disk space unpacked"):
        read([archive(tmp_path, "bloodmnist")], tmp_path)
    assert not list((tmp_path / "unpacked").iterdir())


def test_files_and_settings_that_cannot_be(tmp_path: Path) -> None:
    file = archive(tmp_path, "pathmnist")
    other = archive(tmp_path, "pathmnist", "pathmnist_128.npz")
    with pytest.raises(ConfigError, match="given twice"):
        read([file, other], tmp_path)
    with pytest.raises(ConfigError, match="1 options"):
        read([file], tmp_path, max_options=1)
    with pytest.raises(ConfigError, match="at least one"):
        read([], tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read([tmp_path / "octmnist.npz"], tmp_path)
    volume = archive(tmp_path, "pathmnist", "organmnist3d.npz")
    with pytest.raises(DataError, match="not that of a 2-D set"):
        read([volume], tmp_path)
