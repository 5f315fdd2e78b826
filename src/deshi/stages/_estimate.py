"""Estimates of what each step of a command takes: minutes, bytes on the disk, peak memory.

Seconds of trainings come of a few steps and one scored batch, timed here with random histories of the data's length;
bytes of weights and lists from their formats. The other constants were measured on one thread: ``PREPARED_ROWS`` and
``ROW_BYTES`` by ``deshi prepare`` of 10^6 rows (1.4 s, 17.3 MB, 340 MB at the peak), the rest by ``deshi run
recipe=self train.max_epochs=2`` of 10^5 rows of 1,000 users and 5,000 items (60 s, 1.2 GB): 10 s for the soft labels,
18 s for evaluations, gaps, comparison and report of two models.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from deshi.artifacts import read_json
from deshi.configuration.needs import Component
from deshi.configuration.schemas import DataConfig, PathsConfig, TrainConfig
from deshi.configuration.targets import TARGET, arguments, build, import_target, target_class
from deshi.data.bundle import MANIFEST

PREPARED_ROWS = 400_000
"""Rows that are prepared in a second."""
ROW_BYTES = 24
"""Of a bundle for each row: times, items, and the table of interactions."""
PLAIN_MEMORY = 1_200_000_000
"""Of a process that trains: PyTorch, Lightning, Polars and the data's arrays."""
LABEL_SECONDS = 5e-8
"""Of an ensemble's list, for each item."""
STEP_SECONDS, EVALUATION_SECONDS = 10, 1.5e-7
"""Of a model's evaluation and gap, and for each user and item; of one thread on a busy machine, as those below."""
BASELINES_SECONDS = 5e-7
"""Of the baselines with the search of their settings, for each user and item."""
MEMBER_SECONDS, COUNTS_SECONDS = 5e-8, 3e-7
"""Of a member's scores on validation, and of the search of the counts' settings, for each user and item."""
EXPORT_SECONDS = 10
"""Of a student's export."""
SMALL_FILES = 3 << 20
"""Of a step that writes figures, tables or a log."""
COPIES = 5
"""Of a network's weights in a run folder: final, selected, and the checkpoint with AdamW's two moments."""
TIMED_STEPS = 3
ASKED = "as long as the endpoint takes"


@dataclass(frozen=True)
class Shape:
    """Size of a data set."""

    users: int
    items: int
    interactions: int


@dataclass(frozen=True)
class Estimate:
    """What a step takes at most; None is not known.

    Attributes:
        step: its name.
        seconds: of work.
        disk: bytes that it leaves.
        memory: bytes at its peak.
        note: why something isn't known, or what it is made of.
        place: the key under ``paths`` of the folder that takes the bytes.
        answers: what answers that are paid for cost, in words.
    """

    step: str
    seconds: float | None
    disk: int | None
    memory: int | None
    note: str = ""
    place: Literal["data", "runs", "soft_labels", "cache"] = "runs"
    answers: str = ""


@dataclass(frozen=True)
class _Measured:
    """A network's size, and seconds of a training step and of one scored batch."""

    parameters: int
    step: float
    scored: float
    memory: int


def shape_of(data: DataConfig, paths: PathsConfig) -> Shape | None:
    """The size of the prepared data, or what the publisher says; None if neither is known."""
    manifest = paths.data / data.name / MANIFEST
    if manifest.is_file():
        counts = read_json(manifest)["counts"]
        return Shape(counts["users"], counts["items"], counts["interactions"])
    source = target_class(data.source, Component)
    published = None if source is None else source.published(data.source)
    return None if published is None else Shape(*published)


def training(
    step: str, node: Mapping[str, Any], config: Any, train: TrainConfig, shape: Shape, timed: bool = True
) -> Estimate:
    """A network's training by its configuration, with all epochs.

    Args:
        step: its name.
        node: of the network.
        config: with ``loss`` and ``eval``.
        train: of the network.
        shape: of the data.
        timed: whether training steps are run; without, only bytes are known.
    """
    from deshi.teachers.pairwise import PairwiseTeacher

    target = import_target(str(node[TARGET]))
    if "members" in node:
        searched = COUNTS_SECONDS if target_class(node, PairwiseTeacher) is not None else 0
        each = MEMBER_SECONDS * len(node["members"] or ()) + searched
        seconds = STEP_SECONDS + each * shape.users * shape.items
        return Estimate(step, seconds, SMALL_FILES, PLAIN_MEMORY, "scores of its members on validation")
    standin = _trainable(node)
    if standin is None:
        return Estimate(step, None, None, None, f"{target.__name__} isn't estimated: hours on a CPU where it is an LLM")
    measured = _measure(standin, config, train, shape, timed)
    steps = max(shape.interactions / train.batch_positions, shape.users / train.max_batch_size)
    epoch = steps * measured.step + shape.users / config.eval.batch_size * measured.scored
    note = f"{epoch:.0f} s an epoch, {train.max_epochs} epochs at most" if timed else ""
    if standin is not node and timed:
        note += "; its texts are embedded before"
    disk = 4 * measured.parameters * (COPIES + bool(train.ema_decay) + 4 * (train.refit is True)) + SMALL_FILES
    seconds = epoch * train.max_epochs * (1 + (train.refit is True))
    return Estimate(step, seconds if timed else None, disk, measured.memory, note)


