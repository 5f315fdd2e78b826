"""Selection strategies: the choice of the positions that are distilled, made once before training.

A strategy marks a share of the rows, its budget. Strategies that read the data or a plain student can choose the rows
that a teacher labels; those that read soft labels choose among existing ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Float32s
from deshi.distillation.selection_inputs import SelectionInputs
from deshi.types import DeshiError


class SelectionStrategy(ABC):
    """Chooses rows within a budget.

    Args:
        share: the budget, a share above 0 and up to 1 of the rows to choose from.

    Attributes:
        student: the finished run whose student is looked at; None for strategies that need none.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    """Inputs besides the data: ``student``, ``teacher``."""

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise DeshiError(f"{type(self).__name__} got share={share}, expected a share above 0 and up to 1.")
        self.share = share
        self.student: str | None = None

    def budget(self, inputs: SelectionInputs) -> int:
        """The number of rows that may be chosen, at least 1."""
        return max(1, round(self.share * len(inputs)))

    @abstractmethod
    def choose(self, inputs: SelectionInputs, generator: np.random.Generator) -> NDArray[np.bool_]:
        """``(R,)`` over all events of the histories: true at the chosen ones of ``inputs.rows``.

        Args:
            inputs: the rows with their statistics.
            generator: source of all draws.
        """


class All(SelectionStrategy):
    """Every row: no choice."""

    def __init__(self) -> None:
        super().__init__(1.0)

    def choose(self, inputs: SelectionInputs, generator: np.random.Generator) -> NDArray[np.bool_]:
        """See :meth:`SelectionStrategy.choose`."""
        return inputs.mark(np.arange(len(inputs)))


class Random(SelectionStrategy):
    """Rows drawn at random: the baseline of every other strategy.

    Args:
        share: see :class:`SelectionStrategy`.
    """

    def choose(self, inputs: SelectionInputs, generator: np.random.Generator) -> NDArray[np.bool_]:
        """See :meth:`SelectionStrategy.choose`."""
        return inputs.mark(generator.choice(len(inputs), self.budget(inputs), replace=False))


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
    def values(self, inputs: SelectionInputs) -> Float32s:
        """``(M,)`` of the rows."""

    def choose(self, inputs: SelectionInputs, generator: np.random.Generator) -> NDArray[np.bool_]:
        """See :meth:`SelectionStrategy.choose`."""
        values = self.values(inputs)
        order = np.lexsort((generator.permutation(len(values)), values if self.lowest else -values))
        return inputs.mark(order[: self.budget(inputs)])


class Confidence(Ranked):
    """Rows where the teacher is surest.

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

    def values(self, inputs: SelectionInputs) -> Float32s:
        """See :meth:`Ranked.values`."""
        return inputs.confidence if self.measure == "probability" else -inputs.teacher_entropy


class RankedByStudent(Ranked):
    """The rows of the highest values of a plain student.

    Args:
        share: see :class:`SelectionStrategy`.
        student: a finished run of the plain student.
        lowest: take the lowest instead.
    """

    needs = frozenset({"student"})

    def __init__(self, share: float, student: str, lowest: bool = False) -> None:
        super().__init__(share, lowest)
        self.student = student


class Disagreement(RankedByStudent):
    """Rows where a plain student is farthest from the teacher: ``KL(teacher || student)`` over the teacher's list.

    Args: see :class:`RankedByStudent`; ``lowest`` takes the rows where they agree best.
    """

    needs = frozenset({"student", "teacher"})

    def values(self, inputs: SelectionInputs) -> Float32s:
        """See :meth:`Ranked.values`."""
        return inputs.divergence


class GroundTruthError(RankedByStudent):
    """Rows where a plain student is most wrong, by its loss of the item that really came next.

    Args: see :class:`RankedByStudent`; ``lowest`` takes the rows where it is right.
    """

    def values(self, inputs: SelectionInputs) -> Float32s:
        """See :meth:`Ranked.values`."""
        return inputs.student_stats.loss


class Uncertainty(RankedByStudent):
    """Rows where a plain student is least sure, whatever came next.

    Uncertainty sampling (Lewis & Gale, SIGIR 1994, arXiv cmp-lg/9407020); margins as Scheffer et al. (2001) have them.

    Args:
        share: see :class:`SelectionStrategy`.
        student: a finished run of the plain student.
        measure: high ``entropy`` over the catalogue, or a small ``margin`` between its first two items.
        lowest: where it is surest.
    """

    def __init__(
        self, share: float, student: str, measure: Literal["entropy", "margin"] = "entropy", lowest: bool = False
    ) -> None:
        super().__init__(share, student, lowest)
        self.measure = measure

    def values(self, inputs: SelectionInputs) -> Float32s:
        """See :meth:`Ranked.values`."""
        return inputs.student_stats.entropy if self.measure == "entropy" else -inputs.student_stats.margin


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

    def choose(self, inputs: SelectionInputs, generator: np.random.Generator) -> NDArray[np.bool_]:
        """See :meth:`SelectionStrategy.choose`."""
        budget, total = self.budget(inputs), len(inputs)
        # parts of equal size in random order; cumulative rounding shares the budget among them exactly
        edges = np.linspace(0, total, -(-total // self.part) + 1).astype(np.int64)
        counts = np.diff(np.round(edges * (budget / total)).astype(np.int64))
        shuffled, chosen = generator.permutation(total), []
        for begin, end, count in zip(edges, edges[1:], counts, strict=False):
            members = shuffled[begin:end]
            chosen.append(members[k_center(inputs.hidden[members], int(count), generator)])
        return inputs.mark(np.concatenate(chosen))


def k_center(points: Float32s, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Greedy k-center: a random point first, then again and again the one farthest from all that are chosen.

    Args:
        points: ``(M, D)``.
        count: number of points to choose, 0 to ``M``.
        generator: draws the first.

    Returns:
        ``(count,)`` indices of points, in the order of choice, each once.
    """
    chosen = np.empty(count, dtype=np.int64)
    norms = np.einsum("md,md->m", points, points)
    nearest = np.full(len(points), np.inf, dtype=np.float32)  # squared distance of each point to the nearest center
    for number in range(count):
        center = int(nearest.argmax()) if number else int(generator.integers(len(points)))
        chosen[number] = center
        # ||x - c||^2 = ||x||^2 - 2 x.c + ||c||^2
        np.minimum(nearest, norms - 2 * (points @ points[center]) + norms[center], out=nearest)
        nearest[center] = -np.inf  # never again, not even where points coincide
    return chosen
