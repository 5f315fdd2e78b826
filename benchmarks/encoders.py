"""How much encoders of item texts know of what belongs together and of what is chosen next, and what they cost.

    python benchmarks/encoders.py data/ml-1m
    python benchmarks/encoders.py data/amazon-beauty --validation 1500 [--only minilm mpnet ...]

For items drawn from a bundle that have a category: the mean overlap (Jaccard) of an item's categories with those of its
ten nearest neighbours by cosine, for the vectors as they are and whitened, and for random vectors.

With --validation: NDCG@10 on so many validation examples for vectors of other encoders, layers and templates, without
any training: by the cosine with the latest items; by a bilinear form that is fitted to the training transitions in
closed form; and by the baseline STAR. Only the examples' targets and latest items are encoded and ranked, so that the
figures compare vectors and nothing else; those of the whole catalogue are lower. --validation 0 takes all examples.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.baselines import Events, Star, training_events
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatch, ExampleBatches
from deshi.data.splits import LeaveOneOut
from deshi.metrics import rank_rows
from deshi.teachers import (
    LLM,
    CausalEncoder,
    NeuralEncoder,
    SentenceEncoder,
    WordEncoder,
    embed,
    encode,
    item_texts,
    whiten,
)
from deshi.types import PAD, Batch

ENCODERS: dict[str, NeuralEncoder] = {
    "all-MiniLM-L6-v2, mean": SentenceEncoder(),
    "SmolLM2-135M-Instruct, mean": CausalEncoder(),
    "SmolLM2-135M-Instruct, last": CausalEncoder(pooling="last"),
}

MPNET = SentenceEncoder("sentence-transformers/all-mpnet-base-v2", dtype="bf16")
SMOLLM2 = LLM(dtype="bf16")
TEXT = ("{text}",)
APART = ("{title}", "{category}")
WORDS = ('{text}\nA customer who buys this next looks for, in one word: "',)

VARIANTS: dict[str, tuple[NeuralEncoder | WordEncoder, Sequence[str]]] = {
    "minilm": (SentenceEncoder(), TEXT),
    "minilm-bf16": (SentenceEncoder(dtype="bf16"), TEXT),
    "minilm-title": (SentenceEncoder(dtype="bf16"), ("{title}",)),
    "minilm-apart": (SentenceEncoder(dtype="bf16"), APART),
    "minilm-three": (SentenceEncoder(dtype="bf16"), (*APART, "{title} ({category})")),
    "minilm-prefix": (SentenceEncoder(dtype="bf16"), ("A customer's next purchase: {text}",)),
    "mpnet": (MPNET, TEXT),
    "mpnet-title": (MPNET, ("{title}",)),
    "mpnet-apart": (MPNET, APART),
    "smollm2-6": (CausalEncoder(replace(SMOLLM2, layers=6)), TEXT),
    "smollm2-12": (CausalEncoder(replace(SMOLLM2, layers=12)), TEXT),
    "smollm2-20": (CausalEncoder(replace(SMOLLM2, layers=20)), TEXT),
    "smollm2": (CausalEncoder(SMOLLM2), TEXT),
    "words": (WordEncoder(), TEXT),
    "smollm2-word": (CausalEncoder(SMOLLM2, pooling="last"), WORDS),
}
"""By name: the encoder and the templates, several of which stand side by side. The first is the control."""

LATEST = 3
"""Items of a history that are read."""

DECAY = 0.7
"""Weight of an item of the history for each item after it, as in STAR."""

RIDGES = (0.001, 0.01, 0.1, 1.0)
"""Added to the vectors' covariance, in parts of its mean diagonal."""

TIMED = 200
"""Items whose encoding is timed."""

TEXT_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--items", type=int, default=1500)
    parser.add_argument("--dim", type=int, default=64, help="columns that whitening keeps")
    parser.add_argument("--validation", type=int, help="examples that STAR ranks for; 0 is all")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/deshi").expanduser())
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    (measure_overlap if options.validation is None else measure_next)(Bundle.load(options.bundle), options)


