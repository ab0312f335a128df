"""A teacher that runs elsewhere, once, on its own GPUs.

    teacher = RemoteTeacher("http://teacher:8000/v1", "Qwen/Qwen3-VL-32B-Instruct")

Hints need any server that speaks the OpenAI chat API. Scores need vLLM, which returns a model's K likeliest tokens at
given token ids; prompts with images need its token-level API (`vllm serve --enable-scale-out`).

Requests run in a thread of their own: the trainer begins them as soon as a row has earned its teacher, and asks for the
scores when it needs them. Equal rows are asked once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from kepo.errors import ConfigError, TeacherError, TeacherUnavailableError, check_choice, check_whole
from kepo.models.encoding import tokenizer_of
from kepo.servers.background import Background, all_of, result_of
from kepo.servers.chat import SEEDS, ask_chat
from kepo.servers.endpoint import Endpoint, FaultKind, RefusedError
from kepo.servers.pool import Pool, UnavailableError
from kepo.teachers.base import MaxOverProcesses, ScoreRequest, Scores
from kepo.teachers.remote.checks import Passage, detokenize_body, passages, read_models, read_text, sample
from kepo.teachers.remote.scorer import Scorer
from kepo.teachers.remote.wire import row_key
from kepo.types import Conversation, Prompt

logger = logging.getLogger(__name__)

T = TypeVar("T")
STOP, WAIT, SKIP = "stop", "wait", "skip"
# Statuses of a request that is invalid in itself, such as one that is too long, while the next one may be valid.
_OF_ONE_REQUEST = frozenset({400, 413, 422})


@dataclass(frozen=True)
class _Pending(Generic[T]):
    """Answers on their way; implements `PendingScores` and `PendingHints` of `kepo.teachers.base`."""

    future: Future[T]

    def result(self) -> T:
        """Wait for the answers; what interrupts the wait ends the requests."""
        return result_of(self.future)


class RemoteTeacher:
    """A model behind one or several servers as teacher; implements `kepo.teachers.base.AsynchronousTeacher`.

    It implements `kepo.teachers.base.AsynchronousHintWriter` too.

    Args:
        urls: Address of one server, or of several replicas; up to the version, such as `http://localhost:8000/v1`.
        model: The name under which they serve it.
        top_k: K, the tokens whose probability is asked at each position, >= 1; the rest of the vocabulary is one tail.
            vLLM must be started with `--max-logprobs` of at least K.
        api_key: Sent as bearer token; see `kepo.servers.endpoint.read_api_key`.
        concurrency: Most requests at once to each server, >= 1.
        timeout: Longest wait for one answer, in seconds.
        attempts: How often a request is sent before it counts as failed, >= 1.
        first_wait: Seconds before the second attempt; doubled each time, up to a minute.
        on_failure: "stop" (training writes a checkpoint and stops), "wait" (until a server is back) or "skip" (go on
            without the teacher for these rows and hints; they are counted).
        hint_max_new_tokens: Longest hint, in tokens.
        hint_temperature: Sampling temperature of hints, >= 0; 0 is greedy.
        chat_template_kwargs: Variables of the chat template, for hints and for prompts that the server renders; scored
            rows hold the student's own prompt ids.

    Attributes:
        name: The model's name.

    Raises:
        ConfigError: a URL that is none or holds a password, or a number outside its range.
    """

    head = None

    def __init__(
        self,
        urls: str | Sequence[str],
        model: str,
        *,
        top_k: int = 64,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout: float = 300.0,
        attempts: int = 6,
        first_wait: float = 1.0,
        on_failure: str = STOP,
        hint_max_new_tokens: int = 256,
        hint_temperature: float = 1.0,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        check_choice("on_failure", on_failure, (STOP, WAIT, SKIP))
        check_whole("top_k", top_k, at_least=1)
        check_whole("hint_max_new_tokens", hint_max_new_tokens, at_least=1)
        if hint_temperature < 0:
            raise ConfigError(f"hint_temperature is {hint_temperature}; it must not be negative, 0 is greedy.")
        addresses = [urls] if isinstance(urls, str) else list(urls)
        self.name = model
        self._pool = Pool(
            [Endpoint(url, api_key, timeout) for url in addresses],
            model,
            concurrency=concurrency,
            attempts=attempts,
            patient=on_failure == WAIT,
            first_wait=first_wait,
            say=logger.warning,
            recheck=self._recheck,
        )
        self._background = Background()
        self._scorer = Scorer(self._pool, top_k, dict(chat_template_kwargs or {}))
        self._chat_fields: dict[str, Any] = {"max_tokens": hint_max_new_tokens, "temperature": hint_temperature}
        if chat_template_kwargs:
            self._chat_fields["chat_template_kwargs"] = dict(chat_template_kwargs)
        self._on_failure = on_failure
        self._counts: Counter[str] = Counter()
        self._known_by: Passage | None = None
        self._scores = False

    def place(self, device: Any, shard: Callable[[Any], Any] | None, max_over_processes: MaxOverProcesses) -> None:
        """Do nothing: the model lies elsewhere."""

    def check_student(self, tokenizer: Any, vocab_size: int) -> None:
        """Refuse a student whose token ids mean something else to any of the servers.

        Every token of the student's vocabulary is decoded there and compared.

        Raises:
            TeacherError: another model or vocabulary than promised, or a server that does not speak vLLM's API.
        """
        student = tokenizer_of(tokenizer)
        known = passages(student, vocab_size)
        self._scorer.tokenizer = student
        self._scores = True
        try:
            self._background.run(self._check_all, known)
        except RefusedError as error:
            raise TeacherError(f"{error} The teacher's scores need a vLLM server.") from None
        self._known_by = sample(known, student)

    def check_prompt(self, prompt: Prompt) -> None:
        """Ask for one hint of one token, and for the scores of one token where the run needs scores.

        Raises:
            KepoError: the server does not answer or refuses; or a `TeacherError` that says what it lacks and how to
                start it.
        """
        self._background.run(self._check_prompt, prompt)

    async def _check_all(self, known: Sequence[Passage]) -> None:
        for replica in self._pool.replicas:
            url = replica.endpoint.base_url
            ask = partial(self._pool.ask, replica=replica)
            await ask("models", None, partial(read_models, model=self.name, url=url))
            for passage in known:
                body = partial(detokenize_body, self.name, passage)
                await ask("/detokenize", body, partial(read_text, passage=passage, url=url))

    async def _recheck(self, endpoint: Endpoint) -> None:
        """A server that was away may be back with another model."""
        read_models(await endpoint.request("models"), self.name, endpoint.base_url)
        if self._known_by is not None:
            answer = await endpoint.request("/detokenize", detokenize_body(self.name, self._known_by))
            read_text(answer, self._known_by, endpoint.base_url)

    async def _check_prompt(self, prompt: Prompt) -> None:
        if not isinstance(prompt, str):
            await ask_chat(self._pool, prompt, 0, {**self._chat_fields, "max_tokens": 1})
        if self._scores:
            await self._scorer.try_out(prompt)

    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        """One answer per conversation; unless greedy, drawn with seeds from torch's global generator.

        Raises as `score`.
        """
        return self.start_hints(conversations).result()

    def start_hints(self, conversations: Sequence[Conversation]) -> _Pending[list[str]]:
        """Begin what `write_hints` does; the seeds are drawn now."""
        count, greedy = len(conversations), self._chat_fields["temperature"] == 0
        # Greedy hints draw nothing, as a local teacher's, so that both leave the student's rollouts alone.
        seeds = [0] * count if greedy else torch.randint(0, SEEDS, (count,)).tolist()
        return _Pending(self._background.start(self._write_hints, list(conversations), seeds))

    async def _write_hints(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        answers = await all_of(
            self._or_lost(ask_chat(self._pool, conversation, seed, self._chat_fields), "hints")
            for conversation, seed in zip(conversations, seeds, strict=True)
        )
        self._counts["hints_lost"] += sum(answer is None for answer in answers)
        return ["" if answer is None else answer.text for answer in answers]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores | None]:
        """Sparse scores of every row, K + 1 candidates a token; None for a lost row ("skip").

        Raises:
            TeacherUnavailableError: the servers failed, and that is to stop the run.
            TeacherError: they refuse the request, or their answers do not belong to the tokens that were sent.
        """
        return self.start_scoring(requests).result()

    def start_scoring(self, requests: Sequence[ScoreRequest]) -> _Pending[list[Scores | None]]:
        """Begin to score rows; the requests run while the caller does something else."""
        return _Pending(self._background.start(self._score, list(requests)))

    async def _or_lost(self, answer: Awaitable[T], what: str) -> T | None:
        """The answer; None when it failed and the run is to go on without this `what` ("scores", "hints").

        An answer about other tokens than those sent is always an error: it is a defect somewhere, not a failure.
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
        if self._on_failure == SKIP:
            return None
        raise TeacherUnavailableError(f"The teacher gave no {what}. {problem}") from None

    async def _score(self, requests: Sequence[ScoreRequest]) -> list[Scores | None]:
        rows: dict[tuple[Any, ...], ScoreRequest] = {}
        keys = [row_key(request) for request in requests]
        for key, request in zip(keys, requests, strict=True):
            rows.setdefault(key, request)
        self._counts["rows_sent"] += len(rows)
        answers = await all_of(self._or_lost(self._scorer.score(request), "scores") for request in rows.values())
        found = dict(zip(rows, answers, strict=True))
        self._counts["rows_lost"] += sum(found[key] is None for key in keys)
        return [found[key] for key in keys]

    def take_metrics(self) -> dict[str, float]:
        """Counts since the last call: rows sent and lost, hints lost, and attempts that failed, by kind."""
        counts, self._counts = self._counts, Counter()
        faults, self._pool.faults = self._pool.faults, Counter()
        metrics = {f"teacher/{name}": float(counts[name]) for name in ("rows_sent", "rows_lost", "hints_lost")}
        metrics["teacher/faults"] = float(faults.total())
        return metrics | {f"teacher/faults/{kind}": float(count) for kind, count in faults.items()}

    def close(self) -> None:
        """Close the connections; the teacher can be used again all the same."""
        self._background.run(self._pool.close)
        self._background.close()
