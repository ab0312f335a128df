"""When no server answers for a row or a hint: the run stops, waits, or goes on without it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from kepo.errors import TeacherError, TeacherUnavailableError
from kepo.servers.endpoint import FaultKind, RefusedError
from kepo.servers.pool import UnavailableError

T = TypeVar("T")

STOP, WAIT, SKIP = "stop", "wait", "skip"
FAILURE_POLICIES = (STOP, WAIT, SKIP)
# Statuses of a request that is invalid in itself, such as one that is too long, while the next one may be valid.
_OF_ONE_REQUEST = frozenset({400, 413, 422})


async def or_lost(answer: Awaitable[T], what: str, policy: str) -> T | None:
    """The answer; None when it failed and the policy is to go on without this `what` ("scores", "hints").

    An answer about other tokens than those sent is never gone without: it is a defect somewhere, not a failure.

    Raises:
        TeacherUnavailableError: it failed, and the policy is to stop.
        TeacherError: the server refuses such requests, or answers them wrongly.
    """
    try:
        return await answer
    except UnavailableError as error:
        if error.kind is FaultKind.MISALIGNED:
            raise TeacherError(f"{error} The teacher's scores would not belong to the student's tokens.") from None
        problem: Exception = error
    except RefusedError as error:
        if error.status not in _OF_ONE_REQUEST:
            raise TeacherError(str(error)) from None
        problem = error
    if policy == SKIP:
        return None
    raise TeacherUnavailableError(f"The teacher gave no {what}. {problem}") from None
