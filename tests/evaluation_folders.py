"""Finished evaluations for tests, written as ``deshi evaluate`` writes them, from given ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from deshi.artifacts import write_json
from deshi.runs import FORMAT, Evaluation

PROTOCOL = {"candidates": "full", "filter_seen": True, "split": {"name": "leave_one_out", "targets": "next"}}
SASREC: dict[str, dict[str, Any]] = {
    "student": {"_target_": "deshi.models.sasrec.SASRec", "dim": 64},
    "train": {"learning_rate": 0.001},
}


def frame_of(ranks: Sequence[float], part: str = "test", users: Sequence[str] | None = None) -> pl.DataFrame:
    """A row a user (``u0``, ``u1``, ...), each with the target ``i0``."""
    size = len(ranks)
    return pl.DataFrame(
        {
            "part": [part] * size,
            "example": list(range(size)),
            "user": list(range(size)),
            "user_id": list(users) if users is not None else [f"u{user}" for user in range(size)],
            "target": [0] * size,
            "item_id": ["i0"] * size,
            "rank": [float(rank) for rank in ranks],
            "n_candidates": [100] * size,
        }
    )


def write_evaluation(
    root: Path,
    name: str,
    ranks: Sequence[float] | pl.DataFrame,
    config: dict[str, Any] | None = None,
    seed: int = 0,
    student: str = "sasrec",
    baselines: dict[str, Sequence[float]] | None = None,
    **changes: Any,
) -> Evaluation:
    """The evaluation ``name`` of a run of the same name, with ``changes`` to its record.

    Args:
        root: the folder that holds ``runs``.
        name: of both run folders.
        ranks: a rank a user on test, or the whole frame.
        config: of the fit run; None leaves the run's folder away.
        seed: of the fit run.
        student: the model.
        baselines: ranks of baselines beside it.
        changes: entries of ``run.json``.
    """
    folder, run = root / "runs" / "evaluate" / name, root / "runs" / "fit" / name
    frame = ranks if isinstance(ranks, pl.DataFrame) else frame_of(ranks)
    (folder / "baselines").mkdir(parents=True)
    if config is not None:
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump({**config, "seed": seed, "name": name}))
        (run / "epochs.csv").write_text("epoch\n1\n")
        write_json(run / "run.json", {"format": FORMAT, "stage": "fit"})
    record = {
        "format": FORMAT,
        "stage": "evaluate",
        "model": student,
        "run": str(run),
        "fit": {"student": student, "seed": seed, "refit": False},
        "data": "tiny",
        "data_fingerprint": "0" * 64,
        "protocol": PROTOCOL,
        "protocol_fingerprint": "1" * 64,
        "warnings": [],
    }
    (folder / "config.yaml").write_text("{}\n")
    frame.write_parquet(folder / "ranks.parquet")
    for baseline, its_ranks in (baselines or {}).items():
        frame_of(its_ranks).write_parquet(folder / "baselines" / f"{baseline}.parquet")
    write_json(folder / "run.json", {**record, **changes})
    measured = {f"{part}/n_examples": own["example"].n_unique() for (part,), own in frame.group_by("part")}
    write_json(folder / "metrics.json", {**measured, "baselines": {name: {} for name in baselines or {}}})
    return Evaluation(folder)
