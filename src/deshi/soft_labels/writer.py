"""Writing a store: a teacher's lists after chosen rows, or lists that came from elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from deshi.arrays import Ints
from deshi.artifacts import fingerprint, read_json
from deshi.data.bundle import Bundle
from deshi.models.scorers import Scorer
from deshi.soft_labels.checks import inspect_rows
from deshi.soft_labels.histories import Histories
from deshi.soft_labels.labeller import Lister, Lists
from deshi.soft_labels.manifest import EMBEDDINGS, MANIFEST, SCORES, TOPK, new_manifest, new_request
from deshi.soft_labels.progress import Meter, Progress
from deshi.soft_labels.store import SoftLabels, check_embeddings
from deshi.soft_labels.working_folder import STATE, WorkingFolder, compare_requests
from deshi.types import PAD, DeshiError, ScoreKind

log = logging.getLogger(__name__)

ScoreType = Literal["float32", "float16"]
LARGEST = 65504.0
"""The largest float16."""


def write_soft_labels(
    scorer: Scorer,
    histories: Bundle | Histories,
    rows: Ints,
    folder: Path,
    *,
    k: int,
    meta: Mapping[str, Any],
    positions: str = "given",
    filter_seen: bool = True,
    score_kind: ScoreKind = ScoreKind.LOGIT,
    normalise: bool = False,
    dtype: ScoreType = "float32",
    item_embeddings: Tensor | None = None,
    batch: int = 256,
    min_context: int | None = None,
    shard_rows: int = 2048,
    device: torch.device | str = "cpu",
    progress: Callable[[Progress], None] | None = None,
    force: bool = False,
) -> SoftLabels:
    """Ask a teacher for its ``k`` best items after each of ``rows`` and write them as a store.

    It may be killed at any moment: the same call goes on after the last shard that was finished, and its result is,
    byte for byte, that of a call that was not interrupted. A store that was written by the same request is handed back
    as it is.

    Args:
        scorer: the teacher.
        histories: what the rows are about: a bundle, or augmented histories of it.
        rows: ``(M,)`` ascending flat positions of events, see :func:`deshi.soft_labels.positions.choose_rows`.
        folder: the store's.
        k: length of a list.
        meta: JSON-able, who the teacher is: ``name`` and whatever tells it from others, such as ``run`` and the
            sha256 of its weights. A request with another ``meta`` is another request.
        positions: the rule that ``rows`` came from, for the manifest.
        filter_seen: leave the items of the history up to and including the row out of its list.
        score_kind: meaning of the scorer's scores.
        normalise: turn logits into log-probabilities over all candidates of the row; ``score_kind`` becomes
            ``log_probability``.
        dtype: of the stored scores. ``float16`` halves them; logits are then stored less the row's best score (which
            no softmax notices), so that none overflows and the best items keep the finest steps.
        item_embeddings: ``(n_items, D)`` the teacher's vectors of the items, to be stored beside the lists.
        batch: rows scored at a time.
        min_context: see :class:`~deshi.soft_labels.labeller.Lister`.
        shard_rows: rows between two marks; at most so many (and a history) are computed again after a kill.
        device: where the scorer computes.
        progress: called after every block of rows.
        force: replace a store, or an unfinished one, that another request made.

    Raises:
        DeshiError: for rows, items, scores or a folder that can't be used.
    """
    source = _histories(histories)
    rows = check_rows(rows, source)
    if normalise and score_kind != ScoreKind.LOGIT:
        raise DeshiError(f"normalise turns logits into log-probabilities, but score_kind is {str(score_kind)!r}.")
    lister = Lister(scorer, source, k, filter_seen, normalise, batch, device, min_context)
    kind = ScoreKind.LOG_PROBABILITY if normalise else score_kind
    request = new_request(source, rows, k, filter_seen, kind, dtype, positions, meta, item_embeddings)
    request |= {"batch": batch, "normalised": normalise}
    request |= {} if min_context is None else {"min_context": min_context}
    return _write(source, rows, folder, request, lister.lists, item_embeddings, shard_rows, progress, force)


def write_lists(
    rows: Ints,
    items: NDArray[Any],
    scores: NDArray[Any],
    histories: Bundle | Histories,
    folder: Path,
    *,
    meta: Mapping[str, Any],
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
        meta: see :func:`write_soft_labels`.
        score_kind: meaning of the scores; ``score`` if only their order means anything.
        filter_seen: whether the lists are promised to be without seen items; that is checked.
        positions: the rule that ``rows`` came from.
        dtype: of the stored scores, see :func:`write_soft_labels`.
        item_embeddings: ``(n_items, D)`` or None.
        force: see :func:`write_soft_labels`.

    Raises:
        DeshiError: with the number of bad rows of each kind and the first of them (places in ``rows``).
    """
    source = _histories(histories)
    rows = check_rows(rows, source)
    if items.shape != scores.shape or items.ndim != 2 or len(items) != len(rows):
        raise DeshiError(
            f"Got {len(rows)} rows, items of shape {items.shape} and scores of shape {scores.shape}, expected "
            f"(rows, K) for both."
        )
    first_seen = source.first_seen() if filter_seen else None
    had = None if first_seen is None else lambda places, listed: first_seen.had(rows[places], listed)
    inspect_rows(items, scores, source.n_items, had).refuse()
    request = new_request(
        source, rows, items.shape[1], filter_seen, score_kind, dtype, positions, meta, item_embeddings
    )
    request["lists"] = fingerprint([("items", items), ("scores", scores)])

    def lists(wanted: Ints) -> Iterable[Lists]:
        places = np.searchsorted(rows, wanted)
        yield wanted, items[places].astype(np.int32), scores[places].astype(np.float32)

    return _write(source, rows, folder, request, lists, item_embeddings, 1 << 16, None, force)


