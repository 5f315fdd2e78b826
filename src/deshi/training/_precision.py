"""The number format of a training, measured on the steps that it is going to take."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterable
from itertools import cycle, islice

import torch

from deshi.configuration.schemas import TeachConfig, TrainingConfig
from deshi.configuration.targets import build, target_class
from deshi.data.bundle import Bundle
from deshi.data.splits import Split
from deshi.distillation.objective import Objective
from deshi.hardware import Precision, choose_precision, training_device
from deshi.models.blocks import BlockRecommender
from deshi.runs import new_network
from deshi.training._sparse_table import use_sparse_gradients
from deshi.training.module import TrainingModule
from deshi.training.trainer import data_module, target_counts
from deshi.types import Batch

log = logging.getLogger(__name__)

WARM_UP, PAIRS, ENOUGH_PAIRS = 2, 9, 3
MOST_SECONDS = 5.0
"""After which :data:`ENOUGH_PAIRS` pairs of steps are enough."""
CLEARLY_FASTER = 0.9
"""The share of the time in fp32 that bf16 must stay below: within 10 % fp32 is the safer choice."""


def measured_precision(cfg: TrainingConfig, bundle: Bundle, split: Split) -> Precision:
    """The number format of a run.

    ``auto`` is bf16 on a CPU only if large products (:func:`deshi.hardware.choose_precision`) and, of a student or a
    teacher built like one, its own steps are faster in it: those of a small network are many small products, to which
    conversions are dear.
    """
    device = training_device(cfg.train.accelerator)
    precision = choose_precision(cfg.train.precision, device)
    measures = cfg.train.precision == "auto" and precision == "bf16" and device.type == "cpu"
    if not measures or not _is_small(cfg):
        return precision
    share = bf16_share(cfg, bundle, split)
    log.info("train.precision=auto: a step in bf16 takes %.2f times the time of one in fp32", share)
    return "bf16" if share < CLEARLY_FASTER else "fp32"


def _is_small(cfg: TrainingConfig) -> bool:
    """Whether a few steps take no time: a student, or a teacher of a student's blocks, such as the text teacher."""
    return not isinstance(cfg, TeachConfig) or target_class(cfg.teacher, BlockRecommender) is not None


def bf16_share(cfg: TrainingConfig, bundle: Bundle, split: Split) -> float:
    """The time of a training step in bf16 as a share of its time in fp32, by the run's first batches.

    The network is thrown away, and the global random generator stays as it was.
    """
    starts, ends = split.train_ranges(bundle, cfg.train.train_targets)
    with torch.random.fork_rng(devices=[]):
        network, objective = new_network(cfg, bundle, bundle.n_items), Objective(build(cfg.loss))
        objective.set_counts(torch.from_numpy(target_counts(bundle, starts, ends)))
        use_sparse_gradients(network, objective, cfg.train.sparse_table)
        objective.start_epoch([cfg.seed, 0, 3], 0.0)
        batches = data_module(cfg, bundle, starts, ends, None, network.max_length).epoch(0)
        module = TrainingModule(network, objective, cfg.train, 1, cfg.seed).train()
        return _median_share(module, batches)


def _median_share(module: TrainingModule, batches: Iterable[Batch]) -> float:
    """The median over pairs of steps, each pair with a batch of its own; infinite without batches.

    Both formats are timed in turns, so that other work on the machine slows both, and each meets a new shape of batch
    as often as in training, where its kernels are made anew.
    """
    optimizer = module.configure_optimizers()["optimizer"]
    shares, begin = list[float](), time.perf_counter()
    for batch in islice(cycle(batches), WARM_UP + PAIRS):
        in_bf16, in_fp32 = (_seconds(module, optimizer, batch, bf16) for bf16 in (True, False))
        shares.append(in_bf16 / in_fp32)
        if len(shares) >= WARM_UP + ENOUGH_PAIRS and time.perf_counter() - begin > MOST_SECONDS:
            break
    return statistics.median(shares[WARM_UP:]) if shares else float("inf")


def _seconds(module: TrainingModule, optimizer: torch.optim.Optimizer, batch: Batch, bf16: bool) -> float:
    """The processor's time for one step as the trainer takes it, in which other programs' work doesn't count."""
    begin = time.process_time()
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss, _ = module.objective(module.network, batch)
    loss.backward()
    module.configure_gradient_clipping(optimizer, module.settings.gradient_clip)
    optimizer.step()
    return time.process_time() - begin
