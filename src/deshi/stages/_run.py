"""The work of ``deshi run``: all stages one after the other; finished ones are reused."""

from __future__ import annotations

import logging
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from deshi.artifacts import fingerprint, write_json
from deshi.configuration.run_folders import METRICS_FILE, find_run, load_config, write_config
from deshi.configuration.schemas import StageConfig
from deshi.configuration.validation import resolved
from deshi.data.bundle import Bundle
from deshi.runs import new_run, with_exact_names
from deshi.stages import STAGES
from deshi.stages._run_reuse import comparable, find_done
from deshi.stages._run_sizes import PICTURE
from deshi.stages._run_steps import REPORT, Plan, Step, plan_of, refitted
from deshi.stages.run import RunConfig
from deshi.stages.run_result import REFITTED_PAGE, RunResult, summarise
from deshi.training.fit import network_name
from deshi.types import DeshiError

log = logging.getLogger(__name__)

PLAN_FILE = "plan.json"
STEPS = "steps"
"""The folder of the configurations of all steps."""


def run(cfg: RunConfig) -> RunResult:
    """Do what ``cfg`` asks for, step by step; ``cfg.resume`` goes on with an interrupted run.

    Raises:
        DeshiError: if a step fails, with the command that goes on once its reason is fixed.
        KeyboardInterrupt: with the command that goes on.
    """
    cfg = _with_named_starts(cfg)
    folder = _folder(cfg)
    return _Pipeline(cfg, folder).run()


def _with_named_starts(cfg: RunConfig) -> RunConfig:
    """The older run that students start from by its folder: `latest` is another one after the first step."""
    distilled = cfg.distilled
    if distilled.train is not None:
        train = with_exact_names(distilled.train, cfg.paths, "distill")
        distilled = distilled.model_copy(update={"train": train})
    return cfg.model_copy(update={"train": with_exact_names(cfg.train, cfg.paths, "fit"), "distilled": distilled})


def _folder(cfg: RunConfig) -> Path:
    """The folder of the run that is resumed, of an unfinished one with this configuration, or a new one."""
    if cfg.resume is not None:
        return find_run(cfg.paths.runs, "run", cfg.resume)
    for plan in sorted((cfg.paths.runs / "run").glob(f"*/{PLAN_FILE}"), reverse=True):
        if not (plan.parent / METRICS_FILE).exists() and _same(plan.parent, cfg):
            return plan.parent
    return new_run(cfg, "run", cfg.name or f"{cfg.data.name}_{network_name(cfg.student)}")


def _same(folder: Path, cfg: RunConfig) -> bool:
    try:
        return resolved(load_config(folder, RunConfig)) == resolved(cfg)
    except DeshiError:  # of another version
        return False


