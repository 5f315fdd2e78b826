"""Embeddings of a catalogue's texts, computed once: each distinct text, in shards, cached by content."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.artifacts import fingerprint, read_tensors, write_tensors
from deshi.cluster import Cluster
from deshi.configuration.schemas import RayConfig
from deshi.data.freshness import differences
from deshi.hardware import set_threads, training_device
from deshi.teachers._models import locked
from deshi.teachers.encoders import Encoder, LoadedEncoder, NeuralEncoder, WordEncoder
from deshi.types import DeshiError

log = logging.getLogger(__name__)

SHARD = 2048
"""Texts per shard: what a kill may cost, and how often progress is told."""

_KEY = "embeddings"


def embed(
    texts: Sequence[str],
    encoder: NeuralEncoder | WordEncoder,
    cache: Path,
    device: torch.device | str = "cpu",
    ray: RayConfig | None = None,
) -> Tensor:
    """The vectors of ``texts``, from the cache or computed now.

    The cache's key is the texts and the encoder's identity (name, weights' sha256, pooling, ...). A killed call goes on
    where it was: finished shards lie beside the result until that is complete.

    Args:
        texts: to be encoded.
        encoder: of texts.
        cache: deshi's folder of downloads and of computed embeddings.
        device: where the encoder computes.
        ray: a Ray cluster whose workers encode, a shard a task, each with the model from its own disk or the hub;
            None: this process encodes.

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
        distinct, shards = sorted(dict.fromkeys(texts), key=len, reverse=True), path.with_suffix(".shards")
        if isinstance(encoder, WordEncoder):
            by_length = encoder.encode(distinct)
        else:
            by_length = torch.cat(list(_shards(distinct, encoder, cache, device, shards, ray)))
        index = {text: row for row, text in enumerate(distinct)}
        vectors = by_length[torch.tensor([index[text] for text in texts])]
        _write(path, vectors)
        if shards.exists():
            shutil.rmtree(shards)
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
    texts: Sequence[str],
    encoder: NeuralEncoder,
    cache: Path,
    device: torch.device,
    folder: Path,
    ray: RayConfig | None,
) -> Iterator[Tensor]:
    """The vectors of ``texts`` shard by shard; the longest texts come first, so that memory can only get smaller."""
    shards = {first: texts[first : first + SHARD] for first in range(0, len(texts), SHARD)}
    paths = {first: folder / f"{first // SHARD:06d}.safetensors" for first in shards}
    missing = [first for first in shards if _read(paths[first]) is None]
    encoded = _encoded([shards[first] for first in missing], encoder, cache, device, ray)
    progress = _Progress(texts, missing[0]) if missing else None
    for first, shard in shards.items():
        path = paths[first]
        if first not in missing or progress is None:
            vectors = cast(Tensor, _read(path))
        else:
            vectors, tokens = next(encoded)
            if not vectors.isfinite().all():
                raise DeshiError("The encoder gave numbers that are not finite (fp16 overflows): use bf16 or fp32.")
            _write(path, vectors)
            progress.tell(first + len(shard), tokens)
        yield vectors


def _encoded(
    shards: Sequence[Sequence[str]], encoder: NeuralEncoder, cache: Path, device: torch.device, ray: RayConfig | None
) -> Iterator[tuple[Tensor, int]]:
    """The vectors of each shard, and how many tokens it has."""
    if not shards:
        return
    if ray is None:
        loaded = encoder.load(cache, device)
        yield from (encode(shard, loaded, encoder) for shard in shards)
        return
    with Cluster(ray) as cluster:
        load = partial(_encoding, encoder, encoder.identity(cache, device), cache, ray.threads)
        for vectors, tokens in cluster.in_order(load, shards):
            yield torch.tensor(vectors), tokens


def _encoding(
    encoder: NeuralEncoder, identity: dict[str, Any], cache: Path, threads: int
) -> Callable[[Sequence[str]], tuple[NDArray[np.float32], int]]:
    """In a worker of a cluster: the encoder from this node's disk or the hub, with its share of the cores.

    Raises:
        DeshiError: if it is not the encoder that the command means, such as another revision.
    """
    set_threads(threads)
    device = training_device("auto")
    here = encoder.identity(cache, device)
    if here != identity:
        raise DeshiError(
            f"A node of the cluster has another encoder than the command: {', '.join(differences(identity, here))}. "
            "Give all nodes the same files, and a number format instead of dtype=auto."
        )
    loaded = encoder.load(cache, device)

    def vectors(shard: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        encoded, tokens = encode(shard, loaded, encoder)
        return encoded.numpy(), tokens

    return vectors


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


def encode(texts: Sequence[str], loaded: LoadedEncoder, encoder: NeuralEncoder) -> tuple[Tensor, int]:
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