def measure_overlap(bundle: Bundle, options: argparse.Namespace) -> None:
    table = bundle.item_table().drop_nulls(["title", "category"])
    table = table.sample(min(options.items, table.height), seed=0)
    overlap = category_overlap(table)
    chance = agreement(torch.randn(table.height, 64, generator=torch.Generator().manual_seed(0)), overlap)
    print(f"{table.height} items of {options.bundle}, random vectors {chance:.3f}, {options.threads} threads\n")
    print(f"| encoder | raw | whitened to {options.dim} | mean cosine | titles/s |\n| --- | --- | --- | --- | --- |")
    for name, encoder in ENCODERS.items():
        vectors, seconds = timed(encoder, table["title"].to_list(), options.cache)
        raw, white = agreement(vectors, overlap), agreement(whiten(vectors, options.dim), overlap)
        cosine = torch.nn.functional.normalize(vectors, dim=1).mean(dim=0).square().sum()
        speed = f"{table.height / seconds:.0f}"
        print(f"| {name} | {raw:.3f} | {white:.3f} | {cosine:.2f} | {speed} |", flush=True)


def category_overlap(table: pl.DataFrame) -> Tensor:
    """The Jaccard overlap ``(N, N)`` of the items' categories."""
    sets = [set(re.split(r"[|,>]\s*", text)) for text in table["category"].to_list()]
    names = sorted(set[str]().union(*sets))
    member = torch.tensor([[name in one for name in names] for one in sets]).float()
    both, size = member @ member.T, member.sum(dim=1)
    return both / (size[:, None] + size[None] - both)


def agreement(vectors: Tensor, overlap: Tensor) -> float:
    """The mean overlap of items with their ten nearest neighbours."""
    unit = torch.nn.functional.normalize(vectors, dim=1)
    nearest = (unit @ unit.T).fill_diagonal_(-2).topk(10).indices
    return float(overlap.gather(1, nearest).mean())


def timed(encoder: NeuralEncoder, titles: list[str], cache: Path) -> tuple[Tensor, float]:
    """The vectors, and the seconds that encoding the titles takes once the model is loaded."""
    loaded = encoder.load(cache, torch.device("cpu"))
    encode(titles[:50], loaded, encoder)
    start = time.perf_counter()
    vectors, _ = encode(titles, loaded, encoder)
    return vectors, time.perf_counter() - start


@dataclass(frozen=True)
class Draw:
    """Validation examples, and the catalogue of their targets and latest items, numbered anew."""

    table: pl.DataFrame
    events: Events
    batches: list[ExampleBatch]


