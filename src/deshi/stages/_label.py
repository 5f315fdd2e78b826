"""The work of ``deshi label``: a run's ranked lists written to a store of soft labels."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deshi.arrays import Ints
from deshi.artifacts import file_sha256
from deshi.cluster import engine
from deshi.configuration.run_folders import FOLDS_FILE, TEACHER_FILE, WEIGHTS_FILE
from deshi.configuration.schemas import TrainingConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.sequences import Augmentation
from deshi.data.splits import Split
from deshi.hardware import training_device
from deshi.runs import Run, fold_folder, with_named_runs
from deshi.soft_labels import (
    Histories,
    Labeller,
    LabelResult,
    augment_histories,
    choose_rows,
    store_path,
    write_soft_labels,
)
from deshi.stages.label import LabelConfig
from deshi.training.selection import choose
from deshi.types import DeshiError

log = logging.getLogger(__name__)


def run(cfg: LabelConfig) -> LabelResult:
    """Let a run write its lists.

    Raises:
        DeshiError: if the run or its data are missing or don't belong together.
    """
    source = Run.open(cfg.run, cfg.paths)
    # on a cluster the workers have the devices
    device = "cpu" if cfg.engine == "ray" else str(training_device("auto"))
    trained, bundle, record = source.config, source.bundle, source.record
    scorer = source.scorer(device)
    rows, positions, augmented = chosen_rows(cfg, source)
    teacher = {
        "name": record["model"], "run": source.name, "weights": _identity(source.folder), "split": trained.split,
        "cross_fit": record.get("cross_fit", 0), "train_targets": trained.train.train_targets,
        "refit": trained.train.refit,
    }  # fmt: skip
    vectors = {"none": lambda: None, "scoring": scorer.item_vectors, "text": scorer.text_vectors}[cfg.vectors]()
    if vectors is None and cfg.vectors == "text":
        raise DeshiError(
            f"vectors=text, but {record['model']} isn't made of a language model's vectors of the items. Export a "
            "text teacher or an ensemble with one, or leave vectors out."
        )
    profiles = _profiles(cfg, source, device)
    filter_seen = trained.eval.filter_seen if cfg.filter_seen is None else cfg.filter_seen
    labeller = Labeller(
        scorer.leave_user_out(), augmented or Histories.of(bundle), min(cfg.k, bundle.n_items), filter_seen,
        cfg.normalise, cfg.batch_size, device, cfg.min_context,
    )  # fmt: skip
    with engine(cfg.engine, cfg.ray) as cluster:
        soft_labels = write_soft_labels(
            labeller,
            rows,
            store_path(cfg.paths.soft_labels, cfg.store or source.name),
            teacher=teacher,
            positions=positions,
            score_kind=scorer.score_kind,
            dtype=cfg.dtype,
            item_embeddings=None if vectors is None else torch.from_numpy(vectors),
            user_embeddings=profiles,
            force=cfg.force,
            cluster=cluster,
        )
    return LabelResult(soft_labels)


def _profiles(cfg: LabelConfig, source: Run, device: str) -> torch.Tensor | None:
    """The vectors of the users' profiles, if they are asked for."""
    if cfg.profiles is None:
        return None
    bundle, ray = source.bundle, cfg.ray if cfg.engine == "ray" else None
    vectors: torch.Tensor = build(cfg.profiles)(bundle, source.trained_split(bundle), cfg.paths.cache, device, ray)
    return vectors


def chosen_rows(cfg: LabelConfig, source: Run) -> tuple[Ints, str, Histories | None]:
    """The rows that a run is to label, what the manifest says of them, and the augmented histories, if asked for."""
    bundle, augmented = source.bundle, None
    split = source.trained_split(bundle)
    augmentation = Augmentation(**cfg.augment.model_dump())
    if augmentation != Augmentation():
        augmented = augment_histories(bundle, split, augmentation, cfg.copies, cfg.seed)
    rows, positions = _rows(cfg, source.config, bundle, split, augmented)
    return rows, positions, augmented


def _rows(
    cfg: LabelConfig, trained: TrainingConfig, bundle: Bundle, split: Split, augmented: Histories | None
) -> tuple[Ints, str]:
    """The rows that the teacher is asked for, and what the manifest says of them.

    A strategy chooses among those that are training positions; the others (held-out rows, for the inspection) stay.
    Training positions of a refitted run are those that are followed by a training or a validation event.
    """
    targets = "train" if trained.train.refit else trained.train.train_targets

    def by_rule(rule: str) -> Ints:
        return choose_rows(rule, bundle, split, augmented, cfg.seed, targets)

    rows, strategy = by_rule(cfg.positions), cfg.selection and with_named_runs(cfg.selection, cfg.paths)
    if strategy is None:
        return rows, cfg.positions
    training = np.isin(rows, by_rule("train"))
    marked = choose(
        strategy, augmented or Histories.of(bundle), rows[training], bundle=bundle, split=trained.split,
        paths=cfg.paths, seed=cfg.seed, device=training_device("auto"),
    )  # fmt: skip
    kept = ~training | marked[rows]
    log.info("%s chose %d of %d training rows", strategy["_target_"], int(marked.sum()), int(training.sum()))
    settings = " ".join(f"{key}={value}" for key, value in strategy.items())
    return rows[kept], f"{cfg.positions}, train rows by {settings} seed={cfg.seed}"


def _identity(folder: Path) -> dict[str, Any]:
    """The sha256 of everything that a run's answers depend on."""
    folds = len(list(folder.glob("fold-*")))
    files = [folder / WEIGHTS_FILE, folder / TEACHER_FILE, folder / FOLDS_FILE]
    files += [fold_folder(folder, fold) / WEIGHTS_FILE for fold in range(folds)]
    return {str(file.relative_to(folder)): file_sha256(file) for file in files if file.is_file()}
