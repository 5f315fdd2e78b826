"""Selection strategies: which positions are distilled, chosen before training by what a teacher's answer may be worth.

A strategy is static: it looks at the rows once and marks those within its budget, a share of them. Strategies that look
at the data or at a plain student can choose which answers to ask a teacher for; those that look at the teacher's
answers choose among answers that are there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Float32s
from deshi.distillation.selection_inputs import Evidence
from deshi.types import DeshiError


class SelectionStrategy(ABC):
    """Chooses rows within a budget.

    Args:
        share: the budget, a share above 0 and up to 1 of the rows that there are to choose from.

    Attributes:
        student: the finished run whose student is looked at; None for strategies that need none.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """What the strategy looks at besides the data: ``student``, ``teacher``."""

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise DeshiError(f"{type(self).__name__} got share={share}, expected a share above 0 and up to 1.")
        self.share = share
        self.student: str | None = None

    def budget(self, evidence: Evidence) -> int:
        """The number of rows that may be chosen, at least 1."""
        return max(1, round(self.share * len(evidence)))

    @abstractmethod
    def choose(self, evidence: Evidence, generator: np.random.Generator) -> NDArray[np.bool_]:
        """``(R,)`` over all events of the histories: true at the chosen ones of ``evidence.rows``.

        Args:
            evidence: the rows, and what is known of them.
            generator: for everything that is drawn.
        """


