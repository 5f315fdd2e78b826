"""The work of ``deshi label import``: lists of another program written to a store of soft labels."""

from __future__ import annotations

import logging

from deshi.configuration.targets import build
from deshi.runs import load_bundle
from deshi.soft_labels import Histories, LabelResult, store_path, write_lists
from deshi.soft_labels.foreign import Imported
from deshi.stages.label_import import LabelImportConfig

log = logging.getLogger(__name__)


def run(cfg: LabelImportConfig) -> LabelResult:
    """Read another program's lists and write them as a store.

    Raises:
        DeshiError: if the files or the data are missing or don't belong together.
    """
    bundle = load_bundle(cfg.data.name, cfg.paths.data)
    imported: Imported = build(cfg.source, bundle=bundle)
    for note in imported.notes:
        log.info("%s", note)
    soft_labels = write_lists(
        *imported.lists.aligned(),
        Histories.of(bundle),
        store_path(cfg.paths.soft_labels, cfg.store),
        teacher={"name": imported.program, "source": cfg.source, "notes": imported.notes},
        score_kind=imported.lists.score_kind,
        dtype=cfg.dtype,
        item_embeddings=imported.embeddings,
        force=cfg.force,
    )
    return LabelResult(soft_labels)
