"""Finished evaluations: ranks and metrics of a model and of the baselines beside it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import polars as pl

from deshi.artifacts import read_json, read_parquet
from deshi.configuration.run_folders import (
    BASELINES,
    CURVE_FILE,
    LATEST,
    METRICS_FILE,
    RANKS_FILE,
    RUN_FILE,
    TRAINING_STAGES,
    find_run,
)
from deshi.configuration.schemas import PathsConfig
from deshi.data.splits import PARTS
from deshi.runs.run import Run
from deshi.types import DeshiError

LOSS = "train/loss"
"""How the column of the training loss begins."""

REMEDY = "Run deshi evaluate again."
RANK_COLUMNS = ("example", "user", "user_id", "target", "item_id", "rank", "n_candidates")


class Evaluation(Run):
    """A run of ``deshi evaluate``; its record names the model, the trained run, the protocol and the warnings.

    Raises:
        DeshiError: if the folder is another command's, or unfinished.
    """

    def __init__(self, folder: Path, paths: PathsConfig | None = None) -> None:
        if not (folder / METRICS_FILE).is_file():
            raise DeshiError(
                f"{folder} has no {METRICS_FILE}: the evaluation did not finish. Run deshi evaluate again."
            )
        super().__init__(folder, paths)
        if self.stage != "evaluate":
            raise DeshiError(f"{folder} is a run of deshi {self.stage}, expected one of deshi evaluate.")

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Of the model, such as ``test/ndcg@10``."""
        return {name: value for name, value in super().metrics.items() if name != "baselines"}

    @cached_property
    def baselines(self) -> dict[str, dict[str, float]]:
        """The metrics of every baseline."""
        baselines: dict[str, dict[str, float]] = read_json(self.folder / METRICS_FILE).get("baselines", {})
        return baselines

    @property
    def parts(self) -> list[str]:
        """What was evaluated: ``validation``, ``test`` or both."""
        measured = {name.split("/")[0] for name in self.metrics}
        return [part for part in PARTS if part in measured]

    @cached_property
    def run(self) -> Run | None:
        """The trained run; None for a baseline, and for a run whose folder is gone.

        The recorded path may be relative to where the evaluation ran: then the run lies beside the evaluation.
        """
        if not self.record["run"]:
            return None
        path = Path(self.record["run"])
        folders = (self.paths.runs / path.parent.name / path.name, path)
        folder = next((folder for folder in folders if (folder / RUN_FILE).is_file()), None)
        return None if folder is None else Run(folder, self.paths)

    @property
    def data_folders(self) -> list[Path]:
        """Where the data may lie, the trained run's own folder included."""
        return [*super().data_folders, *(self.run.data_folders if self.run is not None else [])]

    def evaluation(self) -> Evaluation:
        """Itself."""
        return self

    def ranks(self, part: str = "test") -> pl.DataFrame:
        """A row a target of that part, see ``docs/metrics.md``.

        Raises:
            DeshiError: if the part was not evaluated, with the command that does it.
        """
        return self._of_part(self.folder / RANKS_FILE, part)

    def baseline_ranks(self, name: str, part: str) -> pl.DataFrame:
        """The same for a baseline that was evaluated beside it."""
        return self._of_part(self.folder / BASELINES / f"{name}.parquet", part)

    def _of_part(self, path: Path, part: str) -> pl.DataFrame:
        if part not in self.parts and (self.record.get("fit") or {}).get("refit"):
            raise DeshiError(
                f"{self.folder} has {' and '.join(self.parts)} ranks, but {part} is asked for: its model was refitted "
                "on training and validation events, so that there is no validation figure. Use part=test."
            )
        if part not in self.parts:
            alone = f"baseline={self.record['model']} data={self.record['data']}"
            subject = f"run={self.record['run']}" if self.record["run"] else alone
            raise DeshiError(
                f"{self.folder} has {' and '.join(self.parts)} ranks, but {part} is asked for. "
                f"Run: deshi evaluate {subject} part=both"
            )
        return read_part(path, part, RANK_COLUMNS)


def read_part(path: Path, part: str, columns: Sequence[str] = ()) -> pl.DataFrame:
    """The rows of one part of a file that an evaluation has left.

    Raises:
        DeshiError: if the file is gone, can't be read, or lacks one of ``columns``.
    """
    return read_parquet(path, ("part", *columns), REMEDY).filter(pl.col("part") == part)


def read_curve(folder: Path) -> pl.DataFrame | None:
    """The learning curve of a run, a row an epoch, if it has one.

    Raises:
        DeshiError: if it can't be read, or is none.
    """
    path = folder / CURVE_FILE
    if not path.is_file():
        return None
    try:
        curve = pl.read_csv(path, glob=False)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DeshiError(f"{path} can't be read ({error}). Train again.") from error
    if "epoch" not in curve.columns:
        raise DeshiError(f"{path} has the columns {', '.join(curve.columns)}, expected epoch among them. Train again.")
    return curve


def find_evaluations(paths: PathsConfig, names: Sequence[Run | Path | str]) -> list[Evaluation]:
    """The evaluations that ``names`` mean, each once, in the order of their first mention.

    A name is that of an evaluation, of a trained run, which stands for its newest evaluation (among all items if there
    is one, else among candidate sets), a pattern of evaluations' names (``*_ml-100k_*``), or ``latest``, the newest
    evaluation of all.

    Raises:
        DeshiError: if a name means nothing, or a run that was not evaluated yet.
    """
    evaluations: dict[Path, Evaluation] = {}
    for name in names:
        for evaluation in _evaluations(paths, name):
            evaluations.setdefault(evaluation.folder.resolve(), evaluation)
    return list(evaluations.values())


def finished_evaluations(paths: PathsConfig) -> list[Evaluation]:
    """All finished evaluations under ``paths.runs``, the newest last; those of another format are left out."""
    folders = sorted(path.parent for path in (paths.runs / "evaluate").glob(f"*/{METRICS_FILE}"))
    evaluations = (Evaluation(folder, paths) for folder in folders)
    return [evaluation for evaluation in evaluations if evaluation.readable]


def _evaluations(paths: PathsConfig, name: Run | Path | str) -> list[Evaluation]:
    if isinstance(name, Run):
        return [name.evaluation()]
    if any(sign in str(name) for sign in "*?["):
        matches = [evaluation for evaluation in finished_evaluations(paths) if fnmatchcase(evaluation.name, str(name))]
        if not matches:
            raise DeshiError(
                f"No evaluation under {paths.runs / 'evaluate'} matches {name!r}. Run deshi evaluate first."
            )
        return matches
    stages = ("evaluate",) if name == LATEST else ("evaluate", *TRAINING_STAGES)
    run = Run(find_run(paths.runs, stages, str(name)), paths)
    if run.stage in TRAINING_STAGES:
        return [run.evaluation()]
    return [Evaluation(run.folder, paths)]
