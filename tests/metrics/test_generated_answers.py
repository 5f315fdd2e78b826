"""Answers in words: LLaRA's HitRatio@1 and valid ratio, and what they hide."""

from __future__ import annotations

import math

import pytest

from deshi.metrics import answer_metrics
from deshi.types import DeshiError

NAMES = ["Alien (1979)", "Heat (1995)", "Aliens (1986)"]


def test_by_hand() -> None:
    """A hit, a wrong name, two names and none: 1 hit of 2 valid of 4 answers, letters' case and spaces aside."""
    answers = ["I say HEAT (1995).", " alien (1979) ", "Heat (1995) or Alien (1979)", "no idea"]
    metrics = answer_metrics(answers, ["Heat (1995)"] * 4, [NAMES] * 4)
    assert metrics == {"hit_ratio@1": 0.5, "valid_ratio": 0.5, "hit_ratio_of_all@1": 0.25}
    assert metrics["hit_ratio@1"] * metrics["valid_ratio"] == metrics["hit_ratio_of_all@1"]


def test_names_that_cannot_be_told_apart() -> None:
    """As in the published program, a name inside another one, or twice the same, makes the answer invalid."""
    assert answer_metrics(["Aliens"], ["Aliens"], [["Alien", "Aliens"]])["valid_ratio"] == 0.0
    assert answer_metrics(["Heat"], ["Heat"], [["Heat", "heat "]])["valid_ratio"] == 0.0


def test_nothing_to_count_is_no_zero() -> None:
    """A model that never answered validly has no hit ratio; its share of hits is 0 all the same."""
    metrics = answer_metrics(["?"], ["Heat (1995)"], [NAMES])
    assert math.isnan(metrics["hit_ratio@1"]) and metrics["valid_ratio"] == metrics["hit_ratio_of_all@1"] == 0.0
    assert all(math.isnan(value) for value in answer_metrics([], [], []).values())


def test_questions_without_an_answer_are_refused() -> None:
    """A target that isn't offered can only be missed: a published data loader makes such examples."""
    with pytest.raises(DeshiError, match="'Ran' is not among its 3 candidates"):
        answer_metrics(["Ran"], ["Ran"], [NAMES])
    with pytest.raises(DeshiError, match="2 answers, 1 targets and 1 candidate lists"):
        answer_metrics(["a", "b"], ["a"], [["a"]])
