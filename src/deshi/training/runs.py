"""Finished trainings: finding their folders, loading what was trained, building what a configuration names."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from deshi.artifacts import read_json
from deshi.configuration.saved import find_trained, load_config, read_saved
from deshi.configuration.schemas import DistillConfig, FitConfig, TeachConfig, TrainingConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.hardware import training_device
from deshi.models.base import Recommender, SequentialRecommender
from deshi.models.scorers import Scorer, scorer_of
from deshi.teachers.base import FittedTeacher, Resources
from deshi.teachers.cross_fit import CrossFitted
from deshi.training.checkpoint import load_weights
from deshi.types import DeshiError

STUDENT_FILE = "student.safetensors"
RUN_FILE = "run.json"
DATA_FILE = "data.json"
TEACHER_FILE = "teacher.json"
FOLDS_FILE = "folds.npy"
CHECKPOINTS = "checkpoints"
"""The folder that a training makes when it begins."""


def trained_config(folder: Path) -> TrainingConfig:
    """The configuration of a training's run folder, of whichever stage it is."""
    models: dict[str, type[TrainingConfig]] = {"teach": TeachConfig, "distill": DistillConfig, "fit": FitConfig}
    return load_config(folder, models[stage_of(folder)])


def stage_of(folder: Path) -> str:
    """The stage that trained in a run folder, by its configuration."""
    saved = read_saved(folder)
    return next((stage for key, stage in (("teacher", "teach"), ("distill", "distill")) if key in saved), "fit")


def load_bundle(cfg: TrainingConfig) -> Bundle:
    """The bundle of ``cfg.data``.

    Raises:
        DeshiError: with the command that prepares it.
    """
    path = cfg.paths.data / cfg.data.name
    if not (path / "manifest.json").exists():
        raise DeshiError(
            f"There is no data bundle at {path}. Prepare it first: deshi prepare data={cfg.data.name} "
            "(with the same data.* and paths.* overrides as here)."
        )
    return Bundle.load(path)


def new_network(cfg: TrainingConfig, bundle: Bundle | None, n_items: int) -> Any:
    """What ``cfg`` describes, untrained: a student, or a teacher with what it draws on.

    Its initial weights depend on the run's seed alone; the global generator stays as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        if isinstance(cfg, FitConfig):
            return build(cfg.student, n_items=n_items)
        assert isinstance(cfg, TeachConfig)
        return build(cfg.teacher, n_items=n_items, resources=resources(cfg, bundle or load_bundle(cfg)))


def resources(cfg: TrainingConfig, bundle: Bundle) -> Resources:
    """What a teacher may draw on, by a run's configuration."""
    student, scorer = partial(_student_for, cfg.paths.runs, bundle), partial(_scorer_for, cfg.paths.runs, bundle)
    return Resources(bundle, cfg.paths.cache, student, training_device(cfg.train.accelerator), scorer)


def _student_for(runs: Path, bundle: Bundle, text: str) -> tuple[SequentialRecommender, dict[str, Any]]:
    folder = find_trained(runs, text)
    student, record = load_student(folder)
    check_same_data(folder, record, bundle)
    return student, record


def _scorer_for(runs: Path, bundle: Bundle, text: str, device: torch.device | str) -> tuple[Scorer, dict[str, Any]]:
    folder = find_trained(runs, text)
    scorer, record = load_scorer(folder, device)
    check_same_data(folder, record, bundle)
    return scorer, record


def with_named_runs(node: dict[str, Any], runs: Path) -> dict[str, Any]:
    """A node whose runs (``student``, ``members``) are named by their folders: ``latest`` is another one tomorrow."""

    def named(text: str) -> str:
        folder = find_trained(runs, text)
        return folder.name if folder.resolve().parents[1] == runs.resolve() else str(folder)

    exact = dict(node)
    if isinstance(node.get("student"), str):
        exact["student"] = named(node["student"])
    if isinstance(node.get("members"), list):
        exact["members"] = [named(member) for member in node["members"]]
    return exact


def check_same_data(folder: Path, record: dict[str, Any], bundle: Bundle) -> None:
    """Refuse a run that was trained on other data than ``bundle``.

    Raises:
        DeshiError: with both fingerprints.
    """
    trained_on = record["data_fingerprint"]
    if trained_on != bundle.fingerprint:
        raise DeshiError(
            f"The run {folder} was trained on the data {record['data']} with fingerprint {trained_on}, but "
            f"{bundle.path} has fingerprint {bundle.fingerprint}. Prepare the data as they were for the run, "
            f"or train a new run on these."
        )


