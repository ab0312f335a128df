"""Errors for the person who reads them: each says which file, row or field, what value, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class KepoError(ValueError):
    """Base of the errors that a user can fix; the command line prints them without a traceback."""


class ConfigError(KepoError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(KepoError):
    """Data that cannot be used: the message names file, row and field."""


class TeacherError(KepoError):
    """A teacher that cannot serve this student."""


class TeacherUnavailableError(TeacherError):
    """A teacher that does not answer, after all that was allowed to reach it."""


class MissingExtraError(KepoError):
    """An optional dependency is not installed; the message says which extra to install."""

    def __init__(self, package: str, install: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}', which is not installed. Run: {install}")


def nearest(value: str, allowed: Iterable[str]) -> str | None:
    """The one of `allowed` that `value` is a slip of; None where none is near."""
    return next(iter(get_close_matches(value, list(allowed), n=1)), None)


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Advice on a name that is none of `allowed`: "did you mean 'x'? Use one of x, y."."""
    names = list(allowed)
    meant = nearest(value, names)
    return (f"did you mean {meant!r}? Use" if meant else "use") + f" one of {', '.join(names)}."


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a `value` of the field `name` that is not one of `allowed`.

    Raises:
        ConfigError: Names the field, the value and what is allowed.
    """
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}; {did_you_mean(str(value), allowed)}")


def check_whole(name: str, value: int, at_least: int) -> None:
    """Refuse a `value` of the field `name` that is no whole number of at least `at_least`.

    Raises:
        ConfigError: Names the field, the value and the bound.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ConfigError(f"{name} is {value!r}; give a whole number of at least {at_least}.")
