"""The engine: ranked lists after histories from a serving bundle, without PyTorch.

Scores are exact. All items are scored, unless the bundle has an index for approximate search.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from deshi.arrays import BLOCKWISE_ABOVE, Bools, Ints
from deshi.serving._block_scoring import best_by_blocks, row_norms, scores_of_all
from deshi.serving._item_ids import AS_OBJECTS, ItemIds
from deshi.serving._title_search import TitleIndex
from deshi.serving.approximate_search import ItemIndex
from deshi.serving.bundle import COUNT, ServingBundle
from deshi.serving.onnx_network import OnnxNetwork, pad
from deshi.serving.top_k import best_of
from deshi.types import ITEM, PAD, TITLE, DeshiError, as_list

History = Collection[Any]
"""Item ids (texts) or item indices (whole numbers), oldest first."""

POPULARITY = "popularity"
SEARCHES = ("auto", "exact")


class RequestError(DeshiError, ValueError):
    """Arguments that can't be answered: an unknown item, a ``k`` below 1, a mask of another length."""


@dataclass(frozen=True)
class ScoredItem:
    """An item of a list.

    Attributes:
        item_id: its id in the data.
        title: or None where the data had none.
        score: higher is better; its meaning depends on the method that gives it.
        index: its number in the vocabulary.
    """

    item_id: str
    title: str | None
    score: float
    index: int


@dataclass(frozen=True)
class Recommendation:
    """The recommendations after one history.

    Attributes:
        items: best first; fewer than ``k`` where no more are allowed.
        known_events: number of the history's events whose item the vocabulary knows.
        unknown_events: number of the others, which were left out.
        unknown_excluded: number of excluded ids that the vocabulary doesn't know.
        unknown_candidates: number of candidates that it doesn't know.
        fallback: ``popularity`` where the history has no known event, else None. Scores are training events then.
    """

    items: tuple[ScoredItem, ...]
    known_events: int
    unknown_events: int = 0
    fallback: str | None = None
    unknown_excluded: int = 0
    unknown_candidates: int = 0


