"""What is audited: a data set and its split, and a run of ``deshi fit`` with its evaluations where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deshi.artifacts import read_json
from deshi.configuration.saved import CONFIG_FILE, load_config
from deshi.configuration.schemas import (
    LEAVE_ONE_OUT,
    AuditConfig,
    DataConfig,
    EvaluateConfig,
    PathsConfig,
    TrainingConfig,
)
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.splits import Split
from deshi.evaluation.stored import Evaluation, evaluations_of, load_evaluation
from deshi.training.runs import RUN_FILE, STUDENT_FILE, read_record, trained_config
from deshi.types import DeshiError


@dataclass(frozen=True, eq=False)
class Fitted:
    """A finished run of ``deshi fit``, or of ``deshi teach`` that trained one network.

    Attributes:
        folder: its run folder.
        cfg: its configuration.
        record: its ``run.json``.
        metrics: its ``metrics.json``.
    """

    folder: Path
    cfg: TrainingConfig
    record: dict[str, Any]
    metrics: dict[str, float]


@dataclass(frozen=True, eq=False)
class Subject:
    """What ``deshi audit`` looks at.

    Attributes:
        name: for the run folder and the title.
        bundle: the data.
        split: of the run, or as configured.
        fitted: the run, or None.
        evaluations: of the run, with the split of each.
        notes: sentences about what could not be looked at.
    """

    name: str
    bundle: Bundle
    split: Split
    fitted: Fitted | None = None
    evaluations: list[tuple[Evaluation, Split]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_subject(cfg: AuditConfig) -> Subject:
    """Load what ``cfg`` names.

    Raises:
        DeshiError: if a run or bundle is missing or unfinished, with what to do.
    """
    if cfg.run is None:
        if cfg.data is None:
            raise DeshiError("There is nothing to audit: give a run, or data=NAME, e.g. data=ml-100k.")
        bundle = _bundle(cfg.data, [cfg.paths])
        return Subject(bundle.name, bundle, build(cfg.split or LEAVE_ONE_OUT)(bundle))
    folder = Path(cfg.run)
    return _of_evaluation(cfg, folder) if _stage(folder) == "evaluate" else _of_fit(cfg, folder)


def _stage(folder: Path) -> str:
    if not (folder / RUN_FILE).is_file():
        if (folder / CONFIG_FILE).is_file() and (folder / "data.json").is_file():
            read_record(folder)  # says that it isn't finished
        raise DeshiError(f"{folder} has no {RUN_FILE}: expected a finished run of deshi fit or deshi evaluate.")
    stage = str(read_json(folder / RUN_FILE).get("stage"))
    if stage not in ("fit", "teach", "distill", "evaluate"):
        raise DeshiError(f"{folder} is a run of deshi {stage}, expected one of deshi fit, teach or evaluate.")
    return stage


def _of_fit(cfg: AuditConfig, folder: Path) -> Subject:
    """A run with its newest evaluation, if it was evaluated."""
    fitted = _fitted(folder)
    bundle = _bundle(cfg.data or fitted.cfg.data, [cfg.paths, fitted.cfg.paths])
    newest = evaluations_of(cfg.paths.runs, folder)[-1:]
    notes = [] if newest else [f"The run was not evaluated: no ranks to audit. Run: deshi evaluate run={folder}"]
    evaluations = [(one, _split_of(one, bundle)) for one in newest]
    name = f"{bundle.name}_{fitted.record['student']}"
    return Subject(name, bundle, build(fitted.cfg.split)(bundle), fitted, evaluations, notes)


def _of_evaluation(cfg: AuditConfig, folder: Path) -> Subject:
    """An evaluation with the run that it is of; a baseline has none."""
    evaluation = load_evaluation(folder)
    saved = load_config(folder, EvaluateConfig)
    data = cfg.data or saved.data
    if data is None:
        raise DeshiError(f"{folder / CONFIG_FILE} names no data set. Give it: data=NAME.")
    run, notes = evaluation.record["run"], []
    fitted = None
    if run and (Path(run) / RUN_FILE).is_file() and not (Path(run) / STUDENT_FILE).is_file():
        notes.append(f"The run {run} is no single network: its ranks are audited, its batches and weights are not.")
    elif run and (Path(run) / RUN_FILE).is_file():
        fitted = _fitted(Path(run))
    elif run:
        notes.append(f"The run {run} is gone: its batches and weights could not be audited.")
    bundle = _bundle(data, [cfg.paths, saved.paths, *([fitted.cfg.paths] if fitted else [])])
    split = _split_of(evaluation, bundle)
    own = build(fitted.cfg.split)(bundle) if fitted else split
    name = f"{bundle.name}_{evaluation.record['model']}"
    return Subject(name, bundle, own, fitted, [(evaluation, split)], notes)


def _fitted(folder: Path) -> Fitted:
    record = read_record(folder)
    if not (folder / STUDENT_FILE).is_file():
        raise DeshiError(
            f"The run {folder} holds {record['student']}, which is no single network. Audit its evaluation instead: "
            f"deshi audit EVALUATION, after deshi evaluate run={folder}"
        )
    return Fitted(folder, trained_config(folder), record, read_json(folder / "metrics.json"))


def _split_of(evaluation: Evaluation, bundle: Bundle) -> Split:
    split: Split = build(load_config(evaluation.folder, EvaluateConfig).split or LEAVE_ONE_OUT)(bundle)
    return split


def _bundle(data: DataConfig, places: list[PathsConfig]) -> Bundle:
    """The data set's bundle in the first of the places that has it."""
    folders = [paths.data / data.name for paths in places]
    found = [folder for folder in folders if (folder / "manifest.json").is_file()]
    return Bundle.load(found[0] if found else folders[0])