class All(SelectionStrategy):
    """Every row: no choice."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def choose(self, evidence: Evidence, generator: np.random.Generator) -> NDArray[np.bool_]:
        """See :meth:`SelectionStrategy.choose`."""
        return evidence.mark(np.arange(len(evidence)))


class Random(SelectionStrategy):
    """Rows drawn at random: what every other strategy must beat.

    Args:
        share: see :class:`SelectionStrategy`.
    """

    def choose(self, evidence: Evidence, generator: np.random.Generator) -> NDArray[np.bool_]:
        """See :meth:`SelectionStrategy.choose`."""
        return evidence.mark(generator.choice(len(evidence), self.budget(evidence), replace=False))


class Ranked(SelectionStrategy):
    """The rows of the highest values, equal ones in random order.

    Args:
        share: see :class:`SelectionStrategy`.
        lowest: take the lowest instead.
    """

    def __init__(self, share: float, lowest: bool = False) -> None:
        super().__init__(share)
        self.lowest = lowest

    @abstractmethod
    def values(self, evidence: Evidence) -> Float32s:
        """``(M,)`` of the rows."""

    def choose(self, evidence: Evidence, generator: np.random.Generator) -> NDArray[np.bool_]:
        """See :meth:`SelectionStrategy.choose`."""
        values = self.values(evidence)
        order = np.lexsort((generator.permutation(len(values)), values if self.lowest else -values))
        return evidence.mark(order[: self.budget(evidence)])


class Confidence(Ranked):
    """Where the teacher is surest.

    Its distribution is that over its list alone: the softmax of stored logits or log-probabilities, or the stored
    probabilities renormalised. Scores whose order alone has a meaning are refused.

    Args:
        share: see :class:`SelectionStrategy`.
        measure: ``probability`` of the list's first item, or the list's ``entropy`` (low is sure).
        lowest: where the teacher is least sure.
    """

    needs = frozenset({"teacher"})

    def __init__(
        self, share: float, measure: Literal["probability", "entropy"] = "probability", lowest: bool = False
    ) -> None:
        super().__init__(share, lowest)
        self.measure = measure

    def values(self, evidence: Evidence) -> Float32s:
        """See :meth:`Ranked.values`."""
        return evidence.confidence if self.measure == "probability" else -evidence.teacher_entropy


class Disagreement(Ranked):
    """Where a plain student is farthest from the teacher: ``KL(teacher || student)`` over the teacher's list.

    Args:
        share: see :class:`SelectionStrategy`.
        student: a finished run of the plain student.
        lowest: where they agree best.
    """

    needs = frozenset({"student", "teacher"})

    def __init__(self, share: float, student: str, lowest: bool = False) -> None:
        super().__init__(share, lowest)
        self.student = student

    def values(self, evidence: Evidence) -> Float32s:
        """See :meth:`Ranked.values`."""
        return evidence.divergence


class GroundTruthError(Ranked):
    """Where a plain student is most wrong: its loss of the item that really came next.

    Args:
        share: see :class:`SelectionStrategy`.
        student: a finished run of the plain student.
        lowest: where it is right.
    """

    needs = frozenset({"student"})

    def __init__(self, share: float, student: str, lowest: bool = False) -> None:
        super().__init__(share, lowest)
        self.student = student

    def values(self, evidence: Evidence) -> Float32s:
        """See :meth:`Ranked.values`."""
        return evidence.judged.loss


class Uncertainty(Ranked):
    """Where a plain student is least sure, whatever came next.

    Uncertainty sampling (Lewis & Gale, SIGIR 1994, arXiv cmp-lg/9407020); margins as Scheffer et al. (2001) have them.

    Args:
        share: see :class:`SelectionStrategy`.
        student: a finished run of the plain student.
        measure: high ``entropy`` over the catalogue, or a small ``margin`` between its first two items.
        lowest: where it is surest.
    """

    needs = frozenset({"student"})

    def __init__(
        self, share: float, student: str, measure: Literal["entropy", "margin"] = "entropy", lowest: bool = False
    ) -> None:
        super().__init__(share, lowest)
        self.student = student
        self.measure = measure

    def values(self, evidence: Evidence) -> Float32s:
        """See :meth:`Ranked.values`."""
        return evidence.judged.entropy if self.measure == "entropy" else -evidence.judged.margin


class Coreset(SelectionStrategy):
    """Rows whose hidden states in a plain student leave no other row far from all of them.

    Greedy k-center (Sener & Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR
    2018, arXiv 1708.00489), without their integer programme. Deviation: the rows are dealt at random into parts, each
    with its share of the budget, so that the work grows with the number of rows and not with its square; and nothing
    is labelled beforehand, so that a part's first row is a random one.

    Args:
        share: see :class:`SelectionStrategy`.
        student: a finished run of the plain student.
        part: rows of a part, at most.
    """

    needs = frozenset({"student"})

    def __init__(self, share: float, student: str, part: int = 10_000) -> None:
        super().__init__(share)
        if part < 1:
            raise DeshiError(f"Coreset got part={part}, expected a positive number of rows.")
        self.student = student
        self.part = part

    def choose(self, evidence: Evidence, generator: np.random.Generator) -> NDArray[np.bool_]:
        """See :meth:`SelectionStrategy.choose`."""
        budget, total = self.budget(evidence), len(evidence)
        edges = np.linspace(0, total, -(-total // self.part) + 1).astype(np.int64)
        counts = np.diff(np.round(edges * (budget / total)).astype(np.int64))
        dealt, chosen = generator.permutation(total), []
        for begin, end, count in zip(edges, edges[1:], counts, strict=False):
            members = dealt[begin:end]
            chosen.append(members[k_center(evidence.hidden[members], int(count), generator)])
        return evidence.mark(np.concatenate(chosen))


def k_center(points: Float32s, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Greedy k-center: a random point first, then again and again the one farthest from all that are chosen.

    Args:
        points: ``(M, D)``.
        count: how many to choose, 0 to ``M``.
        generator: draws the first.

    Returns:
        ``(count,)`` places, in the order of choice, each once.
    """
    chosen = np.empty(count, dtype=np.int64)
    norms = np.einsum("md,md->m", points, points)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    for number in range(count):
        place = int(nearest.argmax()) if number else int(generator.integers(len(points)))
        chosen[number] = place
        np.minimum(nearest, norms - 2 * (points @ points[place]) + norms[place], out=nearest)
        nearest[place] = -np.inf  # never again, not even where points coincide
    return chosen
