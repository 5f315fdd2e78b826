"""The engine: a serving bundle and a history in, a ranked list out. PyTorch isn't loaded.

Every score is exact. Which items are scored is all of them, unless the bundle has an index for approximate search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Bools, Ints
from deshi.serving.approximate_search import ItemIndex
from deshi.serving.bundle import COUNT, ServingBundle
from deshi.serving.onnx_network import OnnxNetwork, pad
from deshi.serving.title_search import TitleIndex
from deshi.serving.top_k import best_of
from deshi.types import ITEM, PAD, TITLE, DeshiError

History = Sequence[str] | Sequence[int] | Ints
"""Item ids (texts) or item indices (whole numbers), oldest first."""

POPULARITY = "popularity"
SEARCHES = ("auto", "exact")


class RequestError(DeshiError, ValueError):
    """A question that can't be answered as it was asked."""


@dataclass(frozen=True)
class Item:
    """One item of an answer.

    Attributes:
        item_id: the data's own name of it.
        title: or None where the data had none.
        score: higher is better; of what depends on the question.
        index: its number in the vocabulary.
    """

    item_id: str
    title: str | None
    score: float
    index: int


@dataclass(frozen=True)
class Answer:
    """What is recommended after one history.

    Attributes:
        items: best first; fewer than were asked for where no more are allowed.
        known: how many events of the history the vocabulary knows.
        unknown: how many it doesn't; they were left out.
        fallback: ``popularity`` where no known event was left, else None. Scores are training events then.
    """

    items: tuple[Item, ...]
    known: int
    unknown: int = 0
    fallback: str | None = None


