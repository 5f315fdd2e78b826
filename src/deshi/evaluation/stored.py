"""Finished evaluations, read back from their run folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import polars as pl

from deshi.artifacts import read_json
from deshi.configuration.saved import CONFIG_FILE, find_run
from deshi.data.splits import PARTS
from deshi.types import DeshiError

METRICS_FILE = "metrics.json"
RANKS_FILE = "ranks.parquet"
RUN_FILE = "run.json"
CURVE_FILE = "epochs.csv"
LOSS = "train/loss"
"""How the column of the training loss begins."""

RANK_COLUMNS = ("example", "user", "user_id", "target", "item_id", "rank", "n_candidates")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one ``deshi evaluate`` has left.

    Attributes:
        folder: its run folder.
        record: its ``run.json``: ranker, fit run, data fingerprint, protocol and its fingerprint, warnings.
        metrics: of the ranker, such as ``test/ndcg@10``.
        baselines: the same for every baseline.
    """

    folder: Path
    record: dict[str, Any]
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]] = field(repr=False)

    @property
    def parts(self) -> list[str]:
        """What was evaluated: ``validation``, ``test`` or both."""
        measured = {name.split("/")[0] for name in self.metrics}
        return [part for part in PARTS if part in measured]

    def ranks(self, part: str) -> pl.DataFrame:
        """A row a target of that part, see ``docs/metrics.md``.

        Raises:
            DeshiError: if the part was not evaluated, with the command that does it.
        """
        return self._of_part(self.folder / RANKS_FILE, part)

    def baseline_ranks(self, name: str, part: str) -> pl.DataFrame:
        """The same for a baseline that was evaluated beside it."""
        return self._of_part(self.folder / "baselines" / f"{name}.parquet", part)

    def _of_part(self, path: Path, part: str) -> pl.DataFrame:
        if part not in self.parts:
            alone = f"baseline={self.record['model']} data={self.record['data']}"
            subject = f"run={self.record['run']}" if self.record["run"] else alone
            raise DeshiError(
                f"{self.folder} has {' and '.join(self.parts)} ranks, but {part} is asked for. "
                f"Run: deshi evaluate {subject} part=both"
            )
        found = read_part(path, part)
        lacking = [name for name in RANK_COLUMNS if name not in found.columns]
        if lacking:
            raise DeshiError(f"{path} lacks {', '.join(lacking)}: it holds no ranks. Run deshi evaluate again.")
        return found


def read_part(path: Path, part: str) -> pl.DataFrame:
    """The rows of one part of a file that an evaluation has left.

    Raises:
        DeshiError: if the file is gone or can't be read.
    """
    try:
        return pl.read_parquet(path).filter(pl.col("part") == part)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DeshiError(f"{path} can't be read ({error}). Run deshi evaluate again.") from error


def read_curve(folder: Path) -> pl.DataFrame | None:
    """The learning curve of a run, a row an epoch, if it has one.

    Raises:
        DeshiError: if it can't be read, or is none.
    """
    path = folder / CURVE_FILE
    if not path.is_file():
        return None
    try:
        found = pl.read_csv(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DeshiError(f"{path} can't be read ({error}). Train again.") from error
    if "epoch" not in found.columns:
        raise DeshiError(f"{path} has the columns {', '.join(found.columns)}, expected epoch among them. Train again.")
    return found


def load_evaluation(folder: Path) -> Evaluation:
    """Read the run folder of a finished ``deshi evaluate``.

    Raises:
        DeshiError: if the folder is another stage's, or unfinished.
    """
    if not (folder / METRICS_FILE).is_file():
        raise DeshiError(f"{folder} has no {METRICS_FILE}: the evaluation did not finish. Run deshi evaluate again.")
    record = read_json(folder / RUN_FILE)
    if record.get("stage") != "evaluate":
        raise DeshiError(f"{folder} is a run of deshi {record.get('stage')}, expected one of deshi evaluate.")
    metrics = read_json(folder / METRICS_FILE)
    baselines = metrics.pop("baselines", {})
    return Evaluation(folder, record, metrics, baselines)


def find_evaluations(runs: Path, texts: Sequence[str]) -> list[Evaluation]:
    """The evaluations that ``texts`` name, each once, in the order of their first mention.

    A text is an evaluation's folder or name under ``runs/evaluate``, ``latest``, a pattern of such names
    (``*_ml-100k_*``), or a run of ``deshi fit`` (folder or name), which stands for its newest evaluation: among all
    items if there is one, else among candidate sets.

    Raises:
        DeshiError: if a text names nothing, or a run that was not evaluated yet.
    """
    found: dict[Path, Evaluation] = {}
    for text in texts:
        for folder in _folders(runs, text):
            found.setdefault(folder.resolve(), load_evaluation(folder))
    return list(found.values())


def evaluations_of(runs: Path, fitted: Path) -> list[Evaluation]:
    """The finished evaluations of one run of ``deshi fit``, the newest last."""
    loaded = (load_evaluation(folder) for folder in _finished(runs))
    return [one for one in loaded if one.record["run"] and Path(one.record["run"]).resolve() == fitted.resolve()]


def _folders(runs: Path, text: str) -> list[Path]:
    if any(sign in text for sign in "*?["):
        found = [folder for folder in _finished(runs) if fnmatchcase(folder.name, text)]
        if not found:
            raise DeshiError(f"No evaluation under {runs / 'evaluate'} matches {text!r}. Run deshi evaluate first.")
        return found
    fitted = _fit_folder(runs, text)
    if fitted is None:
        return [find_run(runs, "evaluate", text)]
    evaluations = evaluations_of(runs, fitted)
    if not evaluations:
        raise DeshiError(f"The run {fitted} was not evaluated yet. Run: deshi evaluate run={fitted}")
    whole = [one for one in evaluations if one.record["protocol"]["candidates"] == "full"]
    return [(whole or evaluations)[-1].folder]


def _fit_folder(runs: Path, text: str) -> Path | None:
    """The run of ``deshi fit`` that ``text`` names by its path or its name, if it does."""
    for folder in (Path(text).expanduser(), runs / "fit" / text):
        if (folder / CONFIG_FILE).is_file() and (folder / "epochs.csv").is_file():
            return folder
    return None


def _finished(runs: Path) -> list[Path]:
    return sorted(path.parent for path in (runs / "evaluate").glob(f"*/{METRICS_FILE}"))
