"""Embeddings of a catalogue's texts, computed once: each distinct text, in shards, cached by content."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from deshi.artifacts import fingerprint, read_tensors, write_tensors
from deshi.teachers._models import locked
from deshi.teachers.encoders import Encoder, LoadedEncoder
from deshi.types import DeshiError

log = logging.getLogger(__name__)

SHARD = 2048
"""Texts per shard: what a kill may cost, and how often progress is told."""

_KEY = "embeddings"


def embed(texts: Sequence[str], encoder: Encoder, cache: Path, device: torch.device | str = "cpu") -> Tensor:
    """The vectors of ``texts``, from the cache or computed now.

    The cache's key is the texts and the encoder's identity (name, weights' sha256, pooling, ...). A killed call goes on
    where it was: finished shards lie beside the result until that is complete.

    Returns:
        ``(N, D)`` float32 on the CPU; equal texts have equal vectors.

    Raises:
        DeshiError: if there are no texts, the encoder can't be loaded, or a vector isn't finite.
    """
    if not texts:
        raise DeshiError("There are no texts to embed: the catalogue is empty.")
    device = torch.device(device)
    path = _path(texts, encoder, cache, device)
    with locked(path):
        cached = _read(path)
        if cached is not None:
            log.info("embeddings of %d texts: cached in %s", len(texts), path)
            return cached
        distinct = sorted(dict.fromkeys(texts), key=len, reverse=True)
        by_length = torch.cat(list(_shards(distinct, encoder, cache, device, path.with_suffix(".shards"))))
        index = {text: row for row, text in enumerate(distinct)}
        vectors = by_length[torch.tensor([index[text] for text in texts])]
        _write(path, vectors)
        shutil.rmtree(path.with_suffix(".shards"))
    return vectors


def cached_vectors(
    texts: Sequence[str], encoder: Encoder, cache: Path, device: torch.device | str = "cpu"
) -> Tensor | None:
    """What :func:`embed` gives, if the cache holds it and the encoder's files are on this disk; else None."""
    if not encoder.is_on_disk(cache):
        return None
    return _read(_path(texts, encoder, cache, torch.device(device)))


def _path(texts: Sequence[str], encoder: Encoder, cache: Path, device: torch.device) -> Path:
    key = fingerprint([("texts", list(texts)), ("encoder", encoder.identity(cache, device))])[:32]
    return cache / "embeddings" / f"{key}.safetensors"


def _shards(
    texts: Sequence[str], encoder: Encoder, cache: Path, device: torch.device, folder: Path
) -> Iterator[Tensor]:
    """The vectors of ``texts`` shard by shard; the longest texts come first, so that memory can only get smaller."""
    loaded: LoadedEncoder | None = None
    progress: _Progress | None = None
    for first in range(0, len(texts), SHARD):
        shard = texts[first : first + SHARD]
        path = folder / f"{first // SHARD:06d}.safetensors"
        vectors = _read(path)
        if vectors is None:
            loaded = loaded or encoder.load(cache, device)
            progress = progress or _Progress(texts, first)
            vectors, tokens = encode(shard, loaded, encoder)
            if not vectors.isfinite().all():
                raise DeshiError("The encoder gave numbers that are not finite (fp16 overflows): use bf16 or fp32.")
            _write(path, vectors)
            progress.tell(first + len(shard), tokens)
        yield vectors


class _Progress:
    """Tells how far the encoding is and, by the characters that are left, how long it will take."""

    def __init__(self, texts: Sequence[str], first: int) -> None:
        self._characters = [0, *accumulate(len(text) for text in texts)]
        self._first, self._tokens, self._start = first, 0, time.perf_counter()

    def tell(self, finished: int, tokens: int) -> None:
        """Log the state after ``finished`` texts, the last shard of which had ``tokens`` tokens."""
        self._tokens += tokens
        seconds = time.perf_counter() - self._start
        done = self._characters[finished] - self._characters[self._first]
        left = (self._characters[-1] - self._characters[finished]) * seconds / max(done, 1)
        log.info(
            "embedded %d of %d distinct texts, %.0f tokens/s, about %.0f s left",
            finished, len(self._characters) - 1, self._tokens / seconds, left,
        )  # fmt: skip


def encode(texts: Sequence[str], loaded: LoadedEncoder, encoder: Encoder) -> tuple[Tensor, int]:
    """The vectors ``(N, D)`` float32 of ``texts`` in their order, without any cache, and how many tokens they have."""
    tokens = loaded.tokenizer(list(texts), truncation=True, max_length=encoder.max_tokens)["input_ids"]
    lengths = [max(len(row), 1) for row in tokens]
    vectors: list[Tensor] = []
    order: list[int] = []
    with torch.inference_mode():
        for batch in length_batches(lengths, encoder.batch_tokens):
            vectors.append(loaded.forward(*_padded([tokens[row] for row in batch], loaded)).float().cpu())
            order += batch
    # back into the order of the texts
    result = torch.empty_like(torch.cat(vectors))
    result[torch.tensor(order)] = torch.cat(vectors)
    return result, sum(lengths)


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows in batches of similar length, longest first: rows times longest is at most ``batch_tokens`` or one row."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _padded(rows: Sequence[Sequence[int]], loaded: LoadedEncoder) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask ``(B, L)``, padded on the right; a text without tokens is one padding token."""
    length = max(1, *(len(row) for row in rows))
    tokens = torch.full((len(rows), length), loaded.tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : max(len(row), 1)] = 1
    return tokens.to(loaded.device), mask.to(loaded.device)


def _read(path: Path) -> Tensor | None:
    """A tensor written by :func:`_write`; None if it isn't there or is damaged."""
    if not path.is_file():
        return None
    try:
        return cast(Tensor, read_tensors(path)[_KEY])
    except (DeshiError, KeyError) as error:
        log.warning("%s: computed anew", error)
        return None


def _write(path: Path, vectors: Tensor) -> None:
    write_tensors({_KEY: vectors.contiguous()}, path)
