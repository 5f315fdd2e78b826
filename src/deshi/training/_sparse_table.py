"""Training of an item table by sparse gradients: the rule, the optimizer's step, clipping, the lazy average.

A step reads the rows of the histories' items, of the targets and of the negatives. With sparse gradients everything
that follows works on these rows alone, so that a step's time doesn't grow with the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.distillation.objective import Objective
from deshi.models.base import Recommender, SequentialRecommender
from deshi.models.item_table import ItemEmbedding
from deshi.types import DeshiError

MANY_ITEMS = 50_000
"""Catalogues above this size are trained by sparse gradients where that is possible: the steps take less time."""

CHUNK = 65_536
"""Rows averaged at a time where all are."""

_LONGEST = 0.99
"""Share of a step in the next one, at most, that a row without a gradient takes: a hundred steps at once."""


def use_sparse_gradients(
    network: Recommender, objective: Objective, setting: bool | Literal["auto"], n_devices: int = 1
) -> bool:
    """Let the item table be trained by sparse gradients if the setting asks for it.

    Args:
        network: to be trained.
        objective: to be trained on.
        setting: ``auto`` does it for catalogues of more than :data:`MANY_ITEMS` items where it is possible.
        n_devices: number of devices that train together.

    Raises:
        DeshiError: for ``True`` where it isn't possible, with the reason.
    """
    if setting is False or (setting == "auto" and getattr(network, "n_items", 0) <= MANY_ITEMS):
        return False
    problem = _problem(network, objective, n_devices)
    if problem is None:
        assert isinstance(network, SequentialRecommender) and isinstance(network.items, ItemEmbedding)
        network.items.sparse = True
        objective.use_sparse_gradients()
    elif setting is True:
        raise DeshiError(f"train.sparse_table=true is not possible: {problem}. Give train.sparse_table=auto or false.")
    return problem is None


def _problem(network: Recommender, objective: Objective, n_devices: int) -> str | None:
    """The reason why the table's gradients must be dense, None if there is none."""
    if n_devices > 1:
        return f"{n_devices} devices exchange dense gradients"
    scores_by_table = (
        isinstance(network, SequentialRecommender)
        and type(network).training_loss is SequentialRecommender.training_loss
        and type(network).item_table is SequentialRecommender.item_table
    )
    if not scores_by_table or type(network.items) is not ItemEmbedding:
        return f"the item table of {type(network).__name__} is not made of plain numbers"
    return objective.problem_of_sparse_gradients()


def sparse_table(network: Recommender) -> nn.Parameter | None:
    """The item table's weight ``(n_items + 1, dim)`` if it is trained by sparse gradients."""
    items = getattr(network, "items", None)
    return items.weight if isinstance(items, ItemEmbedding) and items.sparse else None


class AdamWithSparseRows(torch.optim.AdamW):
    """AdamW, of whose parameters with sparse gradients a step moves the rows in the gradient alone.

    Adam goes on moving a row by its momentum after the row's gradient. A lazy Adam (:class:`torch.optim.SparseAdam`)
    leaves that out: a row that is rarely read moves a tenth as far. Here moments decay over the steps that a row
    missed, and its step is as long as the row would move until it is read again, if that takes as long as the last
    time. With a gradient in every step it is Adam. Parameters with sparse gradients must have no weight decay.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters by their gradients."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        sparse = [
            (group, parameter, parameter.grad)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter.grad.is_sparse
        ]
        for _, parameter, _ in sparse:  # parameters without a gradient are left alone by AdamW
            parameter.grad = None
        super().step()
        for group, parameter, grad in sparse:
            parameter.grad = grad
            _move_rows(parameter, coalesced(grad), self.state[parameter], group)
        return result


def _move_rows(table: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    """Adam's step on the rows of a coalesced sparse gradient."""
    if not state:
        state["step"] = torch.zeros(())
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["last_step"] = torch.zeros(len(table), device=table.device)
    state["step"] += 1
    step, (beta1, beta2), rows, values = float(state["step"]), group["betas"], grad.indices()[0], grad.values()
    waited = (step - state["last_step"].index_select(0, rows))[:, None]
    first = state["exp_avg"].index_select(0, rows).mul_(beta1**waited).add_(values, alpha=1 - beta1)
    second = state["exp_avg_sq"].index_select(0, rows).mul_(beta2**waited).addcmul_(values, values, value=1 - beta2)
    state["exp_avg"].index_copy_(0, rows, first)
    state["exp_avg_sq"].index_copy_(0, rows, second)
    state["last_step"].index_fill_(0, rows, step)
    # without a further gradient each step is this share of the one before: the moment falls by beta1, the width by
    # the root of beta2
    share = min(beta1 / math.sqrt(beta2), _LONGEST)
    first.mul_((1 - share**waited) / (1 - share))
    # bias correction of both moments: first / (1 - beta1 ^ t) over sqrt(second / (1 - beta2 ^ t)) + eps
    width = second.sqrt_().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
    table.index_add_(0, rows, first.div_(width), alpha=-float(group["lr"]) / (1 - beta1**step))


