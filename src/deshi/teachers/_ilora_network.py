"""The network of iLoRA: a frozen language model, a frozen student, and the trained experts, gate and projector."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.models.base import SequentialRecommender
from deshi.models.layers import Dropout
from deshi.teachers.instance_lora import InstanceLora, inject, is_adapter, lora_layers
from deshi.teachers.llm import LoadedLLM
from deshi.teachers.prompts import ItemTokens, Layout
from deshi.types import DeshiError


@dataclass(frozen=True)
class Prompted:
    """Prompts as input of the language model.

    Attributes:
        layout: their tokens.
        embedded: ``(B, T, H)`` the token embeddings.
        gates: ``(B, 1 + L, E)`` the experts' mixture before the first item and after each; None without a gate.
        read: ``(B, T)`` how many items of the history decide a token's mixture: a column of ``gates``.
    """

    layout: Layout
    embedded: Tensor
    gates: Tensor | None
    read: Tensor

    def mixtures(self, rows: slice | Tensor, width: int) -> Tensor | None:
        """The mixtures of the first ``width`` tokens of some prompts, ``(R, width, E)``."""
        return None if self.gates is None else mixtures(self.gates[rows], self.read[rows, :width])


def mixtures(gates: Tensor, read: Tensor) -> Tensor:
    """Every token's mixture ``(R, T, E)`` from ``gates`` ``(R, 1 + L, E)`` and their columns ``read`` ``(R, T)``."""
    return gates.gather(1, read[..., None].expand(*read.shape, gates.shape[-1]))


