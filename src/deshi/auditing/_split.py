"""Checks of a split: boundaries, training ranges, and the histories and targets of its examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deshi.arrays import Array
from deshi.auditing._bundle import Flat
from deshi.auditing._finding import Finding, count, finding
from deshi.auditing._probe import AT, gain, markov_ndcg, sample_examples
from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, Examples, Split
from deshi.evaluation import FEW, SeenTargets, few_candidates

DAY = 86_400_000


def audit_split(bundle: Bundle, split: Split, filter_seen: bool = True) -> list[Finding]:
    """Everything about a split that needs no model.

    Args:
        bundle: the data.
        split: made from that bundle.
        filter_seen: of the evaluation; the probes that measure effects rank as it does.
    """
    flat = Flat(bundle)
    findings = audit_training_ranges(bundle, split, split.train_ranges(bundle), PARTS, filter_seen)
    for part in PARTS:
        examples = split.examples(bundle, part)
        if len(examples):
            findings += _wrong_ends(flat, split, part, examples, filter_seen)
            findings += _duplicates(flat, split, part, examples, filter_seen)
            findings += _seen_before(flat, split, part, examples, filter_seen)
            findings += _cold(flat, split, part, examples)
            findings += _tied_order(flat, part, examples)
    return [*findings, *_few_candidates(flat, split, filter_seen), *_future(flat, split)]


def audit_training_ranges(
    bundle: Bundle, split: Split, ranges: tuple[Array, Array], parts: Sequence[str], filter_seen: bool = True
) -> list[Finding]:
    """Training ranges that hold targets of an evaluated part, or end before the training part does.

    Args:
        bundle: the data.
        split: made from that bundle.
        ranges: flat ``(starts, ends)`` of what is trained on: in each range every event but the first is a target.
        parts: what must not be trained on.
        filter_seen: of the evaluation; the probes that measure effects rank as it does.
    """
    flat, (starts, ends) = Flat(bundle), ranges
    trained = np.arange(len(flat.items)) < ends[flat.users]
    findings = []
    for part in parts:
        examples = split.examples(bundle, part)
        hits = np.bincount(examples.owners[trained[examples.target_rows]], minlength=len(examples))
        if hits.any():
            findings.append(_leak(flat, split, part, hits > 0, ranges, filter_seen))
    short = (split.train_end - starts >= 2) & (ends < split.train_end)
    if short.any():
        findings.append(_short_range(flat, split, short, ranges, filter_seen))
    return findings


def _leak(
    flat: Flat, split: Split, part: str, leaked: Array, ranges: tuple[Array, Array], filter_seen: bool
) -> Finding:
    """Targets of a part that are trained on; its effect is what a Markov baseline gains by it on those examples."""
    bundle, examples = flat.bundle, split.examples(flat.bundle, part)
    sample = sample_examples(examples, only=leaked)
    figures = (
        markov_ndcg(bundle, pair, sample, filter_seen)
        for pair in ((bundle.offsets[:-1], np.minimum(split.train_end, ranges[1])), ranges)
    )
    message = (
        f"{count(int(leaked.sum()), len(examples), f'{part} examples')} have their target among the training targets."
    )
    if part == "validation":
        fix = "Train with train_targets=train. To learn from the newest events use refit=true: it selects honestly, "
        fix += "trains once more on training and validation together, and is tested on the test part."
    else:
        fix = "End the training ranges before the test part (Split.train_ranges does), and train again."
    where = flat.locations(examples.target_rows[examples.target_offsets[:-1][leaked]])
    effect = gain(f"A Markov baseline on these {part} targets", *figures)
    return finding(f"{part}-target-trained-on", message, where, effect, fix)


def _short_range(flat: Flat, split: Split, short: Array, ranges: tuple[Array, Array], filter_seen: bool) -> Finding:
    """Training that stops before its range ends, and what a Markov baseline loses by it on the test examples."""
    bundle = flat.bundle
    examples = split.examples(bundle, "test")
    effect = f"{int(short.sum()):,} training targets are lost."
    if len(examples):
        sample = sample_examples(examples)
        figures = (
            markov_ndcg(bundle, (bundle.offsets[:-1], end), sample, filter_seen)
            for end in (split.train_end, np.where(short, np.minimum(ranges[1], split.train_end - 1), split.train_end))
        )
        effect += " " + gain("A Markov baseline on test", *figures)
    trainable = int((split.train_end - bundle.offsets[:-1] >= 2).sum())
    message = (
        f"The last training target of {count(int(short.sum()), trainable, 'users')} is never trained on: the newest "
    )
    message += "transition that training may see, and the one most like the test's."
    fix = "Train on every event of the range, its last one included (range(1, len(history)), not len(history) - 1)."
    return finding("training-range-short", message, flat.locations(split.train_end[short] - 1), effect, fix)


def _wrong_ends(flat: Flat, split: Split, part: str, examples: Examples, filter_seen: bool) -> list[Finding]:
    """Histories that do not end right before the example's first target."""
    ends, ranges = examples.ends, (flat.bundle.offsets[:-1], split.train_end)
    first = np.minimum.reduceat(examples.target_rows, examples.target_offsets[:-1])
    used = np.maximum(ends, examples.starts + 1)  # an empty history has no next item
    findings = []
    for name, wrong, message, fix in (
        ("target-in-history", ends > first, "hold their own target in the history",
         "End each history before its target."),
        ("history-short", ends < first, "do not get the event right before their target", "Feed the whole history."),
    ):  # fmt: skip
        if wrong.any():
            figures = [
                markov_ndcg(flat.bundle, ranges, sample_examples(replace(examples, ends=end), only=wrong), filter_seen)
                for end in (first, used)
            ]
            share = count(int(wrong.sum()), len(examples), f"{part} examples")
            where = flat.locations(first[wrong], history_ends_at=ends[wrong] - examples.starts[wrong])
            effect = gain(f"A Markov baseline on these {part} examples", *figures)
            findings.append(finding(name, f"{share} {message}.", where, effect, fix))
    return findings


