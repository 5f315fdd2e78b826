"""Untrained networks by a configuration, with the other runs that a teacher or a selection strategy names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from deshi.arrays import Ints
from deshi.configuration.run_folders import TRAINING_STAGES, find_run
from deshi.configuration.schemas import FitConfig, PathsConfig, TeachConfig, TrainConfig, TrainingConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.splits import Split
from deshi.hardware import training_device
from deshi.models.base import SequentialRecommender
from deshi.models.scorers import Scorer
from deshi.runs.run import Run, load_bundle, trained_ranges
from deshi.teachers.base import Resources


def new_network(cfg: TrainingConfig, bundle: Bundle | None, n_items: int, paths: PathsConfig | None = None) -> Any:
    """What ``cfg`` describes, untrained: a student, or a teacher with what it draws on.

    Its initial weights depend on the run's seed alone; the global generator stays as it was.

    Args:
        cfg: of a training.
        bundle: its data, for a teacher; None loads them.
        n_items: of the catalogue.
        paths: where runs and data lie; None: where ``cfg`` has them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        if isinstance(cfg, FitConfig):
            return build(cfg.student, n_items=n_items)
        assert isinstance(cfg, TeachConfig)
        folders = paths or cfg.paths
        data = bundle or load_bundle(cfg.data.name, folders.data, cfg.paths.data)
        return build(cfg.teacher, n_items=n_items, resources=resources(cfg, data, folders))


def resources(cfg: TrainingConfig, bundle: Bundle, paths: PathsConfig | None = None) -> Resources:
    """What a teacher may draw on, by a run's configuration."""
    folders = paths or cfg.paths
    ray = cfg.ray if isinstance(cfg, TeachConfig) and cfg.engine == "ray" else None
    student, scorer = partial(_student, folders, bundle), partial(_scorer, folders, bundle)
    # A run that was trained on a GPU is opened on machines without one too; training itself has checked its device.
    device = training_device("cpu" if cfg.train.accelerator == "cpu" else "auto")
    return Resources(bundle, cfg.paths.cache, student, device, scorer, partial(_ranges, cfg, bundle), ray)


def _ranges(cfg: TrainingConfig, bundle: Bundle) -> tuple[Ints, Ints]:
    split: Split = build(cfg.split)(bundle)
    return trained_ranges(cfg.train, split, bundle)


def _student(paths: PathsConfig, bundle: Bundle, name: str) -> tuple[SequentialRecommender, dict[str, Any]]:
    run = Run.open(name, paths)
    run.check_same_data(bundle)
    return run.student(), run.record


def _scorer(paths: PathsConfig, bundle: Bundle, name: str, device: torch.device | str) -> tuple[Scorer, dict[str, Any]]:
    run = Run.open(name, paths)
    run.check_same_data(bundle)
    return run.scorer(device), run.record


def with_named_runs(node: dict[str, Any], paths: PathsConfig) -> dict[str, Any]:
    """A node whose runs (``student``, ``first``, ``members``) are named by their folders.

    ``latest`` is another one tomorrow.
    """
    named = dict(node)
    for key in ("student", "first"):
        if isinstance(node.get(key), str):
            named[key] = exact_name(paths, node[key])
    if isinstance(node.get("members"), list):
        named["members"] = [exact_name(paths, member) for member in node["members"]]
    return named


def with_exact_names(train: TrainConfig, paths: PathsConfig, stage: str) -> TrainConfig:
    """The same with the run that a student starts from, and the one that is refitted, named by their folders.

    Args:
        train: with names as they were given.
        paths: where runs lie.
        stage: that trains; a refit is of a run of the same stage.
    """
    names: dict[str, str] = {}
    if train.start_from is not None:
        names["start_from"] = exact_name(paths, train.start_from)
    if isinstance(train.refit, str):
        names["refit"] = exact_name(paths, train.refit, stage)
    return train.model_copy(update=names)


def exact_name(paths: PathsConfig, name: str, stages: str | Sequence[str] = TRAINING_STAGES) -> str:
    """The folder's name of a run, or its path if it lies elsewhere."""
    folder = find_run(paths.runs, stages, name)
    return folder.name if folder.resolve().parents[1] == paths.runs.resolve() else str(folder)
