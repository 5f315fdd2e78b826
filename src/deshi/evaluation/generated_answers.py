"""Answers in words: what a teacher that writes says among each example's candidates, beside what it ranks first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.data.datamodule import ExampleBatches
from deshi.data.splits import PARTS
from deshi.evaluation.measure import Part, Questions
from deshi.evaluation.result import WORDS
from deshi.metrics.generated_answers import judge, ratios
from deshi.metrics.significance import bootstrap_interval
from deshi.models.scorers import Scorer
from deshi.teachers import Answers
from deshi.types import ITEM, PAD, USER, DeshiError


@runtime_checkable
class Writer(Protocol):
    """A network that chooses one of a few items by writing its title."""

    @property
    def titles(self) -> Sequence[str]:
        """Of all items, as the network knows them."""
        ...

    @property
    def learnt_to_answer(self) -> bool:
        """Whether training taught it to."""
        ...

    def answer_candidates(self, items: Tensor, lengths: Tensor, candidates: Tensor) -> Answers:
        """For histories ``(B, L)`` of ``lengths`` ``(B,)``: one answer among ``candidates`` ``(B, C)`` each."""
        ...


@dataclass(frozen=True, eq=False)
class Written:
    """What a network has written in all parts.

    Attributes:
        metrics: such as ``test/written_hit_ratio@1``.
        answers: a row an example: ``part``, ``example``, ``user_id``, ``item_id``, ``text``, ``valid``, ``hit``,
            ``ranked`` (whether the ranking has the target first).
        seconds: of each part.
        notes: how many were asked, and how uncertain that leaves the figure.
        warnings: if it never learnt to answer.
    """

    metrics: dict[str, float]
    answers: pl.DataFrame
    seconds: dict[str, float]
    notes: list[str]
    warnings: list[str]


def writer_of(scorer: Scorer | None) -> Writer | None:
    """The network behind a scorer, if it writes."""
    network = None if scorer is None else scorer.network
    return network if isinstance(network, Writer) else None


def ask_in_words(writer: Writer, questions: Questions, ranks: pl.DataFrame, size: int, device: str) -> Written:
    """Have some examples of each part answered in words, by LLaRA's and iLoRA's protocol.

    The examples are drawn at random, from a seed of their own; a smaller draw is part of a larger one.

    Args:
        writer: the network, in evaluation mode.
        questions: with candidates that hold one target each.
        ranks: of the same network on the same questions.
        size: examples of each part.
        device: where it computes.
    """
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    frames, notes = [], []
    for name, part in questions.parts.items():
        begin = time.perf_counter()
        chosen = part.examples.drawn(size, PARTS.index(name))
        first = ranks.filter(pl.col("part") == name)["rank"].to_numpy()[chosen] <= 1
        answers = _answers(writer, questions, part, chosen, device).with_columns(ranked=first)
        valid, hits = int(answers["valid"].sum()), int(answers["hit"].sum())
        figures = ratios(hits, valid, len(answers)) | {"ranked_first": float(first.mean()), "n_examples": len(answers)}
        metrics |= {f"{name}/{WORDS}{key}": value for key, value in figures.items() if not np.isnan(value)}
        interval = bootstrap_interval(answers["hit"].cast(pl.Float64).to_numpy())
        notes.append(
            f"{name}: {len(answers):,} of {len(part.examples):,} examples were answered in words; the share of hits "
            "among "
            f"all of them lies in {interval.low:.3f} .. {interval.high:.3f} (95 %, bootstrap)."
        )
        frames.append(answers.select(pl.lit(name).alias("part"), pl.all()))
        seconds[f"{name}_in_words"] = round(time.perf_counter() - begin, 3)
    caution = "It was trained to rank and never to answer in words (teacher.objective): its words say little."
    return Written(metrics, pl.concat(frames), seconds, notes, [] if writer.learnt_to_answer else [caution])


@torch.no_grad()
def _answers(writer: Writer, questions: Questions, part: Part, chosen: np.ndarray, device: str) -> pl.DataFrame:
    if part.candidates is None:
        raise DeshiError("Answers in words need candidates, e.g. candidates=llara.")
    bundle, examples, sets = questions.bundle, part.examples.only(chosen), part.candidates[chosen]
    titles, targets = writer.titles, np.asarray(bundle.items)[examples.target_rows]
    texts, judged = [""] * len(examples), [(False, False)] * len(examples)
    for numbers, batch, _, _ in ExampleBatches(bundle, examples, bundle.n_interactions, questions.batch_size, False):
        moved, own = batch.to(device), torch.from_numpy(sets[numbers.numpy()]).to(device)
        said = writer.answer_candidates(moved.items, moved.lengths, own).texts
        for number, text in zip(numbers.tolist(), said, strict=True):
            names = [titles[item] for item in sets[number].tolist() if item != PAD]
            texts[number], judged[number] = text, judge(text, titles[targets[number]], names)
    return pl.DataFrame(
        {
            "example": np.flatnonzero(chosen),
            USER: bundle.users[USER].gather(examples.users),
            ITEM: bundle.vocabulary[ITEM].gather(targets),
            "text": texts,
            "valid": [valid for valid, _ in judged],
            "hit": [hit for _, hit in judged],
        }
    )