def _duplicates(flat: Flat, split: Split, part: str, examples: Examples, filter_seen: bool) -> list[Finding]:
    """The target's very event (user, item, time) stands in the history too.

    Two purchases at the same moment are one event twice. With times of a day's resolution, or none, they may be two:
    then it is a note.
    """
    if flat.bundle.time_unit != "ms":
        return []
    twice = _repeats_event(flat, examples)
    if not twice.any():
        return []
    owner = examples.owners
    affected = np.bincount(owner[twice], minlength=len(examples)) > 0
    ranges = (flat.bundle.offsets[:-1], split.train_end)
    figures = [
        markov_ndcg(flat.bundle, ranges, sample_examples(examples, only=mask), filter_seen)
        for mask in (~affected, affected)
        if mask.any()
    ]
    message = f"{count(int(affected.sum()), len(examples), f'{part} examples')} have a target that the history holds "
    message += "already: same item, same time."
    effect = f"A Markov baseline has NDCG@{AT} " + ", ".join(
        f"{figure:.4f} on examples {name}" for name, figure in zip(("without", "with"), figures[-2:], strict=False)
    )
    coarse = bool((flat.times % DAY == 0).all())
    if coarse:
        message += " Times have the resolution of a day, so these may be repeats."
    fix = "Drop exact duplicates before the split: data.filters.duplicates=first (keeps one of an item per user)."
    where = flat.locations(examples.target_rows[twice], time=flat.times[examples.target_rows[twice]])
    return [finding("duplicate-across-parts", message, where, effect + ".", fix, "note" if coarse else None)]


