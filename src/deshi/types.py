"""The vocabulary that every part of deshi shares: padding, column names, tensor records.

Items inside deshi are *indices* ``0 .. n_items - 1`` into the bundle's vocabulary. Padding is ``-1``,
a number that no index can be, so that padding and an item can never collide.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that `deshi --help` and the configuration answer without loading PyTorch
    from collections.abc import Callable

    import torch
    from torch import Tensor

PAD = -1
"""The padding value of item and target tensors: never a valid item index."""

USER = "user_id"
ITEM = "item_id"
TIMESTAMP = "timestamp"
RATING = "rating"
TITLE = "title"
TEXT = "text"


MAX_ID = 2048
"""Characters of an id at most: what is prepared can be asked for over HTTP, too."""


def as_list(values: Any) -> Any:
    """A plain list of an array, a Series or column of any data-frame library, a range or a set; else ``values``."""
    for method in ("tolist", "to_pylist", "to_list"):  # NumPy and pandas, pyarrow, Polars
        if hasattr(values, method):
            return getattr(values, method)()
    if isinstance(values, set | frozenset):
        return sorted(values, key=str)
    return list(values) if isinstance(values, range | tuple) else values


class ScoreKind(str, Enum):
    """The meaning of a model's scores; every kind is higher for better items."""

    LOGIT = "logit"
    LOG_PROBABILITY = "log_probability"
    PROBABILITY = "probability"
    RANK = "reciprocal_rank"
    SCORE = "score"

    @property
    def is_calibrated(self) -> bool:
        """Whether differences of scores (of probabilities: of their logarithms) have a meaning, not only the order."""
        return self in (ScoreKind.LOGIT, ScoreKind.LOG_PROBABILITY, ScoreKind.PROBABILITY)

    def __str__(self) -> str:
        return str(self.value)


class DeshiError(Exception):
    """An error that the user can act on: it says what was got, what was expected and what to do.

    The command line prints its message without a traceback.
    """


class ShapeError(DeshiError, ValueError):
    """A tensor of the wrong shape reached a function; the message names both shapes."""


def check_shape(name: str, tensor: Tensor, expected: tuple[int | str, ...]) -> None:
    """Refuse ``tensor`` unless its shape is ``expected``.

    Integers in ``expected`` must match; strings name a free dimension, and a name that is used twice must
    stand for the same size.

    Raises:
        ShapeError: with the shape that was got and the shape that was expected.
    """
    free: dict[str, int] = {}
    good = tensor.dim() == len(expected)
    if good:
        for size, dimension in zip(tensor.shape, expected, strict=True):
            good &= size == (free.setdefault(dimension, size) if isinstance(dimension, str) else dimension)
    if not good:
        shape = ", ".join(str(dimension) for dimension in expected)
        raise ShapeError(
            f"{name} has shape {tuple(tensor.shape)}, expected ({shape}). "
            f"Reshape it before the call (a trailing dimension of 1 is a common cause: use squeeze(-1))."
        )


def copied_to(device: torch.device | str, tensor: Tensor) -> Tensor:
    """The tensor on ``device``, without waiting for the copy unless that is a CPU, where it may be read at once."""
    return tensor.to(device, non_blocking=not str(device).startswith("cpu"))


@dataclass(frozen=True)
class Batch:
    """Histories of a batch, padded on the right with :data:`PAD`.

    Attributes:
        users: ``(B,)`` int64, user indices.
        items: ``(B, L)`` int64, item indices, oldest first, ``PAD`` after the history's end.
        lengths: ``(B,)`` int64, number of real items in each row of ``items``, at least 1.
        targets: ``(B, L)`` int64, the item to predict after each position, ``PAD`` where there is none.
        rows: ``(B, L)`` int64, each event's flat position in the bundle's CSR arrays (the row of the
            soft-label store that belongs to it), ``PAD`` where there is none.
    """

    users: Tensor
    items: Tensor
    lengths: Tensor
    targets: Tensor
    rows: Tensor

    def __post_init__(self) -> None:
        check_shape("Batch.items", self.items, ("B", "L"))
        size, length = self.items.shape
        for name, tensor in (("targets", self.targets), ("rows", self.rows)):
            check_shape(f"Batch.{name}", tensor, (size, length))
        for name, tensor in (("users", self.users), ("lengths", self.lengths)):
            check_shape(f"Batch.{name}", tensor, (size,))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(*(change(getattr(self, field.name)) for field in fields(self)))

    @cached_property
    def target_positions(self) -> Tensor:
        """``(P,)`` int64, the positions that have a target, as ``row * L + column``, row by row.

        A batch that goes to a device takes them along: found there, they would have to be waited for.
        """
        return (self.targets != PAD).flatten().nonzero().squeeze(1)

    @property
    def n_targets(self) -> int:
        """The number of positions that have a target."""
        return len(self.target_positions)

    @property
    def on_cpu(self) -> Batch:
        """The batch before it went to a device, where its numbers can be looked at without waiting; else itself."""
        batch: Batch = vars(self).get("_on_cpu", self)
        return batch

    @property
    def whole(self) -> Batch:
        """The batch of all ranks together: itself where one process trains alone."""
        return self

    def share(self, count: Callable[[Batch], int]) -> float:
        """The factor of a mean over the positions that ``count`` counts in this batch; 1 for a process on its own.

        The mean over the ranks of their means times their factors is the mean over the whole batch.
        """
        return 1.0

    def select(self, rows: Tensor) -> Batch:
        """The histories ``rows`` ``(R,)`` of the batch, as wide as they were."""
        return self._map(lambda tensor: tensor[rows])

    def without_targets(self) -> Batch:
        """The same histories with nothing to predict."""
        return replace(self, targets=self.targets.new_full(self.targets.shape, PAD))

    def join(self, other: Batch) -> Batch:
        """The histories of both, as wide as the wider one."""
        import torch
        from torch.nn.functional import pad

        width = max(self.items.shape[1], other.items.shape[1])

        def widened(tensor: Tensor) -> Tensor:
            return tensor if tensor.dim() == 1 else pad(tensor, (0, width - tensor.shape[1]), value=PAD)

        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Batch(*(torch.cat([widened(left), widened(right)]) for left, right in pairs))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on ``device``, to which it is copied without waiting."""
        moved = self._moved(lambda tensor: copied_to(device, tensor))
        if not str(device).startswith("cpu"):
            vars(moved)["_on_cpu"] = self.on_cpu
        return moved

    def pin_memory(self) -> Batch:
        """The same batch in memory from which it is copied to a GPU without waiting."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self, change: Callable[[Tensor], Tensor]) -> Batch:
        moved = self._map(change)
        vars(moved)["target_positions"] = change(self.target_positions)
        return moved
