"""Result of ``tune``: the trials, best first, and the command that trains the best configuration again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deshi.configuration.schemas import TrainingConfig
from deshi.rendering import Block, Paragraph, Result, Table, paragraphs

BEST_FILE = "best.yaml"
"""The configuration of the best trial."""


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: from 1, in the order of the search.
        values: by dotted key.
        value: NDCG@10 on validation; None if the training failed.
        epochs: that the selected network was trained for.
        seconds: of training and validation.
        run: the name of its run folder.
    """

    number: int
    values: Mapping[str, Any]
    value: float | None
    epochs: int
    seconds: float
    run: str | None


@dataclass(frozen=True)
class TuneResult(Result):
    """A finished search.

    Attributes:
        folder: the run folder.
        stage: what was tuned.
        trials: in the order of the search.
        best: the configuration of the best trial.
        seconds: ``search_seconds`` of all trials, and the number of ``trials``.
        seen: sentences about targets that their user had consumed before.
    """

    folder: Path
    stage: str
    trials: Sequence[Trial]
    best: TrainingConfig = field(repr=False)
    seconds: Mapping[str, float]
    seen: Sequence[str] = ()

    @property
    def ordered(self) -> list[Trial]:
        """Best first, failed ones last."""
        return sorted(self.trials, key=lambda trial: (trial.value is None, -(trial.value or 0.0), trial.number))

    @property
    def command(self) -> str:
        """What trains the best configuration again, by itself."""
        return shlex.join(["deshi", self.stage, f"config={self.folder / BEST_FILE}"])

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, as written to ``metrics.json``."""
        trials = [asdict(trial) for trial in self.ordered]
        return {"stage": self.stage, "best": trials[0], "command": self.command, "trials": trials}

    def blocks(self) -> list[Block]:
        """The trials, and what to do with them."""
        keys = list(self.trials[0].values)
        rows = [
            [
                str(trial.number),
                "failed" if trial.value is None else f"{trial.value:.4f}",
                str(trial.epochs),
                f"{trial.seconds:.0f}",
                *(_short(trial.values.get(key)) for key in keys),
            ]
            for trial in self.ordered
        ]
        columns = ["trial", "NDCG@10", "epochs", "seconds", *keys]
        title = f"{len(self.trials)} trials of deshi {self.stage}, by validation"
        return [
            Table(title, columns, rows, align="r" * len(columns)),
            *paragraphs(*self.seen, tone="warning"),
            *paragraphs(
                f"All trainings: {self.seconds['search_seconds']:.0f} s. The test part was not looked at.",
                f"The best run: {self.ordered[0].run}. Train it again, e.g. with another seed:",
            ),
            Paragraph(self.command, "strong"),
            Paragraph(f"Written to {self.folder}; further trials: deshi tune resume={self.folder} trials=N"),
        ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
