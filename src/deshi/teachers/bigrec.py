"""BIGRec: a language model trained to write the title of the next item, with its answers grounded to items.

Bao et al., "A Bi-Step Grounding Paradigm for Large Language Models in Recommendation Systems", 2023,
https://arxiv.org/abs/2308.08434. What was taken from the paper and its program, and what differs, is in
``docs/bigrec.md``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deshi.configuration.needs import LLM as LLM_PACKAGES
from deshi.configuration.needs import PEFT, Need
from deshi.losses.base import Loss
from deshi.models.base import Recommender, check_histories
from deshi.teachers._grounding import (
    by_length,
    discounted,
    embed_texts,
    item_titles,
    l2_distances,
    left_padded,
    quoted,
    unquoted,
)
from deshi.teachers._item_text import require_texts
from deshi.teachers._models import quiet
from deshi.teachers.base import Resources
from deshi.teachers.llm import LLM
from deshi.types import PAD, Batch, DeshiError, copied_to

PROMPT = (
    "### Instruction:\nGiven the {things} that a user has chosen so far, from the oldest to the latest, "
    "name the one that the user will choose next.\n\n### Input:\n{history}\n\n### Response:\n"
)
_NO_LABEL = -100
_GENERATED = 32
"""Prompts that are continued at a time."""
_ROOM = 4
"""Tokens of an answer that aren't the title's: quotes, the end, and one that the quotes may split off."""


@dataclass(frozen=True)
class Lora:
    """LoRA adapters of a language model.

    Attributes:
        rank: of the adapters.
        alpha: the adapters' output is scaled by ``alpha / rank``.
        targets: names of the linear layers that get adapters.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        _check_range("lora.rank", self.rank, 1)