class Projector(nn.Module):
    """From a student's item embeddings to vectors of the size of a language model's token embeddings.

    The published program's two layers with a GELU. Deviation: the output is brought to the size (root mean square) of
    the model's token embeddings, times a learned factor that begins at 1, so that it is of a kind with them at once.

    Args:
        dim: of the item embeddings.
        tokens: ``(V, H)`` the token embeddings.
    """

    def __init__(self, dim: int, tokens: Tensor) -> None:
        super().__init__()
        width = tokens.shape[1]
        self.width = width
        self.layers = nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width))
        self.scale = nn.Parameter(tokens.detach().float().square().mean().sqrt().cpu())

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dim)`` -> ``(..., H)``."""
        return F.rms_norm(self.layers(x), (self.width,)) * self.scale


class InstanceLLM(nn.Module):
    """A frozen language model with instance-wise experts, gated by a frozen student.

    Its ``state_dict`` holds the experts, the gate, the projector and the student, not the language model: that one is
    loaded anew and must be the same, which is checked by a few token embeddings. A copy by ``copy.deepcopy`` shares the
    frozen weights of the language model.

    Args:
        loaded: the language model; the experts are put into it.
        student: gives the gate its input and the items their embeddings.
        tokens: the pieces of prompts.
        lora: the experts.
        dropout: rate on projected item embeddings.

    Attributes:
        llm: the causal LM of transformers.
        mark: a few of its token embeddings, kept in checkpoints.
        student: as given; it stays in evaluation mode.
    """

    mark: Tensor

    def __init__(
        self, loaded: LoadedLLM, student: SequentialRecommender, tokens: ItemTokens, lora: InstanceLora, dropout: float
    ) -> None:
        super().__init__()
        self.llm = cast(nn.Module, loaded.model).requires_grad_(False).eval()
        self.tokenizer = loaded.tokenizer
        self.student = student.requires_grad_(False).eval()
        self.tokens = tokens
        self.scope = lora.gate
        self.projector = Projector(student.dim, self.token_embedding.weight)
        self.dropout = Dropout(dropout)
        self.gate = nn.Linear(student.dim, lora.experts, bias=False) if lora.gated else None
        self.experts = inject(self.llm, lora) if lora.rank else None
        self.register_buffer("mark", self._mark())
        self.register_state_dict_post_hook(_leave_out_llm)
        self.register_load_state_dict_post_hook(_expect_no_llm)

    @property
    def token_embedding(self) -> nn.Embedding:
        """The language model's own."""
        return cast(nn.Embedding, cast(Any, self.llm).get_input_embeddings())

    @property
    def width(self) -> int:
        """Of the language model's hidden states."""
        return self.token_embedding.embedding_dim

    def _mark(self) -> Tensor:
        """A few token embeddings, by which a language model is recognised whatever its number format."""
        weight = self.token_embedding.weight
        rows = torch.linspace(0, len(weight) - 1, 8, device=weight.device).long()
        return weight.detach()[rows, :8].float()

    def train(self, mode: bool = True) -> InstanceLLM:
        """As :meth:`torch.nn.Module.train`, but what is frozen stays in evaluation mode."""
        super().train(mode)
        self.student.eval()
        self.llm.eval()
        for module in self.llm.modules():
            if getattr(module, "gradient_checkpointing", False):  # transformers looks at this one flag of the layer
                module.training = mode
        for layer in lora_layers(self.llm):
            layer.lora_dropout.train(mode)
        return self

    def gates(self, items: Tensor, lengths: Tensor) -> Tensor | None:
        """The mixtures of histories ``(B, L)``: ``softmax(W h)`` of the student's state after each item.

        Returns:
            ``(B, 1 + L, E)`` fp32, even before the first item; None without a gate.
        """
        if self.gate is None:
            return None
        with torch.no_grad():
            states = self.student.encode(items, lengths)
        after = self.gate(states.to(self.gate.weight.dtype)).float().softmax(-1)
        return torch.cat([torch.full_like(after[:, :1], 1 / after.shape[-1]), after], dim=1)

    def prompt(self, segments: Tensor, items: Tensor, lengths: Tensor) -> Prompted:
        """Prompts given as segments ``(B, S)`` that begin with the histories ``items`` ``(B, L)``."""
        layout = self.tokens.lay_out(segments)
        # An item's tokens are mixed by the history up to that item, and what comes after the history by all of it.
        read = torch.minimum(layout.segments.clamp(min=0), lengths[:, None])
        if self.scope == "history":
            read = lengths[:, None].expand_as(read)
        return Prompted(layout, self._embed(layout), self.gates(items, lengths), read)

    def project(self, items: Tensor) -> Tensor:
        """The embeddings ``(..., H)`` of items ``(...)`` in the language model's space."""
        with torch.no_grad():
            embeddings = self.student.items(items)
        return cast(Tensor, self.projector(embeddings.to(self.projector.scale.dtype)))

    def _embed(self, layout: Layout) -> Tensor:
        embedded = self.token_embedding(layout.tokens)
        where = (layout.embedded >= 0).nonzero(as_tuple=True)
        projected = self.dropout(self.project(layout.embedded[where]))
        return embedded.index_put(where, projected.to(embedded.dtype)) if len(where[0]) else embedded

    def run(self, embedded: Tensor, gates: Tensor | None, **options: Any) -> Any:
        """The language model's last hidden states, after its norm, without its head over the vocabulary.

        Args:
            embedded: ``(R, T, H)``, padded on the right unless ``options`` has an attention mask: what comes after
                a token can't reach it.
            gates: ``(R, T, E)``; None mixes evenly.
            options: for transformers.

        Returns:
            transformers' output, with ``last_hidden_state`` ``(R, T, H)``.
        """
        backbone = cast(Any, self.llm).base_model
        options = {"use_cache": False} | options
        if self.experts is None:
            return backbone(inputs_embeds=embedded, **options)
        with self.experts.use(gates):
            return backbone(inputs_embeds=embedded, **options)

    def states(self, embedded: Tensor, gates: Tensor | None) -> Tensor:
        """:meth:`run`'s hidden states ``(R, T, H)``."""
        return cast(Tensor, self.run(embedded, gates).last_hidden_state)

    def vocabulary_logits(self, states: Tensor) -> Tensor:
        """The language model's logits ``(..., V)`` in fp32 after hidden states ``(..., H)``."""
        return cast(Tensor, cast(Any, self.llm).get_output_embeddings()(states)).float()

    def __deepcopy__(self, memo: dict[int, Any]) -> InstanceLLM:
        """A copy that has its own of everything but the frozen language model's weights and the tokenizer."""
        shared = [parameter for name, parameter in self.llm.named_parameters() if not is_adapter(name)]
        memo |= {id(thing): thing for thing in [*shared, self.tokenizer]}
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


def _leave_out_llm(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """A state-dict hook: a checkpoint of a few megabytes instead of one as large as the language model."""
    for name in [key for key in state if key.startswith(f"{prefix}llm.") and not is_adapter(key)]:
        del state[name]


def _expect_no_llm(module: nn.Module, incompatible: Any) -> None:
    """The loading side of :func:`_leave_out_llm`: what it leaves out isn't missing; all else is."""
    network = cast(InstanceLLM, module)
    frozen = {f"llm.{name}" for name in network.llm.state_dict() if not is_adapter(name)}
    missing = incompatible.missing_keys
    missing[:] = [key for key in missing if key[key.find("llm.") :] not in frozen]
    mark = network._mark()
    if not torch.allclose(network.mark.to(mark), mark, atol=1e-3, rtol=2e-2):
        raise DeshiError(
            "The weights were trained with another language model than the one that was loaded, expected the same: "
            "its token embeddings differ. Compare teacher.llm with the run's config.yaml."
        )
