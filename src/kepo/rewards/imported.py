"""Reward functions of the user's own, by name: `package.module:function`, or `file.py:function`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from kepo.errors import ConfigError, nearest

# What the code of a module raises while it is imported, by its own fault; nothing is trained yet.
_OF_THE_CODE = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError),
)
_SCRIPT = "__main__"


def import_reward(name: str) -> Callable[..., Any]:
    """The function called `package.module:function` or `path/to/file.py:function`.

    Modules and files are found in the current folder too, whichever way the program was started.

    Raises:
        ConfigError: There is no such file, module or function, or its code fails while it is imported.
    """
    where, _, attribute = name.rpartition(":")
    if where == _SCRIPT:
        raise ConfigError(
            f"reward {name!r} was defined in the script that trained, which cannot be imported without training "
            f"again; move it to a file and name it as 'file.py:{attribute}'"
        )
    if not where or not attribute:
        raise ConfigError(f"reward {name!r}: write it as 'package.module:function' or 'file.py:function'")
    try:
        module = _file(Path(where), name) if where.endswith(".py") else _module(where, name)
    except _OF_THE_CODE as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"reward {name!r}: {_place(error)}{type(error).__name__}: {error}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        raise ConfigError(f"reward {name!r}: {_no_function(module, attribute, where)}")
    found: Callable[..., Any] = function
    return found


def name_of(function: Any, logged: str) -> str:
    """A name by which `kepo.rewards.get_rewards` finds a function again; `logged`, TRL's, for what is no function."""
    if not inspect.isfunction(function):
        return logged
    if function.__module__.startswith("kepo.rewards"):
        return function.__name__
    return f"{function.__module__}:{function.__qualname__}"


def reward_called(logged: str, names: Sequence[str]) -> str:
    """Which of `names` is logged as `logged`: 'my.module:is_right' for 'is_right'; `logged` itself where none is."""
    return next((name for name in names if name.rpartition(":")[2] == logged), logged)


def _module(name: str, reward: str) -> ModuleType:
    here = Path.cwd()
    top = name.split(".")[0]
    if ((here / f"{top}.py").is_file() or (here / top).is_dir()) and str(here) not in (*sys.path, ""):
        sys.path.append(str(here))  # `kepo` lacks the current folder, `python -m kepo` has it
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # a module that the user's own imports
        files = sorted(path.name for path in here.glob("*.py"))
        close = nearest(f"{name}.py", files)
        advice = f" Did you mean '{close}:{reward.rpartition(':')[2]}'?" if close else ""
        raise ConfigError(
            f"reward {reward!r}: there is no module {name!r}, neither installed nor as {name.replace('.', '/')}.py in "
            f"{here}.{advice}"
        ) from error


def _file(path: Path, reward: str) -> ModuleType:
    if not path.is_file():
        beside = sorted(one.name for one in path.parent.glob("*.py")) if path.parent.is_dir() else []
        close = nearest(path.name, beside)
        advice = f" Did you mean {str(path.parent / close)!r}?" if close else ""
        raise ConfigError(f"reward {reward!r}: there is no file {path} (looked in {Path.cwd()}).{advice}")
    known = sys.modules.get(path.stem)
    if known is not None and known.__file__ is not None and Path(known.__file__).resolve() == path.resolve():
        return known
    # Under a name of its own, so that it hides no installed module that is called the same.
    name = path.stem if known is None and importlib.util.find_spec(path.stem) is None else f"kepo_reward_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # of the modules that it imports itself
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place(error: BaseException) -> str:
    """Where the user's code failed: "my_rewards.py, line 3: "."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames and frames[-1].filename != __file__ else ""


def _no_function(module: ModuleType, attribute: str, where: str) -> str:
    if hasattr(module, attribute):
        return f"{attribute!r} in {where} is not a function"
    own = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    close = nearest(attribute, own)
    there = f"did you mean {close!r}?" if close else f"it has {', '.join(own[:8]) or 'no function'}"
    return f"{attribute!r} does not exist in {where}; {there}"
