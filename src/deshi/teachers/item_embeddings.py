"""A vector for every item from its text: template, encoder, transform."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from deshi.configuration.needs import Component, Need
from deshi.configuration.schemas import RayConfig
from deshi.data.bundle import Bundle
from deshi.teachers._embedding import cached_vectors, embed
from deshi.teachers._item_text import FALLBACK, item_texts
from deshi.teachers.base import Resources
from deshi.teachers.encoders import CausalEncoder, SentenceEncoder, WordEncoder
from deshi.teachers.whitening import pca, whiten
from deshi.types import DeshiError

log = logging.getLogger(__name__)

AnyEncoder = SentenceEncoder | CausalEncoder | WordEncoder

_TRANSFORMS: dict[str, Callable[[Tensor, int | None], Tensor]] = {"pca": pca, "whiten": whiten}


@dataclass(frozen=True)
class ItemEmbeddings(Component):
    """The items' text embeddings of a bundle.

    The transform is fitted on the vectors of the whole catalogue, each item once: it sees no interaction.

    Attributes:
        encoder: a :class:`SentenceEncoder`, a :class:`CausalEncoder` or a :class:`WordEncoder`. Of several, the vectors
            stand side by side, each encoder's centred and with a mean square length of one: none outweighs another.
        template: the text of an item, over the item table's columns (:class:`deshi.teachers._item_text.Template`). Of
            several, each is encoded apart and the vectors stand side by side, zeros where an item lacks the fields.
        transform: ``none``, ``pca`` (mean zero, uncorrelated) or ``whiten`` (covariance identity as well).
        dim: numbers kept per item, largest variance first; null keeps all. Needs a transform.
        permute: deal the texts out to other items by this seed, an ablation; null doesn't.

    Raises:
        DeshiError: for an empty list, or a ``dim`` without a transform.
    """

    encoder: AnyEncoder | list[AnyEncoder] = field(default_factory=SentenceEncoder)
    template: str | list[str] = "{title}"
    transform: Literal["none", "pca", "whiten"] = "none"
    dim: int | None = None
    permute: int | None = None

    def __post_init__(self) -> None:
        if self.encoder == []:
            raise DeshiError("encoder is an empty list, expected at least one.")
        if self.template == []:
            raise DeshiError("template is an empty list, expected at least one, such as '{title}'.")
        if self.transform == "none" and self.dim is not None:
            raise DeshiError(f"dim is {self.dim}, but transform is none: set transform=pca or whiten, or dim=null.")

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """Those of the default encoder, if none is given."""
        return [] if arguments.get("encoder") else SentenceEncoder.needs({})

    def describe(self, cache: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
        """What decides the vectors beside the texts, and the place that served the encoder."""
        each = [
            encoder.identity(cache, torch.device(device)) | {"origin": encoder.origin(cache)}
            for encoder in self._encoders
        ]
        return each[0] if len(each) == 1 else {"encoders": each}

    def __call__(
        self, bundle: Bundle, cache: Path, device: torch.device | str = "cpu", ray: RayConfig | None = None
    ) -> Tensor:
        """Compute the vectors, or take them from the cache.

        Args:
            bundle: whose items they are of.
            cache: deshi's folder of downloads and of computed embeddings.
            device: where the encoder computes.
            ray: a Ray cluster whose workers encode instead.

        Returns:
            ``(n_items, D)`` float32 on the CPU, in index order; ``D`` is ``dim``, or the sum of the encoders' widths
            for each template.

        Raises:
            DeshiError: for an unknown field, a ``dim`` that the vectors don't have, or an encoder that can't be had.
        """
        texts = self._texts(bundle)
        vectors = [[embed(part, encoder, cache, device, ray) for part in texts] for encoder in self._encoders]
        return self._transformed(vectors, texts)

    def cached(self, bundle: Bundle, cache: Path, device: torch.device | str = "cpu") -> Tensor | None:
        """The vectors if the cache holds them, else None: nothing is fetched or encoded; errors as a call's."""
        texts = self._texts(bundle)
        vectors = []
        for encoder in self._encoders:
            parts = [cached_vectors(part, encoder, cache, device) for part in texts]
            vectors.append([part for part in parts if part is not None])
            if len(vectors[-1]) < len(texts):
                return None
        return self._transformed(vectors, texts)

    @property
    def _encoders(self) -> list[AnyEncoder]:
        return self.encoder if isinstance(self.encoder, list) else [self.encoder]

    def _texts(self, bundle: Bundle) -> list[list[str]]:
        """The items' texts by each template."""
        templates = [self.template] if isinstance(self.template, str) else self.template
        return [item_texts(bundle.item_table(), template, self.permute).texts for template in templates]

    def _transformed(self, parts: list[list[Tensor]], texts: list[list[str]]) -> Tensor:
        """The vectors of each encoder and template side by side, then the transform."""
        if len(texts) > 1:
            masks = [_has_text(rows) for rows in texts]
            parts = [[part * mask for part, mask in zip(row, masks, strict=True)] for row in parts]
        sides = [torch.cat(row, dim=1) for row in parts]
        vectors = sides[0] if len(sides) == 1 else torch.cat([_weighing_the_same(side) for side in sides], dim=1)
        if self.transform == "none":
            return vectors
        result = _TRANSFORMS[self.transform](vectors, self.dim)
        empty = int((result == 0).all(dim=0).sum())
        if empty:
            log.warning("%d of %d columns are zero: the texts span fewer directions", empty, result.shape[1])
        return result


def _weighing_the_same(vectors: Tensor) -> Tensor:
    """Vectors ``(N, D)`` centred and scaled to a mean square length of one."""
    centred = vectors - vectors.mean(dim=0)
    return centred / centred.pow(2).sum(dim=1).mean().sqrt().clamp(min=1e-12)


def _has_text(texts: list[str]) -> Tensor:
    """``(N, 1)``: 1 for an item with a text, 0 for one that got the fallback."""
    return torch.tensor([[float(text != FALLBACK)] for text in texts])


def vectors_of_items(embeddings: ItemEmbeddings, resources: Resources, n_items: int) -> tuple[Tensor, dict[str, Any]]:
    """The vectors ``(n_items, D)`` that a teacher is built on, encoded where its resources say, and what made them.

    Raises:
        DeshiError: if there are more or fewer than ``n_items``, and as :class:`ItemEmbeddings`.
    """
    vectors = embeddings(resources.bundle, resources.cache, resources.device, resources.ray)
    if len(vectors) != n_items:
        raise DeshiError(f"There are {len(vectors)} text embeddings, expected one for each of {n_items} items.")
    return vectors, embeddings.describe(resources.cache, resources.device)