def read_record(folder: Path) -> dict[str, Any]:
    """The record ``run.json`` of a finished training.

    Raises:
        DeshiError: if it isn't finished, with the command that finishes it.
    """
    if not (folder / "metrics.json").exists():
        raise DeshiError(f"The run {folder} isn't finished. Finish it: deshi {stage_of(folder)} resume={folder}")
    return cast(dict[str, Any], read_json(folder / RUN_FILE))


def load_network(folder: Path, bundle: Bundle | None = None) -> tuple[Recommender, dict[str, Any]]:
    """The selected network of a run folder, in evaluation mode, and the run's record.

    Args:
        folder: of a run that trained one network.
        bundle: for a teacher that draws on the data; None loads the run's own.

    Raises:
        DeshiError: if the run isn't finished, or trained none or several networks.
    """
    record, cfg = read_record(folder), trained_config(folder)
    if not (folder / STUDENT_FILE).is_file():
        raise DeshiError(
            f"The run {folder} holds {record['student']}, which is not one trained network, expected a run of "
            "deshi fit, or of deshi teach with such a teacher and without cross_fit."
        )
    network = cast(Recommender, new_network(cfg, bundle, record["n_items"]))
    load_weights(network, folder / STUDENT_FILE)
    return network.eval(), record


def load_student(folder: Path) -> tuple[SequentialRecommender, dict[str, Any]]:
    """The selected student of a run folder, in evaluation mode, and the run's record (``run.json``).

    Raises:
        DeshiError: as :func:`load_network`, or for a network without hidden states and an item table.
    """
    network, record = load_network(folder)
    if not isinstance(network, SequentialRecommender):
        raise DeshiError(
            f"The run {folder} holds a {type(network).__name__}, expected a network with hidden states and an item "
            "table, such as a run of deshi fit."
        )
    return network, record


def load_selected_student(folder: Path) -> SequentialRecommender:
    """The student that validation selected, before any refit, in evaluation mode.

    Raises:
        DeshiError: as :func:`load_student`, or if the checkpoints of a refitted run were removed.
    """
    student, record = load_student(folder)
    if record["refit"]:
        path = folder / CHECKPOINTS / STUDENT_FILE
        if not path.is_file():
            raise DeshiError(f"{path} is missing: the run was refitted, and only that file holds what was selected.")
        load_weights(student, path)
    return student.eval()


def load_scorer(
    folder: Path, device: torch.device | str = "cpu", bundle: Bundle | None = None
) -> tuple[Scorer, dict[str, Any]]:
    """Whatever a run folder holds, as a scorer, and the run's record.

    Raises:
        DeshiError: if the run isn't finished or doesn't fit its configuration.
    """
    record = read_record(folder)
    if (folder / STUDENT_FILE).is_file():
        return scorer_of(load_network(folder, bundle)[0], device), record
    cfg = trained_config(folder)
    bundle = bundle or load_bundle(cfg)
    if (folder / FOLDS_FILE).is_file():
        return load_cross_fitted(folder, cfg, bundle, device), record
    teacher = cast(FittedTeacher, new_network(cfg, bundle, record["n_items"]))
    teacher.restore(read_json(folder / TEACHER_FILE))
    return teacher, record


def load_cross_fitted(
    folder: Path, cfg: TrainingConfig, bundle: Bundle, device: torch.device | str = "cpu"
) -> CrossFitted:
    """The teachers of a cross-fitted run's folds, each answering for the users that it was not trained on."""
    folds = np.load(folder / FOLDS_FILE, allow_pickle=False)
    scorers = []
    for fold in range(int(folds.max()) + 1):
        network = new_network(cfg, bundle, bundle.n_items)
        load_weights(network, fold_folder(folder, fold) / STUDENT_FILE)
        scorers.append(scorer_of(network.eval(), device))
    return CrossFitted(scorers, folds)


def fold_folder(folder: Path, fold: int) -> Path:
    """Where the training of one fold of a cross-fitted run lies."""
    return folder / f"fold-{fold}"