def _repeats_event(flat: Flat, examples: Examples) -> Array:
    """``(T,)`` bool: targets that are the same item at the same time as an earlier event of their user."""
    order = np.lexsort((np.arange(len(flat.items)), flat.times, flat.items, flat.users))
    columns = (flat.users[order], flat.items[order], flat.times[order])
    same = np.zeros(len(order), dtype=bool)
    same[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    seen = np.zeros(len(order), dtype=bool)
    seen[order] = same
    # in an unsorted history the twin may come later; only one inside the history is an answer that was given away
    twin = np.full(len(order), -1)
    twin[order[1:]] = np.where(same[1:], order[:-1], -1)
    owner = examples.owners
    rows = examples.target_rows
    return seen[rows] & (twin[rows] >= examples.starts[owner]) & (twin[rows] < examples.ends[owner])


def _seen_before(flat: Flat, split: Split, part: str, examples: Examples, filter_seen: bool) -> list[Finding]:
    """Targets that their user had before, which no list without seen items can hold."""
    bundle, seen = flat.bundle, examples.seen_targets(flat.items)
    counts = SeenTargets(part, int(seen.sum()), len(seen), filter_seen)
    if not filter_seen or not counts.seen:
        return []
    ranges, sample = (bundle.offsets[:-1], split.train_end), sample_examples(examples)
    without, with_seen = (markov_ndcg(bundle, ranges, sample, left_out) for left_out in (True, False))
    message = f"{count(counts.seen, counts.targets, f'{part} targets')} were consumed before by the same user."
    effect = (
        f"Lists without seen items can hold {1 - seen.mean():.4f} of the targets at most. A Markov baseline has "
        f"NDCG@{AT} {without:.4f} without seen items and {with_seen:.4f} with them."
    )
    fix = "Set eval.filter_seen=false in training and evaluation, so that figures and served lists keep seen items."
    where = flat.locations(examples.target_rows[seen])
    return [finding("seen-targets", message, where, effect, fix, None if counts.is_doubtful else "note")]


def _few_candidates(flat: Flat, split: Split, filter_seen: bool) -> list[Finding]:
    """Examples that are ranked among so few items that any model has high figures."""
    bundle = flat.bundle
    fix = "Compare with the baselines on the same examples (with_baselines=true), not with figures of other data."
    if bundle.n_items < FEW:
        message = f"The catalogue has {bundle.n_items:,} items, so every example has fewer than {FEW} candidates."
        effect = f"A random order has HR@{AT} {min(1.0, AT / bundle.n_items):.4f} at least."
        return [finding("few-candidates", message, flat.locations(bundle.offsets[:-1]), effect, fix, "note")]
    findings = []
    for part in PARTS:
        examples = split.examples(bundle, part)
        few = few_candidates(bundle, examples, filter_seen)
        if few.any():
            message = f"{count(int(few.sum()), len(few), f'{part} examples')} have fewer than {FEW} candidates, since "
            message += "their history holds most of the catalogue."
            effect = f"A random order has HR@{AT} {AT / FEW:.4f} or more on them and {AT / bundle.n_items:.4f} among "
            effect += f"all {bundle.n_items:,} items."
            findings.append(finding("few-candidates", message, flat.locations(examples.ends[few] - 1), effect, fix))
    return findings


def _cold(flat: Flat, split: Split, part: str, examples: Examples) -> list[Finding]:
    trained = np.arange(len(flat.items)) < split.train_end[flat.users]
    is_trained = np.bincount(flat.items[trained], minlength=flat.bundle.n_items) > 0
    cold = ~is_trained[flat.items[examples.target_rows]]
    if not cold.any():
        return []
    share = float(cold.mean())
    items = len(np.unique(flat.items[examples.target_rows[cold]]))
    message = (
        f"{count(int(cold.sum()), len(cold), f'{part} targets')} are of {items:,} items that no training user has."
    )
    effect = f"No model of ids can know them: recall on {part} is at most {1 - share:.4f}, whatever K."
    fix = "Report figures on warm targets beside these, use item texts, or raise data.filters.min_item_interactions."
    where = flat.locations(examples.target_rows[cold])
    return [finding("cold-targets", message, where, effect, fix, "warning" if share > 0.2 else None)]


def _tied_order(flat: Flat, part: str, examples: Examples) -> list[Finding]:
    """Targets whose timestamp is that of the event before them: the order of the file decides which is the target."""
    if flat.bundle.time_unit != "ms":
        return []
    first = examples.target_rows[examples.target_offsets[:-1]]
    tied = (first > examples.starts) & (flat.times[first] == flat.times[np.maximum(first - 1, 0)])
    if not tied.any():
        return []
    message = (
        f"{count(int(tied.sum()), len(examples), f'{part} examples')} have a target at the time of the event before."
    )
    effect = (
        f"For a share of {float(tied.mean()):.3f} of the examples, the file's order decides which event is the target."
    )
    fix = "Nothing is wrong; compare only figures whose tie rule is the same (the bundle's manifest states it)."
    return [finding("order-of-targets-tied", message, flat.locations(first[tied]), effect, fix)]


def _future(flat: Flat, split: Split) -> list[Finding]:
    """Training events later than a test target: leave-one-out and ratio have them, a split by time does not."""
    examples = split.examples(flat.bundle, "test")
    if flat.bundle.time_unit != "ms" or not len(examples):
        return []
    trained = np.flatnonzero(np.arange(len(flat.items)) < split.train_end[flat.users])
    targets = examples.target_rows[examples.target_offsets[:-1]]
    times = np.sort(flat.times[trained])
    later = len(times) - np.searchsorted(times, flat.times[targets], side="right")
    if not later.any():
        return []
    typical = float(np.median(later)) / len(times)
    message = (
        f"{count(int((later > 0).sum()), len(targets), 'test examples')} are older than some training event of others."
    )
    effect = (
        f"The median test example is ranked by a model that knows {100 * typical:.1f} % of the training events only "
    )
    effect += "from its future; figures are comparable with others of this split, not with those of a launch."
    fix = "Use split=temporal to measure what a model of that day would have done."
    return [finding("future-in-training", message, flat.locations(targets[later > 0]), effect, fix)]
