"""How far a causal language model's item vectors are from themselves in bf16, as they are and whitened.

    python benchmarks/vector_format.py data/ml-100k

Titles through SmolLM2-135M-Instruct in fp32, and again with the weights and what every linear layer and every norm puts
out rounded to bf16: close to what a processor with bf16 computes, on any processor. Prints the root mean square of the
differences: of the raw vectors relative to their spread, of whitened ones column by column, whose spread is one; and
the columns that correlate negatively, which have changed their sign.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from deshi.data.bundle import Bundle
from deshi.teachers import encode, item_texts
from deshi.teachers.encoders import CausalEncoder
from deshi.teachers.llm import LLM, LoadedLLM
from deshi.teachers.whitening import whiten


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--dim", type=int, default=128, help="columns that whitening keeps")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/deshi").expanduser())
    options = parser.parse_args()
    texts = list(dict.fromkeys(item_texts(Bundle.load(options.bundle).item_table(), "{title}").texts))
    encoders = CausalEncoder(), CausalEncoder(Rounded(dtype="fp32"))
    exact, rounded = (encode(texts, one.load(options.cache, torch.device("cpu")), one)[0] for one in encoders)
    spread = (exact - exact.mean(0)).square().mean().sqrt()
    print(f"{len(texts)} titles: raw vectors differ by {(exact - rounded).square().mean().sqrt() / spread:.1%}")
    one, other = whiten(exact, options.dim), whiten(rounded, options.dim)
    apart = (one - other).square().mean(0).sqrt()
    turned = (one * other).mean(0) < 0
    print(f"whitened to {options.dim}: the median column by {apart.median():.1%}, the last by {apart[-1]:.1%}")
    print(f"{int(turned.sum())} columns have changed their sign")


@dataclass(frozen=True)
class Rounded(LLM):
    """A model whose weights and layers' outputs are rounded to bf16, computed in fp32."""

    def load(self, cache: Path, device: torch.device | str = "cpu") -> LoadedLLM:
        """As :meth:`LLM.load`."""
        loaded = super().load(cache, device)
        for weights in loaded.model.parameters():
            weights.data = weights.data.bfloat16().float()
        for module in loaded.model.modules():
            if isinstance(module, nn.Linear) or "Norm" in type(module).__name__:
                module.register_forward_hook(lambda _module, _given, states: states.bfloat16().float())
        return loaded


if __name__ == "__main__":
    main()
