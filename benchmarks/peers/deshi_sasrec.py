"""Throughput arm: deshi's SASRec with its fused softmax, trained as ``deshi fit`` does. Run by throughput.py."""

from __future__ import annotations

import argparse
from typing import Any

import lightning as L
from arm import Stopwatch, arguments, report, settings_of, step_timer

from deshi.artifacts import new_run_folder
from deshi.configuration.schemas import FitConfig, PrepareConfig
from deshi.configuration.targets import build
from deshi.configuration.validation import validate
from deshi.data.prepare import run as prepare
from deshi.training.trainer import Training


class TimedTraining(Training):
    """The stage's own training with one more callback, and no validation."""

    timer: L.Callback

    def _trainer(self, *args: Any, **kwargs: Any) -> L.Trainer:
        trainer = super()._trainer(*args, **kwargs)
        trainer.callbacks.insert(0, self.timer)  # type: ignore[attr-defined]
        return trainer


def configurations(args: argparse.Namespace) -> tuple[PrepareConfig, FitConfig]:
    """Configurations of the stages prepare and fit; what isn't set here is the package's default."""
    columns = {"user": "user", "item": "item", "timestamp": "position", "time_unit": "position"}
    source = {"_target_": "deshi.data.sources.tabular.Tabular", "path": str(args.data), **columns}
    shared = {"data": {"name": "throughput", "source": source}, "paths": {"root": str(args.work)}}
    student = {
        "_target_": "deshi.models.sasrec.SASRec",
        "dim": args.dim,
        "blocks": args.blocks,
        "heads": args.heads,
        "max_length": args.max_length,
        "dropout": args.dropout,
        "feed_forward": args.feed_forward,
    }
    train: dict[str, Any] = {"max_epochs": 10_000, "threads": args.threads, "progress": False}
    train |= {"batch_positions": args.batch} if args.batch else {}
    train |= {"precision": args.precision} if args.precision else {}
    fit = {"student": student, "loss": {"_target_": "deshi.losses.softmax.Softmax"}, "train": train}
    return validate(PrepareConfig, shared), validate(FitConfig, shared | fit)


def main() -> None:
    """Train until the clock is done and report."""
    args = arguments(__doc__, batch=0)
    prepared, cfg = configurations(args)
    bundle = prepare(prepared).bundle
    split = build(cfg.split)(bundle)
    folder = new_run_folder(cfg.paths.runs, "fit", "throughput")
    clock = Stopwatch(args.warmup_seconds, args.seconds)
    training = TimedTraining(cfg, bundle, split, folder, "sasrec")
    training.timer = step_timer(L.Callback, clock, lambda prepared: prepared[0].n_targets)
    starts, ends = split.train_ranges(bundle, "train")
    _, trainer = training._train("select", starts, ends, None, cfg.train.max_epochs, None)
    args.batch = cfg.train.batch_positions
    settings = settings_of(
        args, precision=str(trainer.precision), batch_unit="positions", feed_forward=args.feed_forward
    )
    report(
        "deshi", clock, settings, trainer.lightning_module.network, ["deshi", "torch", "lightning", "polars", "numpy"]
    )


if __name__ == "__main__":
    main()
