"""Candidate sets: ranking among a few items instead of the whole catalogue, as much of the literature does.

A rule is called with the data and the examples of a part and gives one set an example, drawn once: the same for every
model, and for every run with the same seed on the same data and split. What each is for, and when not to use it, is in
``docs/protocols.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import polars as pl

from deshi.arrays import Floats, Ints
from deshi.artifacts import file_sha256, fingerprint
from deshi.baselines import training_events
from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, Examples, Split
from deshi.evaluation._candidate_file import read_candidates
from deshi.types import ITEM, PAD, USER, DeshiError

Sampling = Literal["uniform", "popularity"]


class CandidateRule(Protocol):
    """How the candidates of each example are chosen."""

    @property
    def caution(self) -> str | None:
        """A sentence about what the figures can't be used for, if they need a warning."""
        ...

    @property
    def one_answer(self) -> bool:
        """Whether the best candidate counts as an answer, so that LLaRA's figures are reported."""
        ...

    def __call__(self, bundle: Bundle, examples: Examples, part: str, counts: Ints) -> Ints:
        """``(C, W)`` item indices, the example's targets among them, ``PAD`` on the right of smaller sets.

        Args:
            bundle: the data.
            examples: of one part.
            part: its name.
            counts: ``(n_items,)`` events of each item in the split's training part.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What a comparison must know: ``kind`` and the parameters."""
        ...


