"""The work of ``deshi teach``: a teacher trained, one for each fold of the users, or an ensemble's weights chosen."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from numpy.typing import NDArray

from deshi.arrays import Ints
from deshi.artifacts import read_array, read_json, write_array, write_json
from deshi.configuration.run_folders import FOLDS_FILE, METRICS_FILE, TEACHER_FILE, TIME_FILE
from deshi.configuration.schemas import TeachConfig
from deshi.configuration.targets import target_class
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import Examples, Split
from deshi.evaluation import evaluate_ranks
from deshi.hardware import training_device
from deshi.metrics import metrics_from_ranks
from deshi.models.base import Recommender
from deshi.models.scorers import Scorer
from deshi.runs import Run, fold_folder, new_network, with_named_runs, write_record
from deshi.teachers.base import FittedTeacher
from deshi.teachers.cross_fit import draw_folds
from deshi.training._callbacks import KeepBest, LearningCurve
from deshi.training._ranks import Ranks
from deshi.training._refit import refitted_run
from deshi.training.fit import network_name, run_training
from deshi.training.module import MONITOR
from deshi.training.trainer import TIME_NAMES, Trained, Training
from deshi.types import DeshiError

log = logging.getLogger(__name__)

VALIDATION_EXAMPLES = "validation_examples"


def run(cfg: TeachConfig) -> Run:
    """Make a teacher as ``cfg`` says; ``cfg.resume`` goes on with an interrupted run.

    Raises:
        DeshiError: as :func:`deshi.training.fit.run`, or for folds of a teacher that isn't trained.
    """
    cfg = cfg.model_copy(update={"teacher": with_named_runs(cfg.teacher, cfg.paths)})
    return run_training("teach", cfg, network_name(cfg.teacher), train_run)


def train_run(cfg: TeachConfig, bundle: Bundle, split: Split, folder: Path, ranks: Ranks) -> None:
    """The training of a teacher in its run folder, on one of its ranks."""
    if not _is_network(cfg):
        ranks.first_alone(lambda: _fit_teacher(cfg, bundle, split, folder))  # no gradients to share
    elif cfg.cross_fit:
        _cross_fit(cfg, bundle, split, folder, ranks)
    else:
        TeacherTraining(cfg, bundle, split, folder, network_name(cfg.teacher), ranks=ranks).run()


class TeacherTraining(Training):
    """The training of one teacher: what it says of itself is recorded, and a slow one validates on some examples.

    A teacher whose answers are costly takes an argument ``validation_examples``: how many cases select its best epoch.
    """

    cfg: TeachConfig

    def _train(
        self, phase: str, starts: Ints, ends: Ints, examples: Examples | None, epochs: int, best: KeepBest | None
    ) -> tuple[LearningCurve, L.Trainer]:
        return super()._train(
            phase, starts, ends, None if examples is None else asked(self.cfg, examples), epochs, best
        )

    def _record(self, student: Recommender, epochs: int, curve: LearningCurve, trainer: L.Trainer) -> dict[str, Any]:
        size = self.cfg.teacher.get(VALIDATION_EXAMPLES)
        sampled = {} if size is None else {VALIDATION_EXAMPLES: size}
        return super()._record(student, epochs, curve, trainer) | sampled | student.describe()


def asked(cfg: TeachConfig, examples: Examples) -> Examples:
    """The validation examples, or a sample of them, the same all through a run, where each is slow to answer."""
    size = cfg.teacher.get(VALIDATION_EXAMPLES)
    if size is None or size >= len(examples):
        return examples
    log.info("validation on %d of %d examples, drawn once: each is slow to answer", size, len(examples))
    return examples.sample(size, cfg.seed)


def _is_network(cfg: TeachConfig) -> bool:
    if target_class(cfg.teacher, Recommender) is not None:
        return True
    name = network_name(cfg.teacher)
    if cfg.cross_fit:
        raise DeshiError(
            f"cross_fit is set, but {name} isn't trained on histories. Leave it out: train the members with it, if you "
            "want an ensemble of such teachers."
        )
    if cfg.train.refit is True:
        raise DeshiError(
            f"train.refit=true is set, but {name} isn't trained in epochs: it can't choose and be refitted in one run. "
            "Run it without first; then name that run in train.refit=RUN and, of an ensemble, the members' refits in "
            "teacher.members."
        )
    return False


def _cross_fit(cfg: TeachConfig, bundle: Bundle, split: Split, folder: Path, ranks: Ranks) -> None:
    """A training for each fold, on the other folds' users; folds that are finished stay as they are."""
    ranks.first_alone(lambda: _draw_folds(cfg, bundle, folder))
    folds = read_array(folder / FOLDS_FILE)  # a resumed run keeps the folds that it began with
    records, seconds = [], dict[str, float]()
    for fold in range(cfg.cross_fit):
        log.info("fold %d of %d: trained on the %d users of the others", fold + 1, cfg.cross_fit, (folds != fold).sum())
        done = _fold(cfg, bundle, split, fold_folder(folder, fold), folds != fold, ranks)
        records.append(done.record)
        seconds = {key: seconds.get(key, 0.0) + value for key, value in done.seconds.items()}
    ranks.first_alone(lambda: _finish_folds(cfg, bundle, split, folder, records, seconds))


