"""Prompts of histories: an instruction and, for every item, its title, a slot for its embedding, or both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from deshi.types import PAD, DeshiError

_SLOT = -1
"""In place of a token id: an item's embedding stands here."""


@dataclass(frozen=True)
class Prompt:
    """How a history is written for a language model.

    Attributes:
        item: an item's representation: its ``title``, one token whose ``embedding`` is given, or ``hybrid``:
            the title and then the embedding.
        mode: ``causal``: one prompt a history, which answers after every item; ``per_prefix``: a prompt for every
            beginning of a history, which answers at its end.
        instruction: the prompt's beginning.
        query: what comes between a history and the candidates to choose from.
        cue: what comes between the candidates and the answer.
        title_tokens: longer titles lose their end.
        candidates: titles to choose from in training, the right one included.
        permute_titles: every item gets another item's title (an ablation: what titles say is then worth nothing).
    """

    item: Literal["title", "embedding", "hybrid"] = "embedding"
    mode: Literal["causal", "per_prefix"] = "causal"
    instruction: str = "A user chose these items, the latest one last:"
    query: str = "\nThe next item is one of these:"
    cue: str = "\nThe next item is:"
    title_tokens: int = 32
    candidates: int = 20
    permute_titles: bool = False

    def __post_init__(self) -> None:
        for name, least in (("title_tokens", 1), ("candidates", 2)):
            if getattr(self, name) < least:
                raise DeshiError(f"prompt.{name} is {getattr(self, name)}, expected at least {least}.")


@dataclass(frozen=True)
class Layout:
    """Prompts as tokens, padded on the right.

    Attributes:
        tokens: ``(B, T)`` token ids, 0 for embeddings and padding.
        embedded: ``(B, T)`` the item whose embedding stands there, ``PAD`` elsewhere.
        segments: ``(B, T)`` position of the segment that the token belongs to, ``PAD`` for padding.
        ends: ``(B, S)`` column of each segment's last token; that of the last segment where there are fewer.
    """

    tokens: Tensor
    embedded: Tensor
    segments: Tensor
    ends: Tensor


