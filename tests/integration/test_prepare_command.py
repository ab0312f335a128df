"""`kepo prepare omnimedvqa` on real images: all rows accounted for, killed and resumed, loaded, asked as prompts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from kepo.data import DataArguments, load_splits, to_dataset
from kepo.data.arguments import load_questions
from kepo.data.images import check_images
from kepo.evaluation.job import Request, plan

FEW = ["--train", "60", "--validation", "10", "--test", "30", "--size", "96"]


def kepo(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kepo", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert not check or done.returncode == 0, done.stderr
    return done


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.slow
def test_real_images_to_a_data_set_that_training_and_evaluation_load(mini_omnimedvqa: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = kepo("prepare", "omnimedvqa", "--root", mini_omnimedvqa, "--out", out, *FEW).stdout
    assert "3877 rows: 3877 usable, 0 not" in printed
    assert "test: fewer than the 30 questions asked for, so all were taken: OCT 7" in printed
    card = json.loads((out / "card.json").read_text())
    assert card["rows"] == {"total": 3877, "usable": 3877, "unusable": 0, "left_out": 0}
    assert sum(split["available"] for split in card["splits"].values()) == 3877
    assert card["images"]["shared_images"]["train and test"] == {"images": 0, "test_questions": 0}
    test = load_questions(DataArguments(data_path=str(out), data_split="test"))
    assert Counter(question.modality for question in test) == {
        **dict.fromkeys(("MRI", "CT", "X-Ray", "Ultrasound", "Dermoscopy", "Fundus", "Microscopy"), 30),
        "OCT": 7,
    }
    check_images(test)
    train, held_out = load_splits(
        DataArguments(data_path=str(out / "train"), data_format="dataset", modality="MRI", num_train=50, num_eval=10)
    )
    assert (len(train), len(held_out)) == (50, 10)
    first = to_dataset(train, "think")[0]
    (image,) = first["images"]
    assert (image.size, image.mode) == ((96, 96), "RGB")
    assert train[0].text in first["prompt"][0]["content"]
    assert first["options"]["ABCD".index(first["answer"])] == first["solution"]
    job = plan("some/model", Request(data=str(out / "test"), in_domain="MRI"))
    assert [question.id for question in job.questions] == [question.id for question in test]
    assert kepo("prepare", "omnimedvqa", "--root", mini_omnimedvqa, "--out", out, *FEW).stdout.startswith(
        "Nothing to do"
    )


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to see worker processes")
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_killed_in_the_middle_it_goes_on_and_ends_in_the_same_bytes(
    mini_omnimedvqa: Path, tmp_path: Path, sign: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    command = ["prepare", "omnimedvqa", "--root", str(mini_omnimedvqa), "--out", str(out), *FEW, "--workers", "2"]
    kepo(*command)
    whole = files_of(out)
    out.rename(tmp_path / "whole")
    images = tmp_path / ".out.partial" / "96x96" / "images"
    # A process started in the background of a shell that has no job control would ignore Ctrl-C.
    process = subprocess.Popen(
        [sys.executable, "-m", "kepo", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    deadline = time.monotonic() + 600
    while not images.is_dir() or not 40 < len(os.listdir(images)) < len(whole):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = children(process.pid)
    process.send_signal(sign)
    assert process.wait(60) == code
    assert workers
    while any(running(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives the process that started it"
        time.sleep(0.05)
    assert not out.exists()
    done = {name: (images / name).stat().st_mtime_ns for name in os.listdir(images) if name.endswith(".png")}
    kepo(*command)
    assert files_of(out) == whole
    assert all((out / "images" / name).stat().st_mtime_ns == made for name, made in done.items())
    assert sorted(os.listdir(tmp_path)) == ["out", "whole"]


MEASURE = """
import resource, sys
from pathlib import Path
from kepo.data.prepare import PrepareSettings, prepare
from kepo.data.sources import Source
from kepo.types import Question

folder, count = Path(sys.argv[1]), int(sys.argv[2])
rows = (
    Question(str(n), f"{n}?", "A", ("x", "y"), (folder / f"{n}.png",), "CT", "t", {"dataset": "d"})
    for n in range(count)
)
settings = PrepareSettings(train=None, test=None, validation=0, size=32)
prepare(Source("x", rows, ()), settings, folder / f"out-{count}", workers=1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the peak differs between systems")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    for number in range(150):
        # 0.75 MiB each in RGB.
        Image.effect_noise((512, 512), number).save(tmp_path / f"{number}.png", compress_level=1)
    peaks = []
    for count in (30, 150):
        command = [sys.executable, "-c", MEASURE, str(tmp_path), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    # Kept images would take 90 MiB more.
    assert peaks[1] - peaks[0] < 20, f"{peaks} MiB"


@pytest.mark.slow
def test_split_files_and_their_images(mini_omnimedvqa: Path, tmp_path: Path) -> None:
    files = sorted((mini_omnimedvqa.parent / "omnimedvqa_questions").glob("*.json"))
    if not files:
        pytest.skip("the split files are not beside the test data")
    named = [argument for file in files for argument in ("--split-file", file)]
    common = ["prepare", "omnimedvqa", *named, "--train", "all", "--test", "all", "--size", "48"]
    kepo(*common, "--no-images", "--out", tmp_path / "text")
    card = json.loads((tmp_path / "text" / "card.json").read_text())
    assert card["rows"] == {"total": 640, "usable": 640, "unusable": 0, "left_out": 0}
    assert len(load_questions(DataArguments(data_path=str(tmp_path / "text" / "test")))) == 128
    # The test data holds the images of a few of these questions only.
    there = sum((mini_omnimedvqa / row["image"]).is_file() for file in files for row in json.loads(file.read_text()))
    done = kepo(*common, "--root", mini_omnimedvqa, "--out", tmp_path / "images", check=there > 0)
    if there == 0:
        assert done.returncode == 2
        assert "not one row can be used. Most often the field 'image' does not exist (640 rows" in done.stderr
        return
    rows = json.loads((tmp_path / "images" / "card.json").read_text())["rows"]
    assert rows == {"total": 640, "usable": there, "unusable": 640 - there, "left_out": 0}


def test_options_that_cannot_work_are_one_sentence(tmp_path: Path) -> None:
    out = ["--out", tmp_path / "out"]
    for arguments, says in [
        ([], "--root is missing"),
        (["--root", tmp_path], "no file matches QA_information"),
        (["--root", tmp_path, "--no-images"], "--modality and --no-images are for split files"),
        (["--root", tmp_path, "--split-file", tmp_path / "none.json"], "there is no such file"),
    ]:
        done = kepo("prepare", "omnimedvqa", *arguments, *out, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ")
        assert says in done.stderr
    assert os.listdir(tmp_path) == []
