"""Images per second of `kepo prepare`: hashing every image, and resizing, beside a plain Pillow loop.

    python -m benchmarks.prepare [--root DIR] [--count 400] [--size 384] [--workers 1 2]

`plain` opens, converts, resizes and saves PNG one after the other, at Pillow's own compression and at the one used
here. Images are those below DIR, or drawn images of 512 x 512 pixels saved as JPEG. Ratios are to the first row; CPU
time, that of started processes included, says more on a machine that does something else as well.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageFilter

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


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """(seconds on the clock, seconds of CPU in this process and the ones it started)."""
    start, cpu = time.perf_counter(), _cpu()
    work()
    return time.perf_counter() - start, _cpu() - cpu


def _cpu() -> float:
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    settings = PrepareSettings(size=args.size)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if args.root is None:
            files = _drawn(scratch, args.count)
        else:
            files = sorted(file for file in args.root.rglob("*") if file.suffix.lower() in _SUFFIXES)
            files = random.Random(0).sample(files, min(args.count, len(files)))
        hash_images(files, scratch / "warm", "", workers=1)  # the disk's cache and Pillow's plugins
        times = {
            "plain loop": _timed(lambda: _plain(files, scratch / "plain", args.size)),
            "plain loop, compression 3": _timed(lambda: _plain(files, scratch / "fast", args.size, compress_level=3)),
        }
        for workers in args.workers:
            record, images = scratch / f"hashed-{workers}", scratch / f"images-{workers}"
            hashed = {}

            def hash_all(record: Path = record, workers: int = workers, hashed: dict = hashed) -> None:
                hashed.update(hash_images(files, record, "", workers=workers))

            times[f"hash, {workers} processes"] = _timed(hash_all)
            wanted = {hashed[str(file)].content or "": file for file in files}

            def write(images: Path = images, workers: int = workers, wanted: dict = wanted) -> None:
                write_images(wanted, images, settings, workers=workers)

            times[f"resize, {workers} processes"] = _timed(write)
            times[f"resize again, {workers} processes"] = _timed(write)
    first, _ = next(iter(times.values()))
    lines = ["| work | images/s | of the plain loop | CPU ms an image |", "| --- | --- | --- | --- |"]
    for name, (seconds, cpu) in times.items():
        speed = f"{len(files) / seconds:.0f} | {first / seconds:.2f} | {cpu / len(files) * 1000:.1f}"
        lines.append(f"| {name} | {speed} |")
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
