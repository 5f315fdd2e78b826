"""The evaluation batches that really reach the model: is every example asked once, with its whole history?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from deshi.arrays import Array
from deshi.auditing.bundle import Flat
from deshi.auditing.finding import Finding, count, finding, place
from deshi.auditing.probe import AT, markov, ndcg_per_example
from deshi.auditing.split import wrong_ends
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, Split
from deshi.types import PAD, USER, Batch

Asked = Iterable[tuple[Tensor, Batch, Tensor, Tensor]]


def audit_questions(
    bundle: Bundle, split: Split, examples: Examples, batches: Asked, part: str = "validation"
) -> list[Finding]:
    """The batches of an evaluation, such as those of :class:`deshi.data.example_batches.ExampleBatches`.

    Args:
        bundle: the data.
        split: of the run.
        examples: what should be asked.
        batches: ``(example numbers, histories, targets, seen)``.
        part: of the examples.
    """
    flat = Flat.of(bundle)
    times = np.zeros(len(examples), dtype=np.int64)
    ends = np.full(len(examples), PAD, dtype=np.int64)
    for numbers, batch, _, _ in batches:
        chosen = numbers.numpy()
        np.add.at(times, chosen, 1)
        ends[chosen] = batch.rows.numpy().max(axis=1) + 1
    used = np.where(times > 0, ends, examples.ends)
    return [*asked_once(flat, split, examples, times, part), *wrong_ends(flat, split, part, examples, used)]


def asked_once(
    flat: Flat, split: Split, examples: Examples, times: Array, part: str, values: Array | None = None
) -> list[Finding]:
    """Examples that are asked more than once, or never.

    Args:
        flat: the bundle.
        split: of the examples.
        examples: what should be asked.
        times: ``(C,)`` how often each was.
        part: of the examples.
        values: ``(C,)`` NDCG of each example, NaN where it isn't known; without it a Markov ranker's.
    """
    found = []
    if values is None and ((times > 1).any() or (times == 0).any()):
        values = ndcg_per_example(markov(flat.bundle, flat.bundle.offsets[:-1], split.train_end), flat.bundle, examples)
        who = "A Markov ranker"
    else:
        who = "The ranker"
    for name, chosen, what, fix in (
        ("user-evaluated-twice", times > 1, "are counted more than once",
         "Evaluate on one process, or gather by example number and drop what a distributed sampler has repeated."),
        ("user-not-evaluated", times == 0, "are never asked",
         "Keep the last, smaller batch (drop_last=False) and gather the ranks of all processes before averaging."),
    ):  # fmt: skip
        if not chosen.any() or values is None:
            continue
        where = (place(user=flat.bundle.users[USER][int(examples.users[n])], example=n, times=int(times[n]))
                 for n in np.flatnonzero(chosen).tolist())  # fmt: skip
        known = ~np.isnan(values)
        honest = f"{values[known].mean():.4f}" if known.any() else "nowhere"
        effect = f"{who} has NDCG@{AT} {honest} over {int(known.sum()):,} examples once"
        if times[known].sum():
            effect += f", {(values * times)[known].sum() / times[known].sum():.4f} counted as here"
        share = count(int(chosen.sum()), len(examples), f"{part} examples")
        found.append(finding(name, f"{share} {what}.", where, effect + ".", fix))
    return found