class ItemTokens(nn.Module):
    """The pieces of text that prompts consist of, tokenised once.

    A prompt is a row of *segments*. Segment ``i`` is item ``i`` in a history, ``candidate(i)`` and ``answer(i)`` are
    the item as a candidate and as the answer, and there are :attr:`instruction`, :attr:`query` and :attr:`cue`.

    Args:
        prompt: the form.
        tokenizer: of transformers.
        titles: of all items, in index order.

    Attributes:
        titles: as the prompts have them.
        stop: the token that ends an answer.
    """

    flat: Tensor
    offsets: Tensor

    def __init__(self, prompt: Prompt, tokenizer: Any, titles: Sequence[str]) -> None:
        super().__init__()
        self.n_items = len(titles)
        self.titles = list(titles)
        if prompt.permute_titles:
            order = np.random.default_rng(0).permutation(self.n_items)
            self.titles = [titles[number] for number in order]
        self.stop = int(tokenizer.eos_token_id)
        names = _tokenised(tokenizer, (f" {title}" for title in self.titles), prompt.title_tokens)
        slot = [_SLOT]
        line = tokenizer.encode("\n", add_special_tokens=False)
        tail = line if prompt.item == "title" else slot
        history = [slot if prompt.item == "embedding" else [*name, *tail] for name in names]
        texts = [tokenizer.encode(text, add_special_tokens=False) for text in (prompt.query, prompt.cue)]
        fixed = [tokenizer.encode(prompt.instruction), *texts]
        # items in a history, items as candidates, items as answers, and the three fixed texts: see the properties below
        segments = [*history, *([*name, *tail] for name in names), *([*name, self.stop] for name in names), *fixed]
        sizes = torch.tensor([len(segment) for segment in segments])
        self.longest = int(sizes[: self.n_items].max())
        flat = torch.tensor([token for segment in segments for token in segment])
        self.register_buffer("flat", flat, persistent=False)
        self.register_buffer(
            "offsets", torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)]), persistent=False
        )

    @property
    def instruction(self) -> int:
        """The segment every prompt begins with."""
        return 3 * self.n_items

    @property
    def query(self) -> int:
        """The segment before the candidates."""
        return 3 * self.n_items + 1

    @property
    def cue(self) -> int:
        """The segment before the answer."""
        return 3 * self.n_items + 2

    def candidate(self, items: Tensor) -> Tensor:
        """Segments of items as candidates; ``PAD`` stays."""
        return torch.where(items < 0, PAD, items + self.n_items)

    def answer(self, items: Tensor) -> Tensor:
        """Segments of items as answers, with the token that ends them; ``PAD`` stays."""
        return torch.where(items < 0, PAD, items + 2 * self.n_items)

    def size(self, segments: Tensor) -> Tensor:
        """Number of tokens of each segment."""
        return self.offsets[segments + 1] - self.offsets[segments]

    def histories(self, items: Tensor) -> Tensor:
        """Prompts of histories ``(B, L)`` as segments ``(B, 1 + L)``."""
        return torch.cat([items.new_full((len(items), 1), self.instruction), items], dim=1)

    def questions(self, items: Tensor, candidates: Tensor, answers: Tensor | None = None) -> Tensor:
        """Prompts that ask for one of a few candidates, as segments.

        Args:
            items: ``(B, L)`` histories.
            candidates: ``(B, C)`` items, ``PAD`` on the right.
            answers: ``(B,)`` items to end the prompts with.

        Returns:
            ``(B, L + C + 3)``, or one more column with answers; padding stands on the right.
        """
        fixed = items.new_tensor([self.query, self.cue]).expand(len(items), 2)
        parts = [self.histories(items), fixed[:, :1], self.candidate(candidates), fixed[:, 1:]]
        parts += [] if answers is None else [self.answer(answers)[:, None]]
        segments = torch.cat(parts, dim=1)
        # move all padding to the right; a stable sort keeps the order of the rest
        return segments.gather(1, (segments < 0).to(torch.int8).argsort(dim=1, stable=True))

    def lay_out(self, segments: Tensor) -> Layout:
        """The tokens of prompts given as segments ``(B, S)``, padded on the right with ``PAD``."""
        segments = segments.long()
        # the real segments of all prompts, one after the other, and their numbers of tokens
        rows, columns = (segments >= 0).nonzero(as_tuple=True)
        real = segments[rows, columns]
        sizes = self.size(real)
        # the column of each segment's last token is the running sum of a prompt's sizes, less 1
        lengths = torch.zeros_like(segments)
        lengths[rows, columns] = sizes
        ends = lengths.cumsum(1) - 1
        # for every token: the real segment that owns it, and its position within that segment
        owner = torch.arange(len(real), device=segments.device).repeat_interleave(sizes)
        within = torch.arange(len(owner), device=segments.device) - (sizes.cumsum(0) - sizes)[owner]
        # where the token goes, its id, and the item of its segment (of use where the token is an embedding's slot)
        row, column = rows[owner], (ends[rows, columns] - sizes + 1)[owner] + within
        ids, items = self.flat[self.offsets[real][owner] + within], real[owner] % self.n_items
        shape = (len(segments), int(ends.max()) + 1)
        tokens, embedded, positions = (segments.new_full(shape, filler) for filler in (0, PAD, PAD))
        tokens[row, column] = ids.clamp(min=0)
        embedded[row, column] = torch.where(ids == _SLOT, items, PAD)
        positions[row, column] = columns[owner]
        return Layout(tokens, embedded, positions, ends)


def _tokenised(tokenizer: Any, texts: Iterable[str], limit: int) -> list[list[int]]:
    sequences: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return [tokens[:limit] for tokens in sequences]
