"""A store's writer: of a teacher's lists after chosen rows, or of lists that exist already."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Ints
from deshi.artifacts import fingerprint, read_json, write_tensors
from deshi.cluster import Cluster
from deshi.hardware import set_threads, training_device
from deshi.soft_labels._checks import check_lists
from deshi.soft_labels._histories import Histories
from deshi.soft_labels._labeller import Labeller, RankedLists
from deshi.soft_labels._manifest import (
    EMBEDDINGS,
    MANIFEST,
    SCORES,
    TENSORS,
    TOPK,
    USER_EMBEDDINGS,
    new_manifest,
    new_request,
)
from deshi.soft_labels._progress import Meter, Progress
from deshi.soft_labels._store import SoftLabels, check_embeddings
from deshi.soft_labels._working_folder import STATE, WorkingFolder, compare_requests
from deshi.types import PAD, DeshiError, ScoreKind

log = logging.getLogger(__name__)

ScoreType = Literal["float32", "float16"]
LARGEST = 65504.0
"""The largest float16."""


def write_soft_labels(
    labeller: Labeller,
    rows: Ints,
    folder: Path,
    *,
    teacher: Mapping[str, Any],
    positions: str = "given",
    score_kind: ScoreKind = ScoreKind.LOGIT,
    dtype: ScoreType = "float32",
    item_embeddings: Tensor | None = None,
    user_embeddings: Tensor | None = None,
    shard_rows: int = 2048,
    progress: Callable[[Progress], None] | None = None,
    force: bool = False,
    cluster: Cluster | None = None,
) -> SoftLabels:
    """Write a teacher's lists after each of ``rows`` as a store.

    It may be killed at any moment: the same call goes on after the last shard that was finished, and its result is,
    byte for byte, that of a call that was not interrupted. A store that was written by the same request is handed back
    as it is.

    Args:
        labeller: the teacher, the histories, and what its lists are to be.
        rows: ``(M,)`` ascending flat positions of events, see :func:`deshi.soft_labels.choose_rows`.
        folder: the store's.
        teacher: JSON-able, who the teacher is: ``name`` and whatever tells it from others, such as ``run`` and the
            sha256 of its weights. A request with another teacher is another request.
        positions: the rule that ``rows`` came from, for the manifest.
        score_kind: meaning of the scorer's scores; logits that the labeller normalises become log-probabilities.
        dtype: of the stored scores. ``float16`` halves them; logits are then stored less the row's best score (which
            no softmax notices), so that none overflows and the best items keep the finest steps.
        item_embeddings: ``(n_items, D)`` the teacher's vectors of the items, to be stored beside the lists.
        user_embeddings: ``(n_users, D)`` vectors of users' profiles, zeros for users without one, to be stored too.
        shard_rows: rows between two marks; at most so many (and a history) are computed again after a kill.
        progress: called after every block of rows.
        force: replace a store, or an unfinished one, that another request made.
        cluster: whose workers rank, a shard a task; this process writes. None: this process does both. The store is
            the same on processors of one kind with as many threads.

    Raises:
        DeshiError: for rows, items, scores or a folder that can't be used.
    """
    histories = labeller.histories
    rows = check_row_numbers(rows, histories)
    if labeller.normalise and score_kind != ScoreKind.LOGIT:
        raise DeshiError(f"normalise turns logits into log-probabilities, but score_kind is {str(score_kind)!r}.")
    kind = ScoreKind.LOG_PROBABILITY if labeller.normalise else score_kind
    request = new_request(
        histories, rows, labeller.k, labeller.filter_seen, kind, dtype, positions, teacher, item_embeddings
    )
    request |= {"batch": labeller.batch, "normalised": labeller.normalise}
    request |= {} if labeller.min_context is None else {"min_context": labeller.min_context}
    if user_embeddings is not None:
        request["user_embeddings"] = fingerprint([(TENSORS[USER_EMBEDDINGS], user_embeddings.numpy())])
    if cluster is not None and labeller.scorer.cost() is not None:
        raise DeshiError(
            "This teacher's answers are paid for, and one process asks and counts them: leave cluster out. "
            "teacher.endpoint.concurrency says how many requests run at the same time."
        )
    lists = partial(map, labeller.label) if cluster is None else partial(cluster.in_order, _loader(labeller, cluster))
    vectors = {EMBEDDINGS: item_embeddings, USER_EMBEDDINGS: user_embeddings}
    return _write(histories, rows, folder, request, lists, vectors, shard_rows, progress, force, labeller.scorer.cost)


def write_lists(
    rows: Ints,
    items: NDArray[Any],
    scores: NDArray[Any],
    histories: Histories,
    folder: Path,
    *,
    teacher: Mapping[str, Any],
    score_kind: ScoreKind = ScoreKind.SCORE,
    filter_seen: bool = False,
    positions: str = "given",
    dtype: ScoreType = "float32",
    item_embeddings: Tensor | None = None,
    force: bool = False,
) -> SoftLabels:
    """Write lists that exist already, such as those of another program, as a store.

    Args:
        rows: ``(M,)`` ascending flat positions of events.
        items: ``(M, K)`` item indices, best first, ``PAD`` after a list's end.
        scores: ``(M, K)``, higher is better, 0 after a list's end.
        histories: what the rows are about.
        folder: the store's.
        teacher: see :func:`write_soft_labels`.
        score_kind: meaning of the scores; ``score`` if only their order means anything.
        filter_seen: whether the lists are promised to be without seen items; that is checked.
        positions: the rule that ``rows`` came from.
        dtype: of the stored scores, see :func:`write_soft_labels`.
        item_embeddings: ``(n_items, D)`` or None.
        force: see :func:`write_soft_labels`.

    Raises:
        DeshiError: with the number of bad rows of each kind and the first of them (indices into ``rows``).
    """
    rows = check_row_numbers(rows, histories)
    if items.shape != scores.shape or items.ndim != 2 or len(items) != len(rows):
        raise DeshiError(
            f"Got {len(rows)} rows, items of shape {items.shape} and scores of shape {scores.shape}, expected "
            f"(rows, K) for both."
        )
    first_events = histories.first_events() if filter_seen else None
    seen = None if first_events is None else lambda index, listed: first_events.seen(rows[index], listed)
    check_lists(items, scores, histories.n_items, seen).refuse()
    request = new_request(
        histories, rows, items.shape[1], filter_seen, score_kind, dtype, positions, teacher, item_embeddings
    )
    request["lists"] = fingerprint([("items", items), ("scores", scores)])

    def lists(shard: Ints) -> Iterable[RankedLists]:
        index = np.searchsorted(rows, shard)
        yield shard, items[index].astype(np.int32), scores[index].astype(np.float32)

    vectors = {EMBEDDINGS: item_embeddings}
    return _write(histories, rows, folder, request, partial(map, lists), vectors, 1 << 16, None, force)


def _write(
    histories: Histories,
    rows: Ints,
    folder: Path,
    request: dict[str, Any],
    lists: Callable[[Sequence[Ints]], Iterable[Iterable[RankedLists]]],
    vectors: Mapping[str, Tensor | None],
    shard_rows: int,
    progress: Callable[[Progress], None] | None,
    force: bool,
    cost: Callable[[], Mapping[str, Any] | None] = lambda: None,
) -> SoftLabels:
    """Write the lists of all rows, shard after shard, unless the store is there already.

    ``vectors``: by file, None if there are none.
    """
    request = request | {"shard_rows": shard_rows}
    if (folder / MANIFEST).is_file() and not force:
        return _reuse(folder, request)
    if (embeddings := vectors[EMBEDDINGS]) is not None:
        check_embeddings(embeddings, histories.n_items, "item_embeddings")
    shards = cut(rows, histories, shard_rows)
    working = WorkingFolder(folder, request, histories.n_interactions, request["k"], request["score_dtype"], force)
    with working:
        already = sum(len(shard) for shard in shards[: working.done])
        if already:
            log.info("%s goes on: %d of %d rows are written", folder.name, already, len(rows))
        meter, before = Meter(len(rows), already, progress), cost()
        # shards come in their order, a shard's lists in blocks of any order; they count once the whole shard is marked
        for blocks in lists(shards[working.done :]):
            for numbers, items, scores in blocks:
                working.put(
                    numbers, items, stored(items, scores, request["score_dtype"], ScoreKind(request["score_kind"]))
                )
                meter.add(len(numbers))
            before = working.mark(before, cost())

        def manifest(path: Path) -> dict[str, Any]:
            files = _write_other_files(path, histories, vectors)
            return new_manifest(path, histories, rows, request, len(shards), files, working.cost)

        working.finish(manifest, len(rows))
    return SoftLabels.load(folder)


def _loader(labeller: Labeller, cluster: Cluster) -> Callable[[], Callable[[Ints], list[RankedLists]]]:
    """What makes a worker of a cluster rank the rows of a shard."""
    return partial(_ranking, labeller, cluster.settings.threads)


def _ranking(labeller: Labeller, threads: int) -> Callable[[Ints], list[RankedLists]]:
    """In a worker: the labeller on its device, with its share of the cores."""
    set_threads(threads)
    here = labeller.to(training_device("auto"))
    return lambda shard: list(here.label(shard))


def _reuse(folder: Path, request: dict[str, Any]) -> SoftLabels:
    """The store of an earlier call with the same request."""
    (folder / STATE).unlink(missing_ok=True)
    compare_requests(folder, read_json(folder / MANIFEST).get("request", {}), request, unfinished=False)
    log.info("nothing to do: %s was written by this request", folder)
    return SoftLabels.load(folder)


def check_row_numbers(rows: Ints, histories: Histories) -> Ints:
    """Refuse row numbers that aren't ascending events of ``histories``; returns them as int64.

    Raises:
        DeshiError: with what is wrong.
    """
    rows = np.asarray(rows, dtype=np.int64)
    if rows.ndim != 1 or not len(rows) or (np.diff(rows) <= 0).any():
        raise DeshiError(f"rows has shape {rows.shape}, expected (M,) ascending row numbers, each once, at least one.")
    if rows[0] < 0 or rows[-1] >= histories.n_interactions:
        raise DeshiError(
            f"rows go from {rows[0]} to {rows[-1]}, expected 0 to {histories.n_interactions - 1}: the events of "
            f"{histories.name}."
        )
    return rows


def cut(rows: Ints, histories: Histories, shard_rows: int) -> list[Ints]:
    """``rows`` in shards of about ``shard_rows``, each history in one, so that one pass can label all its rows."""
    if shard_rows < 1:
        raise DeshiError(f"shard_rows is {shard_rows}, expected a number from 1.")
    # where in `rows` each history begins; of those that begin within the same `shard_rows` rows, the first cuts
    begins = np.flatnonzero(np.diff(histories.owners(rows), prepend=-1))
    _, first = np.unique(begins // shard_rows, return_index=True)
    return np.split(rows, begins[first][1:])


def stored(items: NDArray[Any], scores: NDArray[Any], dtype: str, kind: ScoreKind) -> NDArray[Any]:
    """Scores ``(M, K)`` in the type that they are stored in; their order along a row stays.

    In float16, logits lose their row's best score, and what is below the smallest float16 becomes it: such an item's
    probability is 0 either way. Log-probabilities are cut there too.

    Raises:
        DeshiError: for scores of another kind that float16 can't hold.
    """
    if dtype == "float32":
        return scores.astype(np.float32)
    if kind is ScoreKind.LOGIT:
        scores = np.where(items == PAD, 0, scores - scores[:, :1])
    if kind in (ScoreKind.LOGIT, ScoreKind.LOG_PROBABILITY):
        scores = np.maximum(scores, -LARGEST)
    if (np.abs(scores) > LARGEST).any():
        raise DeshiError(
            f"Scores of kind {kind} reach {np.abs(scores).max():g}; float16 ends at {LARGEST:g}: use float32."
        )
    return scores.astype(np.float16)


def _write_other_files(folder: Path, histories: Histories, vectors: Mapping[str, Tensor | None]) -> list[str]:
    """Write vectors and augmented histories; the names of all files of the store."""
    files = [TOPK, SCORES]
    if histories.augmented:
        files += histories.save(folder)
    for file, tensor in vectors.items():
        if tensor is not None:
            write_tensors({TENSORS[file]: tensor.detach().float().cpu().contiguous()}, folder / file)
            files.append(file)
    return files