def measure_next(bundle: Bundle, options: argparse.Namespace) -> None:
    draw = drawn(bundle, options.validation or None)
    examples = sum(len(batch.targets) for batch in draw.batches)
    print(f"{examples} validation examples of {options.bundle}, {draw.table.height} items, {options.threads} threads\n")
    columns = ["cosine", "bilinear (ridge)", "STAR (text weight)"]
    print("| vectors | " + " | ".join(f"{name} | difference" for name in columns) + " | s per 10,000 items |")
    print("| --- " * 8 + "|", flush=True)
    controls: list[Tensor] = []
    for name in options.only:
        vectors, seconds = item_vectors(draw.table, *VARIANTS[name], options.cache)
        figures = [(None, by_cosine(draw, vectors)), by_bilinear(draw, vectors), by_star(draw, vectors)]
        controls = controls or [values for _, values in figures]
        cells = [
            f"{values.mean():.4f}{'' if setting is None else f' ({setting:g})'} | {difference(values, control)}"
            for (setting, values), control in zip(figures, controls, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


def drawn(bundle: Bundle, size: int | None) -> Draw:
    """Draw the examples; their items become the catalogue, other items of histories and training are left out."""
    split = LeaveOneOut()(bundle)
    examples = split.examples(bundle, "validation").sample(size, 0)
    batches = list(ExampleBatches(bundle, examples, LATEST, 500, filter_seen=True))
    kept = torch.cat([part.flatten() for batch in batches for part in (batch.histories.items, batch.targets)])
    kept = kept[kept != PAD].unique()
    renumbered = torch.full((bundle.n_items + 1,), PAD)  # the last entry is that of PAD
    renumbered[kept] = torch.arange(len(kept))

    def short(batch: ExampleBatch) -> ExampleBatch:
        histories = replace(batch.histories, items=renumbered[batch.histories.items])
        return ExampleBatch(batch.numbers, histories, renumbered[batch.targets], renumbered[batch.seen])

    events = training_events(bundle, *split.train_ranges(bundle))
    items = renumbered[torch.from_numpy(events.items)].numpy()
    events = Events(events.users[items != PAD], items[items != PAD], bundle.n_users, len(kept))
    return Draw(bundle.item_table()[kept.tolist()], events, [short(batch) for batch in batches])


def item_vectors(
    table: pl.DataFrame, encoder: NeuralEncoder | WordEncoder, templates: Sequence[str], cache: Path
) -> tuple[Tensor, float]:
    """The vectors as :class:`deshi.teachers.ItemEmbeddings` makes them, and processor seconds per 10,000 items."""
    texts = [item_texts(table, template).texts for template in templates]
    vectors = torch.cat([embed(column, encoder, cache) for column in texts], dim=1)
    if isinstance(encoder, WordEncoder):  # not by the text: it is fitted on all of them
        start = time.process_time()
        for column in texts:
            encoder.encode(list(dict.fromkeys(column)))
        return vectors, (time.process_time() - start) * 10_000 / table.height
    loaded = encoder.load(cache, torch.device("cpu"))
    encode(["warm"], loaded, encoder)
    share = min(1.0, TIMED / table.height)
    start = time.process_time()
    for column in texts:  # each distinct text is encoded once
        distinct = list(dict.fromkeys(column))
        encode(distinct[:: max(1, round(1 / share))], loaded, encoder)
    return vectors, (time.process_time() - start) * 10_000 / (share * table.height)


def values(draw: Draw, scorer: Callable[[Batch], Tensor]) -> Tensor:
    """The NDCG@10 of each example."""
    ranks = torch.cat([rank_rows(scorer(batch.histories), batch.targets, batch.seen)[0] for batch in draw.batches])
    return torch.where(ranks <= 10, 1 / torch.log2(ranks + 1), 0.0).squeeze(1)


def by_cosine(draw: Draw, vectors: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(vectors, dim=1)
    return values(draw, lambda batch: summary(batch, unit) @ unit.T)


def by_bilinear(draw: Draw, vectors: Tensor) -> tuple[float, Tensor]:
    """By x A y of the history's vector x and an item's y, A = S^-1 C S^-1: what canonical correlation analysis pairs.

    S is the items' covariance with a ridge, C that of the two items of a transition in training.
    """
    centred = torch.nn.functional.normalize(vectors, dim=1).double()
    items, users = torch.from_numpy(draw.events.items), draw.events.users
    centred = centred - centred[items].mean(dim=0)
    follows = torch.from_numpy(users[1:] == users[:-1])
    before, after = centred[items[:-1][follows]], centred[items[1:][follows]]
    covariance, pairs = centred[items].T @ centred[items] / len(items), before.T @ after / len(before)

    def of_ridge(ridge: float) -> Tensor:
        inverse = torch.linalg.inv(covariance + ridge * covariance.diagonal().mean() * torch.eye(len(covariance)))
        answers = (centred @ (inverse @ pairs @ inverse).T).float()
        return values(draw, lambda batch: summary(batch, centred.float()) @ answers.T)

    return best({ridge: of_ridge(ridge) for ridge in RIDGES})


def by_star(draw: Draw, vectors: Tensor) -> tuple[float, Tensor]:
    star = Star(vectors, latest=LATEST, history_decay=DECAY)
    star.fit_events(draw.events)

    def of_weight(weight: float) -> Tensor:
        star.text_weight = weight
        return values(draw, star.scores)

    return best({weight: of_weight(weight) for weight in TEXT_WEIGHTS})


def summary(batch: Batch, vectors: Tensor) -> Tensor:
    """The weighted sum of the vectors of each history's items, ``(B, D)``."""
    places = batch.lengths[:, None] - 1 - torch.arange(batch.items.shape[1])
    weights = torch.where(places >= 0, DECAY ** places.clamp(min=0), 0.0)
    return (weights[:, :, None] * vectors[batch.items.clamp(min=0)]).sum(dim=1)


def best(tried: dict[float, Tensor]) -> tuple[float, Tensor]:
    """The setting of the highest mean."""
    return max(tried.items(), key=lambda trial: float(trial[1].mean()))


def difference(values: Tensor, control: Tensor) -> str:
    """The mean difference with the half width of its 95 % interval over the examples."""
    gap = (values - control).numpy()
    return f"{gap.mean():+.4f} ± {1.96 * gap.std() / np.sqrt(len(gap)):.4f}"


if __name__ == "__main__":
    main()
