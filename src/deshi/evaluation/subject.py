"""What is evaluated and on what: a run or a data set alone, with its bundle, split and training ranges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deshi.arrays import Ints
from deshi.configuration.saved import find_trained
from deshi.configuration.schemas import DataConfig, EvaluateConfig, TrainingConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.splits import Examples, LeaveOneOut, Split
from deshi.models.scorers import Scorer
from deshi.training.runs import check_same_data, load_scorer, read_record, trained_config
from deshi.types import DeshiError


@dataclass(frozen=True, eq=False)
class Subject:
    """The data of an evaluation, and the run if there is one.

    Attributes:
        bundle: the data.
        split: whose examples are asked.
        starts: ``(n_users,)`` flat positions, with ``ends`` the events that were trained on.
        ends: ``(n_users,)`` flat positions.
        scorer: what the run trained, or None.
        record: the run's ``run.json``, empty without a run.
        folder: the run's folder, or None.
    """

    bundle: Bundle
    split: Split
    starts: Ints
    ends: Ints
    scorer: Scorer | None = None
    record: dict[str, Any] | None = None
    folder: Path | None = None


def find_subject(cfg: EvaluateConfig, device: str = "cpu") -> Subject:
    """Load what ``cfg`` names and check that it fits together.

    Raises:
        DeshiError: if the run or the bundle is missing, or the run was trained on other data.
    """
    if cfg.run is None:
        if cfg.data is None:
            raise DeshiError("A baseline needs a data set: give data=NAME, e.g. data=ml-100k.")
        bundle = _load_bundle(cfg.data, [cfg.paths.data])
        split: Split = (build(cfg.split) if cfg.split else LeaveOneOut())(bundle)
        return Subject(bundle, split, *split.train_ranges(bundle))
    folder = find_trained(cfg.paths.runs, cfg.run)
    record, fitted = read_record(folder), trained_config(folder)
    bundle = _load_bundle(cfg.data or fitted.data, [cfg.paths.data, fitted.paths.data])
    check_same_data(folder, record, bundle)
    scorer, _ = load_scorer(folder, device, bundle)
    own: Split = build(fitted.split)(bundle)
    split = build(cfg.split)(bundle) if cfg.split else own
    starts, ends = _trained_ranges(fitted, own, bundle)
    return Subject(bundle, split, starts, ends, scorer, record, folder)


def leaked_targets(subject: Subject, examples: Examples) -> int:
    """How many of the examples' targets lie inside the ranges that were trained on."""
    owners = np.repeat(examples.users, np.diff(examples.target_offsets))
    return int((examples.target_rows < subject.ends[owners]).sum())


def _trained_ranges(fitted: TrainingConfig, split: Split, bundle: Bundle) -> tuple[Ints, Ints]:
    if fitted.train.refit or fitted.train.train_targets == "including_validation":
        return split.refit_ranges(bundle)
    return split.train_ranges(bundle, fitted.train.train_targets)


def _load_bundle(data: DataConfig, folders: list[Path]) -> Bundle:
    """The data set's bundle in the first of ``folders`` that has it."""
    paths = [folder / data.name for folder in folders]
    found = [path for path in paths if (path / "manifest.json").is_file()]
    return Bundle.load(found[0] if found else paths[0])
