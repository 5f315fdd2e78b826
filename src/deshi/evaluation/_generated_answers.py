"""Generated answers: titles that a teacher writes among each example's candidates, judged beside its ranking."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.arrays import Bools
from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import PARTS
from deshi.evaluation._measurement import EvaluationSet, RankedExamples
from deshi.evaluation._result import GENERATED
from deshi.metrics import answer_ratios, bootstrap_interval, judge_answer
from deshi.models.scorers import Scorer
from deshi.types import ITEM, PAD, USER, DeshiError


class AnswerTexts(Protocol):
    """The answers to a batch."""

    @property
    def texts(self) -> Sequence[str]:
        """One an example."""
        ...


@runtime_checkable
class AnswerGenerator(Protocol):
    """A network that chooses one of a few items by writing its title."""

    @property
    def titles(self) -> Sequence[str]:
        """Of all items, as the network reads them."""
        ...

    @property
    def learnt_to_answer(self) -> bool:
        """Whether it was trained to."""
        ...

    def answer_candidates(self, items: Tensor, lengths: Tensor, candidates: Tensor) -> AnswerTexts:
        """For histories ``(B, L)`` of ``lengths`` ``(B,)``: one answer among ``candidates`` ``(B, C)`` each."""
        ...


@dataclass(frozen=True, eq=False)
class GeneratedAnswers:
    """A network's answers in all parts, and their metrics.

    Attributes:
        metrics: such as ``test/generated_hit_ratio@1``.
        answers: a row an example: ``part``, ``example``, ``user_id``, ``item_id``, ``text``, ``valid``, ``hit``,
            ``ranked`` (whether the ranking has the target first).
        seconds: of each part.
        notes: the number of examples, and how uncertain that leaves the metrics.
        warnings: if the network was never trained to answer.
    """

    metrics: dict[str, float]
    answers: pl.DataFrame
    seconds: dict[str, float]
    notes: list[str]
    warnings: list[str]


def answer_generator(scorer: Scorer | None) -> AnswerGenerator | None:
    """The network behind a scorer, if it generates answers."""
    network = None if scorer is None else scorer.network
    return network if isinstance(network, AnswerGenerator) else None


def generate_answers(
    network: AnswerGenerator, evaluation_set: EvaluationSet, ranks: pl.DataFrame, size: int, device: str
) -> GeneratedAnswers:
    """Answers to some examples of each part, by LLaRA's and iLoRA's protocol.

    The examples are drawn at random, from a seed of their own; a smaller draw is part of a larger one.

    Args:
        network: in evaluation mode.
        evaluation_set: with candidates that hold one target each.
        ranks: of the same network on the same examples.
        size: examples of each part.
        device: where it computes.
    """
    metrics: dict[str, float] = {}
    seconds: dict[str, float] = {}
    frames, notes = [], []
    for name, part in evaluation_set.parts.items():
        begin = time.perf_counter()
        drawn = part.examples.drawn(size, PARTS.index(name))
        ranked_first = ranks.filter(pl.col("part") == name)["rank"].to_numpy()[drawn] <= 1
        answers = _answers(network, evaluation_set, part, drawn, device).with_columns(ranked=ranked_first)
        values = answer_ratios(int(answers["hit"].sum()), int(answers["valid"].sum()), len(answers))
        values |= {"ranked_first": float(ranked_first.mean()), "n_examples": len(answers)}
        metrics |= {f"{name}/{GENERATED}{key}": value for key, value in values.items() if not np.isnan(value)}
        notes.append(_note(name, answers, len(part.examples)))
        frames.append(answers.select(pl.lit(name).alias("part"), pl.all()))
        seconds[f"{name}_generated"] = round(time.perf_counter() - begin, 3)
    warning = "The network was trained to rank and never to answer (teacher.objective): its answers say little."
    return GeneratedAnswers(
        metrics, pl.concat(frames), seconds, notes, [] if network.learnt_to_answer else [warning]
    )  # fmt: skip


def _note(part: str, answers: pl.DataFrame, n_examples: int) -> str:
    interval = bootstrap_interval(answers["hit"].cast(pl.Float64).to_numpy())
    return (
        f"{part}: answers were generated for {len(answers):,} of {n_examples:,} examples; the share of hits among all "
        f"of them lies in {interval.low:.3f} .. {interval.high:.3f} (95 %, bootstrap)."
    )


@torch.no_grad()
def _answers(
    network: AnswerGenerator, evaluation_set: EvaluationSet, part: RankedExamples, drawn: Bools, device: str
) -> pl.DataFrame:
    """A row a drawn example: its answer, whether it is valid and whether it is right."""
    if part.candidates is None:
        raise DeshiError("Generated answers need candidates, e.g. candidates=llara.")
    bundle, examples, candidates = evaluation_set.bundle, part.examples.only(drawn), part.candidates[drawn]
    titles, targets = network.titles, np.asarray(bundle.items)[examples.target_rows]
    texts, judgements = [""] * len(examples), [(False, False)] * len(examples)
    batches = ExampleBatches(bundle, examples, bundle.n_interactions, evaluation_set.batch_size, filter_seen=False)
    for batch in batches:
        histories, numbers = batch.histories.to(device), batch.numbers
        batch_candidates = torch.from_numpy(candidates[numbers.numpy()]).to(device)
        answers = network.answer_candidates(histories.items, histories.lengths, batch_candidates)
        for number, text in zip(numbers.tolist(), answers.texts, strict=True):
            names = [titles[item] for item in candidates[number].tolist() if item != PAD]
            texts[number], judgements[number] = text, judge_answer(text, titles[targets[number]], names)
    return pl.DataFrame(
        {
            "example": np.flatnonzero(drawn),
            USER: bundle.users[USER].gather(examples.users),
            ITEM: bundle.vocabulary[ITEM].gather(targets),
            "text": texts,
            "valid": [valid for valid, _ in judgements],
            "hit": [hit for _, hit in judgements],
        }
    )