def coalesced(grad: Tensor) -> Tensor:
    """A sparse gradient ``(N, D)`` with distinct rows.

    How many there are isn't known before a device has counted them. Instead of waiting, the gradient there keeps its
    number of rows, and those that are left over become zeros of row 0, the padding's, whose gradient is zero anyway.
    """
    if grad.is_coalesced() or grad.device.type == "cpu":
        return grad.coalesce()
    rows, values = distinct_rows(grad._indices()[0], grad._values())
    return torch.sparse_coo_tensor(rows[None], values, grad.shape, check_invariants=False, is_coalesced=True)


def distinct_rows(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of ``values`` ``(M, D)`` over equal ``rows`` ``(M,)``, filled up with zeros of row 0: both as long."""
    order = rows.argsort()
    ordered = rows[order]
    # number of the distinct row that each value belongs to, from 0
    number = F.pad((ordered[1:] != ordered[:-1]).long(), (1, 0)).cumsum(0)
    sums = torch.zeros_like(values).index_add_(0, number, values[order])
    return torch.zeros_like(rows).scatter_(0, number, ordered), sums


def clip_gradients(parameters: Iterable[Tensor], largest: float) -> None:
    """Scale the gradients so that their common norm is ``largest`` at most; sparse ones count by their rows."""
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    if not any(parameter.grad.is_sparse for parameter in parameters if parameter.grad is not None):
        torch.nn.utils.clip_grad_norm_(parameters, largest)
        return
    values = []
    for parameter in parameters:
        assert parameter.grad is not None
        if parameter.grad.is_sparse:  # the rows of a coalesced gradient are distinct: their norm is the gradient's
            parameter.grad = coalesced(parameter.grad)
        values.append(parameter.grad.values() if parameter.grad.is_sparse else parameter.grad)
    norm = torch.nn.utils.get_total_norm(values)
    torch._foreach_mul_(values, (largest / (norm + 1e-6)).clamp(max=1.0))


class LazyAverage(nn.Module):
    """The moving average of a table of which each step changes few rows.

    A row that no step changes moves towards its constant value: ``mean = row + (mean - row) * d1 * d2 * ...`` over the
    steps' decays ``d``. So a row catches up just before it is changed, and all do before the average is used; the
    numbers are those of an average that moves at every step, up to rounding.

    Args:
        n_rows: of the table.
    """

    log_decay: Tensor
    log_decay_of_rows: Tensor

    def __init__(self, n_rows: int) -> None:
        super().__init__()
        # the sum of log(d) over all steps so far, and that sum when each row caught up: their difference is missing
        self.register_buffer("log_decay", torch.zeros((), dtype=torch.float64))
        self.register_buffer("log_decay_of_rows", torch.zeros(n_rows, dtype=torch.float64))

    def count(self, decay: float) -> None:
        """Note a step with its decay."""
        self.log_decay += math.log(decay)

    @torch.no_grad()
    def catch_up(self, mean: Tensor, table: Tensor, rows: Tensor) -> None:
        """Move rows ``(M,)`` of ``mean`` by all steps that they missed; ``table`` holds them unchanged since."""
        share = -torch.expm1(self.log_decay - self.log_decay_of_rows[rows])
        moved = mean.index_select(0, rows).lerp_(table.index_select(0, rows), share.to(mean.dtype)[:, None])
        mean.index_copy_(0, rows, moved)
        self.log_decay_of_rows[rows] = self.log_decay

    def catch_up_all(self, mean: Tensor, table: Tensor) -> None:
        """:meth:`catch_up` of every row."""
        for rows in torch.arange(len(mean), device=mean.device).split(CHUNK):
            self.catch_up(mean, table, rows)
