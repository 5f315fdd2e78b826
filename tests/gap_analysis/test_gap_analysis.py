"""The gap analysis in parts: probed examples, the decomposition of the difference, and the cliff."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deshi.data.splits import Examples, LeaveOneOut, Ratio, Temporal
from deshi.gap_analysis import Metric, MetricProbe
from deshi.gap_analysis._covariates import Covariate, TrainingItems, covariates, unseen_share
from deshi.gap_analysis._decomposition import decompose, design
from deshi.gap_analysis._probe import steps_back
from deshi.gap_analysis._verdict import find_cliff, judge
from deshi.metrics import Interval
from deshi.models.scorers import Scorer
from deshi.types import Batch, DeshiError
from tiny_bundles import random_sequences, tiny_bundle


class Successor(Scorer):
    """Scores the item after the last one highest, then the one after that, and so on."""

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def scores(self, batch: Batch) -> Tensor:
        last = batch.items.gather(1, batch.lengths[:, None] - 1)
        return -((torch.arange(self.n_items) - last - 1) % self.n_items).float()


def test_a_metric_is_read_or_refused() -> None:
    """A misspelt metric must not be explained as another."""
    assert str(Metric.parse("recall@20")) == "recall@20"
    for wrong in ("ndcg", "ndcg@", "ndcg@0", "precision@10", "ndcg@-1", "ndcg@²"):
        with pytest.raises(DeshiError, match="expected NAME@K"):
            Metric.parse(wrong)


def test_steps_back_have_the_same_users_at_one_event_after_the_other(tmp_path: Path) -> None:
    """A fall between two steps must not come from other users; who is too short for all steps is left out."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0, 2], [0, 1, 2, 3]])
    ladder = steps_back(bundle, LeaveOneOut()(bundle), 2)
    assert list(ladder) == ["train-2", "train-1", "validation", "test"]
    targets = {name: bundle.items[examples.target_rows].tolist() for name, examples in ladder.items()}
    assert targets == {"train-2": [2, 2], "train-1": [3, 1], "validation": [4, 0], "test": [5, 2]}
    for examples in ladder.values():
        assert examples.users.tolist() == [0, 1] and (examples.ends == examples.target_rows).all()
    assert steps_back(bundle, LeaveOneOut()(bundle), 9) == {}


