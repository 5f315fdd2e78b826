"""The space of a search: the values of each key, read from short texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deshi.configuration.targets import suggestion

GRAMMAR = "choice(64,128), interval(0,0.5), log(1e-4,1e-2), range(1,4) or range(32,256,32)"
_CALL = re.compile(r"(\w+)\((.*)\)", re.S)
Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Choice:
    """One of some values, in no order."""

    values: tuple[Scalar, ...]

    def draw(self, trial: Any, key: str) -> Any:
        """The value that an Optuna trial proposes."""
        return trial.suggest_categorical(key, list(self.values))

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.values)

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """Values that must be valid for all to be."""
        return self.values


@dataclass(frozen=True)
class Numbers:
    """Numbers between two bounds, both included.

    Attributes:
        low: the smallest.
        high: the largest.
        log: drawn evenly by their logarithm.
        step: distance between neighbours; None: any number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def draw(self, trial: Any, key: str) -> Any:
        """The value that an Optuna trial proposes."""
        if isinstance(self.low, int) and isinstance(self.high, int) and (self.log or isinstance(self.step, int)):
            return trial.suggest_int(key, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether a value lies between the bounds, and on a step."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or abs((value - self.low) / self.step - round((value - self.low) / self.step)) < 1e-9

    @property
    def ends(self) -> tuple[Scalar, ...]:
        """Values that must be valid for all to be."""
        return self.low, self.high


def parse_space(space: Mapping[str, Any], prefix: str = "") -> dict[str, Choice | Numbers]:
    """The domains of a nested mapping of texts, by dotted key.

    Raises:
        ValueError: with the key, what was got and what can be written.
    """
    domains: dict[str, Choice | Numbers] = {}
    for name, value in space.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            domains |= parse_space(value, f"{key}.")
            continue
        try:
            domains[key] = parse(value)
        except ValueError as error:
            raise ValueError(f"space.{key}: {error}") from None
    return domains


def parse(text: Any) -> Choice | Numbers:
    """The domain that a text describes.

    Raises:
        ValueError: for anything else than the texts of :data:`GRAMMAR`.
    """
    call = _CALL.fullmatch(text.strip()) if isinstance(text, str) else None
    if call is None:
        raise ValueError(f"got {text!r}, expected e.g. {GRAMMAR}")
    kind, values = call[1], [_scalar(part) for part in call[2].split(",")]
    if kind == "choice":
        return Choice(tuple(values))
    if kind not in ("interval", "log", "range"):
        raise ValueError(f"got {text!r}. {suggestion(kind, ('choice', 'interval', 'log', 'range'))}")
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) != len(values) or len(numbers) not in ((2, 3) if kind == "range" else (2,)):
        raise ValueError(f"got {text!r}, expected two bounds (range: and a step), e.g. {GRAMMAR}")
    low, high = numbers[:2]
    if low >= high or (kind == "log" and low <= 0):
        raise ValueError(f"got {text!r}, expected a lower bound below the upper one{' and above 0' * (kind == 'log')}")
    step = (numbers[2] if len(numbers) > 2 else 1) if kind == "range" else None
    if step is not None and step <= 0:
        raise ValueError(f"got {text!r}, expected a step above 0")
    return Numbers(low, high, kind == "log", step)


def _scalar(text: str) -> Scalar:
    """A number, true, false or null as JSON has them; anything else is a word."""
    word = text.strip()
    try:
        value: Scalar = json.loads(word)
    except json.JSONDecodeError:
        return word.strip("'\"")
    return value
