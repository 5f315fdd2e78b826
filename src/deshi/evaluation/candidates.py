"""Candidate sets: ranking among a few items instead of the whole catalogue, as much of the literature does.

A rule is called with the data and the cases of a part and gives one set a case, drawn once: the same for every ranker,
and for every run with the same seed on the same data and split. What each is for, and when not to use it, is in
``docs/protocols.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.artifacts import file_sha256, fingerprint
from deshi.baselines.events import training_events
from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, Cases, Split
from deshi.evaluation.candidate_file import read_candidates
from deshi.types import ITEM, PAD, USER, DeshiError

Ints = NDArray[np.int64]
Sampling = Literal["uniform", "popularity"]


class CandidateRule(Protocol):
    """How the candidates of each case are chosen."""

    @property
    def caution(self) -> str | None:
        """A sentence about what the figures can't be used for, if they need a warning."""
        ...

    @property
    def one_answer(self) -> bool:
        """Whether the best candidate counts as an answer, so that LLaRA's figures are reported."""
        ...

    def __call__(self, bundle: Bundle, cases: Cases, part: str, counts: Ints) -> Ints:
        """``(C, W)`` item indices, the case's targets among them, ``PAD`` on the right of smaller sets.

        Args:
            bundle: the data.
            cases: of one part.
            part: its name.
            counts: ``(n_items,)`` events of each item in the split's training part.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What a comparison must know: ``kind`` and the parameters."""
        ...


@dataclass(frozen=True)
class Sampled:
    """Each case's targets and ``n`` items drawn from those that are neither in its history nor its targets.

    Args:
        n: items drawn for a case, without replacement.
        sampling: ``uniform``, or ``popularity``: in proportion to the events of the split's training part.
        seed: of the draw; besides, only the data, the split, the part and the user decide it.
    """

    n: int = 100
    sampling: Sampling = "uniform"
    seed: int = 0
    one_answer: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.n, 1, self.seed)

    def __call__(self, bundle: Bundle, cases: Cases, part: str, counts: Ints) -> Ints:
        """See :class:`CandidateRule`.

        Raises:
            DeshiError: if there are fewer than ``n`` items to draw from, naming the user.
        """
        weights = counts if self.sampling == "popularity" else None
        return draw_candidates(bundle, cases, part, self.n, self.seed, weights)

    def describe(self) -> dict[str, Any]:
        """See :class:`CandidateRule`."""
        return {"kind": "sampled", "n": self.n, "sampling": self.sampling, "seed": self.seed}

    @property
    def caution(self) -> str:
        """See :class:`CandidateRule`."""
        return (
            f"SAMPLED METRICS: ranked among {self.n} sampled items. These figures can't be compared with full ranking "
            f"and may order models differently (Krichene and Rendle 2020, https://doi.org/10.1145/3394486.3403226)."
        )


@dataclass(frozen=True)
class Llara:
    """The protocol of LLaRA and iLoRA (arXiv 2312.02445, 2408.10159): the target among 20 candidates.

    The other candidates are drawn uniformly from the items that are neither in the history nor the target.

    Args:
        n: candidates of a case, the target included.
        seed: as in :class:`Sampled`.
    """

    n: int = 20
    seed: int = 0
    caution: ClassVar[None] = None
    one_answer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.n, 2, self.seed)

    def __call__(self, bundle: Bundle, cases: Cases, part: str, counts: Ints) -> Ints:
        """See :class:`CandidateRule`.

        Raises:
            DeshiError: if a case has several targets, or there are too few items to draw from, naming the user.
        """
        if (np.diff(cases.target_offsets) != 1).any():
            raise DeshiError(
                "LLaRA's protocol asks for one next item, but the split gives several targets a case. "
                "Use split.targets=next, or candidates=sampled."
            )
        return draw_candidates(bundle, cases, part, self.n - 1, self.seed)

    def describe(self) -> dict[str, Any]:
        """See :class:`CandidateRule`."""
        return {"kind": "llara", "n": self.n, "sampling": "uniform", "seed": self.seed}


@dataclass(frozen=True)
class FromFile:
    """Candidate sets from a file, written by deshi (``candidates.parquet`` of an evaluation) or by others.

    Args:
        path: parquet or csv; its form is described at :func:`deshi.evaluation.candidate_file.read_candidates`.
    """

    path: Path
    caution: ClassVar[None] = None
    one_answer: ClassVar[bool] = True

    def __call__(self, bundle: Bundle, cases: Cases, part: str, counts: Ints) -> Ints:
        """See :class:`CandidateRule`.

        Raises:
            DeshiError: for all in the file that doesn't fit the cases, naming users, with counts.
        """
        return read_candidates(self.path, bundle, cases, part)

    def describe(self) -> dict[str, Any]:
        """See :class:`CandidateRule`."""
        return {"kind": "file", "sha256": file_sha256(self.path)}