def test_withholding_changes_what_is_read_and_nothing_else(tmp_path: Path) -> None:
    """The withheld item stays out of the ranking, so the counterfactual is about information alone."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3], [0, 1, 5, 3]], n_items=6)
    split = LeaveOneOut()(bundle)
    examples = split.examples(bundle, "test")
    probe = MetricProbe(Successor(6), bundle, Metric("mrr", 10), filter_seen=True, batch_size=8)
    # The last items are 2 and 5. After 5 come 0 and 1, both seen, then 2 and the target 3: it is second.
    assert probe.per_example(examples).tolist() == [1.0, 1 / 2]
    # Both histories end at 1 now, and 2 is next; only to the first user, who had it, is it no candidate.
    assert probe.per_example_withheld(examples, split.train_end[examples.users]).tolist() == [1.0, 1 / 2]
    unfiltered = MetricProbe(Successor(6), bundle, Metric("mrr", 10), filter_seen=False, batch_size=8)
    assert unfiltered.per_example_withheld(examples, split.train_end[examples.users]).tolist() == [1 / 2, 1 / 2]


def test_what_is_known_about_targets_comes_from_training_alone(tmp_path: Path) -> None:
    """Popularity, age and unseen targets must not be counted on what is asked for."""
    times = [[0, 1000, 5000, 9000], [2000, 4000, 8000, 9000]]
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3], [1, 2, 3, 1]], times, n_items=4)
    split = LeaveOneOut()(bundle)
    trained = TrainingItems.of(bundle, *split.train_ranges(bundle))
    assert trained.counts.tolist() == [1, 2, 1, 0]
    validation, test = split.examples(bundle, "validation"), split.examples(bundle, "test")
    properties = {covariate.name: covariate for covariate in covariates(trained, validation, test)}
    np.testing.assert_array_equal(properties["target popularity"].validation, [1, np.nan])
    np.testing.assert_array_equal(properties["target popularity"].test, [np.nan, 2])
    assert properties["history length"].test.tolist() == [3, 3]
    np.testing.assert_array_equal(properties["target age"].validation, [1000, np.nan])
    assert properties["time since the previous event"].test.tolist() == [4000, 1000]
    assert properties["time in the user's life"].validation.tolist() == [5000, 6000]
    assert unseen_share(trained, validation) == 0.5


def test_positions_have_no_ages(tmp_path: Path) -> None:
    """Ranks inside a history are no times, so nothing is measured with them."""
    bundle = tiny_bundle(tmp_path, [[0, 1, 2, 3]], time_unit="position")
    split = LeaveOneOut()(bundle)
    trained = TrainingItems.of(bundle, *split.train_ranges(bundle))
    names = [
        covariate.name
        for covariate in covariates(trained, split.examples(bundle, "validation"), split.examples(bundle, "test"))
    ]
    assert names == ["target popularity", "history length"]


def planted(popularity_shift: float, part_shift: float, seed: int = 0) -> tuple[list[Interval], Interval, float]:
    """Examples whose metric falls with popularity, a part with other popularity, and a loss that nothing explains."""
    random = np.random.default_rng(seed)
    popularity = [random.normal(size=4000), random.normal(loc=popularity_shift, size=4000)]
    length = [random.normal(size=4000), random.normal(size=4000)]
    values = [0.5 + 0.1 * popularity[0], 0.5 + 0.1 * popularity[1] + part_shift]
    values = [part + random.normal(scale=0.05, size=4000) for part in values]
    properties = [Covariate("popularity", "", *popularity), Covariate("length", "", *length)]
    users = (np.arange(4000), np.arange(4000))
    parts, residue = decompose(design(properties, (values[0], values[1]), users), 100, 0.95, 0)
    return parts, residue, float(values[1].mean() - values[0].mean())


def test_the_parts_add_up_to_the_gap() -> None:
    """A decomposition that loses a part of the difference would hide it."""
    parts, residue, gap = planted(-0.7, -0.02)
    assert sum(part.mean for part in parts) + residue.mean == pytest.approx(gap, abs=1e-9)


def test_other_examples_are_told_from_an_unexplained_loss() -> None:
    """What goes with popularity is credited to it, what goes with nothing stays in the residue."""
    (popularity, length), residue, _ = planted(-0.7, 0.0)
    assert popularity.mean == pytest.approx(-0.07, abs=0.015) and popularity.high < 0
    assert length.low <= 0 <= length.high and abs(residue.mean) < 0.015
    (popularity, _), residue, _ = planted(0.0, -0.05)
    assert residue.mean == pytest.approx(-0.05, abs=0.005) and residue.high < 0
    assert abs(popularity.mean) < 0.01


def test_a_property_without_values_or_with_one_value_is_harmless() -> None:
    """Real data have constant properties; they explain nothing and break nothing."""
    random = np.random.default_rng(0)
    values = (random.random(50), random.random(60))
    constant = Covariate("constant", "", np.ones(50), np.ones(60))
    missing = Covariate("missing", "", np.full(50, np.nan), np.full(60, np.nan))
    users = (np.arange(50), np.arange(60))
    parts, residue = decompose(design([constant, missing], values, users), 100, 0.95, 0)
    assert [part.mean for part in parts] == pytest.approx([0, 0], abs=1e-9)
    assert residue.mean == pytest.approx(values[1].mean() - values[0].mean())


def ladder(*means: float, spread: float = 0.2, users: int = 3000) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    names = [*(f"train-{back}" for back in range(len(means) - 2, 0, -1)), "validation", "test"]
    return {name: mean + spread * random.normal(size=users) for name, mean in zip(names, means, strict=True)}


@pytest.mark.parametrize(
    ("means", "after"),
    [
        ((0.30, 0.30, 0.20, 0.19), "validation"),
        ((0.30, 0.30, 0.29, 0.20), "test"),
        ((0.30, 0.20, 0.19, 0.19), "train-1"),
        ((0.20, 0.20, 0.20, 0.20), None),
        ((0.20, 0.19, 0.18, 0.17), None),
    ],
)
def test_the_cliff_is_where_memory_ends(means: tuple[float, ...], after: str | None) -> None:
    """A slow decline is drift; one large fall shows where the training targets really ended."""
    cliff = find_cliff(ladder(*means), 500, 0.95, 0)
    assert (cliff.after if cliff else None) == after


def test_too_few_steps_have_no_cliff() -> None:
    """With validation and test alone there is nothing to compare a fall with."""
    assert find_cliff(ladder(0.3, 0.1), 500, 0.95, 0) is None and find_cliff({}, 500, 0.95, 0) is None


def test_verdicts() -> None:
    """Chance, drift and leaks are told apart, in this order of gravity."""
    fall, nothing = Interval(-0.02, -0.03, -0.01), Interval(-0.002, -0.01, 0.006)
    ratio = Interval(0.8, 0.7, 0.9)
    to_test = find_cliff(ladder(0.30, 0.30, 0.29, 0.20), 500, 0.95, 0)
    to_validation = find_cliff(ladder(0.30, 0.30, 0.20, 0.19), 500, 0.95, 0)
    inside = find_cliff(ladder(0.30, 0.20, 0.19, 0.19), 500, 0.95, 0)
    assert judge(nothing, ratio, nothing, 0.0, None, ["validation"])[0] == "suspicious"
    assert judge(fall, ratio, fall, 0.0, to_test, [])[0] == "suspicious"
    assert judge(nothing, ratio, nothing, 0.0, inside, [])[0] == "suspicious"
    assert judge(nothing, ratio, nothing, 0.0, to_validation, [])[0] == "noise"
    verdict, sentence = judge(fall, ratio, nothing, -0.012, to_validation, [])
    assert verdict == "drift" and "60%" in sentence and "0.80 (0.70 to 0.90" in sentence and "0.93 to 0.94" in sentence
    assert judge(Interval(0.02, 0.01, 0.03), ratio, nothing, 0.0, None, [])[0] == "drift"


@pytest.mark.parametrize("rule", [Ratio(0.2, 0.2, targets="all"), Temporal(None, None, 0.2, 0.2)])
def test_withholding_works_for_every_split(tmp_path: Path, rule: Ratio | Temporal) -> None:
    """Several validation events are withheld together, and without any the answer is the same."""
    bundle = tiny_bundle(tmp_path, random_sequences(30, 25, 6, 12))
    split = rule(bundle)
    examples = split.examples(bundle, "test")
    probe = MetricProbe(Successor(25), bundle, Metric("ndcg", 10), filter_seen=True, batch_size=7)
    assert probe.per_example_withheld(examples, examples.ends).tolist() == probe.per_example(examples).tolist()
    shorter = np.minimum(split.train_end[examples.users], examples.ends)
    able = shorter > examples.starts
    some = Examples(
        examples.users[able], examples.starts[able], examples.ends[able], np.arange(able.sum() + 1), examples.ends[able]
    )
    withheld = probe.per_example_withheld(some, shorter[able])
    assert withheld.shape == (able.sum(),) and ((withheld >= 0) & (withheld <= 1)).all()
