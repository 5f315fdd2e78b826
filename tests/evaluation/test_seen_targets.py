"""Counts of targets that their user had before and of examples with few candidates, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deshi.data.splits import LeaveOneOut, Ratio
from deshi.evaluation import SeenTargets, about_seen, few_candidates, population, seen_targets
from tiny_bundles import tiny_bundle

LONG = [*range(60), *range(60), 61, 5]
"""Sixty-one items in many events; the last repeats one of them."""


def test_seen_targets_against_a_loop(tmp_path: Path) -> None:
    """The count decides what is suggested, so it is held against the definition, several targets an example too."""
    random = np.random.default_rng(0)
    bundle = tiny_bundle(tmp_path, [random.integers(0, 15, 12).tolist() for _ in range(40)], n_items=15)
    for split in (LeaveOneOut()(bundle), Ratio(0.2, 0.4, targets="all")(bundle)):
        examples = split.examples(bundle, "test")
        expected = [
            bundle.items[row] in bundle.items[examples.starts[owner] : examples.ends[owner]]
            for row, owner in zip(examples.target_rows, examples.owners, strict=True)
        ]
        assert examples.seen_targets(bundle.items).tolist() == expected and 0 < sum(expected) < len(expected)
    assert examples.only(np.zeros(len(examples), dtype=bool)).seen_targets(bundle.items).shape == (0,)


@pytest.mark.parametrize(
    ("seen", "filter_seen", "is_doubtful", "begin", "end"),
    [
        (0, True, False, "", ""),
        (3, True, False, "3 of 1,000 test targets (0.30 %)", "so they are misses."),
        (49, True, False, "49 of 1,000 test targets (5 %)", "so they are misses."),
        (50, True, True, "5 % of test targets (50 of 1,000) were consumed before", "in served lists."),
        (1000, True, True, "100 % of test targets", "in served lists."),
        (310, False, False, "310 of 1,000 test targets (31 %)", "seen items stay in lists."),
    ],
)
def test_the_sentence_names_the_share(seen: int, filter_seen: bool, is_doubtful: bool, begin: str, end: str) -> None:
    """From 5 % on the setting is suggested; below, and where seen items stay, only the count is told."""
    counted = SeenTargets("test", seen, 1000, filter_seen)
    assert counted.is_doubtful is is_doubtful and ("eval.filter_seen=false" in counted.sentence) is is_doubtful
    assert counted.sentence.startswith(begin) and counted.sentence.endswith(end)


def test_few_candidates_count_different_items(tmp_path: Path) -> None:
    """A long history of few items leaves many candidates, and without the filter everybody has all of them."""
    bundle = tiny_bundle(tmp_path, [LONG, [1, 2] * 70, [3, 4, 5]], n_items=150)
    examples = LeaveOneOut()(bundle).examples(bundle, "test")
    assert few_candidates(bundle, examples, filter_seen=True).tolist() == [True, False, False]
    assert not few_candidates(bundle, examples, filter_seen=False).any()


def test_the_population_has_the_counts(tmp_path: Path) -> None:
    """run.json, compare and the report speak of the same numbers."""
    bundle = tiny_bundle(tmp_path, [LONG, [1, 2] * 70, [3, 4, 5]], n_items=150)
    split = LeaveOneOut()(bundle)
    counts = np.ones(150, dtype=np.int64)
    part = population(bundle, split, "test", split.examples(bundle, "test"), counts, filter_seen=True)
    assert (part.seen_targets, part.targets, part.few_candidates, part.examples) == (2, 3, 1, 3)
    assert [(each.part, each.seen) for each in seen_targets(bundle, split, True)] == [("validation", 1), ("test", 2)]
    warnings, notes = about_seen({"test": part}, True, 150)
    assert len(warnings) == 1 and warnings[0].startswith("67 % of test targets")
    assert len(notes) == 1 and notes[0].startswith("1 of 3 test examples have fewer than 100 candidates")


def test_a_small_catalogue_is_told_once(tmp_path: Path) -> None:
    """With 30 items every example has few candidates: a sentence about the catalogue says it for all parts."""
    bundle = tiny_bundle(tmp_path, [[1, 2, 3, 4]] * 3, n_items=30)
    split, counts = LeaveOneOut()(bundle), np.ones(30, dtype=np.int64)
    parts = {
        part: population(bundle, split, part, split.examples(bundle, part), counts, filter_seen=True)
        for part in ("validation", "test")
    }
    warnings, notes = about_seen(parts, True, 30)
    assert not warnings and notes == [
        "The catalogue has 30 items: among fewer than 100 candidates any model looks good."
    ]