@dataclass(frozen=True)
class Sampled:
    """Each example's targets and ``n`` items drawn from those that are neither in its history nor its targets.

    Args:
        n: items drawn for an example, without replacement.
        sampling: ``uniform``, or ``popularity``: in proportion to the events of the split's training part.
        seed: of the draw; besides, only the data, the split, the part and the user decide it.
    """

    n: int = 100
    sampling: Sampling = "uniform"
    seed: int = 0
    one_answer: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.n, 1, self.seed)

    def __call__(self, bundle: Bundle, examples: Examples, part: str, counts: Ints) -> Ints:
        """See :class:`CandidateRule`.

        Raises:
            DeshiError: if there are fewer than ``n`` items to draw from, naming the user.
        """
        weights = counts if self.sampling == "popularity" else None
        return draw_candidates(bundle, examples, part, self.n, self.seed, weights)

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
        n: candidates of an example, the target included.
        seed: as in :class:`Sampled`.
    """

    n: int = 20
    seed: int = 0
    caution: ClassVar[None] = None
    one_answer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.n, 2, self.seed)

    def __call__(self, bundle: Bundle, examples: Examples, part: str, counts: Ints) -> Ints:
        """See :class:`CandidateRule`.

        Raises:
            DeshiError: if an example has several targets, or there are too few items to draw from, naming the user.
        """
        if (np.diff(examples.target_offsets) != 1).any():
            raise DeshiError(
                "LLaRA's protocol asks for one next item, but the split gives several targets an example. "
                "Use split.targets=next, or candidates=sampled."
            )
        return draw_candidates(bundle, examples, part, self.n - 1, self.seed)

    def describe(self) -> dict[str, Any]:
        """See :class:`CandidateRule`."""
        return {"kind": "llara", "n": self.n, "sampling": "uniform", "seed": self.seed}


@dataclass(frozen=True)
class FromFile:
    """Candidate sets from a file, written by deshi (``candidates.parquet`` of an evaluation) or by others.

    Args:
        path: parquet or csv; its form is described at :func:`deshi.evaluation._candidate_file.read_candidates`.
    """

    path: Path
    caution: ClassVar[None] = None
    one_answer: ClassVar[bool] = True

    def __call__(self, bundle: Bundle, examples: Examples, part: str, counts: Ints) -> Ints:
        """See :class:`CandidateRule`.

        Raises:
            DeshiError: for all in the file that doesn't fit the examples, naming users, with counts.
        """
        return read_candidates(self.path, bundle, examples, part)

    def describe(self) -> dict[str, Any]:
        """See :class:`CandidateRule`."""
        return {"kind": "file", "sha256": file_sha256(self.path)}


def candidate_sets(
    rule: CandidateRule, bundle: Bundle, split: Split, parts: Mapping[str, Examples]
) -> tuple[dict[str, Ints], dict[str, Any]]:
    """The sets of every part, and what identifies them.

    Popularity is counted on the split's training part, whatever a model was trained on, so that all models of a split
    share their sets. Drawn sets are identified over all parts, whichever are evaluated, so that evaluations of
    different parts agree.

    Args:
        rule: how candidates are chosen.
        bundle: the data.
        split: of it.
        parts: the examples of each part that is evaluated.

    Returns:
        ``(C, W)`` item indices of each of ``parts``; the rule's description with ``sha256``, of the file or of each
        part's sets.
    """
    counts = training_events(bundle, *split.train_ranges(bundle)).counts()
    sets = {part: rule(bundle, examples, part, counts) for part, examples in parts.items()}
    description = rule.describe()
    if "sha256" in description:
        return sets, description
    shas = {}
    for part in PARTS:
        examples = parts[part] if part in parts else split.examples(bundle, part)
        if len(examples):
            part_sets = sets[part] if part in sets else rule(bundle, examples, part, counts)
            shas[part] = candidates_sha(examples, part_sets)
    return sets, description | {"sha256": shas}


def draw_candidates(
    bundle: Bundle, examples: Examples, part: str, n: int, seed: int, weights: Ints | None = None
) -> Ints:
    """``n`` items for each example that are neither in its history nor its targets, and its targets, shuffled together.

    Args:
        bundle: the data.
        examples: of one part.
        part: its name.
        n: items drawn for an example, without replacement.
        seed: with the part and the user it makes the generator of an example, so that other examples don't matter.
        weights: ``(n_items,)`` draw in proportion to them, never an item of weight 0; None draws uniformly.

    Returns:
        ``(C, n + T)`` with ``T`` the most targets of an example, ``PAD`` on the right.

    Raises:
        DeshiError: if there are fewer than ``n`` items to draw from, naming the user.
    """
    items = np.asarray(bundle.items)
    most = int(np.diff(examples.target_offsets).max(initial=0))
    sets = np.full((len(examples), n + most), PAD, dtype=np.int64)
    item_weights = np.ones(bundle.n_items) if weights is None else weights.astype(np.float64)
    for example, user in enumerate(examples.users.tolist()):
        targets = items[examples.target_rows[examples.target_offsets[example] : examples.target_offsets[example + 1]]]
        # an item of the history, a target, or an item of weight 0 is never drawn
        drawable = item_weights.copy()
        drawable[items[examples.starts[example] : examples.ends[example]]] = 0
        drawable[targets] = 0
        pool = np.flatnonzero(drawable)
        if len(pool) < n:
            raise DeshiError(
                f"The user {bundle.users[USER][user]!r} ({part}) has {len(pool)} items to draw candidates from: the "
                f"catalogue without its history and targets{' and items never trained on' * (weights is not None)}"
                f"; expected at least {n}. Lower candidates.n."
            )
        generator = np.random.Generator(np.random.SFC64([seed, PARTS.index(part), user]))
        drawn = _draw(generator, pool, None if weights is None else drawable[pool], n)
        candidates = np.concatenate([drawn, targets])
        sets[example, : len(candidates)] = generator.permutation(candidates)
    return sets


def candidates_frame(bundle: Bundle, examples: Examples, sets: Ints) -> pl.DataFrame:
    """The sets to keep: a row a target with ``example``, ``user_id``, ``item_id`` and ``candidates`` (List[String])."""
    example = examples.owners
    ids = bundle.vocabulary[ITEM]
    real = sets != PAD
    flat = pl.DataFrame({"example": np.repeat(np.arange(len(sets)), real.sum(1)), "candidates": ids.gather(sets[real])})
    lists = flat.group_by("example", maintain_order=True).agg("candidates")
    rows = pl.DataFrame(
        {
            "example": example,
            USER: bundle.users[USER].gather(examples.users[example]),
            ITEM: ids.gather(bundle.items[examples.target_rows]),
        }
    )
    return rows.join(lists, on="example", how="left", maintain_order="left")


def candidates_sha(examples: Examples, sets: Ints) -> str:
    """A sha256 of users, targets and candidates, whatever the order inside a set."""
    return fingerprint(
        [("users", examples.users), ("targets", examples.target_rows), ("candidates", np.sort(sets, axis=1))]
    )


def _draw(generator: np.random.Generator, pool: Ints, weights: Floats | None, n: int) -> Ints:
    if weights is None:
        return generator.choice(pool, n, replace=False, shuffle=False)
    # Weighted draw without replacement: each item arrives after an exponential time with its weight as rate, and the
    # first n to arrive are drawn (Efraimidis and Spirakis 2006).
    waits = generator.exponential(size=len(pool)) / weights
    return pool[np.argpartition(waits, n - 1)[:n]]


def _check(n: int, least: int, seed: int) -> None:
    if n < least or seed < 0:
        raise DeshiError(f"candidates got n={n} and seed={seed}, expected n from {least} and a seed from 0.")
