"""The vocabulary that every part of deshi shares: padding, column names, tensor records.

Items inside deshi are *indices* ``0 .. n_items - 1`` into the bundle's vocabulary. Padding is ``-1``,
a number that no index can be, so that padding and an item can never collide.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that `deshi --help` and the configuration answer without loading PyTorch
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
        for size, want in zip(tensor.shape, expected, strict=True):
            good &= size == (free.setdefault(want, size) if isinstance(want, str) else want)
    if not good:
        wanted = ", ".join(str(dimension) for dimension in expected)
        raise ShapeError(
            f"{name} has shape {tuple(tensor.shape)}, expected ({wanted}). "
            f"Reshape it before the call (a trailing dimension of 1 is a common cause: use squeeze(-1))."
        )


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

    def select(self, rows: Tensor) -> Batch:
        """The histories ``rows`` ``(R,)`` of the batch, as wide as they were."""
        names = ("users", "items", "lengths", "targets", "rows")
        return Batch(**{name: getattr(self, name)[rows] for name in names})

    def without_targets(self) -> Batch:
        """The same histories with nothing to predict."""
        return Batch(self.users, self.items, self.lengths, self.targets.new_full(self.targets.shape, PAD), self.rows)

    def join(self, other: Batch) -> Batch:
        """The histories of both, as wide as the wider one."""
        import torch
        from torch.nn.functional import pad

        width = max(self.items.shape[1], other.items.shape[1])
        values = {name: torch.cat([getattr(self, name), getattr(other, name)]) for name in ("users", "lengths")}
        for name in ("items", "targets", "rows"):
            both = [getattr(batch, name) for batch in (self, other)]
            values[name] = torch.cat([pad(one, (0, width - one.shape[1]), value=PAD) for one in both])
        return Batch(**values)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with every tensor on ``device``."""
        return Batch(
            users=self.users.to(device),
            items=self.items.to(device),
            lengths=self.lengths.to(device),
            targets=self.targets.to(device),
            rows=self.rows.to(device),
        )
