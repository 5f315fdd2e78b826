"""Tiny models with random weights in the hub's layout, and the cache in which real ones are kept between test runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = [
    "[PAD]", "[UNK]", "[BOS]", "[EOS]", "the", "a", "of", "star", "wars", "trek", "toy", "story", "heat", "crime",
    "space", "robot", "love", "war", "film", "unknown", "item",
]  # fmt: skip


def tiny_tokenizer() -> Any:
    """A tokenizer of whole lower-case words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]")


def write_tiny_llama(folder: Path, layers: int = 3, tied: bool = True) -> Path:
    """A Llama of width 16 in ``folder``, always the same."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=2, eos_token_id=3, tie_word_embeddings=tied,
    )  # fmt: skip
    return _write(LlamaForCausalLM, config, folder)


def write_tiny_bert(folder: Path) -> Path:
    """A BERT of width 12 in ``folder``, always the same."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=3,
        max_position_embeddings=64,
    )  # fmt: skip
    return _write(BertModel, config, folder, pad_token="[PAD]")


def _write(kind: Any, config: Any, folder: Path, **tokens: str) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
    model.save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(tokens)
    tokenizer.save_pretrained(folder)
    return folder
