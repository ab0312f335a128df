"""A teacher that runs elsewhere, once, on its own GPUs.

    teacher = RemoteTeacher("http://teacher:8000/v1", "Qwen/Qwen3-VL-32B-Instruct")

Hints need any server that speaks the OpenAI chat API. Scores need vLLM, which returns a model's K likeliest tokens at
given token ids; prompts with images need its token-level API (`vllm serve --enable-scale-out`).

Requests run in a thread of their own: the trainer begins them as soon as a row has earned its teacher, and asks for the
scores when it needs them. Equal rows are asked once.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeAlias

import torch

from kepo.errors import ConfigError, TeacherError, check_choice, check_whole
from kepo.models.encoding import tokenizer_of
from kepo.servers.background import Background, all_of, result_of
from kepo.servers.chat import SEEDS, ask_chat
from kepo.servers.endpoint import Endpoint, RefusedError
from kepo.servers.pool import Pool
from kepo.teachers.base import MaxOverProcesses, ScoreRequest, Scores
from kepo.teachers.remote.checks import Passage, detokenize_body, passages, read_models, read_text, sample
from kepo.teachers.remote.failures import FAILURE_POLICIES, STOP, WAIT, or_lost
from kepo.teachers.remote.prompts import prompt_key
from kepo.teachers.remote.scorer import Scorer
from kepo.types import Conversation, Prompt

logger = logging.getLogger(__name__)

_Row: TypeAlias = "tuple[str, tuple[int, ...]]"
"""(prompt, completion): what makes two rows the same question to the teacher."""


class _Pending:
    """Scores on their way; implements `kepo.teachers.base.PendingScores`."""

    def __init__(self, future: Future[list[Scores | None]]) -> None:
        self._future = future

    def result(self) -> list[Scores | None]:
        """Wait for the scores; what interrupts the wait ends the requests."""
        return result_of(self._future)


class RemoteTeacher:
    """A model behind one or several servers as teacher; implements `kepo.teachers.base.AsynchronousTeacher`.

    Args:
        urls: Address of one server, or of several replicas; up to the version, such as `http://localhost:8000/v1`.
        model: The name under which they serve it.
        top_k: K, the tokens whose probability is asked at each position, >= 1; the rest of the vocabulary is one tail.
            vLLM must be started with `--max-logprobs` of at least K.
        api_key: Sent as bearer token; see `kepo.servers.keys.read_api_key`.
        concurrency: Most requests at once to each server, >= 1.
        timeout: Longest wait for one answer, in seconds.
        attempts: How often a request is sent before it counts as failed, >= 1.
        first_wait: Seconds before the second attempt; doubled each time, up to a minute.
        on_failure: "stop" (training writes a checkpoint and stops), "wait" (until a server is back) or "skip" (go on
            without the teacher for these rows and hints; they are counted).
        hint_max_new_tokens: Longest hint, in tokens.
        hint_temperature: Sampling temperature of hints, >= 0; 0 is greedy.
        chat_template_kwargs: Variables of the chat template. Set them as the student's, whose prompts they shape.

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
        check_choice("on_failure", on_failure, FAILURE_POLICIES)
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

    # --- before training --------------------------------------------------------------------------------------------

    def place(self, device: Any, shard: Callable[[Any], Any] | None, max_over_processes: MaxOverProcesses) -> None:
        """Does nothing: the model lies elsewhere."""

    def check_student(self, tokenizer: Any, vocab_size: int) -> None:
        """Refuse a student whose token ids mean something else to any of the servers.

        Every token of the student's vocabulary is decoded there and compared.

        Raises:
            TeacherError: another model or vocabulary than promised, or a server that does not speak vLLM's API.
        """
        student = tokenizer_of(tokenizer)
        known = passages(student, vocab_size)
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
                body = detokenize_body(self.name, passage)
                await ask("/detokenize", partial(dict, body), partial(read_text, passage=passage, url=url))

    async def _recheck(self, endpoint: Endpoint) -> None:
        """A server that was away may be back with another model."""
        read_models(await endpoint.request("models"), self.name, endpoint.base_url)
        passage = self._known_by
        if passage is not None:
            answer = await endpoint.request("/detokenize", detokenize_body(self.name, passage))
            read_text(answer, passage, endpoint.base_url)

    async def _check_prompt(self, prompt: Prompt) -> None:
        if not isinstance(prompt, str):
            await ask_chat(self._pool, prompt, 0, {**self._chat_fields, "max_tokens": 1})
        if self._scores:
            await self._scorer.try_out(prompt)

    # --- hints ------------------------------------------------------------------------------------------------------

    def write_hints(self, conversations: Sequence[Conversation]) -> list[str]:
        """One answer per conversation; unless greedy, drawn with seeds from torch's global generator.

        Raises:
            TeacherUnavailableError: the servers failed, and that is to stop the run.
            TeacherError: they refuse the request.
        """
        count, greedy = len(conversations), self._chat_fields["temperature"] == 0
        # Greedy hints draw nothing, as a local teacher's, so that both leave the student's rollouts alone.
        seeds = [0] * count if greedy else torch.randint(0, SEEDS, (count,)).tolist()
        return self._background.run(self._write_hints, conversations, seeds)

    async def _write_hints(self, conversations: Sequence[Conversation], seeds: Sequence[int]) -> list[str]:
        answers = await all_of(
            or_lost(ask_chat(self._pool, conversation, seed, self._chat_fields), "hints", self._on_failure)
            for conversation, seed in zip(conversations, seeds, strict=True)
        )
        self._counts["hints_lost"] += sum(answer is None for answer in answers)
        return ["" if answer is None else answer.text for answer in answers]

    # --- scores -----------------------------------------------------------------------------------------------------

    def score(self, requests: Sequence[ScoreRequest]) -> list[Scores | None]:
        """Sparse scores of every row, K + 1 candidates a token; None for rows that are gone without.

        Raises:
            TeacherUnavailableError: the servers failed, and that is to stop the run.
            TeacherError: they refuse the request, or their answers do not belong to the tokens that were sent.
        """
        return self.start_scoring(requests).result()

    def start_scoring(self, requests: Sequence[ScoreRequest]) -> _Pending:
        """Begin to score rows; the requests run while the caller does something else."""
        return _Pending(self._background.start(self._score, list(requests)))

    async def _score(self, requests: Sequence[ScoreRequest]) -> list[Scores | None]:
        rows: OrderedDict[_Row, ScoreRequest] = OrderedDict()
        keys = [(prompt_key(request.prompt), request.completion_ids) for request in requests]
        for key, request in zip(keys, requests, strict=True):
            rows.setdefault(key, request)
        self._counts["rows_sent"] += len(rows)
        answers = await all_of(
            or_lost(self._scorer.score(key, request), "scores", self._on_failure) for (key, _), request in rows.items()
        )
        found = dict(zip(rows, answers, strict=True))
        self._counts["rows_lost"] += sum(found[key] is None for key in keys)
        return [found[key] for key in keys]

    # --- what is told -----------------------------------------------------------------------------------------------

    def take_metrics(self) -> dict[str, float]:
        """Counts since the last call: rows sent and lost, hints lost, and attempts that failed, by kind."""
        counts, self._counts = self._counts, Counter()
        faults, self._pool.faults = self._pool.faults, Counter()
        told = {
            "teacher/rows_sent": counts["rows_sent"],
            "teacher/rows_lost": counts["rows_lost"],
            "teacher/hints_lost": counts["hints_lost"],
            "teacher/faults": sum(faults.values()),
            **{f"teacher/faults/{kind}": count for kind, count in faults.items()},
        }
        return {name: float(count) for name, count in told.items()}

    def close(self) -> None:
        """Close the connections; the teacher can be used again all the same."""
        self._background.run(self._pool.close)
        self._background.close()
