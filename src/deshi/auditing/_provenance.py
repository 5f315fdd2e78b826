"""Checks that run, weights, soft labels and item embeddings belong to a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deshi.arrays import Array
from deshi.artifacts import read_array, read_json, read_tensors
from deshi.auditing._finding import Finding, count, finding, location
from deshi.data.bundle import Bundle
from deshi.types import ITEM

PAIRS = 20_000
"""Pairs of neighbours in histories whose embeddings are compared."""

TOPK, SCORES, EMBEDDINGS = "topk_items.npy", "topk_scores.npy", "item_embeddings.safetensors"


def audit_record(record: Mapping[str, Any], bundle: Bundle, file: Path) -> list[Finding]:
    """Compare a run's record or a store's manifest with the bundle.

    Args:
        record: JSON with ``data_fingerprint``, and perhaps ``n_items``.
        bundle: the data at hand.
        file: where the record stands.
    """
    data, size = record.get("data_fingerprint"), record.get("n_items", bundle.n_items)
    if data in (None, bundle.fingerprint) and size == bundle.n_items:
        return []
    message = f"{file.name} was made on data {str(data)[:12]} with {size:,} items; {bundle.name} is "
    message += f"{bundle.fingerprint[:12]} with {bundle.n_items:,}."
    effect = f"Item indices mean other items: up to {max(size, bundle.n_items):,} rows belong to others."
    fix = "Prepare the data as they were for it, or make it again on this bundle."
    return [finding("made-on-another-bundle", message, [location(file=file)], effect, fix)]


def audit_weights(file: Path, bundle: Bundle) -> list[Finding]:
    """A student's weights: finite, and with a row for every item of the bundle and one for padding."""
    if not file.is_file():
        return []
    findings = []
    for name, tensor in read_tensors(file).items():
        bad = int((~torch.isfinite(tensor.float())).sum())
        if bad:
            message = f"{count(bad, tensor.numel(), f'numbers of {name}')} are NaN or infinite."
            effect = f"{bad:,} weights make every score that they touch NaN."
            fix = "The training diverged: lower train.learning_rate, keep train.gradient_clip, or use fp32."
            findings.append(finding("not-finite", message, [location(file=file.name, tensor=name)], effect, fix))
        if name == "items.weight" and tensor.shape[0] != bundle.n_items + 1:
            message = f"{file.name} has {tensor.shape[0] - 1:,} item rows (and one of padding); {bundle.name} has "
            message += f"{bundle.n_items:,} items."
            effect = f"{abs(tensor.shape[0] - 1 - bundle.n_items):,} items have no row of their own, or rows no item."
            fix = "Load the weights with the bundle that they were trained on."
            findings.append(
                finding("made-on-another-bundle", message, [location(file=file.name, tensor=name)], effect, fix)
            )
    return findings


def audit_soft_labels(folder: Path, bundle: Bundle) -> list[Finding]:
    """A soft-label store: its manifest, its ranked lists and its item embeddings against the bundle.

    Args:
        folder: with ``manifest.json`` and some of ``topk_items.npy``, ``topk_scores.npy``,
            ``item_embeddings.safetensors`` (see ``docs/audit.md``).
        bundle: the data at hand.

    Raises:
        DeshiError: if there is no manifest, or a file can't be read.
    """
    manifest = read_json(folder / "manifest.json")
    findings = audit_record(manifest, bundle, folder / "manifest.json")
    if (folder / TOPK).is_file():
        augmented = isinstance(manifest, dict) and manifest.get("sequences") == "augmented"
        rows = int(manifest["n_rows"]) if augmented else bundle.n_interactions
        findings += _lists(read_array(folder / TOPK), bundle, rows)
    if (folder / SCORES).is_file():
        findings += _finite(read_array(folder / SCORES), SCORES)
    if (folder / EMBEDDINGS).is_file():
        for name, tensor in read_tensors(folder / EMBEDDINGS).items():
            findings += audit_embeddings(tensor.float().numpy(), bundle, f"{EMBEDDINGS}, {name}")
    return findings


