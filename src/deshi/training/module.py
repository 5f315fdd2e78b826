"""The LightningModule of every training: network, objective, optimizer, averaged weights, validation."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from deshi.configuration.schemas import TrainConfig
from deshi.data.example_batches import ExampleBatch
from deshi.distillation.objective import Objective, of_rank
from deshi.evaluation import RankCollector
from deshi.metrics import ScoreBlocks
from deshi.models.base import Recommender, SequentialRecommender
from deshi.models.layers import reseed_dropout
from deshi.training._preparation import Prepared
from deshi.training._sparse_table import AdamWithSparseRows, LazyAverage, clip_gradients, coalesced, sparse_table
from deshi.types import DeshiError

MONITOR = "validation/ndcg@10"


class TrainingModule(L.LightningModule):
    """Trains a network on an objective.

    Args:
        network: a student or a teacher.
        objective: called as ``loss, logs = objective(network, batch)``.
        settings: of optimizer, schedule and EMA. AdamW decays matrices; biases, norms and embeddings are left alone.
            The EMA of the weights (Polyak averaging), not the last step's, is validated and kept if ``ema_decay``
            isn't 0.
        total_steps: the schedule's horizon in optimizer steps.
        seed: all randomness inside an epoch derives from (seed, epoch), so that a resumed run repeats it.
    """

    def __init__(
        self, network: Recommender, objective: Objective, settings: TrainConfig, total_steps: int, seed: int
    ) -> None:
        super().__init__()
        self.network, self.objective, self.settings = network, objective, settings
        self.total_steps, self.seed = total_steps, seed
        self.ema: Recommender | None = copy.deepcopy(network).requires_grad_(False) if settings.ema_decay else None
        table = sparse_table(network)
        self.table_average = None if table is None or self.ema is None else LazyAverage(len(table))
        self._ranks = RankCollector()
        self._losses: list[Tensor] = []
        self._weights: list[int] = []
        self._logs: list[dict[str, Tensor]] = []
        self._summary: dict[str, float] = {}
        self._next_scores: Callable[[Tensor, Tensor], Tensor] = self.result.next_scores
        self._next_score_blocks: Callable[[Tensor, Tensor], ScoreBlocks | None] = self.result.next_score_blocks

    def on_train_epoch_start(self) -> None:
        """Restart every random stream of the epoch; every rank has its own dropout."""
        self._losses, self._weights, self._logs, self._summary = [], [], [], {}
        reseed_dropout(self.network, of_rank([self.seed, self.current_epoch, 2], self.global_rank))
        progress = self.current_epoch / max(1, self.trainer.max_epochs or 1)
        self.objective.start_epoch([self.seed, self.current_epoch, 3], progress, self.global_rank)

    def training_step(self, prepared: Prepared, batch_index: int) -> Tensor:
        """The loss over the batch's targets; its mean over the ranks is that of the whole batch.

        Nothing here waits for a device: sums are read at the epoch's end.
        """
        batch, labelled = prepared
        loss, logs = self.objective(self.network, batch, labelled)
        self._losses.append(loss.detach())
        self._weights.append(batch.whole.n_targets)
        self._logs.append(logs)
        shown = loss.device.type == "cpu"  # the progress bar reads the value at every step
        self.log("train/loss", loss.detach(), prog_bar=shown, on_step=True, on_epoch=False)
        return cast(Tensor, loss)

    def epoch_summary(self) -> dict[str, float]:
        """The epoch's mean loss over positions (not over batches), and the number of positions, of all ranks together.

        Of a distillation also the mean over batches of its loss and of each term, before their weights.

        Raises:
            DeshiError: if the loss isn't finite.
        """
        if self._summary:
            return self._summary
        weights = torch.tensor(self._weights, dtype=torch.float64)
        mean = float((torch.stack(self._losses).double().cpu() * weights).sum() / weights.sum())
        names = dict.fromkeys(name for logs in self._logs for name in logs)
        values = [torch.stack([logs[name] for logs in self._logs if name in logs]).tolist() for name in names]
        terms = [statistics.fmean(of_term) for of_term in values]
        mean, *terms = self._mean_over_ranks([mean, *terms])
        if not math.isfinite(mean):
            raise DeshiError(
                f"The training loss became {mean} in epoch {self.current_epoch + 1}, expected a finite number. "
                "Lower train.learning_rate, keep train.gradient_clip on, or use train.precision=fp32."
            )
        means = {f"distill/{name}": value for name, value in zip(names, terms, strict=True)}
        self._summary = {"train/loss_epoch": mean, "train/positions": float(weights.sum()), **means}
        return self._summary

    def on_train_epoch_end(self) -> None:
        """Log the epoch's summary."""
        self._finish_average()
        self.log_dict(self.epoch_summary())

    def _mean_over_ranks(self, values: list[float]) -> list[float]:
        if self.trainer.world_size == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        return cast(list[float], (sums / self.trainer.world_size).tolist())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the rows of a sparse table that the step will change catch up in the EMA."""
        table = sparse_table(self.network)
        if self.table_average is None or table is None or table.grad is None:
            return
        table.grad = coalesced(table.grad)
        self.table_average.catch_up(self._mean_table(), table, table.grad.indices()[0])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the EMA of the weights towards the trained ones."""
        if self.ema is None:
            return
        decay = min(self.settings.ema_decay, (1 + self.global_step) / (10 + self.global_step))
        table = sparse_table(self.network)
        pairs = zip(self.ema.parameters(), self.network.parameters(), strict=True)
        moving = [(mean, trained) for mean, trained in pairs if trained.requires_grad and trained is not table]
        with torch.no_grad():
            torch._foreach_lerp_([mean for mean, _ in moving], [trained for _, trained in moving], 1 - decay)
        if self.table_average is not None:
            self.table_average.count(decay)

    def _finish_average(self) -> None:
        """Let all rows of a sparse table catch up in the EMA, which is used next."""
        table = sparse_table(self.network)
        if self.table_average is not None and table is not None:
            self.table_average.catch_up_all(self._mean_table(), table)

    def _mean_table(self) -> Tensor:
        assert self.ema is not None
        return cast(Tensor, cast(SequentialRecommender, self.ema).items.weight)

    @property
    def result(self) -> Recommender:
        """The network to validate and keep: with the EMA of the weights if there is one."""
        return self.network if self.ema is None else self.ema

    def on_validation_start(self) -> None:
        """Compute the item table once, not for every batch."""
        self._finish_average()
        fixed = self.result.for_ranking()
        self._next_scores, self._next_score_blocks = fixed.next_scores, fixed.next_score_blocks

    def on_validation_end(self) -> None:
        """Release the copy."""
        self._next_scores, self._next_score_blocks = self.result.next_scores, self.result.next_score_blocks

    def validation_step(self, batch: ExampleBatch, batch_index: int) -> None:
        """Exact ranks of a batch's validation targets."""
        items, lengths = batch.histories.items, batch.histories.lengths
        blocks = self._next_score_blocks(items, lengths)
        self._ranks.add(batch, [self._next_scores(items, lengths) if blocks is None else blocks])

    def on_validation_epoch_end(self) -> None:
        """Metrics over all examples at once, those of all ranks together."""
        gather = None if self.trainer.world_size == 1 else self._gathered
        [metrics] = self._ranks.collected(gather).metrics()
        self._ranks = RankCollector()
        for name, value in metrics.items():
            self.log(f"validation/{name}", value, prog_bar=name == "ndcg@10")

    def _gathered(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, one after the other; their first dimensions may differ."""
        size = torch.tensor([len(tensor)], device=self.device)
        sizes = [torch.zeros_like(size) for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather(sizes, size)
        longest = max(int(each) for each in sizes)
        padded = tensor.new_zeros(longest, *tensor.shape[1:], device=self.device)
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[: int(size)].cpu() for part, size in zip(parts, sizes, strict=True)])

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm, also in bf16, where Lightning would refuse a fused optimizer though nothing is scaled."""
        if gradient_clip_val:
            clip_gradients(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """AdamW with a warm-up and a schedule, stepped at every batch; of a sparse table the rows that were read."""
        trained = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        matrices = [p for name, p in trained if p.dim() > 1 and not name.startswith("items.")]
        decayed = {id(p) for p in matrices}
        undecayed = [p for p in [*(p for _, p in trained), *self.objective.parameters()] if id(p) not in decayed]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": undecayed, "weight_decay": 0.0},
        ]
        kind = torch.optim.AdamW if sparse_table(self.network) is None else AdamWithSparseRows
        optimizer = kind(groups, lr=self.settings.learning_rate, betas=self.settings.betas, fused=True)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def _rate(self, step: int) -> float:
        """The factor of the learning rate: a linear rise, then constant, or cosine or linear down to 1 % at the end."""
        warmup, schedule = self.settings.warmup_steps, self.settings.schedule
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if schedule == "constant":
            return 1.0
        done = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        return max(0.01, 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done)


def count_parameters(module: nn.Module) -> int:
    """Number of parameters in ``module``."""
    return sum(parameter.numel() for parameter in module.parameters())
