"""Throughput arm: RecTools' SASRec with full softmax, trained by its own ``fit``. Run by throughput.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from arm import Stopwatch, arguments, histories, report, settings_of, step_timer
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def training_part(path: Path) -> Dataset:
    """All but each user's last two events, as leave-one-out trains on them."""
    kept = {user: items[:-2] for user, items in histories(path).items()}
    rows = [(user, item, place) for user, items in kept.items() for place, item in enumerate(items)]
    frame = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, "place"])
    frame[Columns.Datetime] = pd.Timestamp("2000-01-01") + pd.to_timedelta(frame.pop("place"), unit="s")
    frame[Columns.Weight] = 1.0
    return Dataset.construct(frame)


def main() -> None:
    """Train until the clock is done and report."""
    args = arguments(__doc__, batch=128)
    torch.set_num_threads(args.threads)
    clock = Stopwatch(args.warmup_seconds, args.seconds)
    timer = step_timer(Callback, clock, lambda batch: int((batch["y"] != 0).sum()))

    def trainer() -> Trainer:
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return Trainer(max_epochs=10_000, accelerator="cpu", enable_model_summary=False, callbacks=[timer], **quiet)

    model = SASRecModel(
        n_blocks=args.blocks,
        n_heads=args.heads,
        n_factors=args.dim,
        session_max_len=args.max_length,
        dropout_rate=args.dropout,
        loss="softmax",
        batch_size=args.batch,
        get_trainer_func=trainer,
    )
    model.fit(training_part(args.data))
    settings = settings_of(args, precision="fp32", batch_unit="users")
    report(
        "rectools", clock, settings, model.torch_model, ["RecTools", "torch", "pytorch-lightning", "pandas", "numpy"]
    )


if __name__ == "__main__":
    main()
