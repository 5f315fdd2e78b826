"""A tiny random Llama with a tokenizer of single characters, and what an iLoRA teacher is built from."""

from __future__ import annotations

import functools
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import polars as pl
import torch

from deshi.data.bundle import Bundle
from deshi.models.base import SequentialRecommender
from deshi.models.item_table import ItemEmbedding
from deshi.models.sasrec import SASRec
from deshi.teachers.base import Resources
from deshi.teachers.ilora import ILoRA
from deshi.teachers.instance_lora import InstanceLora, lora_layers
from deshi.teachers.llm import LLM, LoadedLLM
from deshi.teachers.prompts import Prompt
from tiny_bundles import tiny_bundle

ItemForm = Literal["title", "embedding", "hybrid"]
Mode = Literal["causal", "per_prefix"]
Gate = Literal["prefix", "history", "uniform"]

N_ITEMS, DIM, MAX_LENGTH, WIDTH = 24, 8, 6, 32
ITEMS = pl.DataFrame({"item_id": [f"i{n}" for n in range(N_ITEMS)], "title": [f"Film {n:c}" for n in range(97, 121)]})


@functools.cache
def tiny_tokenizer() -> Any:
    """A token for every printable character; ``<s>`` begins an encoded text, as with Llama's own."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<unk>", "\n", *string.printable.translate({10: None})]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def tiny_model(seed: int = 0, **options: Any) -> Any:
    """A random Llama of two layers in fp32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=110, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2, **options,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval().requires_grad_(False)


def checkpoint(model: Any) -> None:
    """Switch gradient checkpointing on, by whichever name this version of transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@dataclass(frozen=True)
class TinyLLM:
    """Stands for :class:`deshi.teachers.llm.LLM`."""

    checkpointing: bool = False
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def load(self, cache: Path, device: torch.device | str = "cpu") -> LoadedLLM:
        """See :meth:`deshi.teachers.llm.LLM.load`."""
        model = tiny_model(self.seed).to(self.dtype)
        if self.checkpointing:
            checkpoint(model)
        return LoadedLLM(model, tiny_tokenizer(), "tiny", "the test", None, {})


def tiny_sasrec(max_length: int = MAX_LENGTH) -> SequentialRecommender:
    """A student whose states differ clearly from user to user."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        student = SASRec(N_ITEMS, DIM, max_length, heads=2, dropout=0.3)
        assert isinstance(student.items, ItemEmbedding)
        torch.nn.init.normal_(student.items.weight[1:])
    return student.eval()


def tiny_teacher(
    tmp_path: Path,
    prompt: Prompt | None = None,
    lora: InstanceLora | None = None,
    llm: TinyLLM | LLM | None = None,
    cache: Path | None = None,
    seed: int = 0,
    stirred: bool = True,
    student: SequentialRecommender | None = None,
    **options: Any,
) -> ILoRA:
    """A teacher on a tiny data set; ``stirred``: its adapters already do something (LoRA begins with updates of 0)."""
    path = tmp_path / "tiny"
    bundle = Bundle.load(path) if path.exists() else tiny_bundle(tmp_path, [[0, 1, 2]], n_items=N_ITEMS, items=ITEMS)
    sources = Resources(bundle, cache or tmp_path, lambda name: (student or tiny_sasrec(), {}), torch.device("cpu"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {"max_length": MAX_LENGTH, "dropout": 0.0} | options
        teacher = ILoRA(N_ITEMS, sources, cast(LLM, llm or TinyLLM()), "sasrec", prompt, lora, **options)
        if stirred:
            stir(teacher)
    return teacher


def stir(teacher: ILoRA) -> None:
    """Give the adapters updates and the gate opinions that can be seen in the output."""
    for layer in lora_layers(teacher.network.llm):
        torch.nn.init.normal_(layer.lora_B["instance"].weight, std=0.3)
    if teacher.network.gate is not None:
        torch.nn.init.normal_(teacher.network.gate.weight, std=1.0)