def _draw_folds(cfg: TeachConfig, bundle: Bundle, folder: Path) -> None:
    if not (folder / FOLDS_FILE).is_file():
        write_array(folder / FOLDS_FILE, draw_folds(bundle.n_users, cfg.cross_fit, cfg.seed))


def _finish_folds(
    cfg: TeachConfig, bundle: Bundle, split: Split, folder: Path, records: list[dict[str, Any]],
    seconds: dict[str, float],
) -> None:  # fmt: skip
    """Validate the folds' teachers together, each on the users that it hasn't seen, and write the run's files."""
    scorer = Run(folder, cfg.paths).cross_fitted(training_device(cfg.train.accelerator), bundle)
    metrics = validation_metrics(scorer, cfg, bundle, asked(cfg, split.examples(bundle, "validation")))
    name = network_name(cfg.teacher)
    record = records[0] | {"model": name, "cross_fit": cfg.cross_fit, "fold_epochs": _epochs(records)}
    _finish(folder, record, seconds, metrics)


def _fold(
    cfg: TeachConfig, bundle: Bundle, split: Split, folder: Path, users: NDArray[np.bool_], ranks: Ranks
) -> Trained:
    name = network_name(cfg.teacher)
    folder.mkdir(exist_ok=True)
    return TeacherTraining(cfg, bundle, split, folder, name, users, ranks).run_once()


def _epochs(records: list[dict[str, Any]]) -> list[int]:
    return [record["selected_epoch"] for record in records]


def _fit_teacher(cfg: TeachConfig, bundle: Bundle, split: Split, folder: Path) -> None:
    """A teacher without gradients: it chooses on validation, and its state is JSON."""
    begin = time.perf_counter()
    teacher = new_network(cfg, bundle, bundle.n_items)
    if not isinstance(teacher, FittedTeacher):
        raise DeshiError(f"{cfg.teacher['_target_']} is no teacher: expected fit, restore and scores, or a network.")
    selected = refitted_run(cfg, bundle)
    if selected is None:
        examples = split.examples(bundle, "validation")
        state = teacher.fit(
            ExampleBatches(bundle, examples, bundle.n_interactions, cfg.eval.batch_size, cfg.eval.filter_seen)
        )
        teacher.restore(state)
        known = teacher.validation_metrics()
        metrics = validation_metrics(teacher, cfg, bundle, examples) if known is None else known
    else:
        state, metrics = teacher.take_over(read_json(selected.folder / TEACHER_FILE)), dict[str, float]()
    write_json(folder / TEACHER_FILE, state)
    record = {
        "stage": "teach", "model": network_name(cfg.teacher), "parameters": 0, "data": bundle.name,
        "data_fingerprint": bundle.fingerprint, "n_items": bundle.n_items, "split": split.description,
        "train_targets": cfg.train.train_targets, "refit": cfg.train.refit, "selected_on": MONITOR, "selected_epoch": 0,
        "trained_epochs": 0, "positions": 0, "seed": cfg.seed, "state": state,
    }  # fmt: skip
    _finish(folder, record, {TIME_NAMES["teach"]: round(time.perf_counter() - begin, 3)}, metrics)


def _finish(folder: Path, record: dict[str, Any], seconds: dict[str, float], metrics: dict[str, float]) -> None:
    write_record(folder, record)
    write_json(folder / TIME_FILE, seconds | {"wall_seconds": round(sum(seconds.values()), 3)})
    write_json(folder / METRICS_FILE, metrics)
    log.info("finished: %s", metrics or "refitted, so there is no validation figure")


def validation_metrics(scorer: Scorer, cfg: TeachConfig, bundle: Bundle, examples: Examples) -> dict[str, float]:
    """Metrics at 10 of a scorer on validation examples, each named ``validation/...``."""
    device = training_device(cfg.train.accelerator)
    ranks = evaluate_ranks(scorer, bundle, examples, cfg.eval.filter_seen, cfg.eval.batch_size, device, top_k=0).ranks
    metrics = metrics_from_ranks(ranks["rank"].to_numpy(), (10,), ranks["example"].to_numpy())
    return {f"validation/{name}": value for name, value in metrics.items()}