def _trainable(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The node of a network that is built of ``n_items`` alone: of a teacher over texts, its sequence model."""
    target = import_target(str(node[TARGET]))
    if "resources" not in arguments(node):
        return node
    base = next((base for base in target.__mro__[1:] if base.__module__.startswith("deshi.models.sasrec")), None)
    if base is None:
        return None
    name = f"{base.__module__}.{base.__name__}"
    taken = arguments({TARGET: name})
    return {TARGET: name, **{key: value for key, value in node.items() if key in taken}}


def _measure(node: Mapping[str, Any], config: Any, train: TrainConfig, shape: Shape, timed: bool) -> _Measured:
    import torch

    from deshi.distillation.objective import Objective
    from deshi.hardware import set_threads, training_device
    from deshi.models.base import Recommender

    with torch.random.fork_rng(devices=[]):
        network: Recommender = build(node, n_items=shape.items)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        memory = PLAIN_MEMORY + 16 * parameters
        if not timed:
            return _Measured(parameters, 0.0, 0.0, memory)
        set_threads(train.threads)
        device = training_device(train.accelerator)
        network.to(device)
        objective = Objective(build(config.loss)).to(device)
        objective.set_counts(torch.ones(shape.items, dtype=torch.int64))
        objective.start_epoch([0], 0.0)
        batch = _random_batch(shape, network.max_length, train).to(device)
        optimizer = torch.optim.AdamW(network.parameters())
        seconds = []
        for _ in range(TIMED_STEPS):
            begin = time.perf_counter()
            optimizer.zero_grad()
            objective(network, batch)[0].backward()
            optimizer.step()
            seconds.append(time.perf_counter() - begin)
        rows = torch.arange(min(config.eval.batch_size, len(batch.items)), device=device)
        histories = batch.select(rows)
        begin = time.perf_counter()
        with torch.no_grad():
            network.eval().next_scores(histories.items, histories.lengths)
        scored = (time.perf_counter() - begin) * config.eval.batch_size / len(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    scores = 4 * config.eval.batch_size * shape.items
    return _Measured(parameters, min(seconds), scored, max(memory, peak) + 4 * scores)


def _random_batch(shape: Shape, max_length: int, train: TrainConfig) -> Any:
    """A batch of ``train.batch_positions``, of histories as long as the data's are on the mean."""
    import torch

    from deshi.types import PAD, Batch

    length = max(2, min(max_length, shape.interactions // max(1, shape.users)))
    size = max(1, min(train.max_batch_size, train.batch_positions // length, shape.users))
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(shape.items, (size, length), generator=generator)
    targets = torch.randint(shape.items, (size, length), generator=generator)
    lengths = torch.full((size,), length)
    return Batch(torch.arange(size), items, lengths, targets, torch.full_like(items, PAD))


def estimates(stage: str, config: Any, timed: bool = True) -> list[Estimate]:
    """Estimates of the steps of a command; none where it takes seconds, or where the data's size isn't known."""
    if stage in ("label", "evaluate") and timed:
        return list(_estimates_of_answers(stage, config))
    if stage not in ("prepare", "fit", "teach", "distill", "run"):
        return []
    shape = shape_of(config.data, config.paths)
    return [] if shape is None else list(_estimates(stage, config, shape, timed))


def _estimates(stage: str, config: Any, shape: Shape, timed: bool) -> Iterator[Estimate]:
    if stage in ("prepare", "run"):
        disk, seconds = ROW_BYTES * shape.interactions + SMALL_FILES, shape.interactions / PREPARED_ROWS + 1
        yield Estimate("prepare", seconds, disk, (150 << 20) + 200 * shape.interactions, place="data")
    if stage in ("fit", "distill"):
        yield training(stage, config.student, config, config.train, shape, timed)
    elif stage == "teach":
        answers = _answers(stage, config) if timed else None
        yield answers or training(stage, config.teacher, config, config.train, shape, timed)
    elif stage == "run":
        yield from _estimates_of_run(config, shape, timed)


def _estimates_of_run(config: Any, shape: Shape, timed: bool) -> Iterator[Estimate]:
    """The steps of ``deshi run``; those of several seeds together."""
    seeds, distilled_train = len(config.seeds), config.distilled.train or config.train
    taught = seeds if config.teacher_seed is None else 1

    def trainings(name: str, node: Mapping[str, Any], train: TrainConfig, times: int) -> Estimate:
        return _repeated(training(name, node, config, train, shape, timed), times)

    before = [trainings("plain", config.student, config.train, seeds)]
    before += [trainings(name, part.teacher, part.train, taught) for name, part in config.teachers.items()]
    after = [trainings("distilled", config.distilled.student, distilled_train, seeds)]
    after += [
        trainings(student.name, student.node, config.train if student.role == "plain" else distilled_train, seeds)
        for student in config.students
        if student.name != student.role
    ]
    lists = [
        Estimate(
            f"soft labels {name}", taught * LABEL_SECONDS * shape.interactions * shape.items,
            taught * 8 * min(part.k, shape.items) * shape.interactions, PLAIN_MEMORY, place="soft_labels",
        )
        for name, part in config.soft_labels.items()
    ]  # fmt: skip
    chain = [*before, *lists, after[0]]
    yield from [*chain, *after[1:]]
    if config.refit:
        yield from (replace(each, step=f"{each.step}, refitted") for each in chain)
    models = seeds * (len(before) + len(after) + config.refit * (len(before) + 1))
    seconds = models * (STEP_SECONDS + EVALUATION_SECONDS * shape.users * shape.items)
    seconds += config.with_baselines * (STEP_SECONDS + BASELINES_SECONDS * shape.users * shape.items)
    disk = models * (SMALL_FILES + 200 * shape.users)
    yield Estimate("evaluations, gaps, comparison, report", seconds, disk, PLAIN_MEMORY)
    if config.students:
        seconds, disk = EXPORT_SECONDS * len(config.students), SMALL_FILES * len(config.students)
        yield Estimate("exports, with the times of requests", seconds, disk, PLAIN_MEMORY)


def _answers(stage: str, config: Any) -> Estimate | None:
    """The choice of a reranker's weight, by answers that are paid for; None for another teacher."""
    from deshi.runs import load_bundle
    from deshi.teachers.rerank_estimate import expected_cost, is_reranker, sentence

    if not is_reranker(config.teacher) or not (config.paths.data / config.data.name / MANIFEST).is_file():
        return None
    bundle = load_bundle(config.data.name, config.paths.data)
    cost = expected_cost(config.teacher, bundle, int(config.teacher.get("validation_examples", 0)))
    return Estimate(stage, None, SMALL_FILES, PLAIN_MEMORY, ASKED, answers=sentence(cost, config.teacher.get("budget")))


def _estimates_of_answers(stage: str, config: Any) -> Iterator[Estimate]:
    """What is paid for: a reranker's lists or ranks, profiles of users that are asked for."""
    from deshi.runs import Run
    from deshi.stages._evaluate import ranked_examples
    from deshi.stages._label import chosen_rows
    from deshi.teachers import asked_profiles
    from deshi.teachers.rerank_estimate import expected_cost, is_reranker, sentence

    run = Run.open(config.run, config.paths) if config.run else None
    if run is not None and stage == "label":
        paid = asked_profiles.expected_cost(config.profiles, run.bundle, run.trained_split(run.bundle))
        if paid is not None:
            answers = sentence(paid, config.profiles.get("budget"))
            yield Estimate("profiles", None, SMALL_FILES, PLAIN_MEMORY, ASKED, answers=answers)
    if run is None or not is_reranker(run.saved.get("teacher")):
        return
    questions = len(chosen_rows(config, run)[0]) if stage == "label" else ranked_examples(config)
    node, state = run.saved["teacher"], run.record["state"]
    cost = expected_cost(node, run.bundle, questions if state["weight"] else 0)
    yield Estimate(stage, None, None, PLAIN_MEMORY, ASKED, answers=sentence(cost, node.get("budget")))


def _repeated(estimate: Estimate, times: int) -> Estimate:
    seconds = None if estimate.seconds is None else times * estimate.seconds
    disk = None if estimate.disk is None else times * estimate.disk
    name = estimate.step if times == 1 else f"{estimate.step}, {times} seeds"
    return Estimate(name, seconds, disk, estimate.memory, estimate.note)
