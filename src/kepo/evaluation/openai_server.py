"""Completions from servers that speak the OpenAI chat API: vLLM, SGLang, llama.cpp, or a hosted model.

Every sample is a request of its own: each has its own seed and token count, servers without `n` serve as well, and it
goes to whichever of several servers is free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kepo.evaluation.settings import Completion, EvaluationSettings
from kepo.servers.background import Background, all_of
from kepo.servers.chat import SEEDS, ask_chat
from kepo.servers.endpoint import Endpoint
from kepo.servers.pool import Pool
from kepo.types import Conversation


class OpenAIBackend:
    """A model behind OpenAI-compatible servers; implements `kepo.evaluation.settings.Backend`.

    Whether equal seeds give equal samples is up to the servers.

    Args:
        base_urls: URL of one server, such as `http://localhost:8000/v1`, or of several of the same model.
        model: Its name on the servers.
        api_key: Sent as bearer token; None for a server that needs none.
        concurrency: Most requests at once to each, >= 1.
        timeout: Longest wait for one completion, in seconds.
        attempts: How often a request is tried, >= 1.
        first_wait: Seconds before the second attempt; doubled each time, unless the server names a time.
        chat_template_kwargs: Variables of the chat template, for servers that take them (vLLM, SGLang).
        say: Called with a sentence on every server that fails repeatedly.

    Raises:
        ConfigError: a URL that is none or holds a password, two that are equal, or a number outside its range.
    """

    kind = "openai"
    fingerprint = ""

    def __init__(
        self,
        base_urls: str | Sequence[str],
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        attempts: int = 6,
        first_wait: float = 1.0,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        urls = [base_urls] if isinstance(base_urls, str) else list(base_urls)
        endpoints = [Endpoint(url, api_key, timeout) for url in urls]
        self._pool = Pool(endpoints, model, concurrency=concurrency, attempts=attempts, first_wait=first_wait, say=say)
        self._background = Background()
        self._extra = {"chat_template_kwargs": dict(chat_template_kwargs)} if chat_template_kwargs else {}
        self.model = model
        self.batch_size = 4 * concurrency * len(urls)

    def generate(
        self, prompts: Sequence[Conversation], sampling: EvaluationSettings, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """See `Backend`; raises ConfigError where the server refuses a request, KepoError where it does not answer."""
        return self._background.run(self._generate, prompts, sampling, seeds)

    async def _generate(
        self, prompts: Sequence[Conversation], sampling: EvaluationSettings, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        fields = {"max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p}
        async with self._pool:
            answers = await all_of(
                ask_chat(self._pool, prompt, (seed + k) % SEEDS, fields | self._extra)
                for prompt, seed in zip(prompts, seeds, strict=True)
                for k in range(sampling.samples)
            )
        completions = [Completion(answer.text, answer.tokens, answer.finished) for answer in answers]
        return [completions[start : start + sampling.samples] for start in range(0, len(answers), sampling.samples)]
