"""Rules that choose the rows a teacher labels, as words on the command line."""

from __future__ import annotations

import numpy as np

from deshi.arrays import Ints, range_rows
from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, Split
from deshi.soft_labels._histories import Histories
from deshi.types import DeshiError

HELP = "all, train, last:N, sample:SHARE, held_out, validation, test, or several of them joined by +"
"""The rules, for error messages and for the option's description."""

_STREAM = 23  # so that no other part of deshi draws the same numbers from the same seed


def choose_rows(
    rule: str,
    bundle: Bundle,
    split: Split,
    augmented: Histories | None = None,
    seed: int = 0,
    train_targets: str = "train",
) -> Ints:
    """The flat positions after which the next item is to be ranked.

    A row is named by the event that comes *next*: ``train`` is every position whose next event is a training target.

    ======================  =====================================================================
    ``all``                 every event, the last of each history too
    ``train``               the next event is a training target
    ``last:N``              the latest N of each user's ``train`` positions
    ``sample:SHARE``        a random share, above 0 and up to 1, of all ``train`` positions
    ``validation``          the histories of the validation examples (the next event is the target)
    ``test``                the histories of the test examples
    ``held_out``            ``validation`` and ``test``; of a refitted split ``test`` alone
    ``A+B``                 what is in A or in B, such as ``last:20+held_out``
    ======================  =====================================================================

    Args:
        rule: as above.
        bundle: the data.
        split: the run's split of them, :meth:`~deshi.data.splits.Split.refitted` where the run was.
        augmented: choose positions of these histories instead, which were made from the training ranges: all but the
            last event of each sequence are ``train``, the last one, after which the first held-out event came, is
            of the split's ``next_part``.
        seed: of ``sample``.
        train_targets: as the students are to be trained, see :meth:`deshi.data.splits.Split.train_ranges`.

    Returns:
        ``(M,)`` int64, ascending, each once.

    Raises:
        DeshiError: for a rule that doesn't exist, or one that chooses nothing.
    """
    if augmented is None:
        starts, ends = split.train_ranges(bundle, train_targets)
        held_out = {part: split.examples(bundle, part).ends - 1 for part in PARTS}
        n_rows = len(bundle.items)
    else:
        starts, ends = augmented.offsets[:-1], augmented.offsets[1:]
        held_out = dict.fromkeys(PARTS, np.zeros(0, dtype=np.int64)) | {split.next_part: ends - 1}
        n_rows = augmented.n_interactions
    parts = [_rule(part.strip(), starts, ends, held_out, n_rows, seed) for part in rule.split("+")]
    rows = np.unique(np.concatenate(parts)).astype(np.int64)
    if not len(rows):
        data = "the augmented histories" if augmented is not None else f"{bundle.name} with the split {split.name}"
        raise DeshiError(f"positions={rule} chooses none of the {n_rows:,} events of {data}. Choose others: {HELP}.")
    return rows


def _rule(text: str, starts: Ints, ends: Ints, held_out: dict[str, Ints], n_rows: int, seed: int) -> Ints:
    name, _, value = text.partition(":")
    if text == "all":
        return np.arange(n_rows)
    if text == "train":
        return range_rows(starts, ends - 1)
    if text == "held_out":
        return np.concatenate(list(held_out.values()))
    if text in held_out:
        return held_out[text]
    if name == "last":
        return range_rows(np.maximum(starts, ends - 1 - _count(text, value)), ends - 1)
    if name == "sample":
        return _sample(range_rows(starts, ends - 1), _share(text, value), seed)
    raise DeshiError(f"positions has {text!r}, expected {HELP}.")


def _count(text: str, value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise DeshiError(f"positions has {text!r}, expected a whole number from 1 after last:, such as last:20.")
    return int(value)


def _share(text: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise DeshiError(f"positions has {text!r}, expected a share above 0 and up to 1, such as sample:0.2.")
    return share


def _sample(rows: Ints, share: float, seed: int) -> Ints:
    """At least one of ``rows`` if there are any, about ``share`` of them."""
    count = min(len(rows), max(1, round(len(rows) * share)))
    generator = np.random.Generator(np.random.SFC64([seed, _STREAM]))
    return np.sort(generator.choice(rows, count, replace=False)) if count else rows
