"""Time of `kepo prepare`: hashing every image, and resizing, beside a plain Pillow loop.

    python -m benchmarks.prepare [--root DIR] [--count 400] [--size 384] [--workers 1 2] [--rounds 3]
    python -m benchmarks.prepare --quick

`plain loop` opens, converts, resizes and saves PNG one after the other, at Pillow's own compression and at the one used
here. Images are those below DIR, or drawn images of 512 x 512 pixels saved as JPEG. Ratios are to the plain loop; CPU
time, that of started processes included, says more on a machine that does something else as well.
"""

from __future__ import annotations

import functools
import random
import resource
import shutil
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from PIL import Image, ImageFilter

from benchmarks.side_by_side import Report, Samples, Spread, Table, arguments, interleave, ratio
from kepo.data.prepare.images import hash_images, write_images
from kepo.data.prepare.settings import PrepareSettings

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}


def _drawn(folder: Path, count: int) -> list[Path]:
    """Smooth images with some grain, which compress about as well as photographs."""
    files = []
    for number in range(count):
        coarse = Image.effect_noise((16, 16), 120 + number % 50).resize((512, 512), Image.Resampling.BICUBIC)
        grain = Image.effect_noise((512, 512), 12).filter(ImageFilter.GaussianBlur(1))
        image = Image.merge("RGB", (Image.blend(coarse, grain, 0.3), coarse, grain))
        files.append(folder / f"{number}.jpg")
        image.save(files[-1], quality=92)
    return files


def _plain(files: list[Path], folder: Path, size: int, **options: int) -> None:
    folder.mkdir()
    for number, file in enumerate(files):
        with Image.open(file) as image:
            image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC).save(
                folder / f"{number}.png", **options
            )


def _cpu() -> float:
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usage)


def _with_cpu(work: Callable[[], object]) -> dict[str, float]:
    """The `cpu` seconds of `work` in this process and the ones it started."""
    before = _cpu()
    work()
    return {"cpu": _cpu() - before}


def _arms(files: list[Path], scratch: Path, size: int, workers: Sequence[int]) -> dict[str, Callable[[], object]]:
    """What is compared; every turn writes to a new folder, so that nothing is there already."""
    settings = PrepareSettings(size=size)
    turn = count()
    hashed = hash_images(files, scratch / "warm", "", workers=1)  # the disk's cache and Pillow's plugins too
    wanted = {hashed[str(file)].content or "": file for file in files}

    def plain(**options: int) -> None:
        folder = scratch / f"plain-{next(turn)}"
        _plain(files, folder, size, **options)
        shutil.rmtree(folder)

    def resize(workers: int, *, again: bool = False) -> None:
        folder = scratch / ("again" if again else f"resized-{next(turn)}")
        write_images(wanted, folder, settings, workers=workers)
        if not again:
            shutil.rmtree(folder)

    resize(1, again=True)
    arms: dict[str, Callable[[], object]] = {
        "plain loop": plain,
        "plain loop, compression 3": functools.partial(plain, compress_level=3),
    }
    for number in workers:
        name = f"{number} process{'es' if number > 1 else ''}"
        arms[f"hash, {name}"] = functools.partial(_hash, files, scratch, turn, number)
        arms[f"resize, {name}"] = functools.partial(resize, number)
        arms[f"resize again, {name}"] = functools.partial(resize, number, again=True)
    return arms


def _hash(files: list[Path], scratch: Path, turn: count[int], workers: int) -> None:
    hash_images(files, scratch / f"hashed-{next(turn)}", "", workers=workers)


def _table(samples: Samples, images: int) -> Table:
    base = samples["plain loop"]
    rows = [
        [
            name,
            Spread.of([images / value for value in one["seconds"]]),
            ratio(one["seconds"], base["seconds"]),
            Spread.of([1000 * value / images for value in one["cpu"]]),
            ratio(one["cpu"], base["cpu"]),
        ]
        for name, one in samples.items()
    ]
    columns = ["work", "images/s", "time of the plain loop", "CPU ms an image", "CPU of the plain loop"]
    return Table("Preparing images", columns, rows)


def main(given: Sequence[str] | None = None) -> None:
    """Print the table; see the top of this module."""
    parser = arguments(__doc__)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--count", type=int, help="images (400; quick: 24)")
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(given)
    number = args.count or (24 if args.quick else 400)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if args.root is None:
            files = _drawn(scratch, number)
        else:
            files = sorted(file for file in args.root.rglob("*") if file.suffix.lower() in _SUFFIXES)
            files = random.Random(0).sample(files, min(number, len(files)))
        arms = _arms(files, scratch, args.size, args.workers)
        turns = {name: functools.partial(_with_cpu, work) for name, work in arms.items()}
        samples = interleave(turns, args.rounds, warmup=0)
    settings = {"images": len(files), "size": args.size, "rounds": args.rounds}
    Report("prepare", settings, [_table(samples, len(files))], {"prepare": samples}).write(args.json)


if __name__ == "__main__":
    main()
