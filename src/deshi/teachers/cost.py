"""Cost of answers: requests, tokens, money; a budget of them, and the estimate of tokens that haven't been counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil
from typing import Any

from deshi.teachers._answer_cache import Answer
from deshi.types import DeshiError

TokenCounter = Callable[[str], int]

MILLION = 1e6
BYTES_PER_TOKEN = 3.5
"""Of UTF-8: English has about four characters a token, Chinese and Japanese about one."""
MESSAGE_TOKENS = 8
"""Of a chat template, for each message."""


class BudgetReached(DeshiError):
    """Asking stopped because the next request might exceed the budget."""


@dataclass(frozen=True)
class Budget:
    """What one command may spend at most; None is no limit. Answers from the cache cost nothing.

    Attributes:
        requests: sent.
        tokens: of prompts and answers.
        money: by the endpoint's prices.
    """

    requests: int | None = 10_000
    tokens: int | None = None
    money: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None and limit < 0:
                raise DeshiError(f"budget.{field.name} is {limit}, expected a number from 0, or null for no limit.")

    def refusal(self, cost: Cost) -> str | None:
        """The limit that ``cost`` exceeds, in words."""
        amounts = {"requests": cost.requests, "tokens": cost.prompt_tokens + cost.answer_tokens, "money": cost.money}
        for name, amount in amounts.items():
            limit = getattr(self, name)
            if limit is not None and amount > limit:
                return f"budget.{name}={limit}"
        return None


@dataclass(frozen=True)
class Cost:
    """A sum over answers.

    Attributes:
        questions: lists that were reordered, or would have been.
        refused: of these, those whose answers could not be used, so that the first stage's order stayed.
        requests: answers, with the second order of the candidates and second attempts.
        second_attempts: requests that told the model what was wrong with its first answer.
        cached: answers that the cache had.
        prompt_tokens, answer_tokens: of all answers, those from the cache too.
        money: by the endpoint's prices.
        seconds: waited for answers, summed over requests that ran at the same time.
    """

    questions: int = 0
    refused: int = 0
    requests: int = 0
    second_attempts: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    money: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    def __sub__(self, other: Cost) -> Cost:
        return Cost(**{name: value - getattr(other, name) for name, value in asdict(self).items()})

    def scaled(self, factor: float) -> Cost:
        """That of ``factor`` times as many answers; all but money and seconds rounded."""
        scaled = {name: value * factor for name, value in asdict(self).items()}
        whole = {name: value if name in ("money", "seconds") else round(value) for name, value in scaled.items()}
        return Cost(**whole)

    def plain(self) -> dict[str, Any]:
        """JSON-able, rounded to a millionth."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Prices:
    """Money for a million tokens, in whatever currency.

    Attributes:
        prompt: of prompts.
        answer: of answers.
    """

    prompt: float = 0.0
    answer: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there are any."""
        return self.prompt > 0 or self.answer > 0

    def money(self, prompt_tokens: float, answer_tokens: float) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / MILLION

    def cost(self, answer: Answer, cached: bool) -> Cost:
        """The cost of an answer."""
        money = self.money(answer.prompt_tokens, answer.answer_tokens)
        return Cost(
            requests=1, cached=int(cached), prompt_tokens=answer.prompt_tokens, answer_tokens=answer.answer_tokens,
            money=money, seconds=answer.seconds,
        )  # fmt: skip


def estimated_tokens(text: str) -> int:
    """The tokens of a text where no tokenizer is named: one for 3.5 bytes of UTF-8, rounded up."""
    return ceil(len(text.encode()) / BYTES_PER_TOKEN)


def message_tokens(messages: Sequence[Mapping[str, str]], count: TokenCounter = estimated_tokens) -> int:
    """The tokens of messages with those of the chat template around them, which is estimated."""
    return sum(MESSAGE_TOKENS + count(message["content"]) for message in messages)
