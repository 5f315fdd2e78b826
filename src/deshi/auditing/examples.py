"""The evaluation batches that really reach the model: is every case asked once, with its whole history?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deshi.auditing.bundle import Flat
from deshi.auditing.finding import Finding, count, finding, place
from deshi.auditing.probe import AT, markov, ndcg_per_case
from deshi.auditing.split import wrong_ends
from deshi.data.bundle import Bundle
from deshi.data.splits import Cases, Split
from deshi.types import PAD, USER, Batch

Ints = NDArray[Any]
Asked = Iterable[tuple[Tensor, Batch, Tensor, Tensor]]


def audit_questions(
    bundle: Bundle, split: Split, cases: Cases, batches: Asked, part: str = "validation"
) -> list[Finding]:
    """The batches of an evaluation, such as those of :class:`deshi.data.datamodule.CaseBatches`.

    Args:
        bundle: the data.
        split: of the run.
        cases: what should be asked.
        batches: ``(case numbers, histories, targets, seen)``.
        part: of the cases.
    """
    flat = Flat.of(bundle)
    times = np.zeros(len(cases), dtype=np.int64)
    ends = np.full(len(cases), PAD, dtype=np.int64)
    for numbers, batch, _, _ in batches:
        chosen = numbers.numpy()
        np.add.at(times, chosen, 1)
        ends[chosen] = batch.rows.numpy().max(axis=1) + 1
    used = np.where(times > 0, ends, cases.ends)
    return [*asked_once(flat, split, cases, times, part), *wrong_ends(flat, split, part, cases, used)]


def asked_once(
    flat: Flat, split: Split, cases: Cases, times: Ints, part: str, values: Ints | None = None
) -> list[Finding]:
    """Cases that are asked more than once, or never.

    Args:
        flat: the bundle.
        split: of the cases.
        cases: what should be asked.
        times: ``(C,)`` how often each was.
        part: of the cases.
        values: ``(C,)`` NDCG of each case, NaN where it isn't known; without it a Markov ranker's.
    """
    found = []
    if values is None and ((times > 1).any() or (times == 0).any()):
        values = ndcg_per_case(markov(flat.bundle, flat.bundle.offsets[:-1], split.train_end), flat.bundle, cases)
        who = "A Markov ranker"
    else:
        who = "The ranker"
    for name, chosen, what, mend in (
        ("user-evaluated-twice", times > 1, "are counted more than once",
         "Evaluate on one process, or gather by case number and drop what a distributed sampler has repeated."),
        ("user-not-evaluated", times == 0, "are never asked",
         "Keep the last, smaller batch (drop_last=False) and gather the ranks of all processes before averaging."),
    ):  # fmt: skip
        if not chosen.any() or values is None:
            continue
        where = (place(user=flat.bundle.users[USER][int(cases.users[n])], case=n, times=int(times[n]))
                 for n in np.flatnonzero(chosen).tolist())  # fmt: skip
        known = ~np.isnan(values)
        honest = f"{values[known].mean():.4f}" if known.any() else "nowhere"
        effect = f"{who} has NDCG@{AT} {honest} over {int(known.sum()):,} cases once"
        if times[known].sum():
            effect += f", {(values * times)[known].sum() / times[known].sum():.4f} counted as here"
        share = count(int(chosen.sum()), len(cases), f"{part} cases")
        found.append(finding(name, f"{share} {what}.", where, effect + ".", mend))
    return found
