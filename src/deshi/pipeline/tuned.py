"""What the stage ``tune`` hands back: the trials, best first, and the command that trains the best again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Group
from rich.table import Table
from rich.text import Text

from deshi.configuration.command import command_of
from deshi.configuration.schemas import TrainingConfig
from deshi.data.rendering import Rendered


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
class TuneResult(Rendered):
    """A finished search.

    Attributes:
        folder: the run folder.
        stage: what was tuned.
        trials: in the order of the search.
        best: the configuration of the best trial.
        seconds: ``search_seconds`` of all trials, and the number of ``trials``.
    """

    width: ClassVar[int] = 120

    folder: Path
    stage: str
    trials: Sequence[Trial]
    best: TrainingConfig = field(repr=False)
    seconds: Mapping[str, float]

    @property
    def ordered(self) -> list[Trial]:
        """Best first, failed ones last."""
        return sorted(self.trials, key=lambda trial: (trial.value is None, -(trial.value or 0.0), trial.number))

    @property
    def command(self) -> str:
        """What trains the best configuration again, by itself."""
        return command_of(self.stage, self.best)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, as written to ``metrics.json``."""
        trials = [asdict(trial) for trial in self.ordered]
        return {"stage": self.stage, "best": trials[0], "command": self.command, "trials": trials}

    def tables(self) -> Group:
        """The trials for a rich console."""
        keys = list(self.trials[0].values)
        table = Table(title=f"{len(self.trials)} trials of deshi {self.stage}, by validation", title_justify="left")
        for name in ("trial", "NDCG@10", "epochs", "seconds", *keys):
            table.add_column(name, justify="right")
        for trial in self.ordered:
            figure = "failed" if trial.value is None else f"{trial.value:.4f}"
            values = [_short(trial.values.get(key)) for key in keys]
            table.add_row(str(trial.number), figure, str(trial.epochs), f"{trial.seconds:.0f}", *values)
        return Group(
            table,
            Text(f"All trainings: {self.seconds['search_seconds']:.0f} s. The test part was not looked at."),
            Text(f"The best run: {self.ordered[0].run}. Train it again, e.g. with another seed:"),
            Text(self.command, style="bold"),
            Text(f"Written to {self.folder}; further trials: deshi tune resume={self.folder} trials=N"),
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