class Engine:
    """Answers from a serving bundle. Its methods may be called from several threads at a time.

    Args:
        bundle: the loaded bundle.
        threads: CPU threads of onnxruntime in one call.
        precision: ``fp32``, or ``int8`` if the bundle has it.
        batch_size: histories that go through the network at a time.
        search: ``auto`` asks the bundle's index if it has one, ``exact`` scores every item.

    Attributes:
        bundle: the loaded bundle.
        precision: as given.

    Raises:
        DeshiError: for a missing precision or package, or a graph or index that can't be read.
    """

    def __init__(
        self,
        bundle: ServingBundle,
        threads: int = 1,
        precision: str = "fp32",
        batch_size: int = 8,
        search: str = "auto",
    ) -> None:
        if batch_size < 1:
            raise DeshiError(f"batch_size is {batch_size}, expected at least 1.")
        if search not in SEARCHES:
            raise DeshiError(f"search is {search!r}, expected one of {', '.join(SEARCHES)}.")
        self.bundle, self.precision, self._batch_size = bundle, precision, batch_size
        self._network = OnnxNetwork(bundle.graph(precision), threads)
        self._table = bundle.item_table
        norms = np.linalg.norm(self._table, axis=1)
        self._norms = np.where(norms > 0, norms, 1.0).astype(np.float32)
        self._ids: list[str] = bundle.items[ITEM].to_list()
        self._titles: list[str | None] = bundle.items[TITLE].to_list()
        self._index = {item_id: index for index, item_id in enumerate(self._ids)}
        self._counts = bundle.items[COUNT].to_numpy().astype(np.float32)
        self._search = TitleIndex(bundle.items)
        self._near = None if search == "exact" or bundle.index is None else ItemIndex(bundle.index, self._table)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.bundle.n_items

    def recommend(
        self,
        history: History,
        k: int = 10,
        exclude: History = (),
        candidates: History | None = None,
        allowed: Bools | None = None,
        filter_seen: bool | None = None,
    ) -> Answer:
        """The ``k`` items that are most likely to come next.

        Args:
            history: item ids or indices, oldest first; ids that the vocabulary doesn't know are left out and counted.
            k: length of the list.
            exclude: items that may not be answered; unknown ids are ignored.
            candidates: the only items that may be answered; unknown ids are ignored. None is the whole catalogue.
            allowed: ``(n_items,)`` of :meth:`mask`, for a filter that is used again and again.
            filter_seen: whether items of the history are left out. None: as the bundle says for the whole catalogue,
                and no for ``candidates``, who were chosen by the caller.

        Raises:
            RequestError: for a ``k`` below 1, indices outside of the vocabulary, or a mask of another length.
        """
        return self.recommend_batch([history], k, exclude, candidates, allowed, filter_seen)[0]

    def recommend_batch(
        self,
        histories: Sequence[History],
        k: int = 10,
        exclude: History = (),
        candidates: History | None = None,
        allowed: Bools | None = None,
        filter_seen: bool | None = None,
    ) -> list[Answer]:
        """The answer to each history, in their order; the other arguments as for :meth:`recommend`, for all of them."""
        encoded = [self.encode(history) for history in histories]
        open_to = self._open_items(exclude, candidates, allowed)
        if filter_seen is None:
            filter_seen = self.bundle.filter_seen and candidates is None
        items, scores = self.top([known for known, _ in encoded], k, open_to, filter_seen)
        return [
            Answer(self._items(items[row], scores[row]), len(known), unknown, None if len(known) else POPULARITY)
            for row, (known, unknown) in enumerate(encoded)
        ]

    def top(
        self, histories: Sequence[Ints], k: int, allowed: Bools | None = None, filter_seen: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The best items of many encoded histories, as arrays.

        Args:
            histories: int64 item indices, oldest first; an empty one is answered by popularity.
            k: length of the lists.
            allowed: ``(n_items,)`` what may be answered; None is everything.
            filter_seen: whether items of a history are left out of its answer.

        Returns:
            item indices ``(H, k)``, best first, equal scores by index, :data:`~deshi.types.PAD` where there are no
            more; and their scores, NaN there.
        """
        if k < 1:
            raise RequestError(f"k is {k}, expected at least 1.")
        k = min(k, self.n_items)
        items = np.full((len(histories), k), PAD, dtype=np.int32)
        scores = np.full((len(histories), k), np.nan, dtype=np.float32)
        rest: Ints = np.arange(len(histories))
        if self._near is not None:
            rest = self._look_up(self._near, histories, allowed, filter_seen, items, scores)
        for rows, block in self._scores(histories, rest):
            if allowed is not None:
                block[:, ~allowed] = -np.inf
            for row, own in zip(rows, block, strict=True):
                if filter_seen:
                    own[histories[row]] = -np.inf
                found = best_of(own, k)
                items[row, : len(found)], scores[row, : len(found)] = found, own[found]
        return items, scores

    def encode(self, history: History) -> tuple[Ints, int]:
        """A history's item indices as int64, and how many of its ids the vocabulary doesn't know.

        Raises:
            RequestError: for an index outside of the vocabulary, or what is neither id nor index.
        """
        if isinstance(history, str):
            raise RequestError(
                f"A history is a list of item ids, but got the text {history[:40]!r}: write [{history[:40]!r}]."
            )
        if isinstance(history, np.ndarray) or not all(isinstance(item, str) for item in history):
            return self._checked(history), 0
        known = [self._index[item] for item in history if item in self._index]
        return np.array(known, dtype=np.int64), len(history) - len(known)

    def mask(self, items: History) -> Bools:
        """``(n_items,)`` true for the given items: a filter to hand to ``allowed``. Unknown ids are ignored."""
        found = np.zeros(self.n_items, dtype=bool)
        found[self.encode(items)[0]] = True
        return found

    def similar_items(self, item: str | int, k: int = 10) -> tuple[Item, ...]:
        """The items whose vectors have the greatest cosine with ``item``'s, without itself.

        Raises:
            RequestError: for an item that the vocabulary doesn't know.
        """
        index = self.index_of(item)
        if k < 1:
            raise RequestError(f"k is {k}, expected at least 1.")
        cosine = (self._table @ self._table[index]) / (self._norms * self._norms[index])
        cosine[index] = -np.inf
        found = best_of(cosine, min(k, self.n_items))
        return self._items(found, cosine[found])

    def search_items(self, text: str, limit: int = 20) -> tuple[Item, ...]:
        """The items whose title holds every word of ``text``, or whose id is ``text``.

        Example and accents don't count. The id and whole titles come first, then titles that begin with the text, then
        those in which a word does; of equal ones the more popular. The score is the number of training events.

        Raises:
            RequestError: for a ``limit`` below 1.
        """
        if limit < 1:
            raise RequestError(f"limit is {limit}, expected at least 1.")
        found = self._search.find(text, limit)
        return self._items(found, self._counts[found])

    def item(self, item: str | int) -> Item:
        """One item, with the number of its training events as score; errors as of :meth:`similar_items`."""
        index = self.index_of(item)
        return self._item(index, float(self._counts[index]))

    def index_of(self, item: str | int) -> int:
        """The index of an item id, or a checked index.

        Raises:
            RequestError: if there is no such item.
        """
        if isinstance(item, str):
            if item not in self._index:
                raise RequestError(f"There is no item {item!r} among the {self.n_items} of {self.bundle.name}.")
            return self._index[item]
        return int(self._checked([item])[0])

    def _look_up(
        self,
        near: ItemIndex,
        histories: Sequence[Ints],
        allowed: Bools | None,
        filter_seen: bool,
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
    ) -> Ints:
        """Fill in the rows that the index can answer, and give those that are left.

        These are the rows without a history, those of which too much is left out, and those of which too little stays.
        """
        k, closed = items.shape[1], 0 if allowed is None else int(np.count_nonzero(~allowed))
        wanted = np.array([k + closed + (len(history) if filter_seen else 0) for history in histories], dtype=np.int64)
        left = np.array([not len(h) or not near.serves(w) for h, w in zip(histories, wanted, strict=True)], dtype=bool)
        for rows, hidden in self._hidden(histories, np.flatnonzero(~left)):
            for row, state in zip(rows, hidden, strict=True):
                found, own = near.find(state, wanted[row])
                if allowed is not None:
                    own[~allowed[found]] = -np.inf
                if filter_seen:
                    own[np.isin(found, histories[row])] = -np.inf
                best = best_of(own, min(k, len(own)))
                left[row] = len(best) < k
                items[row, : len(best)], scores[row, : len(best)] = found[best], own[best]
        return np.flatnonzero(left)

    def _scores(self, histories: Sequence[Ints], rows: Ints) -> Iterator[tuple[Ints, NDArray[np.float32]]]:
        """Blocks of the rows with their scores ``(B, n_items)``, no row twice; without a history by popularity."""
        lengths = np.array([len(histories[row]) for row in rows], dtype=np.int64)
        for block, hidden in self._hidden(histories, rows[lengths > 0]):
            yield block, hidden @ self._table.T
        for row in rows[lengths == 0]:
            yield np.array([row]), self._counts[None].copy()

    def _hidden(self, histories: Sequence[Ints], rows: Ints) -> Iterator[tuple[Ints, NDArray[np.float32]]]:
        """Blocks of the rows with the states after their histories ``(B, dim)``, similar lengths together."""
        lengths = np.array([len(histories[row]) for row in rows], dtype=np.int64)
        order = rows[np.argsort(lengths, kind="stable")]
        for first in range(0, len(order), self._batch_size):
            block = order[first : first + self._batch_size]
            yield block, self._network.hidden(*pad([histories[row][-self.bundle.max_length :] for row in block]))

    def _open_items(self, exclude: History, candidates: History | None, allowed: Bools | None) -> Bools | None:
        """What may be answered, as one mask; None is everything."""
        if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != (self.n_items,)):
            raise RequestError(
                f"allowed is {allowed.dtype}{allowed.shape}, expected bool({self.n_items},): make it with Engine.mask."
            )
        if candidates is not None:
            chosen = self.mask(candidates)
            allowed = chosen if allowed is None else allowed & chosen
        if len(exclude):
            rest = ~self.mask(exclude)
            allowed = rest if allowed is None else allowed & rest
        return allowed

    def _checked(self, indices: Sequence[int] | Sequence[str] | Ints) -> Ints:
        found = np.asarray(indices)
        if found.ndim != 1 or (len(found) and found.dtype.kind not in "iu"):
            raise RequestError(
                f"Got items of type {found.dtype} and shape {found.shape}, expected a list of item ids (texts) or one "
                "of item indices (whole numbers), not mixed."
            )
        wrong = found[(found < 0) | (found >= self.n_items)] if len(found) else found
        if len(wrong):
            raise RequestError(f"There is no item index {wrong[0]}, expected 0 to {self.n_items - 1}.")
        return found.astype(np.int64)

    def _items(self, indices: Sequence[int] | NDArray[np.integer], scores: NDArray[np.float32]) -> tuple[Item, ...]:
        pairs = zip(np.asarray(indices).tolist(), scores.tolist(), strict=True)
        return tuple(self._item(index, score) for index, score in pairs if index != PAD)

    def _item(self, index: int, score: float) -> Item:
        return Item(self._ids[index], self._titles[index], score, index)


def load(
    bundle: str | Path,
    threads: int = 1,
    precision: str = "fp32",
    batch_size: int = 8,
    check: bool = True,
    search: str = "auto",
) -> Engine:
    """Open a serving bundle.

    Args:
        bundle: the folder that ``deshi export`` wrote.
        threads: CPU threads of onnxruntime in one call.
        precision: ``fp32``, or ``int8`` if the bundle has it.
        batch_size: histories that go through the network at a time.
        check: hash every file and compare with the bundle's manifest.
        search: ``auto`` asks the bundle's index if it has one, ``exact`` scores every item.

    Raises:
        DeshiError: if the folder is no whole bundle of this version, or onnxruntime isn't installed, or faiss isn't
            and the bundle has an index.
    """
    return Engine(ServingBundle.load(bundle, check), threads, precision, batch_size, search)
