"""Grounding of generated text: the items' titles, embeddings of both, and the distances between them.

This is the second step of BIGRec (Bao et al. 2023, https://arxiv.org/abs/2308.08434): whatever the language model wrote
is grounded in the catalogue by the L2 distance between its embedding and the embeddings of the items' titles.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
import torch
from torch import Tensor

from deshi.teachers._item_text import item_names

log = logging.getLogger(__name__)

_EMBEDDED = 64
"""Texts that are embedded at a time."""


@dataclass(frozen=True, eq=False)
class ItemTitles:
    """The text that stands for each item. Items with the same text can't be told apart by any text.

    Attributes:
        texts: the different texts.
        text_of: ``(n_items,)`` int64, each item's index in ``texts``.
        duplicates: number of items that share their text with another item.
        cut: number of different texts that were shortened.
    """

    texts: list[str]
    text_of: Tensor
    duplicates: int
    cut: int

    def __getitem__(self, item: int) -> str:
        """The text of an item index."""
        return self.texts[int(self.text_of[item])]


def item_titles(items: pl.DataFrame, tokenizer: Any, longest: int) -> ItemTitles:
    """The titles of a catalogue as they are shown to a language model and expected from it.

    Items go by :func:`~deshi.teachers._item_text.item_names`, without quotes at the ends, as what the model writes.
    Shared and shortened titles are counted in the log.

    Args:
        items: the bundle's item table.
        tokenizer: of the model.
        longest: number of tokens after which a text is cut.
    """
    names = item_names(items)
    shown = {name: _cut(unquoted(name), tokenizer, longest) for name in dict.fromkeys(names)}
    texts = list(dict.fromkeys(text for text, _ in shown.values()))
    index = {text: number for number, text in enumerate(texts)}
    text_of = torch.tensor([index[shown[name][0]] for name in names])
    counts = text_of.bincount(minlength=len(texts))
    titles = ItemTitles(
        texts, text_of, int(counts[counts > 1].sum()), sum(shortened for _, shortened in shown.values())
    )
    if titles.duplicates:
        log.warning("%d of %d items share their title with another and always tie", titles.duplicates, len(names))
    if titles.cut:
        log.warning("%d of %d items have a title of over %d tokens, which is cut", titles.cut, len(names), longest)
    return titles


def unquoted(text: str) -> str:
    """The first line that isn't empty, without the quotes around it."""
    return text.strip().split("\n")[0].strip().strip('"').strip()


def quoted(title: str) -> str:
    """A title as it is shown to the model, expected from it and embedded: the closing quote is its last token."""
    return f'"{title}"'


def _cut(text: str, tokenizer: Any, longest: int) -> tuple[str, bool]:
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(tokens) <= longest:
        return text, False
    return unquoted(tokenizer.decode(tokens[:longest])), True


def left_padded(sequences: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token sequences that end together, as generation needs them.

    Returns:
        tokens ``(B, L)`` int64, the attention mask ``(B, L)`` int64 and position ids ``(B, L)`` that count the real
        tokens from 0, so that padding moves nothing.
    """
    width = max(len(sequence) for sequence in sequences)
    tokens = torch.tensor([[pad] * (width - len(sequence)) + list(sequence) for sequence in sequences])
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    mask = (torch.arange(width) >= width - lengths[:, None]).long()
    return tokens, mask, (mask.cumsum(1) - 1).clamp(min=0)


def by_length(sequences: Sequence[Sequence[Any]], size: int) -> Iterator[list[int]]:
    """The numbers of all sequences in batches of at most ``size``, similar lengths together, the longest first."""
    order = sorted(range(len(sequences)), key=lambda number: -len(sequences[number]))
    yield from (order[start : start + size] for start in range(0, len(order), size))


@torch.no_grad()
def embed_texts(texts: Sequence[str], backbone: Any, tokenizer: Any) -> Tensor:
    """The last token's hidden state of each text, after the model's final norm: ``(len(texts), hidden_size)`` fp32.

    A text begins with the tokenizer's beginning token, or its end token if it has none: the first position of a causal
    model is unlike all others (and an empty text has no token of its own).

    Args:
        texts: any strings.
        backbone: the transformer without its head.
        tokenizer: of the model.
    """
    device = backbone.get_input_embeddings().weight.device
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    tokens = [[start, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
    embeddings = torch.empty(len(texts), backbone.get_input_embeddings().embedding_dim, device=device)
    for members in by_length(tokens, _EMBEDDED):
        ids, mask, positions = (part.to(device) for part in left_padded([tokens[m] for m in members], start))
        states = backbone(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        # all texts of the batch end in the last column
        embeddings[members] = states.last_hidden_state[:, -1].float()
    return embeddings


def l2_distances(queries: Tensor, table: Tensor) -> Tensor:
    """Distances ``(B, T)`` between queries ``(B, D)`` and embeddings ``(T, D)``, the same for any ``B``.

    The usual detour by a matrix product loses the small distances that decide, and by an amount that depends on ``B``.
    """
    return torch.cdist(queries, table, compute_mode="donot_use_mm_for_euclid_dist")


def discounted(distances: Tensor, popularity: Tensor, gamma: float) -> Tensor:
    """BIGRec's weighting of distances by how popular items are.

    Distances and popularities are each brought to [0, 1] by their smallest and largest value, the distances row by
    row: ``D / (1 + P) ** gamma``.

    Args:
        distances: ``(B, N)``.
        popularity: ``(N,)``, for example counts of training events.
        gamma: 0 leaves the order as it is.
    """
    return _to_unit(distances) / (1 + _to_unit(popularity)) ** gamma


def _to_unit(values: Tensor) -> Tensor:
    low, high = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
