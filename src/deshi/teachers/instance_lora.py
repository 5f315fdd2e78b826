"""LoRA with experts that are mixed token by token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.configuration.needs import PEFT
from deshi.models.layers import Dropout
from deshi.teachers.llm import checkpoint_activations
from deshi.types import DeshiError

ADAPTER = "instance"
"""The adapter's name inside peft's layers."""


@dataclass(frozen=True)
class InstanceLora:
    """Which LoRA experts are put on a language model, and what mixes them (iLoRA, arXiv 2408.10159).

    Attributes:
        experts: number of experts; 1 is plain LoRA.
        rank: of all experts together, a multiple of ``experts``; 0 leaves the language model as it is (an ablation).
        alpha: the update's scale: an even mixture of the experts is plain LoRA of this rank and alpha.
        targets: names of the projections that get adapters.
        gate: ``prefix``: every token's mixture follows from the history up to its item; ``history``: all tokens of a
            prompt have the mixture of its whole history, as in the paper; ``uniform``: even mixtures (an ablation).
        dropout: rate before the adapters.
    """

    experts: int = 4
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    gate: Literal["prefix", "history", "uniform"] = "prefix"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.experts < 1 or self.rank < 0 or self.rank % self.experts:
            raise DeshiError(
                f"lora got rank={self.rank} and experts={self.experts}, expected at least one expert and a rank that "
                "is a multiple of their number: each expert has a rank of rank / experts."
            )
        if self.rank and not self.targets:
            raise DeshiError(
                "lora got no targets, expected names of projections such as q_proj; rank=0 leaves LoRA out."
            )

    @property
    def gated(self) -> bool:
        """Whether there is a mixture to choose."""
        return self.rank > 0 and self.experts > 1 and self.gate != "uniform"


class GatedExperts:
    """The one step in which a LoRA layer of iLoRA differs from peft's: the inner values are scaled by the gate.

    ``lora_A`` and ``lora_B`` are peft's, of rank r; rows ``e r/E .. (e+1) r/E - 1`` belong to expert ``e``. With gates
    ``w`` the update is ``sum_e w_e B_e A_e x`` times ``E alpha / r``, as in the published program, where alpha is
    divided by an *expert's* rank.

    What carried of peft: choosing and wrapping the projections, the LoRA parameters and their initialisation, base
    layers that are quantised, and the hook ``lora_variant``, by which peft's own DoRA and aLoRA replace a layer's
    computation; this object is such a variant (of the same methods: peft's class can't be named here without importing
    peft). What didn't: peft hands a variant no values of the caller's that reach a projection inside a transformers
    model, so the gates are held here; an adapter can't be merged, for it differs from token to token; and adapters are
    kept in fp32 and applied in the model's format, where peft casts the inputs.

    Args:
        experts: E.
        rank: r.
    """

    def __init__(self, experts: int, rank: int) -> None:
        self.experts = experts
        self.rank = rank
        self.scales: Tensor | None = None

    @contextmanager
    def use(self, gates: Tensor | None) -> Iterator[None]:
        """Mix by ``gates`` ``(B, T, E)``, which sum to 1 over the experts, inside the block; None mixes evenly."""
        before = self.scales
        self.scales = None if gates is None else self.expanded(gates)
        try:
            yield
        finally:
            self.scales = before

    def expanded(self, gates: Tensor) -> Tensor:
        """The factors ``(B, T, r)`` of the inner values."""
        return (gates * self.experts).repeat_interleave(self.rank // self.experts, dim=-1)

    def forward(self, module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """A layer's output: the base's ``result`` ``(B, T, out)`` and the mixed experts' update for ``x``."""
        weights = module.lora_A[active_adapter].weight.to(x.dtype), module.lora_B[active_adapter].weight.to(x.dtype)
        inner = F.linear(module.lora_dropout[active_adapter](x), weights[0]) * module.scaling[active_adapter]
        if self.scales is not None:
            if inner.shape[:-1] != self.scales.shape[:-1]:
                raise DeshiError(
                    f"An adapted projection got values of shape {tuple(x.shape)}, expected prompts and tokens "
                    f"{tuple(self.scales.shape[:2])}. Adapt projections only that see every token of a prompt."
                )
            inner = inner * self.scales.to(inner.dtype)
        return result + F.linear(inner, weights[1])

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For gradient checkpointing: a layer that is computed again must see the gates of its own prompts."""
        return nullcontext(), self._again(self.scales)

    @contextmanager
    def _again(self, scales: Tensor | None) -> Iterator[None]:
        before, self.scales = self.scales, scales
        try:
            yield
        finally:
            self.scales = before

    def supports_lora_conversion(self) -> bool:
        """No: there is no single weight that the experts amount to."""
        return False

    def merge_safe(self, module: Any, active_adapter: str, orig_weight: Tensor) -> Tensor:
        """Refuse: every token has a weight of its own."""
        raise DeshiError("Instance-wise LoRA can't be merged into the weights: its update differs from token to token.")

    merge_unsafe = merge_safe
    unmerge = merge_safe

    def __deepcopy__(self, memo: dict[int, Any]) -> GatedExperts:
        """A copy without gates, which are part of a running computation; layers copied together share it."""
        copied = memo[id(self)] = GatedExperts(self.experts, self.rank)
        return copied


def inject(model: nn.Module, lora: InstanceLora) -> GatedExperts:
    """Put the experts on a frozen causal LM of transformers, in place; nothing else in it is trainable afterwards.

    Returns:
        the object that takes the gates.

    Raises:
        DeshiError: if peft is missing, or no projection of the model has one of the names.
    """
    peft = PEFT.load()
    config = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets))
    missing = [name for name in lora.targets if not any(part.endswith(name) for part, _ in model.named_modules())]
    if missing:
        raise DeshiError(
            f"lora.targets names {', '.join(missing)}, which {type(model).__name__} hasn't got, expected names among "
            f"{', '.join(_projections(model))}."
        )
    peft.inject_adapter_in_model(config, model, ADAPTER)
    experts = GatedExperts(lora.experts, lora.rank)
    checkpointing = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    for layer in lora_layers(model):
        layer.lora_variant[ADAPTER] = experts
        layer.cast_input_dtype_enabled = False
        layer.lora_A[ADAPTER].float()
        layer.lora_B[ADAPTER].float()
        if lora.dropout:
            # Masks that are drawn again must be the same: only torch's own generator is reset by the checkpointing.
            layer.lora_dropout[ADAPTER] = (nn.Dropout if checkpointing else Dropout)(lora.dropout)
    if checkpointing:
        checkpoint_activations(model, context_fn=experts.contexts)
    return experts


def lora_layers(model: nn.Module) -> list[Any]:
    """The layers that carry the experts."""
    return [module for module in model.modules() if ADAPTER in getattr(module, "lora_A", ())]


def is_adapter(name: str) -> bool:
    """Whether a parameter's name is that of an expert's weight."""
    return f".{ADAPTER}." in name


def _projections(model: nn.Module) -> list[str]:
    linear = [name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    return list(dict.fromkeys(linear))