class BigRec(Recommender):
    """A frozen causal LM with LoRA that writes the next item's title, grounded by embedding distance.

    Training: the titles of the latest ``history`` items as an instruction, the next title in quotes as the answer,
    token cross-entropy on the answer alone. Ranking: the model writes a title; the score of an item is minus the L2
    distance between the embeddings of the written title and of the item's. Both embeddings are the last token's
    hidden state of the *frozen* model, adapters off, as in the paper's program: the items' are computed once. Unlike
    there, the title is embedded in its quotes, which finds the item of a title that isn't written exactly far better.

    Items with the same title get the same score. The weights that are saved are the adapters' and the popularity.

    Args:
        n_items: number of items in the vocabulary.
        resources: item titles, cache and device.
        llm: the causal LM.
        lora: its adapters.
        history: number of latest items in a prompt.
        max_new_tokens: length of a generated answer at most; longer titles are cut.
        things: what the prompt calls items.
        beams: of beam search; 1 is greedy. The best beam counts.
        popularity_gamma: exponent of the popularity discount on distances, 0 for none. Popularity is counted on the
            events that training showed, so that no held-out event enters.
        targets_per_history: number of positions of a training history that are made into prompts, drawn from a seed
            that is the content of the batch: the same batch, the same positions.
        max_length: number of latest items of a training history that positions are drawn from.
        validation_examples: for ``deshi teach``: number of validation examples that select the best epoch, a sample
            that is drawn once, since each costs a generated answer; None is all.

    Attributes:
        titles: the items' texts.
        popularity: ``(n_items,)`` training events of each item so far; untrained, but saved with the weights.
        described: the LLM, for the run's record.

    Raises:
        DeshiError: for numbers out of range, an LLM without an end token or whose window is too small for a prompt,
            and targets that it doesn't have.
    """

    _embeddings: Tensor | None

    def __init__(
        self,
        n_items: int,
        resources: Resources,
        llm: LLM,
        lora: Lora | None = None,
        history: int = 10,
        max_new_tokens: int = 32,
        things: str = "movies",
        beams: int = 1,
        popularity_gamma: float = 0.0,
        targets_per_history: int = 1,
        max_length: int = 50,
        validation_examples: int | None = 200,
    ) -> None:
        super().__init__()
        _check_range("history", history, 1)
        _check_range("max_new_tokens", max_new_tokens, _ROOM + 1)
        _check_range("beams", beams, 1)
        _check_range("targets_per_history", targets_per_history, 1)
        _check_range("max_length", max_length, history)
        if validation_examples is not None:
            _check_range("validation_examples", validation_examples, 1)
        if popularity_gamma < 0:
            raise DeshiError(f"popularity_gamma is {popularity_gamma}, expected 0 (off) or a positive number.")
        if n_items != resources.bundle.n_items:
            raise DeshiError(f"n_items is {n_items}, but {resources.bundle.name} has {resources.bundle.n_items} items.")
        self.n_items, self.max_length = n_items, max_length
        self.history, self.things, self.beams = history, things, beams
        self.max_new_tokens, self.targets_per_history = max_new_tokens, targets_per_history
        self.gamma = popularity_gamma
        require_texts(resources.bundle.item_table())
        loaded = llm.load(resources.cache, resources.device)
        self.tokenizer, self.described = loaded.tokenizer, loaded.described
        self.titles = item_titles(resources.bundle.item_table(), self.tokenizer, max_new_tokens - _ROOM)
        self._check_llm(loaded.model.config)
        self.llm = _with_adapters(loaded.model, lora or Lora())
        self.popularity = nn.Parameter(torch.zeros(n_items), requires_grad=False)
        self.register_buffer("_embeddings", None, persistent=False)
        self._frozen = {name for name in self.state_dict() if name != "popularity" and ".lora_" not in name}
        self.register_state_dict_post_hook(_drop_frozen)
        self.register_load_state_dict_post_hook(_allow_frozen)

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """The package of the adapters; the language model has its own."""
        return [PEFT]

    def describe(self) -> dict[str, Any]:
        """The language model, for the run's record."""
        return {"llm": self.described}

    @property
    def duplicate_titles(self) -> int:
        """Number of items that share their title with another item and so always tie with it."""
        return self.titles.duplicates

    def _check_llm(self, config: Any) -> None:
        if self.tokenizer.eos_token_id is None:
            raise DeshiError("The LLM's tokenizer has no end token, so the model can't learn where a title ends.")
        window = getattr(config, "max_position_embeddings", None)
        longest = len(self.tokenizer(self._prompt([]))["input_ids"]) + self.max_new_tokens * (self.history + 1)
        if window is not None and longest > window:
            raise DeshiError(
                f"A prompt of history={self.history} titles with max_new_tokens={self.max_new_tokens} may have "
                f"{longest} tokens, but the LLM reads {window}. Lower one of the two."
            )

    def training_loss(self, batch: Batch, loss: Loss) -> Tensor:
        """The mean cross-entropy of the answers' tokens, a scalar.

        Args:
            batch: training histories with their targets.
            loss: ignored: the answers are tokens, not items, so no loss over the catalogue applies.
        """
        batch = batch.on_cpu  # the language model gets tokens: a device would be waited for
        if self.training:
            self._count(batch.whole)
        rows, columns = self._drawn(batch)
        prompts = self._prompts(batch.items, rows, columns + 1)
        answers = [self._answer(item) for item in batch.targets[rows, columns].tolist()]
        return self.answer_loss(prompts, answers)

    def loss_positions(self, batch: Batch) -> int:
        """The number of answers: up to ``targets_per_history`` a history."""
        return int((batch.targets != PAD).sum(1).clamp(max=self.targets_per_history).sum())

    def answer_loss(self, prompts: list[list[int]], answers: list[list[int]]) -> Tensor:
        """The mean cross-entropy, over all of the answers' tokens, of each given what stands before it.

        Args:
            prompts: tokens of each prompt.
            answers: tokens of each answer, its end token included.
        """
        pairs = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        tokens, mask, positions = self._padded(pairs)
        width = max(len(answer) for answer in answers)
        labels, real, _ = self._padded(answers)
        # the logits that predict the answers' tokens: those of the columns one before
        output = self.llm(input_ids=tokens, attention_mask=mask, position_ids=positions, logits_to_keep=width + 1)
        logits = output.logits[:, -width - 1 : -1].float()
        return F.cross_entropy(logits.flatten(0, 1), labels.masked_fill(real == 0, _NO_LABEL).flatten())

    @torch.no_grad()
    def next_scores(self, items: Tensor, lengths: Tensor) -> Tensor:
        """``(B, n_items)`` fp32: minus the distance of every item from what the model writes after a history."""
        written = self.write(items, lengths)
        # histories with the same answer share its embedding, items with the same title share theirs
        answers = list(dict.fromkeys(written))
        index = {text: number for number, text in enumerate(answers)}
        queries = self.embed(answers)
        distances = l2_distances(queries, self._text_embeddings())[[index[text] for text in written]]
        distances = distances[:, self.titles.text_of.to(distances.device)]
        if self.gamma:
            distances = discounted(distances, self.popularity.to(distances.device), self.gamma)
        return -distances.to(items.device)

    @torch.no_grad()
    def write(self, items: Tensor, lengths: Tensor) -> list[str]:
        """The model's answer after each history, without the quotes; arguments as :meth:`next_scores`."""
        check_histories(items, lengths, self.n_items)
        prompts = self._prompts(items, torch.arange(len(items), device=items.device), lengths)
        written = [""] * len(prompts)
        with self._evaluating():
            for members in by_length(prompts, max(1, _GENERATED // self.beams)):
                tokens, mask, _ = self._padded([prompts[number] for number in members])
                # generate() counts positions by the mask, as left_padded does
                answers = self.llm.generate(input_ids=tokens, attention_mask=mask, generation_config=self._decoding())
                texts = self.tokenizer.batch_decode(answers[:, tokens.shape[1] :], skip_special_tokens=True)
                for number, text in zip(members, texts, strict=True):
                    written[number] = unquoted(text)
        return written

    def item_embeddings(self) -> Tensor:
        """``(n_items, hidden_size)`` fp32, the embeddings of the items' titles by the frozen model."""
        return self._text_embeddings()[self.titles.text_of.to(self.popularity.device)]

    def _text_embeddings(self) -> Tensor:
        """``(len(titles.texts), hidden_size)``, computed once: the frozen model never changes."""
        if self._embeddings is None:
            self._embeddings = self.embed(self.titles.texts)
        return self._embeddings

    def embed(self, titles: list[str]) -> Tensor:
        """``(len(titles), hidden_size)`` fp32: the frozen model's last state on each title, read in quotes."""
        with self._evaluating(), self._adapters_off():
            backbone = self.llm.get_base_model().base_model
            return embed_texts([quoted(title) for title in titles], backbone, self.tokenizer)

    def _decoding(self) -> Any:
        return LLM_PACKAGES.load("transformers").GenerationConfig(
            do_sample=False,
            num_beams=self.beams,
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            use_cache=True,
        )

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode for a while: in training mode with gradient checkpointing, generation has no cache."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    @contextmanager
    def _adapters_off(self) -> Iterator[None]:
        """The frozen model for a while; peft would let the adapters come back trainable also where they were not."""
        before = [(parameter, parameter.requires_grad) for parameter in self.llm.parameters()]
        try:
            with self.llm.disable_adapter():
                yield
        finally:
            for parameter, trained in before:
                parameter.requires_grad_(trained)

    def _count(self, batch: Batch) -> None:
        """Add the batch's events to the popularity: all inputs and each history's last target."""
        last = batch.targets.gather(1, batch.lengths[:, None] - 1)
        events = torch.cat([batch.items, last], 1)
        counts = torch.bincount(events[events != PAD], minlength=self.n_items)
        with torch.no_grad():
            self.popularity.add_(counts.to(self.popularity.device, non_blocking=True))

    def _drawn(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Rows and columns of the positions that become prompts, up to ``targets_per_history`` a row."""
        # the batch's content is the seed; positions without a target get the smallest noise and are never kept
        seed = zlib.crc32(batch.items.numpy().tobytes())
        noise = torch.rand(batch.targets.shape, generator=torch.Generator().manual_seed(seed))
        real = batch.targets != PAD
        order = noise.masked_fill(~real, -1.0).topk(min(self.targets_per_history, real.shape[1])).indices
        rows = torch.arange(len(real))[:, None].expand_as(order)
        kept = real[rows, order]
        if not kept.any():
            raise DeshiError("A training batch has no target, so there is nothing to learn from. Check the windows.")
        return rows[kept], order[kept]

    def _prompts(self, items: Tensor, rows: Tensor, ends: Tensor) -> list[list[int]]:
        """The tokens of a prompt for each history ``items[row, :end]``."""
        histories = [items[row, max(0, end - self.history) : end].tolist() for row, end in zip(rows, ends, strict=True)]
        texts = [self._prompt([self.titles[item] for item in history]) for history in histories]
        prompts: list[list[int]] = self.tokenizer(texts)["input_ids"]
        return prompts

    def _prompt(self, titles: list[str]) -> str:
        return PROMPT.format(things=self.things, history=", ".join(map(quoted, titles)))

    def _answer(self, item: int) -> list[int]:
        # apart from the prompt, so that the prompt's tokens are those that generation starts from
        tokens = self.tokenizer(quoted(self.titles[item]), add_special_tokens=False)["input_ids"]
        return [*tokens, self.tokenizer.eos_token_id]

    def _padded(self, sequences: list[list[int]]) -> tuple[Tensor, Tensor, Tensor]:
        tokens, mask, positions = left_padded(sequences, self.tokenizer.pad_token_id)
        device = self.popularity.device
        return copied_to(device, tokens), copied_to(device, mask), copied_to(device, positions)


def _check_range(name: str, value: int, lowest: int) -> None:
    if value < lowest:
        raise DeshiError(f"{name} is {value}, expected at least {lowest}.")


def _with_adapters(model: Any, lora: Lora) -> Any:
    """The model with fresh LoRA, whose second factor is zero: at first it answers as the frozen model does."""
    peft = PEFT.load()
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.targets), lora_dropout=0.0, bias="none",
        task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        with quiet():
            return peft.get_peft_model(model, config)
    except ValueError as error:
        linear = {name.rsplit(".", 1)[-1] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
        raise DeshiError(
            f"lora.targets={', '.join(lora.targets)} don't fit the LLM, whose linear layers are "
            f"{', '.join(sorted(linear))} ({error})."
        ) from error


def _drop_frozen(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Leave the frozen LLM out of what is saved: its name in the configuration brings it back."""
    for name in module._frozen:  # type: ignore[union-attr]
        state.pop(prefix + str(name), None)


def _allow_frozen(module: nn.Module, keys: Any) -> None:
    """Miss only what was trained."""
    frozen = tuple(module._frozen)  # type: ignore[arg-type]
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.endswith(frozen)]
