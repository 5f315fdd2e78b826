"""The work of ``deshi tune``: trainings of one stage with values that Optuna proposes, scored on validation."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deshi.artifacts import write_json
from deshi.configuration.needs import OPTUNA
from deshi.configuration.run_folders import METRICS_FILE, TIME_FILE, find_run, save_config, write_config
from deshi.configuration.schemas import DistillConfig, FitConfig, TeachConfig, TrainingConfig
from deshi.configuration.targets import ConfigError, build
from deshi.configuration.validation import overlaid, resolved, validate
from deshi.data.sources.sql import hide_password
from deshi.evaluation import seen_targets
from deshi.runs import Run, load_bundle, new_run
from deshi.stages import STAGES
from deshi.stages._tune_shared import EPOCHS, ERROR, RUN, SECONDS, WORKER, give_back, open_study, taken
from deshi.stages.tune import TuneConfig
from deshi.stages.tune_result import BEST_FILE, Trial, TuneResult
from deshi.training.module import MONITOR
from deshi.types import DeshiError

log = logging.getLogger(__name__)

MODELS: dict[str, type[TrainingConfig]] = {"fit": FitConfig, "teach": TeachConfig, "distill": DistillConfig}
STUDY_FILE = "study.journal"
OF_A_WORKER = ("paths", "name", "resume", "storage", "trials", "max_minutes")
"""Keys that may differ between the workers of one search."""


def run(cfg: TuneConfig) -> TuneResult:
    """Search as ``cfg`` says; ``cfg.resume`` goes on with an interrupted search, or adds trials to a finished one.

    Raises:
        DeshiError: if Optuna is missing, a key or a bound of the space isn't valid, or every training failed.
        KeyboardInterrupt: with the command that goes on.
    """
    optuna = OPTUNA.load()
    _check_space(cfg)
    if cfg.resume is not None:
        folder = find_run(cfg.paths.runs, "tune", cfg.resume)
    else:
        folder = new_run(cfg, "tune", cfg.name or f"{cfg.data.name}_{cfg.stage}")
    saved = {"resume": None, "storage": None if cfg.storage is None else hide_password(cfg.storage)}
    save_config(folder, cfg.model_copy(update=saved))
    return _Search(optuna, cfg, folder).run()


def trial_config(cfg: TuneConfig, values: Mapping[str, Any], name: str | None = None) -> TrainingConfig:
    """The configuration of one training: that of the search with ``values`` (by dotted key) put in.

    Raises:
        ConfigError: for keys that the stage doesn't have, and values that it doesn't take.
    """
    model, plain = MODELS[cfg.stage], resolved(cfg)
    plain = {key: value for key, value in plain.items() if key in model.model_fields} | {"name": name, "resume": None}
    return validate(model, overlaid(plain, _nested(values)))


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *above, last = key.split(".")
        level = nested
        for name in above:
            level = level.setdefault(name, {})
        level[last] = value
    return nested


def _check_space(cfg: TuneConfig) -> None:
    """Every key with every choice and bound, before any work; what a class refuses may fit another choice's value."""
    for key, domain in cfg.domains().items():
        for value in domain.ends:
            try:
                trial_config(cfg, {key: value})
            except ConfigError as error:
                if not error.keys_fit:
                    raise


