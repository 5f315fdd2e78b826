"""A tiny random Llama that reads bytes: every text is its vocabulary's, and it is made in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deshi.teachers.llm import LoadedLLM

END, PADDING = "<end>", "<pad>"


def byte_tokenizer() -> Any:
    """A token a byte, an end token and a padding token, no beginning token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: number for number, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PADDING)


@dataclass(frozen=True)
class ByteLLM:
    """Stands in the place of :class:`deshi.teachers.llm.LLM`."""

    seed: int = 0
    width: int = 32
    layers: int = 2
    window: int = 4096

    def load(self, cache: Path, device: torch.device | str = "cpu") -> LoadedLLM:
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = byte_tokenizer()
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=self.width, intermediate_size=2 * self.width,
            num_hidden_layers=self.layers, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=self.window, initializer_range=0.2, tie_word_embeddings=True,
            bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model: Any = LlamaForCausalLM(config)
            model = model.to(device).eval().requires_grad_(False)
        return LoadedLLM(model, tokenizer, "bytes", "made here", None, {"name": "bytes", "random_seed": self.seed})
