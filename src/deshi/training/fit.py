"""Training in a run folder: begun or gone on with, logged, and removed again if it was refused before it began."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from deshi.artifacts import write_json
from deshi.configuration.launch import as_launched
from deshi.configuration.run_folders import CHECKPOINTS, DATA_FILE, VOCABULARY_FILE, find_run
from deshi.configuration.schemas import FitConfig, TrainConfig, TrainingConfig
from deshi.configuration.targets import build
from deshi.configuration.validation import resolved, validate
from deshi.data.bundle import Bundle
from deshi.data.splits import Split
from deshi.evaluation import seen_targets
from deshi.hardware import limit_kernel_cache, set_threads
from deshi.runs import Run, load_bundle, new_run, with_exact_names
from deshi.training._precision import measured_precision
from deshi.training._ranks import Ranks, connected
from deshi.training._refit import refitted_run
from deshi.training.trainer import Training
from deshi.types import ITEM

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=TrainingConfig)
Train = Callable[[Config, Bundle, Split, Path, Ranks], None]


def run(cfg: FitConfig) -> Run:
    """Train a student; ``cfg.resume`` goes on with an interrupted run, by that run's own configuration.

    Raises:
        DeshiError: if the bundle is missing or another than the interrupted run's, or the training diverges.
    """
    return run_training("fit", cfg, network_name(cfg.student), train_run)


def train_run(cfg: FitConfig, bundle: Bundle, split: Split, folder: Path, ranks: Ranks) -> None:
    """The training of a student in its run folder, on one of its ranks."""
    Training(cfg, bundle, split, folder, network_name(cfg.student), ranks=ranks).run()


def network_name(node: dict[str, object]) -> str:
    """What a record and a folder call the class that a node names."""
    return str(node["_target_"]).rsplit(".", 1)[-1].lower()


def run_training(stage: str, cfg: Config, network: str, train: Train[Config]) -> Run:
    """Open a run folder, or one that was interrupted, and train in it.

    Args:
        stage: the run folder's.
        cfg: of the stage.
        network: ends a new folder's name.
        train: trains in the folder and writes ``metrics.json`` last.
    """
    limit_kernel_cache()
    cfg = cfg.model_copy(update={"train": as_launched(cfg.train, resumed=cfg.resume is not None)})
    interrupted = None if cfg.resume is None else Run(find_run(cfg.paths.runs, stage, cfg.resume))
    if interrupted is not None:
        if interrupted.finished:
            log.info("%s was complete already", interrupted.folder)
            return interrupted
        cfg = _gone_on_with(cast(Config, interrupted.config), cfg.train)
    bundle, split = _data(cfg)
    threads = set_threads(cfg.train.threads, cfg.train.devices)
    with connected(stage, cfg.train) as ranks:

        def begin() -> dict[str, Any]:
            set_threads(threads)  # connecting processes changes them
            folder, config = _begun(stage, cfg, network, bundle, split, interrupted)
            return {"folder": str(folder), "new": interrupted is None, "config": resolved(config)}

        begun = ranks.from_first(begin)
        _train_begun(type(cfg), train, begun, bundle, split, ranks)
    return Run(Path(begun["folder"]), cfg.paths)


def join(schema: type[Config], train: Train[Config], ranks: Ranks) -> None:
    """Take part, as a further rank, in the training that the first one has begun; arguments as for the first one."""
    begun = ranks.from_first(dict)
    bundle, split = _data(validate(schema, begun["config"]))
    _train_begun(schema, train, begun, bundle, split, ranks)


def _data(cfg: TrainingConfig) -> tuple[Bundle, Split]:
    bundle = load_bundle(cfg.data.name, cfg.paths.data)
    split: Split = build(cfg.split)(bundle)
    return bundle, split


def _gone_on_with(cfg: Config, train: TrainConfig) -> Config:
    """An interrupted run's configuration with the processes of ``train``, which share its threads."""
    began, changed = cfg.train, {"devices": train.devices, "nodes": train.nodes}
    if began.threads is not None:
        changed["threads"] = max(1, began.threads * began.devices // train.devices)
    return cfg.model_copy(update={"train": began.model_copy(update=changed)})


def _begun(
    stage: str, cfg: Config, network: str, bundle: Bundle, split: Split, interrupted: Run | None
) -> tuple[Path, Config]:
    """The folder and the configuration of a new run, or of one that was interrupted."""
    if interrupted is not None:
        interrupted.check_same_data(bundle)
        return interrupted.folder, cfg
    cfg = cfg.model_copy(update={"train": with_exact_names(cfg.train, cfg.paths, stage)})
    cfg = _with_measured_choices(cfg, bundle, split)
    folder = new_run(cfg, stage, cfg.name or f"{cfg.data.name}_{network}")
    write_json(folder / DATA_FILE, {"name": bundle.name, "fingerprint": bundle.fingerprint})
    bundle.vocabulary.select(ITEM).write_parquet(folder / VOCABULARY_FILE)
    return folder, cfg


def _train_begun(
    schema: type[Config], train: Train[Config], begun: dict[str, Any], bundle: Bundle, split: Split, ranks: Ranks
) -> None:
    """Train in the run folder that the first rank has begun, which keeps the log and removes what was refused."""
    cfg, folder = validate(schema, begun["config"]), Path(begun["folder"])
    ranks.folder = folder
    if not ranks.is_first:
        train(cfg, bundle, split, folder, ranks)
        return
    with _refused_leaves_nothing(folder, begun["new"]), _log_file(folder / "log.txt"):
        for part in seen_targets(bundle, split, cfg.eval.filter_seen):
            log.log(logging.WARNING if part.is_doubtful else logging.INFO, part.sentence)
        train(cfg, bundle, split, folder, ranks)


def _with_measured_choices(cfg: Config, bundle: Bundle, split: Split) -> Config:
    """Threads and ``auto`` precision as measured once for the run: a resumed run must not choose anew.

    The refit of another run trains in that run's precision.
    """
    train = cfg.train.model_copy(update={"threads": torch.get_num_threads()})
    refitted = refitted_run(cfg, bundle)
    if refitted is not None and train.precision == "auto":
        precision = refitted.config.train.precision
    else:
        precision = measured_precision(cfg, bundle, split)
    return cfg.model_copy(update={"train": train.model_copy(update={"precision": precision})})


@contextmanager
def _refused_leaves_nothing(folder: Path, new: bool) -> Iterator[None]:
    """Remove the folder of a new run that was refused before any training in it began: there is nothing to resume."""
    try:
        yield
    except Exception:  # of whatever kind: it is raised again
        if new and not any(path for checkpoints in folder.rglob(CHECKPOINTS) for path in checkpoints.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Also write what deshi logs to ``path``."""
    logger = logging.getLogger("deshi")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
