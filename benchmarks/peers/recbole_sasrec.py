"""Throughput arm: RecBole's SASRec with cross-entropy, its own data pipeline and trainer. Run by throughput.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from arm import Stopwatch, arguments, histories, report, settings_of
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


class Done(Exception):
    """The clock is done: leaves RecBole's epoch."""


def atomic_file(source: Path, folder: Path) -> None:
    """Write the interactions as RecBole's atomic file ``folder/data/data.inter``."""
    target = folder / "data" / "data.inter"
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, items in histories(source).items():
        lines += [f"{user}\t{item}\t{place}" for place, item in enumerate(items)]
    target.write_text("\n".join(lines) + "\n")


def configuration(args: Any) -> Config:
    """RecBole's configuration; it reads the process's command line, which is emptied first."""
    sys.argv = sys.argv[:1]
    settings = {
        "data_path": str(args.work),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "MAX_ITEM_LIST_LENGTH": args.max_length,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "n_layers": args.blocks,
        "n_heads": args.heads,
        "hidden_size": args.dim,
        "inner_size": args.dim,
        "hidden_dropout_prob": args.dropout,
        "attn_dropout_prob": args.dropout,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "train_batch_size": args.batch,
        "checkpoint_dir": str(args.work / "saved"),
        "use_gpu": False,
        "show_progress": False,
        "epochs": 1,
    }
    return Config(model="SASRec", dataset="data", config_dict=settings)


def main() -> None:
    """Train until the clock is done and report."""
    args = arguments(__doc__, batch=2048)
    torch.set_num_threads(args.threads)
    atomic_file(args.data, args.work)
    config = configuration(args)
    init_seed(config["seed"], config["reproducibility"])
    training, _, _ = data_preparation(config, create_dataset(config))
    model = get_model(config["model"])(config, training.dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    clock = Stopwatch(args.warmup_seconds, args.seconds)
    rows = 0

    def timed_loss(interaction: Any) -> torch.Tensor:
        nonlocal rows
        if clock.done:
            raise Done
        rows = len(interaction)
        clock.start()
        return model.calculate_loss(interaction)

    trainer.optimizer.register_step_post_hook(lambda *_: clock.stop(rows))
    try:
        trainer._train_epoch(training, 0, loss_func=timed_loss)
    except Done:
        pass
    settings = settings_of(args, precision="fp32", batch_unit="prefixes")
    report("recbole", clock, settings, model, ["recbole", "torch", "pandas", "numpy", "setuptools"])


if __name__ == "__main__":
    main()
