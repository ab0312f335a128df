"""Completions from a server that speaks the OpenAI chat API: vLLM, SGLang, llama.cpp, or a hosted model.

Every sample is a request of its own: so each has its own seed and token count, and servers that know no `n` serve as
well. Time-outs, lost connections, 429 and 5xx are tried again. The key goes into the request's header and nowhere else.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import tenacity

from kepo.errors import ConfigError, KepoError
from kepo.evaluation.generate import Output, Sampling
from kepo.types import Conversation

if TYPE_CHECKING:
    from PIL.Image import Image

_LONGEST_WAIT = 60.0
_SHOWN = 300
# Servers keep seeds in 32 or 64 bits, with or without sign.
_SEEDS = 2**31


class _Temporary(Exception):  # noqa: N818 - it is caught here and never seen by a user
    """A failure that may be gone at the next attempt."""

    def __init__(self, problem: str, after: float | None = None) -> None:
        super().__init__(problem)
        self.after = after


def read_api_key(variable: str | None = None, file: str | Path | None = None) -> str | None:
    """The key in the environment variable called `variable`, or in `file`; None when neither is named.

    Raises:
        ConfigError: both are named, or the one named is missing or empty.
    """
    if variable and file:
        raise ConfigError("the key is asked from an environment variable and from a file; name one of them")
    if variable:
        key = os.environ.get(variable, "").strip()
        where = f"the environment variable {variable}"
    elif file:
        path = Path(file)
        key = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
        where = f"the file {file}"
    else:
        return None
    if not key or not key.isascii() or any(character.isspace() for character in key):
        raise ConfigError(f"{where} holds no key: it is missing, empty, or more than one word of ASCII")
    return key


class OpenAIBackend:
    """A model behind an OpenAI-compatible server; implements `kepo.evaluation.generate.Backend`.

    Whether equal seeds give equal samples is up to the server.

    Args:
        base_url: Up to the version, such as `http://localhost:8000/v1`.
        model: The name under which the server knows it.
        api_key: Sent as bearer token; None for a server that wants none.
        concurrency: Most requests at once, >= 1.
        timeout: Longest wait for one completion, in seconds.
        attempts: How often a request is tried, >= 1.
        first_wait: Seconds before the second attempt; doubled each time, unless the server names a time.
        chat_template_kwargs: Variables of the chat template, for servers that take them (vLLM, SGLang).

    Raises:
        ConfigError: a URL that is none or holds a password, or a number outside its range.
    """

    kind = "openai"
    fingerprint = ""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        attempts: int = 6,
        first_wait: float = 1.0,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"the server's address {base_url!r} is no URL; write it like http://localhost:8000/v1")
        if parts.password or parts.query:
            raise ConfigError("the server's address holds a password or a query; give the key through --api-key-env")
        for name, value in (("concurrency", concurrency), ("attempts", attempts)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; give at least 1")
        self.model = model
        self.batch_size = 4 * concurrency
        self.base_url = base_url
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._api_key = api_key
        self.concurrency = concurrency
        self._timeout = timeout
        self._attempts = attempts
        self._first_wait = first_wait
        self._extra = {"chat_template_kwargs": dict(chat_template_kwargs)} if chat_template_kwargs else {}

    def generate(self, prompts: Sequence[Conversation], sampling: Sampling, seeds: Sequence[int]) -> list[list[Output]]:
        """See `kepo.evaluation.generate.Backend`.

        Raises:
            ConfigError: the server refuses the requests (key, model name, length).
            KepoError: the server does not answer, or not in the form of the API.
        """
        return asyncio.run(self._generate(prompts, sampling, seeds))

    async def _generate(
        self, prompts: Sequence[Conversation], sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[Output]]:
        limit = asyncio.Semaphore(self.concurrency)
        async with self.client() as client:

            async def answer(body: dict[str, Any]) -> Output:
                async with limit:
                    return await self.answer(client, body)

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        [group.create_task(answer(body)) for body in bodies]
                        for bodies in self.requests(prompts, sampling, seeds)
                    ]
            except ExceptionGroup as failures:
                # One failure ends all; the first says what is wrong.
                raise failures.exceptions[0] from None
        return [[task.result() for task in row] for row in tasks]

    def requests(
        self, prompts: Sequence[Conversation], sampling: Sampling, seeds: Sequence[int]
    ) -> list[list[dict[str, Any]]]:
        """The body of every request: a list per prompt, with one for each sample."""
        shared = {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **self._extra,
        }
        rows = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            messages = [{**message, "content": _content(message["content"])} for message in prompt]
            rows.append(
                [{**shared, "messages": messages, "seed": (seed + k) % _SEEDS} for k in range(sampling.samples)]
            )
        return rows

    def client(self) -> httpx.AsyncClient:
        """A client that sends the key; to be closed by the caller."""
        headers = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        return httpx.AsyncClient(timeout=self._timeout, headers=headers)

    async def answer(self, client: httpx.AsyncClient, body: dict[str, Any]) -> Output:
        """The completion that one request asks for; temporary failures are tried again.

        Raises:
            ConfigError, KepoError: as `generate`.
        """
        grow = tenacity.wait_exponential_jitter(self._first_wait, _LONGEST_WAIT, jitter=self._first_wait)

        def wait(state: tenacity.RetryCallState) -> float:
            failure = state.outcome.exception() if state.outcome else None
            asked = failure.after if isinstance(failure, _Temporary) else None
            return grow(state) if asked is None else min(asked, _LONGEST_WAIT)

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Temporary),
            stop=tenacity.stop_after_attempt(self._attempts),
            wait=wait,
            reraise=True,
        )
        try:
            return self._output(await retrying(self._post, client, body))
        except _Temporary as failure:
            raise KepoError(self._refusal(f"{failure}, {self._attempts} times")) from None

    async def _post(self, client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
        try:
            response = await client.post(self._url, json=body)
        except httpx.TimeoutException:
            raise _Temporary(f"it gave no answer within {self._timeout:g} seconds") from None
        except httpx.TransportError as error:
            raise _Temporary(f"the connection failed ({error or type(error).__name__})") from None
        if response.status_code == 429 or response.status_code >= 500:
            raise _Temporary(f"it answered {response.status_code}: {self._shown(response)}", _retry_after(response))
        if response.status_code != 200:
            raise ConfigError(
                self._refusal(f"it answered {response.status_code}: {self._shown(response)}")
                + " Check the address (it ends in /v1 as a rule), the model's name and the key."
            )
        return response

    def _output(self, response: httpx.Response) -> Output:
        """The one completion in a response.

        A server that parses the reasoning out of the text gives it in a field of its own; it is put back.
        """
        try:
            content = response.json()
            [choice] = content["choices"]
            message = choice["message"]
            reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
            text, tokens = message["content"] or "", int(content["usage"]["completion_tokens"])
            if not isinstance(text, str):
                raise TypeError("the content is no text")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"its answer is not one chat completion with its usage ({error!r}): {self._shown(response)}"
            raise KepoError(self._refusal(problem)) from None
        if reasoning:
            text = f"<think>{reasoning}</think>\n{text}"
        # A server may send half of a surrogate pair, which no file can hold.
        text = text.encode("utf-8", errors="replace").decode("utf-8")
        return Output(text, tokens, choice.get("finish_reason") == "stop")

    def _refusal(self, problem: str) -> str:
        return f"the server {self._url}, model {self.model!r}: {problem}."

    def _shown(self, response: httpx.Response) -> str:
        """The start of an answer; a server that repeats the key does not bring it into a message or a log."""
        text = " ".join(response.text.split())
        if self._api_key:
            text = text.replace(self._api_key, "<hidden>")
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    return [
        {"type": "image_url", "image_url": {"url": _data_uri(part["image"])}} if part["type"] == "image" else part
        for part in content
    ]


def _data_uri(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _retry_after(response: httpx.Response) -> float | None:
    """The seconds that the server asks to wait; None when it names none, or a date."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None
