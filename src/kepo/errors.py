"""Errors for the person who reads them: each says which file, row or field, what value, and what to do."""

from __future__ import annotations


class KepoError(ValueError):
    """Base of the errors that a user can mend; the command line prints them without a traceback."""


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
