"""A store's manifest, and the request that a store is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deshi.arrays import Ints
from deshi.artifacts import file_sha256, fingerprint, read_json
from deshi.soft_labels._histories import Histories
from deshi.types import PAD, DeshiError, ScoreKind

SCHEMA = 1
"""Version of a store's layout and of its manifest; a store of another version is written anew."""

MANIFEST, TOPK, SCORES, EMBEDDINGS, USER_EMBEDDINGS = (
    "manifest.json",
    "topk_items.npy",
    "topk_scores.npy",
    "item_embeddings.safetensors",
    "user_embeddings.safetensors",
)

TENSORS = {EMBEDDINGS: "items", USER_EMBEDDINGS: "users"}
"""The name of the one tensor of each file of vectors."""

REQUIRED = (
    "teacher", "data", "data_fingerprint", "n_items", "n_rows", "k", "filter_seen", "positions", "coverage",
    "score_direction", "score_kind", "score_dtype", "sequences", "files",
)  # fmt: skip


def store_path(folder: Path, text: str) -> Path:
    """The store that ``text`` names: a path, or a name under ``folder``."""
    path = Path(text).expanduser()
    return path if len(path.parts) > 1 or (path / MANIFEST).is_file() else folder / text


def working_path(target: Path) -> Path:
    """Where the store ``target`` is written before it is complete."""
    return target.parent / f".{target.name}.partial"


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the store ``path``.

    Raises:
        DeshiError: if there is none, or it is of another version or lacks something.
    """
    if not (path / MANIFEST).is_file():
        partial = working_path(path)
        hint = f"Write it: deshi label RUN store={path.name}"
        if partial.is_dir():
            hint = f"It was begun in {partial}: repeat the command that wrote it to go on."
        raise DeshiError(f"There is no soft-label store in {path} (no {MANIFEST}). {hint}")
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        got = manifest.get("schema", "none") if isinstance(manifest, dict) else type(manifest).__name__
        raise DeshiError(f"The soft-label store {path} has schema {got}, expected {SCHEMA}. Write it again.")
    missing = [name for name in REQUIRED if name not in manifest]
    if missing:
        raise DeshiError(f"{path / MANIFEST} lacks {', '.join(missing)}. Write the store again.")
    if manifest["score_direction"] != "higher is better" or manifest["score_kind"] not in list(ScoreKind):
        raise DeshiError(
            f"{path / MANIFEST} says score_direction {manifest['score_direction']!r} and score_kind "
            f"{manifest['score_kind']!r}, expected 'higher is better' and one of {', '.join(ScoreKind)}."
        )
    return cast(dict[str, Any], manifest)


def new_request(
    histories: Histories,
    rows: Ints,
    k: int,
    filter_seen: bool,
    kind: str,
    dtype: str,
    positions: str,
    teacher: Mapping[str, Any],
    embeddings: Tensor | None,
) -> dict[str, Any]:
    """Everything that a store's content depends on, JSON-able."""
    if not teacher.get("name"):
        raise DeshiError(f"teacher is {dict(teacher)}, expected at least its name.")
    if kind not in list(ScoreKind) or dtype not in ("float32", "float16"):
        raise DeshiError(
            f"score_kind is {str(kind)!r} and dtype {dtype!r}, expected one of {', '.join(ScoreKind)}, and float32 or "
            f"float16."
        )
    vectors = None if embeddings is None else fingerprint([("items", embeddings.detach().float().cpu().numpy())])
    return {
        "schema": SCHEMA,
        "teacher": json.loads(json.dumps(dict(teacher), default=str)),  # as it will be read back
        "data_fingerprint": histories.data_fingerprint,
        "sequences": histories.content(),
        "rows": {"count": len(rows), "sha256": fingerprint([("rows", rows)])},
        "positions": positions,
        "k": k,
        "filter_seen": filter_seen,
        "score_kind": ScoreKind(kind).value,
        "score_dtype": dtype,
        "item_embeddings": vectors,
    }


def new_manifest(
    folder: Path, histories: Histories, rows: Ints, request: dict[str, Any], n_shards: int, files: list[str],
    cost: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The manifest of a finished store.

    Args:
        folder: the folder that holds the files.
        histories: what the rows are about.
        rows: ``(M,)`` the rows that the teacher was to label.
        request: of :func:`new_request`.
        n_shards: number of shards that were written.
        files: names of the files, each of which is hashed.
        cost: of answers that were paid for, see :meth:`~deshi.models.scorers.Scorer.cost`.
    """
    return {
        "schema": SCHEMA,
        "teacher": request["teacher"],
        "data": histories.name,
        "data_fingerprint": histories.data_fingerprint,
        "n_items": histories.n_items,
        "n_rows": histories.n_interactions,
        "k": request["k"],
        "filter_seen": request["filter_seen"],
        "positions": request["positions"],
        "coverage": _coverage(np.load(folder / TOPK, mmap_mode="r", allow_pickle=False), rows),
        "repeats": _repeats(histories, rows, request["filter_seen"]),
        "score_direction": "higher is better",
        "score_kind": request["score_kind"],
        "score_dtype": request["score_dtype"],
        "score_shift": _shift(request),
        "ties": "smaller item index first",
        "sequences": histories.kind,
        "shards": n_shards,
        "files": {name: file_sha256(folder / name) for name in files},
        "request": request,
        **({} if cost is None else {"cost": dict(cost)}),
    }


def _shift(request: dict[str, Any]) -> str:
    return "row maximum" if request["score_dtype"] == "float16" and request["score_kind"] == "logit" else "none"


def _coverage(items: NDArray[Any], rows: Ints) -> dict[str, int]:
    """Rows with a list (a teacher may have no candidate left), rows requested, full lists, and all rows."""
    listed, full = int((items[rows, 0] != PAD).sum()), int((items[rows, -1] != PAD).sum())
    return {"rows": listed, "requested": len(rows), "full_lists": full, "of": len(items)}


def _repeats(histories: Histories, rows: Ints, filter_seen: bool) -> dict[str, Any]:
    """How many rows have a next event that the history holds already, and that can't be listed if seen items aren't."""
    followed = rows[~np.isin(rows, histories.offsets[1:] - 1)]
    nexts = np.asarray(histories.items)[followed + 1]
    repeated = int(histories.first_events().seen(followed, nexts).sum()) if len(followed) else 0
    note = "seen items are left out: these next events can't be in any list" if filter_seen else "seen items are listed"
    return {"rows_with_next": len(followed), "next_seen_before": repeated, "note": note}
