"""Chat models behind OpenAI-compatible endpoints: where they are, their limits, prices and key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deshi.configuration.needs import OPENAI, TOKENIZERS, Component, LocalFile, Need
from deshi.teachers.cost import Prices, TokenCounter, estimated_tokens
from deshi.types import DeshiError

KEY_VARIABLE = "OPENAI_API_KEY"
FIRST_TOKENS = 20
"""Most probable first tokens that an endpoint is asked for: the most that OpenAI's gives."""

Request = dict[str, Any]


@dataclass(frozen=True)
class Key(Need):
    """An endpoint's key, which the environment alone may hold."""

    variable: str | None
    url: str

    def problem(self, cache: Path) -> str | None:
        """That the variable isn't set, for an endpoint that isn't on this machine."""
        if self.variable is None or os.environ.get(self.variable) or _is_local(self.url):
            return None
        return (
            f"endpoint.key_variable={self.variable}: the environment has no such variable, and {self.url} is no server "
            f"of this machine. Set it: export {self.variable}=KEY. Or, for a server without keys: "
            "teacher.endpoint.key_variable=null"
        )

    def state(self, cache: Path) -> str:
        """The variable's name and whether it is set."""
        if self.variable is None or not os.environ.get(self.variable):
            return f"{self.url}: asked without a key"
        return f"{self.url}: asked with the key in {self.variable}"


@dataclass(frozen=True)
class Endpoint(Component):
    """A chat model behind an OpenAI-compatible endpoint.

    The key is read from the environment when a request is sent, and is in no configuration, log, cache or manifest.
    Too many requests (429), errors of the server (5xx), broken connections and time-outs are tried again by OpenAI's
    client, which waits as long as the server says (``Retry-After``, up to 120 s), else 0.5 to 8 s.

    Attributes:
        url: of the API, such as ``http://localhost:8000/v1``.
        model: the name that the endpoint knows it by. Answers are kept by this name, not by the URL.
        key_variable: the environment variable that holds the key; None sends none. A server on this machine is asked
            without a key where the variable isn't set.
        concurrency: requests that run at the same time.
        requests_per_minute, tokens_per_minute: None is no limit. Tokens are estimated before a request is sent.
        timeout: seconds that an answer may take.
        retries: of a request that failed, before all is given up.
        prices: money for a million tokens.
        tokenizer: a ``tokenizer.json`` or the folder that holds one, by which tokens are counted before requests;
            None estimates 3.5 characters a token.
        parameters: of every request, in place of deshi's: ``{max_tokens: null, max_completion_tokens: 500}`` for an
            endpoint that refuses one of them. They are part of what an answer is kept by.

    Raises:
        DeshiError: for a URL that isn't one or holds a secret, and numbers out of range.
    """

    url: str
    model: str
    key_variable: str | None = KEY_VARIABLE
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout: float = 120.0
    retries: int = 6
    prices: Prices = Prices()
    tokenizer: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise DeshiError(f"endpoint.url is {self.url!r}, expected one such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise DeshiError(
                f"endpoint.url names a user, a password or parameters behind '?' ({parts.hostname}), and it is written "
                "to the run's configuration. Give the plain URL, and the key in an environment variable "
                "(endpoint.key_variable)."
            )
        if not self.model:
            raise DeshiError("endpoint.model is empty, expected the name of a model that the endpoint serves.")
        for name in ("concurrency", "requests_per_minute", "tokens_per_minute", "timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise DeshiError(f"endpoint.{name} is {value}, expected a positive number.")
        if self.retries < 0:
            raise DeshiError(f"endpoint.retries is {self.retries}, expected a number from 0.")

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """OpenAI's client, the key, and the tokenizer's file and package."""
        tokenizer = arguments.get("tokenizer")
        files = [TOKENIZERS, LocalFile("endpoint.tokenizer", Path(str(tokenizer)).expanduser())] if tokenizer else []
        key = Key(arguments.get("key_variable", KEY_VARIABLE), str(arguments.get("url")))
        return [OPENAI, key, *files]

    def request(self, messages: Sequence[Mapping[str, str]], max_tokens: int, first_tokens: bool = False) -> Request:
        """A request: the model, the messages and the parameters of the answer.

        Args:
            messages: of the chat.
            max_tokens: of the answer at most.
            first_tokens: ask for the most probable first tokens.
        """
        request: Request = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": max_tokens}
        if first_tokens:
            request |= {"logprobs": True, "top_logprobs": FIRST_TOKENS}
        return {name: value for name, value in (request | self.parameters).items() if value is not None}

    def token_counter(self) -> TokenCounter:
        """The number of tokens of a text, by :attr:`tokenizer` or by the estimate."""
        if self.tokenizer is None:
            return estimated_tokens
        path = Path(self.tokenizer).expanduser()
        file = path / "tokenizer.json" if path.is_dir() else path
        loaded = TOKENIZERS.load().Tokenizer.from_file(str(file))
        return lambda text: len(loaded.encode(text, add_special_tokens=False).ids)


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