def candidate_sets(
    rule: CandidateRule, bundle: Bundle, split: Split, parts: Mapping[str, Cases]
) -> tuple[dict[str, Ints], dict[str, Any]]:
    """The sets of every part, and what identifies them.

    Popularity is counted on the split's training part, whatever a ranker was trained on, so that all rankers of a split
    share their sets. Drawn sets are identified over all parts, whichever are asked for, so that evaluations of
    different parts agree.

    Args:
        rule: how candidates are chosen.
        bundle: the data.
        split: of it.
        parts: the cases of each part that is asked for.

    Returns:
        ``(C, W)`` item indices of each of ``parts``; the rule's description with ``sha256``, of the file or of each
        part's sets.
    """
    counts = training_events(bundle, *split.train_ranges(bundle)).counts()
    sets = {part: rule(bundle, cases, part, counts) for part, cases in parts.items()}
    description = rule.describe()
    if "sha256" in description:
        return sets, description
    shas = {}
    for part in PARTS:
        cases = parts[part] if part in parts else split.cases(bundle, part)
        if len(cases):
            own = sets[part] if part in sets else rule(bundle, cases, part, counts)
            shas[part] = candidates_sha(cases, own)
    return sets, description | {"sha256": shas}


def draw_candidates(bundle: Bundle, cases: Cases, part: str, n: int, seed: int, weights: Ints | None = None) -> Ints:
    """``n`` items for each case that are neither in its history nor its targets, and its targets, shuffled together.

    Args:
        bundle: the data.
        cases: of one part.
        part: its name.
        n: items drawn for a case, without replacement.
        seed: with the part and the user it makes the generator of a case, so that other cases don't matter.
        weights: ``(n_items,)`` draw in proportion to them, never an item of weight 0; None draws uniformly.

    Returns:
        ``(C, n + T)`` with ``T`` the most targets of a case, ``PAD`` on the right.

    Raises:
        DeshiError: if there are fewer than ``n`` items to draw from, naming the user.
    """
    items = np.asarray(bundle.items)
    most = int(np.diff(cases.target_offsets).max(initial=0))
    sets = np.full((len(cases), n + most), PAD, dtype=np.int64)
    free = np.ones(bundle.n_items) if weights is None else weights.astype(np.float64)
    for case, user in enumerate(cases.users.tolist()):
        targets = items[cases.target_rows[cases.target_offsets[case] : cases.target_offsets[case + 1]]]
        own = free.copy()
        own[items[cases.starts[case] : cases.ends[case]]] = 0
        own[targets] = 0
        pool = np.flatnonzero(own)
        if len(pool) < n:
            raise DeshiError(
                f"The user {bundle.users[USER][user]!r} ({part}) has {len(pool)} items to draw candidates from: the "
                f"catalogue without the own history and targets{' and items never trained on' * (weights is not None)}"
                f"; {n} are wanted. Lower candidates.n."
            )
        generator = np.random.Generator(np.random.SFC64([seed, PARTS.index(part), user]))
        chosen = np.concatenate([_draw(generator, pool, None if weights is None else own[pool], n), targets])
        sets[case, : len(chosen)] = generator.permutation(chosen)
    return sets


def candidates_frame(bundle: Bundle, cases: Cases, sets: Ints) -> pl.DataFrame:
    """The sets to keep: a row a target with ``case``, ``user_id``, ``item_id`` and ``candidates`` (List[String])."""
    case = cases.owners
    ids = bundle.vocabulary[ITEM]
    real = sets != PAD
    flat = pl.DataFrame({"case": np.repeat(np.arange(len(sets)), real.sum(1)), "candidates": ids.gather(sets[real])})
    lists = flat.group_by("case", maintain_order=True).agg("candidates")
    rows = pl.DataFrame(
        {
            "case": case,
            USER: bundle.users[USER].gather(cases.users[case]),
            ITEM: ids.gather(bundle.items[cases.target_rows]),
        }
    )
    return rows.join(lists, on="case", how="left", maintain_order="left")


def candidates_sha(cases: Cases, sets: Ints) -> str:
    """A sha256 of who is asked among which items, whatever the order inside a set."""
    return fingerprint([("users", cases.users), ("targets", cases.target_rows), ("candidates", np.sort(sets, axis=1))])


def _draw(generator: np.random.Generator, pool: Ints, weights: NDArray[np.float64] | None, n: int) -> Ints:
    if weights is None:
        return generator.choice(pool, n, replace=False, shuffle=False)
    waits = generator.exponential(size=len(pool)) / weights  # the n first arrivals: Efraimidis and Spirakis 2006
    return pool[np.argpartition(waits, n - 1)[:n]]


def _check(n: int, least: int, seed: int) -> None:
    if n < least or seed < 0:
        raise DeshiError(f"candidates got n={n} and seed={seed}, expected n from {least} and a seed from 0.")