class _Pipeline:
    """One run of all steps, recorded in ``plan.json`` as it goes on."""

    def __init__(self, cfg: RunConfig, folder: Path) -> None:
        self.cfg, self.folder = cfg, folder
        self.plan: Plan = plan_of(cfg)
        self.done: dict[str, Path] = {}
        self.bundle: Bundle | None = None
        self.records: list[dict[str, Any]] = [
            {"name": step.name, "stage": step.stage, "status": "waiting"} for step in self.plan.steps
        ]
        self.again = f"deshi run resume={shlex.quote(str(folder))}"

    def run(self) -> RunResult:
        log.info("%d steps; %s says how far they are", len(self.plan.steps), self.folder / PLAN_FILE)
        write_json(self.folder / PLAN_FILE, {"steps": self.records})
        begin = time.perf_counter()
        for number, step in enumerate(self.plan.steps):
            self._step(number, step)
        self._copy_report()
        result = summarise(self.cfg, self.plan, self.done, self.folder, time.perf_counter() - begin)
        log.info("finished in %.0f s", time.perf_counter() - begin)
        return result

    def _step(self, number: int, step: Step) -> None:
        config = step.configure(self.done)
        command, title = self._command(number, step, config), f"[{number + 1}/{len(self.plan.steps)}] {step.name}"
        log.info("%s: %s", title, command)
        self._record(number, "running", command=command)
        begin = time.perf_counter()
        with self._explained(number, title, command):
            folder, reused = self._do(step, config)
        seconds = time.perf_counter() - begin
        self.done[step.name] = folder
        self._record(
            number, "reused" if reused else "done", folder=_relative(folder, self.folder), seconds=round(seconds, 3)
        )
        state = "is there already" if reused else f"took {seconds:.0f} s"
        log.info("%s: %s, %s", title, state, folder)

    def _command(self, number: int, step: Step, config: StageConfig) -> str:
        """The command that does a step by itself, with the step's configuration in a file."""
        words = re.sub(r"[^A-Za-z0-9]+", "-", step.name)
        path = self.folder / STEPS / f"{number + 1:02d}-{words}.yaml"
        path.parent.mkdir(exist_ok=True)
        write_config(path, config)
        return shlex.join(["deshi", *STAGES[step.stage].command.split(), f"config={path}"])

    def _do(self, step: Step, config: StageConfig) -> tuple[Path, bool]:
        """The folder that a step leaves, and whether it was there."""
        stage = STAGES[step.stage].run
        if step.stage == "prepare":
            prepared = stage(config)
            self.bundle = prepared.bundle
            return prepared.bundle.path, prepared.reused
        assert self.bundle is not None
        needs = [self.done[name] for name in step.needs]
        with self._alone(step.stage, config):
            earlier = find_done(step.stage, config, self.bundle, needs)
            if earlier is not None and earlier.finished:
                return earlier.folder, True
            if earlier is not None:
                log.info("going on with %s", earlier.folder)
                config = config.model_copy(update={"resume": str(earlier.folder)})
            return stage(config).folder, False

    @contextmanager
    def _alone(self, stage: str, config: StageConfig) -> Iterator[None]:
        """Two runs at a time never train the same thing: the second waits, and takes what the first has made."""
        digest = fingerprint([("stage", stage), ("config", comparable(stage, config)), ("data", self.bundle_print)])
        lock = FileLock(self.cfg.paths.runs / "run" / ".locks" / f"{stage}-{digest[:16]}")
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            log.info("another deshi run is at this step: waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @property
    def bundle_print(self) -> str:
        """The data's fingerprint."""
        assert self.bundle is not None
        return self.bundle.fingerprint

    @contextmanager
    def _explained(self, number: int, title: str, command: str) -> Iterator[None]:
        """Tell how to go on after a failure or an interruption."""
        try:
            yield
        except DeshiError as error:
            self._record(number, "failed", error=str(error))
            raise DeshiError(
                f"{title} failed: {error}\nFix the reason and go on with: {self.again}\n"
                "If keys must change, give them and run again: finished steps are taken over.\n"
                f"This step alone: {command}"
            ) from error
        except KeyboardInterrupt as error:
            self._record(number, "interrupted")
            raise KeyboardInterrupt(self.again) from error
        except Exception as error:
            with suppress(OSError):  # on a full disk the plan can't be written either
                self._record(number, "failed", error=str(error))
            log.error("%s failed. What is finished is kept; go on with: %s", title, self.again)
            raise

    def _record(self, number: int, status: str, **more: Any) -> None:
        self.records[number] |= {"status": status, **more}
        write_json(self.folder / PLAN_FILE, {"steps": self.records})

    def _copy_report(self) -> None:
        """The page, and the picture of the sizes where they are compared."""
        report = self.done[REPORT]
        shutil.copyfile(report / "report.html", self.folder / "report.html")
        if self.cfg.refit:
            shutil.copyfile(self.done[refitted(REPORT)] / "report.html", self.folder / REFITTED_PAGE)
        if self.cfg.students:
            shutil.copyfile(report / "figures" / PICTURE, self.folder / PICTURE)


def _relative(folder: Path, base: Path) -> str:
    return Path(os.path.relpath(folder, base)).as_posix()