class Engine:
    """Answers from a serving bundle. Its methods may be called from several threads at a time.

    Args:
        bundle: the loaded bundle.
        threads: CPU threads of onnxruntime in one call.
        precision: ``fp32``, or ``int8`` if the bundle has it.
        batch_size: histories that go through the network at a time.
        search: ``auto`` uses the bundle's index if it has one, ``exact`` scores every item.

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
        self._table, self._pairs = bundle.item_table, bundle.pair_table
        self._network = OnnxNetwork(bundle.graph(precision), threads, self._table)
        self._norms: NDArray[np.float32] | None = None
        # lists are faster than columns, and take too much memory where there are millions
        in_columns = self.n_items > AS_OBJECTS
        self._ids: Sequence[str] | pl.Series = bundle.items[ITEM] if in_columns else bundle.items[ITEM].to_list()
        self._titles: Sequence[str | None] | pl.Series = (
            bundle.items[TITLE] if in_columns else bundle.items[TITLE].to_list()
        )
        self._index = ItemIds(bundle.items[ITEM])
        self._counts = bundle.items[COUNT].to_numpy().astype(np.float32)
        self._search = None if in_columns else TitleIndex(bundle.items)
        self._item_index = None if search == "exact" or bundle.index is None else ItemIndex(bundle.index, self._table)

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
    ) -> Recommendation:
        """The ``k`` items that are most likely to come next.

        Args:
            history: item ids or indices, oldest first; ids that the vocabulary doesn't know are left out and counted.
            k: length of the list.
            exclude: items that may not be answered; unknown ids are counted.
            candidates: the only items that may be answered; unknown ids are counted. None is the whole catalogue.
            allowed: ``(n_items,)`` of :meth:`mask`, for a filter that is used again and again.
            filter_seen: whether items of the history are left out. None: as the bundle says for the whole catalogue,
                and no for ``candidates``, which the caller has chosen.

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
    ) -> list[Recommendation]:
        """The answer to each history, in their order; the other arguments as for :meth:`recommend`, for all of them."""
        encoded = [self.encode(history) for history in histories]
        excluded, unknown_excluded = self.encode(exclude)
        chosen, unknown_candidates = (None, 0) if candidates is None else self.encode(candidates)
        allowed = self._allowed_items(excluded, chosen, allowed)
        if filter_seen is None:
            filter_seen = self.bundle.filter_seen and candidates is None
        items, scores = self.top([indices for indices, _ in encoded], k, allowed, filter_seen)
        return [
            Recommendation(
                self._items(*row),
                len(indices),
                unknown_events,
                None if len(indices) else POPULARITY,
                unknown_excluded,
                unknown_candidates,
            )  # fmt: skip
            for row, (indices, unknown_events) in zip(zip(items, scores, strict=True), encoded, strict=True)
        ]

    def top(
        self, histories: Sequence[Ints], k: int, allowed: Bools | None = None, filter_seen: bool | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The best items of many encoded histories, as arrays.

        Args:
            histories: int64 item indices, oldest first; an empty one is answered by popularity.
            k: length of the lists.
            allowed: ``(n_items,)`` what may be answered; None is everything.
            filter_seen: whether items of a history are left out of its answer. None: as the bundle says.

        Returns:
            item indices ``(H, k)``, best first, equal scores by index, :data:`~deshi.types.PAD` where there are no
            more; and their scores, NaN there.
        """
        if k < 1:
            raise RequestError(f"k is {k}, expected at least 1.")
        if filter_seen is None:
            filter_seen = self.bundle.filter_seen
        k = min(k, self.n_items)
        items = np.full((len(histories), k), PAD, dtype=np.int32)
        scores = np.full((len(histories), k), np.nan, dtype=np.float32)
        unanswered: Ints = np.arange(len(histories))
        if self._item_index is not None:
            unanswered = self._look_up(self._item_index, histories, allowed, filter_seen, items, scores)
        if self.n_items > BLOCKWISE_ABOVE:
            unanswered = self._by_blocks(histories, unanswered, allowed, filter_seen, items, scores)
        for rows, block in self._scores(histories, unanswered):
            # What may not be recommended gets minus infinity, which best_of leaves out.
            if allowed is not None:
                block[:, ~allowed] = -np.inf
            for row, row_scores in zip(rows, block, strict=True):
                if filter_seen:
                    row_scores[histories[row]] = -np.inf
                best = best_of(row_scores, k)
                items[row, : len(best)], scores[row, : len(best)] = best, row_scores[best]
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
        if not (isinstance(history, np.ndarray) and history.dtype.kind in "iu"):
            history = as_list(history)
        if isinstance(history, np.ndarray) or not all(isinstance(item, str) for item in history):
            return self._checked(history), 0
        indices = self._index.indices(list(history))
        if (indices < 0).any():  # ids of the vocabulary have no blanks around them
            indices = self._index.indices([item.strip() for item in history])
        known = indices[indices >= 0]
        return known, len(history) - len(known)

    def mask(self, items: History) -> Bools:
        """``(n_items,)`` true for the given items: a filter to hand to ``allowed``. Unknown ids are ignored."""
        mask = np.zeros(self.n_items, dtype=bool)
        mask[self.encode(items)[0]] = True
        return mask

    def similar_items(self, item: str | int | np.integer, k: int = 10) -> tuple[ScoredItem, ...]:
        """The items whose vectors have the greatest cosine with ``item``'s, without itself.

        Raises:
            RequestError: for an item that the vocabulary doesn't know.
        """
        index = self.index_of(item)
        if k < 1:
            raise RequestError(f"k is {k}, expected at least 1.")
        if self._norms is None:
            self._norms = row_norms(self._table)
        products = scores_of_all(self._table[[index]].astype(np.float32), self._table)[0]
        cosine = products / (self._norms * self._norms[index])
        cosine[index] = -np.inf
        best = best_of(cosine, min(k, self.n_items))
        return self._items(best, cosine[best])

    def search_items(self, text: str, limit: int = 20) -> tuple[ScoredItem, ...]:
        """The items whose title holds every word of ``text``, or whose id is ``text``.

        Case and accents don't count. The id and whole titles come first, then titles that begin with the text, then
        those in which a word does; of equal ones the more popular. The score is the number of training events.

        Raises:
            RequestError: for a ``limit`` below 1.
        """
        if limit < 1:
            raise RequestError(f"limit is {limit}, expected at least 1.")
        if self._search is None:
            self._search = TitleIndex(self.bundle.items)
        matches = self._search.find(text, limit)
        return self._items(matches, self._counts[matches])

    def item(self, item: str | int | np.integer) -> ScoredItem:
        """One item, with the number of its training events as score; errors as of :meth:`similar_items`."""
        index = self.index_of(item)
        return self._item(index, float(self._counts[index]))

    def index_of(self, item: str | int | np.integer) -> int:
        """The index of an item id, or a checked index.

        Raises:
            RequestError: if there is no such item.
        """
        if isinstance(item, str):
            item = item.strip()
            index = int(self._index.indices([item])[0])
            if index < 0:
                raise RequestError(f"There is no item {item!r} among the {self.n_items} of {self.bundle.name}.")
            return index
        return int(self._checked([item])[0])

    def _look_up(
        self,
        index: ItemIndex,
        histories: Sequence[Ints],
        allowed: Bools | None,
        filter_seen: bool,
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
    ) -> Ints:
        """Fill in the rows that the index can answer, and return the numbers of the others.

        The others are histories without events, those of which more is left out than the index serves, and those of
        which fewer than ``k`` items are left.
        """
        k, excluded = items.shape[1], 0 if allowed is None else int(np.count_nonzero(~allowed))
        # So many neighbours hold k recommendable ones even if all that is excluded and seen lies among them.
        depths = np.array([k + excluded + filter_seen * len(history) for history in histories], dtype=np.int64)
        pairs = zip(histories, depths, strict=True)
        answered = np.array([len(history) > 0 and index.serves(depth) for history, depth in pairs], dtype=bool)
        for rows, hidden in self._hidden(histories, np.flatnonzero(answered)):
            for row, state in zip(rows, hidden, strict=True):
                added = None if self._pairs is None else self._pairs.sums(histories[row])
                neighbours, row_scores = index.find(state, depths[row], added)
                if allowed is not None:
                    row_scores[~allowed[neighbours]] = -np.inf
                if filter_seen:
                    row_scores[np.isin(neighbours, histories[row])] = -np.inf
                best = best_of(row_scores, min(k, len(row_scores)))
                answered[row] = len(best) == k
                items[row, : len(best)], scores[row, : len(best)] = neighbours[best], row_scores[best]
        return np.flatnonzero(~answered)

    def _by_blocks(
        self,
        histories: Sequence[Ints],
        rows: Ints,
        allowed: Bools | None,
        filter_seen: bool,
        items: NDArray[np.int32],
        scores: NDArray[np.float32],
    ) -> Ints:
        """Fill in the exact answers of a large catalogue, and return the numbers of the histories without events."""
        lengths = np.array([len(histories[row]) for row in rows], dtype=np.int64)
        for block, hidden in self._hidden(histories, rows[lengths > 0]):
            seen = [histories[row] if filter_seen else np.zeros(0, dtype=np.int64) for row in block]
            added = None if self._pairs is None else [self._pairs.sums(histories[row]) for row in block]
            lists = best_by_blocks(hidden, self._table, items.shape[1], seen, allowed, added)
            for row, (best, values) in zip(block, lists, strict=True):
                items[row, : len(best)], scores[row, : len(best)] = best, values
        return rows[lengths == 0]

    def _scores(self, histories: Sequence[Ints], rows: Ints) -> Iterator[tuple[Ints, NDArray[np.float32]]]:
        """Blocks of rows with their scores ``(B, n_items)``, each row once; without events by popularity."""
        lengths = np.array([len(histories[row]) for row in rows], dtype=np.int64)
        for block, hidden in self._hidden(histories, rows[lengths > 0]):
            scores = scores_of_all(hidden, self._table)
            if self._pairs is not None:
                for row, row_scores in zip(block, scores, strict=True):
                    self._pairs.add_to(row_scores, histories[row])
            yield block, scores
        for row in rows[lengths == 0]:
            yield np.array([row]), self._counts[None].copy()

    def _hidden(self, histories: Sequence[Ints], rows: Ints) -> Iterator[tuple[Ints, NDArray[np.float32]]]:
        """Blocks of rows with the states after their histories ``(B, dim)``, similar lengths together."""
        lengths = np.array([len(histories[row]) for row in rows], dtype=np.int64)
        order = rows[np.argsort(lengths, kind="stable")]
        for first in range(0, len(order), self._batch_size):
            block = order[first : first + self._batch_size]
            yield block, self._network.hidden(*pad([histories[row][-self.bundle.max_length :] for row in block]))

    def _allowed_items(self, exclude: Ints, candidates: Ints | None, allowed: Bools | None) -> Bools | None:
        """The items that may be recommended, as one mask; None is all."""
        if allowed is not None and (allowed.dtype != np.bool_ or allowed.shape != (self.n_items,)):
            raise RequestError(
                f"allowed is {allowed.dtype}{allowed.shape}, expected bool({self.n_items},): make it with Engine.mask."
            )
        if candidates is not None:
            chosen = self.mask(candidates)
            allowed = chosen if allowed is None else allowed & chosen
        if len(exclude):
            unexcluded = ~self.mask(exclude)
            allowed = unexcluded if allowed is None else allowed & unexcluded
        return allowed

    def _checked(self, indices: History) -> Ints:
        array = np.asarray(indices)
        if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
            raise RequestError(
                f"Got items of type {array.dtype} and shape {array.shape}, expected a list of item ids (texts) or one "
                "of item indices (whole numbers), not mixed."
            )
        wrong = array[(array < 0) | (array >= self.n_items)] if len(array) else array
        if len(wrong):
            raise RequestError(f"There is no item index {wrong[0]}, expected 0 to {self.n_items - 1}.")
        return array.astype(np.int64)

    def _items(
        self, indices: Sequence[int] | NDArray[np.integer], scores: NDArray[np.float32]
    ) -> tuple[ScoredItem, ...]:
        pairs = zip(np.asarray(indices).tolist(), scores.tolist(), strict=True)
        return tuple(self._item(index, score) for index, score in pairs if index != PAD)

    def _item(self, index: int, score: float) -> ScoredItem:
        return ScoredItem(self._ids[index], self._titles[index], score, index)


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
        search: ``auto`` uses the bundle's index if it has one, ``exact`` scores every item.

    Raises:
        DeshiError: if the folder is no whole bundle of this version, or onnxruntime isn't installed, or faiss isn't
            and the bundle has an index.
    """
    return Engine(ServingBundle.load(bundle, check), threads, precision, batch_size, search)