def _write(
    source: Histories,
    rows: Ints,
    folder: Path,
    request: dict[str, Any],
    lists: Callable[[Ints], Iterable[Lists]],
    embeddings: Tensor | None,
    shard_rows: int,
    progress: Callable[[Progress], None] | None,
    force: bool,
) -> SoftLabels:
    """Write what ``lists`` answers, shard after shard, unless it is there already."""
    request = request | {"shard_rows": shard_rows}
    if (folder / MANIFEST).is_file() and not force:
        return _reuse(folder, request)
    if embeddings is not None:
        check_embeddings(embeddings, source.n_items, "item_embeddings")
    shards = cut(rows, source, shard_rows)
    working = WorkingFolder(folder, request, source.n_interactions, request["k"], request["score_dtype"], force)
    with working:
        already = sum(len(shard) for shard in shards[: working.done])
        if already:
            log.info("%s goes on: %d of %d rows are written", folder.name, already, len(rows))
        meter = Meter(len(rows), already, progress)
        for shard in shards[working.done :]:
            for numbers, items, scores in lists(shard):
                working.put(
                    numbers, items, stored(items, scores, request["score_dtype"], ScoreKind(request["score_kind"]))
                )
                meter.add(len(numbers))
            working.mark()

        def rest(place: Path) -> dict[str, Any]:
            files = _write_others(place, source, embeddings)
            return new_manifest(place, source, rows, request, len(shards), files)

        working.finish(rest, len(rows))
    return SoftLabels.load(folder)


def _reuse(folder: Path, request: dict[str, Any]) -> SoftLabels:
    """The store of an earlier call with the same request."""
    (folder / STATE).unlink(missing_ok=True)
    compare_requests(folder, read_json(folder / MANIFEST).get("request", {}), request, unfinished=False)
    log.info("nothing to do: %s was written by this request", folder)
    return SoftLabels.load(folder)


def check_rows(rows: Ints, histories: Histories) -> Ints:
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
    """``rows`` in shards of about ``shard_rows``, each history in one: a pass over it answers all its rows."""
    if shard_rows < 1:
        raise DeshiError(f"shard_rows is {shard_rows}, expected a number from 1.")
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


def _histories(source: Bundle | Histories) -> Histories:
    return Histories.of(source) if isinstance(source, Bundle) else source


def _write_others(place: Path, source: Histories, embeddings: Tensor | None) -> list[str]:
    """Write embeddings and augmented histories; the names of all files of the store."""
    files = [TOPK, SCORES]
    if source.augmented:
        files += source.save(place)
    if embeddings is not None:
        save_file({"items": embeddings.detach().float().cpu().contiguous()}, place / EMBEDDINGS)
        files.append(EMBEDDINGS)
    return files
