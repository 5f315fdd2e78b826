"""The histories of a store: a bundle's, or augmented ones made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Ints
from deshi.artifacts import fingerprint, read_array, write_array
from deshi.data.bundle import Bundle
from deshi.types import DeshiError

REMEDY = "Write the store again."

ARRAYS = {"offsets": np.int64, "items": np.int32, "users": np.int64, "sources": np.int64}


@dataclass(frozen=True, eq=False)
class Histories:
    """Sequences of items as CSR arrays: sequence ``s`` is ``items[offsets[s]:offsets[s + 1]]``, oldest first.

    Attributes:
        name: of the data.
        data_fingerprint: of the bundle.
        n_items: number of items in the vocabulary.
        offsets: ``(S + 1,)`` int64, flat positions.
        items: ``(R,)`` int32, item indices.
        users: ``(S,)`` int64, the user index of each sequence.
        sources: ``(R,)`` int64, each event's flat position in the bundle; None for the bundle's histories.
    """

    name: str
    data_fingerprint: str
    n_items: int
    offsets: NDArray[np.int64] = field(repr=False)
    items: NDArray[np.int32] = field(repr=False)
    users: Ints = field(repr=False)
    sources: Ints | None = field(default=None, repr=False)

    @classmethod
    def of(cls, bundle: Bundle) -> Histories:
        """The bundle's histories: sequence ``u`` is user ``u``'s."""
        users = np.arange(bundle.n_users, dtype=np.int64)
        return cls(bundle.name, bundle.fingerprint, bundle.n_items, bundle.offsets, bundle.items, users)

    @property
    def n_interactions(self) -> int:
        """Number of events ``R``."""
        return len(self.items)

    @property
    def augmented(self) -> bool:
        """Whether these are other histories than the bundle's."""
        return self.sources is not None

    @property
    def kind(self) -> str:
        """``bundle`` or ``augmented``, as a store's manifest says it."""
        return "augmented" if self.augmented else "bundle"

    def content(self) -> str:
        """A sha256 over what a ranking depends on; of the bundle's histories its fingerprint."""
        if self.sources is None:
            return self.data_fingerprint
        arrays = [(name, np.asarray(getattr(self, name))) for name in ARRAYS]
        return fingerprint([("data", self.data_fingerprint), *arrays])

    def owners(self, rows: Ints) -> Ints:
        """The sequence ``(M,)`` that each flat position ``(M,)`` lies in."""
        return np.asarray(np.searchsorted(self.offsets, rows, side="right") - 1, dtype=np.int64)

    def first_events(self) -> FirstEvents:
        """The first event of each item in each sequence."""
        return FirstEvents(self)

    def save(self, folder: Path) -> list[str]:
        """Write the arrays of augmented histories into ``folder/sequences``; returns the files' names."""
        for name, dtype in ARRAYS.items():
            array = np.asarray(getattr(self, name)).astype(dtype, copy=False)
            write_array(folder / "sequences" / f"{name}.npy", array)
        return [f"sequences/{name}.npy" for name in ARRAYS]

    @classmethod
    def load(cls, folder: Path, manifest: dict[str, Any]) -> Histories:
        """Map the augmented histories of a store.

        Raises:
            DeshiError: if a file is missing, damaged or doesn't fit the others.
        """
        arrays = {name: read_array(folder / "sequences" / f"{name}.npy", REMEDY) for name in ARRAYS}
        offsets, events = arrays["offsets"], len(arrays["items"])
        shapes = {"offsets": (len(arrays["users"]) + 1,), "sources": (events,), "items": (events,)}
        for name, shape in shapes.items():
            if arrays[name].shape != shape or arrays[name].dtype != ARRAYS[name]:
                got = f"{arrays[name].dtype}{arrays[name].shape}"
                raise DeshiError(f"{folder}/sequences/{name}.npy is {got}, expected {shape}. Write the store again.")
        if offsets[0] != 0 or offsets[-1] != events or (np.diff(offsets) < 1).any():
            raise DeshiError(f"{folder}/sequences/offsets.npy doesn't rise from 0 to {events}. Write the store again.")
        return cls(manifest["data"], manifest["data_fingerprint"], manifest["n_items"], **arrays)


class FirstEvents:
    """The first event of each item in each sequence, for the question whether a history has an item by some row.

    Args:
        histories: the sequences; memory is 16 bytes an event.
    """

    def __init__(self, histories: Histories) -> None:
        self._n_items = histories.n_items
        self._histories = histories
        # one key a pair of sequence and item; of equal keys np.unique gives the first event
        owners = np.repeat(np.arange(len(histories.users)), np.diff(histories.offsets))
        self._keys, self._rows = np.unique(owners * self._n_items + histories.items, return_index=True)

    def seen(self, rows: Ints, items: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether ``items`` ``(M,)`` or ``(M, K)`` occur in the history up to and including ``rows`` ``(M,)``."""
        owners = self._histories.owners(rows)
        if items.ndim == 2:
            owners, rows = owners[:, None], rows[:, None]
        # an item is seen if the sequence has its key, and its first event isn't after the row
        keys = owners * self._n_items + items
        index = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray((self._keys[index] == keys) & (self._rows[index] <= rows) & (items >= 0))