def _lists(items: Array, bundle: Bundle, n_rows: int) -> list[Finding]:
    if items.ndim != 2 or items.shape[0] != n_rows:
        message = f"{TOPK} has shape {items.shape}; a row an event makes {n_rows:,} rows."
        effect = f"{abs(items.shape[0] - n_rows):,} rows are missing or belong to no event."
        fix = "Export the teacher's lists again, on this bundle."
        return [finding("made-on-another-bundle", message, [location(file=TOPK)], effect, fix)]
    rows, columns = np.nonzero((items < -1) | (items >= bundle.n_items))
    if not len(rows):
        return []
    message = (
        f"{count(len(rows), items.size, 'listed items')} are no item of {bundle.name} (0 .. {bundle.n_items - 1})."
    )
    effect = f"{len(np.unique(rows)):,} lists teach items that do not exist; the others may mean other items too."
    where = (location(file=TOPK, row=r, column=c, item=int(items[r, c])) for r, c in zip(rows, columns, strict=True))
    return [finding("made-on-another-bundle", message, where, effect, "Export the lists again, on this bundle.")]


def _finite(values: Array, name: str) -> list[Finding]:
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
    if not len(bad):
        return []
    message = f"{count(len(bad), len(values), f'rows of {name}')} hold NaN or infinity."
    effect = f"{len(bad):,} rows make every loss and score that they touch NaN."
    where = (location(file=name, row=row) for row in bad.tolist())
    return [finding("not-finite", message, where, effect, "Make these rows again, or leave their items out.")]


def audit_embeddings(embeddings: Array, bundle: Bundle, name: str = "embeddings") -> list[Finding]:
    """Item embeddings ``(n_items, D)``: one row an item, finite, and in the vocabulary's order.

    The order is judged by what users do: items that follow each other in histories are more alike than others, if the
    embeddings know anything of them. A shift by one that shows this where the order as it stands does not is reported.

    Args:
        embeddings: row ``i`` for item index ``i``.
        bundle: the data.
        name: of the file, for the findings.
    """
    if embeddings.ndim != 2 or len(embeddings) != bundle.n_items:
        off = len(embeddings) - bundle.n_items
        message = f"{name} has {len(embeddings):,} rows, {bundle.name} has {bundle.n_items:,} items"
        message += ": a row of padding too many." if off == 1 else "."
        effect = (
            f"{abs(off):,} rows too {'many' if off > 0 else 'few'}; from the first of them on, rows belong to others."
        )
        fix = "Write one row an item, in the order of vocabulary.parquet, without padding."
        return [finding("made-on-another-bundle", message, [location(file=name)], effect, fix)]
    return _finite(embeddings, name) or _shifted(embeddings, bundle, name)


def _shifted(embeddings: Array, bundle: Bundle, name: str) -> list[Finding]:
    unit = embeddings - embeddings.mean(0)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    first, second = _neighbours(bundle)
    random = np.random.default_rng(0).permutation(len(second))
    likeness = {}
    for shift in (0, -1, 1):
        rows = np.roll(unit, -shift, axis=0)
        likeness[shift] = (rows[first] * rows[second]).sum(1) - (rows[first] * rows[second[random]]).sum(1)
    best = max(likeness, key=lambda shift: float(likeness[shift].mean()))
    gain = likeness[best] - likeness[0]
    error = float(gain.std()) / max(1, len(gain)) ** 0.5
    if best == 0 or gain.mean() < 6 * error or likeness[0].mean() > 0.5 * likeness[best].mean():
        return []
    message = f"The {len(embeddings):,} rows of {name} are off by {best:+d} against the vocabulary."
    effect = (
        f"Items that follow each other in histories have a cosine of {likeness[0].mean():+.4f} above random pairs as "
    )
    effect += f"the rows stand, and {likeness[best].mean():+.4f} with the rows put back ({len(first):,} pairs)."
    fix = "Write one row an item in the order of vocabulary.parquet; padding has no row. Train the student again."
    where = [
        location(item=bundle.vocabulary[ITEM][item], index=item, stands_in_row=(item + best) % bundle.n_items)
        for item in range(min(5, bundle.n_items))
    ]
    return [finding("embeddings-shifted", message, where, effect, fix)]


def _neighbours(bundle: Bundle) -> tuple[Array, Array]:
    """Pairs of different items that follow each other in a history, evenly spaced over the data."""
    inner = np.ones(bundle.n_interactions, dtype=bool)
    inner[bundle.offsets[1:] - 1] = False
    rows = np.flatnonzero(inner)
    rows = rows[bundle.items[rows] != bundle.items[rows + 1]]
    rows = rows[np.linspace(0, len(rows) - 1, min(PAIRS, len(rows))).astype(np.int64)]
    return np.asarray(bundle.items[rows]), np.asarray(bundle.items[rows + 1])