class _Search:
    """One search in its folder; what Optuna knows lies in a journal there, what came out in the trials' run folders."""

    def __init__(self, optuna: Any, cfg: TuneConfig, folder: Path) -> None:
        self.optuna, self.cfg, self.folder = optuna, cfg, folder
        self.domains = cfg.domains()
        self.again = f"deshi tune resume={shlex.quote(str(folder))}"

    def run(self) -> TuneResult:
        begin = time.perf_counter()
        with self._quiet():
            if self.cfg.storage is not None:
                return self._run_shared(self.cfg.storage, begin)
            study = self._study()
            for trial in study.trials:
                if not trial.state.is_finished():
                    self._finish(study, trial)
            while self._open(study, begin):
                self._next(study)
        return self._result(study)

    def _run_shared(self, storage: str, begin: float) -> TuneResult:
        """Search together with other workers: each draws a trial, trains it, and looks again whether some are left."""
        request = resolved(self.cfg.model_copy(update={"resume": None}))
        request = {key: value for key, value in request.items() if key not in OF_A_WORKER}
        study = open_study(self.optuna, storage, self._study_name, request, self._start())
        give_back(study, self.folder.name)
        while self._minutes_left(begin) and len(taken(study)) < self.cfg.trials:
            study.optimize(self._objective, n_trials=1, catch=(DeshiError,))
        others = sum(trial.state.name == "RUNNING" for trial in taken(study))
        if others:
            log.info("%d trials are at work elsewhere; the worker that ends last has the whole table", others)
        return self._result(study)

    def _objective(self, trial: Any) -> float:
        """Draw a trial by the seed and its number, which no other worker has, and train it."""
        study = trial.study
        before = [other for other in taken(study) if other.number < trial.number]
        if len(before) >= self.cfg.trials:  # another worker was faster
            raise self.optuna.TrialPruned
        trial.set_user_attr(WORKER, self.folder.name)
        study.sampler = self.optuna.samplers.TPESampler(seed=1000 * self.cfg.seed + trial.number)
        for key, domain in self.domains.items():
            domain.draw(trial, key)
        log.info("trial %d of %d: %s", trial.number + 1, self.cfg.trials, trial.params)
        try:
            trained = STAGES[self.cfg.stage].run(trial_config(self.cfg, trial.params, self._name(trial.number)))
        except DeshiError as error:
            log.warning("trial %d failed: %s", trial.number + 1, error)
            trial.set_user_attr(ERROR, str(error))
            raise
        except KeyboardInterrupt as error:
            study.enqueue_trial(trial.params)
            raise KeyboardInterrupt(self.again) from error
        for name, value in ((RUN, trained.name), (EPOCHS, trained.epochs), (SECONDS, trained.seconds)):
            trial.set_user_attr(name, value)
        log.info("trial %d of %d: %s %.4f", trial.number + 1, self.cfg.trials, MONITOR, trained.metrics[MONITOR])
        return float(trained.metrics[MONITOR])

    @property
    def _study_name(self) -> str:
        return self.cfg.name or f"{self.cfg.data.name}_{self.cfg.stage}"

    def _study(self) -> Any:
        backend = self.optuna.storages.journal.JournalFileBackend(str(self.folder / STUDY_FILE))
        study = self.optuna.create_study(
            storage=self.optuna.storages.JournalStorage(backend), study_name="tune", direction="maximize",
            load_if_exists=True,
        )  # fmt: skip
        start = self._start()
        if not study.trials and start is not None:
            study.enqueue_trial(start)
        return study

    def _start(self) -> dict[str, Any] | None:
        """The values that the search sets out from, if they lie in the space: its first trial."""
        base = resolved(trial_config(self.cfg, {}))
        values = {}
        for key, domain in self.domains.items():
            value: Any = base
            for name in key.split("."):
                value = value.get(name) if isinstance(value, Mapping) else None
            if not domain.holds(value):
                log.info("%s=%s lies outside of the space: the first trial is drawn as the others are", key, value)
                return None
            values[key] = value
        return values

    def _open(self, study: Any, begin: float) -> bool:
        finished = sum(trial.state.is_finished() for trial in study.trials)
        return finished < self.cfg.trials and self._minutes_left(begin)

    def _minutes_left(self, begin: float) -> bool:
        return self.cfg.max_minutes is None or (time.perf_counter() - begin) / 60 < self.cfg.max_minutes

    def _next(self, study: Any) -> None:
        """Draw a trial and train it. The sampler depends on the seed and on what is known, not on interruptions."""
        number = len(study.trials) - sum(trial.state.name == "WAITING" for trial in study.trials)
        study.sampler = self.optuna.samplers.TPESampler(seed=1000 * self.cfg.seed + number)
        trial = study.ask()
        for key, domain in self.domains.items():
            domain.draw(trial, key)
        self._finish(study, study.trials[trial.number])

    def _finish(self, study: Any, trial: Any) -> None:
        """Train what a trial asks for, or go on with it, and tell Optuna what came out."""
        if trial.state.name == "WAITING":  # enqueued: it is asked for in its turn
            return
        if trial.params.keys() != self.domains.keys():  # killed while it was drawn
            study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            return
        values = ", ".join(f"{key}={value}" for key, value in trial.params.items())
        log.info("trial %d of %d: %s", trial.number + 1, self.cfg.trials, values)
        try:
            config = trial_config(self.cfg, trial.params, self._name(trial.number))
            begun = self._run_of(trial.number)
            if begun is not None:
                config = config.model_copy(update={"resume": str(begun)})
            metrics = STAGES[self.cfg.stage].run(config).metrics
        except DeshiError as error:
            log.warning("trial %d failed: %s", trial.number + 1, error)
            study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(self.again) from error
        else:
            log.info("trial %d of %d: %s %.4f", trial.number + 1, self.cfg.trials, MONITOR, metrics[MONITOR])
            study.tell(trial.number, metrics[MONITOR])

    def _name(self, number: int) -> str:
        search = self.folder.name if self.cfg.storage is None else self._study_name
        return f"trial{number + 1:03d}_of_{search}"

    def _run_of(self, number: int) -> Path | None:
        runs = sorted((self.cfg.paths.runs / self.cfg.stage).glob(f"*_{self._name(number)}"))
        return runs[-1] if runs else None

    def _result(self, study: Any) -> TuneResult:
        if self.cfg.storage is None:
            trials = [self._trial(trial) for trial in study.trials if trial.state.is_finished()]
        else:
            trials = [self._shared_trial(trial) for trial in taken(study) if trial.state.is_finished()]
        good = [trial for trial in trials if trial.value is not None]
        if not good:
            raise DeshiError(f"No trial of {len(trials)} has succeeded; the warnings above say why.")
        seconds = {"search_seconds": round(sum(trial.seconds for trial in trials), 3), "trials": len(trials)}
        best = max(good, key=lambda trial: trial.value or 0.0)
        config = trial_config(self.cfg, best.values)
        bundle = load_bundle(self.cfg.data.name, self.cfg.paths.data)
        seen = [part.sentence for part in seen_targets(bundle, build(self.cfg.split)(bundle), config.eval.filter_seen)]
        result = TuneResult(self.folder, self.cfg.stage, trials, config, seconds, seen)
        write_config(self.folder / BEST_FILE, result.best)
        write_json(self.folder / TIME_FILE, seconds)
        write_json(self.folder / METRICS_FILE, result.as_dict())
        return result

    @staticmethod
    def _shared_trial(trial: Any) -> Trial:
        attributes = trial.user_attrs
        epochs, seconds = int(attributes.get(EPOCHS, 0)), float(attributes.get(SECONDS, 0))
        return Trial(trial.number + 1, dict(trial.params), trial.value, epochs, seconds, attributes.get(RUN))

    def _trial(self, trial: Any) -> Trial:
        run = self._run_of(trial.number)
        if trial.value is None or run is None:
            return Trial(trial.number + 1, dict(trial.params), None, 0, 0.0, None if run is None else run.name)
        trained = Run(run, self.cfg.paths)
        return Trial(
            trial.number + 1, dict(trial.params), float(trial.value), trained.epochs, trained.seconds, trained.name
        )

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Optuna's own log lines repeat ours."""
        level = self.optuna.logging.get_verbosity()
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        try:
            yield
        finally:
            self.optuna.logging.set_verbosity(level)
