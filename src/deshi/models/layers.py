"""Layers shared by several networks: dropout, attention, feed-forward."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.types import DeshiError

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Dropout(nn.Module):
    """Inverted dropout whose masks on a CPU come from bulk random bytes.

    ``torch.nn.Dropout`` draws each element by ``bernoulli_``, which is slow on a CPU. Here one byte an element
    decides, so the rate is rounded to a multiple of 1/256. Masks come from the layer's own generator: see
    :meth:`reseed`. On other devices the layer is ``F.dropout``.

    Args:
        rate: share of elements that are zeroed, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise DeshiError(f"Dropout got rate={rate}, expected a number in [0, 1).")
        self.rate = rate
        self._threshold = round(rate * 256)
        self._generator = np.random.Generator(np.random.SFC64(0))

    def reseed(self, seed: list[int]) -> None:
        """Restart the masks from ``seed``: the same seed gives the same masks."""
        self._generator = np.random.Generator(np.random.SFC64(seed))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with elements zeroed and all others scaled up, in training; ``x`` itself in evaluation."""
        if not self.training or self._threshold == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate, training=True)
        size = x.numel()
        noise = self._generator.integers(0, 1 << 64, size=(size + 7) // 8, dtype=np.uint64)
        kept = torch.from_numpy(noise.view(np.uint8)[:size]).view(x.shape) >= self._threshold
        mask = kept.to(x.dtype).mul_(256 / (256 - self._threshold))
        return x * mask


def reseed_dropout(module: nn.Module, seed: list[int]) -> None:
    """Reseed every :class:`Dropout` inside ``module``, each with its own stream derived from ``seed``."""
    layers = (layer for layer in module.modules() if isinstance(layer, Dropout))
    for number, layer in enumerate(layers):
        layer.reseed([*seed, number])


class CausalSelfAttention(nn.Module):
    """Multi-head self-attention in which a position sees itself and what came before it.

    Right-padded batches need no padding mask: padding comes after every real position. There is no dropout
    inside the attention, so that PyTorch takes its fused kernel.

    Args:
        dim: width.
        heads: attention heads; divides ``dim``.
        rotary: whether queries and keys are turned by their positions, see :func:`rotate`.
    """

    def __init__(self, dim: int, heads: int, rotary: bool = False) -> None:
        super().__init__()
        if dim % heads:
            raise DeshiError(
                f"The attention got dim={dim} and heads={heads}, expected a dim that is a multiple of heads."
            )
        if rotary and dim // heads % 2:
            raise DeshiError(f"Rotary positions got dim={dim} and heads={heads}, expected an even width of each head.")
        self.heads = heads
        self.rotary = rotary
        self.project_in = nn.Linear(dim, 3 * dim)
        self.project_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """``(B, L, dim)`` -> ``(B, L, dim)``: queries from ``x``, keys and values from ``context`` (``x``)."""
        batch, length, dim = x.shape
        if context is None:
            projected = self.project_in(x)
        else:
            weight, bias = self.project_in.weight, self.project_in.bias
            queries = F.linear(x, weight[:dim], bias[:dim])
            projected = torch.cat([queries, F.linear(context, weight[dim:], bias[dim:])], dim=-1)
        # (B, L, 3 * dim) -> queries, keys and values (B, heads, L, dim / heads)
        split = projected.view(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        if self.rotary:
            positions = torch.arange(length, device=x.device)
            query, key = rotate(query, positions), rotate(key, positions)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return cast(Tensor, self.project_out(attended.transpose(1, 2).reshape(batch, length, dim)))

    def last(self, x: Tensor, context: Tensor, lengths: Tensor) -> Tensor:
        """The output of :meth:`forward` at the last positions, for queries ``(B, dim)`` and context ``(B, L, dim)``."""
        batch, length, dim = context.shape
        weight, bias = self.project_in.weight, self.project_in.bias
        heads = (self.heads, dim // self.heads)
        # the first third of the projection makes queries, here of the last positions alone
        query = F.linear(x, weight[:dim], bias[:dim]).view(batch, 1, *heads)
        projected = F.linear(context, weight[dim:], bias[dim:]).view(batch, length, 2, *heads)
        key, value = projected.permute(2, 0, 3, 1, 4)
        positions, query = torch.arange(length, device=x.device), query.transpose(1, 2)
        if self.rotary:
            query, key = rotate(query, (lengths - 1)[:, None, None]), rotate(key, positions)
        inside = positions < lengths[:, None]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=inside[:, None, None])
        return cast(Tensor, self.project_out(attended.reshape(batch, dim)))


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): pairs of features turned by angles that grow with position.

    The product of a turned query and a turned key depends on the distance of their positions alone. Feature ``i`` is
    paired with feature ``i + W / 2`` and turns by ``position * 10000 ** (-2 i / W)``.

    Args:
        x: ``(B, heads, L, W)`` with an even ``W``.
        positions: ``(L,)``, or ``(B, 1, L)`` where rows differ.

    Returns:
        The same shape.
    """
    half = x.shape[-1] // 2
    speed = 10_000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = positions[..., None] * speed
    cosine, sine = angle.cos(), angle.sin()
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1).to(x.dtype)


class FeedForward(nn.Module):
    """Two linear layers with a non-linearity between them, applied at each position alone."""

    def __init__(self, dim: int, hidden: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        if activation not in ACTIVATIONS:
            raise DeshiError(f"The feed-forward got activation={activation!r}, expected {', '.join(ACTIVATIONS)}.")
        self.activation = ACTIVATIONS[activation]()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, dim)`` -> ``(B, L, dim)``."""
        return cast(Tensor, self.contract(self.dropout(self.activation(self.expand(x)))))


class GatedFeedForward(FeedForward):
    """A feed-forward whose inner features are multiplied by gates of the same input: SwiGLU if they are SiLU's.

    Shazeer 2020, arXiv 2002.05202. It has three matrices where :class:`FeedForward` has two.
    """

    def __init__(self, dim: int, hidden: int, activation: str, dropout: float) -> None:
        super().__init__(dim, hidden, activation, dropout)
        self.gate = nn.Linear(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, L, dim)`` -> ``(B, L, dim)``."""
        gated = self.activation(self.gate(x)) * self.expand(x)
        return cast(Tensor, self.contract(self.dropout(gated)))
