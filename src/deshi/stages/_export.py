"""The work of ``deshi export``: a serving bundle of a run, its graph compared with the network on test users."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from deshi.arrays import BLOCKWISE_ABOVE
from deshi.artifacts import atomic_folder, write_json, write_parquet, write_tensors
from deshi.baselines import training_events
from deshi.configuration.run_folders import name_of
from deshi.configuration.schemas import FitConfig
from deshi.configuration.targets import target_class
from deshi.data.bundle import Bundle
from deshi.data.example_batches import ExampleBatches
from deshi.data.splits import Examples
from deshi.evaluation import leaked_targets, seen_targets
from deshi.models.base import SequentialRecommender
from deshi.models.scorers import Scorer, SequentialScorer
from deshi.runs import Run
from deshi.serving.approximate_search import ItemIndex, Recall, build_index, measure_recall, wants_index
from deshi.serving.bundle import (
    CARD,
    CONFIG,
    COUNT,
    COUNTS,
    COUNTS_REPORT,
    FOLDER,
    GRAPHS,
    INDEX,
    ITEMS,
    LATENCY,
    MANIFEST,
    PAIRS,
    PARITY,
    RECALL,
    STUDENT_LATENCY,
    TABLE,
    WEIGHTS,
    ServingBundle,
    is_bundle,
    write_manifest,
)
from deshi.serving.engine import Engine
from deshi.serving.graph import merged, rounded, write_graph
from deshi.serving.latency import REQUESTS, WARM_UP, Latency, measure_latency
from deshi.serving.model_card import model_card
from deshi.serving.onnx_network import OnnxNetwork
from deshi.serving.pair_counts import CountsReport, JointScorer, ServedCounts, choose_counts, report_counts
from deshi.serving.parity import OnnxScorer, Parity, compare_scorers, whole_histories
from deshi.serving.quantization import write_int8
from deshi.serving.result import ExportResult
from deshi.stages.export import ExportConfig
from deshi.types import ITEM, TITLE, DeshiError

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Exported:
    """What is written: the run, its student with a merged table, its counts, and how it is to be asked.

    Attributes:
        run: the run.
        student: with the item table that is stored.
        unrounded: the student before its table was rounded to fp16; None if it wasn't.
        counts: that are served beside it.
        examples: of the test.
        filter_seen: whether items of a history are left out.
    """

    run: Run
    student: SequentialRecommender
    unrounded: SequentialRecommender | None
    counts: ServedCounts | None
    examples: Examples
    filter_seen: bool

    @cached_property
    def table(self) -> np.ndarray:
        """``(n_items, dim)`` the scoring vectors as they are stored."""
        table = self.student.item_table().detach().float().numpy()
        return np.ascontiguousarray(table, dtype=np.float32 if self.unrounded is None else np.float16)

    @property
    def table_in_graph(self) -> bool:
        """Whether the graph has a table of its own: a large one that is the scoring table too isn't stored twice."""
        student = self.student
        is_other = type(student).item_table is not SequentialRecommender.item_table
        return is_other or student.n_items <= BLOCKWISE_ABOVE

    @property
    def scorer(self) -> Scorer:
        """What the bundle answers by, in PyTorch."""
        student = SequentialScorer(self.student)
        return student if self.counts is None else JointScorer(student, self.counts.pruned, self.counts.weight)

    @property
    def seen(self) -> list[str]:
        """Sentences about targets that their user had consumed before."""
        return [part.sentence for part in seen_targets(self.run.bundle, self.run.split, self.filter_seen)]


def run(cfg: ExportConfig) -> ExportResult:
    """Write the serving bundle of a run.

    Raises:
        DeshiError: if the run isn't finished or trained no student, its data are missing or other ones, the graph
            doesn't answer as the student does, a package is missing, or the place is taken by something else.
    """
    begin = time.perf_counter()
    source = Run.open(cfg.run, cfg.paths)
    output = (cfg.output or source.folder / FOLDER).expanduser()
    _check_free(output)
    exported = _load(source, cfg)
    with atomic_folder(output) as temporary:
        parities = _fill(temporary, cfg, exported)
        recall = _index(temporary, cfg, exported)
        report = _counts_report(temporary, cfg, exported)
        config = _config(exported)
        write_json(temporary / CONFIG, config)
        write_json(temporary / PARITY, {name: parity.plain() for name, parity in parities.items()})
        card = model_card(source.folder, config, source.bundle, parities, source.evaluations(), recall, report)
        (temporary / CARD).write_text(card, encoding="utf-8")
        facts = {"run": source.name, "data": source.bundle.name}
        write_manifest(temporary, name_of(source.folder), facts)
        latencies = _latencies(ServingBundle.load(temporary), exported)
    bundle, seconds = ServingBundle.load(output, check=False), time.perf_counter() - begin
    return ExportResult(
        output, bundle, parities, recall, latencies[LATENCY], seconds, exported.seen, _about_counts(cfg, report),
        latencies.get(STUDENT_LATENCY),
    )  # fmt: skip


def _check_free(output: Path) -> None:
    """Refuse to replace anything but an earlier bundle."""
    taken = output.is_file() or (output.is_dir() and any(output.iterdir()))
    if taken and not is_bundle(output):
        raise DeshiError(f"{output} exists and is no serving bundle; it is left alone. Give another output=FOLDER.")


def _load(run: Run, cfg: ExportConfig) -> _Exported:
    _check_exportable(run)
    scorer = run.scorer()
    if not isinstance(scorer.network, SequentialRecommender):
        raise _not_a_student(run, type(scorer).__name__)
    examples = run.split.examples(run.bundle, "test")
    if not len(examples):
        raise DeshiError(
            f"The split of {run.folder} has no test example to compare the graph with the student on. Expected a split "
            "with test events."
        )
    student = merged(scorer.network)
    wants_index(cfg.index, student.n_items)  # a missing package is told before the work
    counts = None
    if cfg.counts is not False:
        counts = choose_counts(run, None if cfg.counts is True else cfg.counts)
    unrounded = None
    if cfg.table_dtype == "fp16":
        student, unrounded = rounded(student), student
    return _Exported(run, student, unrounded, counts, examples, run.config.eval.filter_seen)


def _check_exportable(run: Run) -> None:
    """Refuse what is no student before it is loaded: an LLM takes its time."""
    record, cfg = run.record, run.config
    node: dict[str, Any] = cfg.student if isinstance(cfg, FitConfig) else getattr(cfg, "teacher", {})
    if target_class(node, SequentialRecommender) is None:
        raise _not_a_student(run, record["model"])
    if getattr(cfg, "cross_fit", 0):
        raise _not_a_student(run, f"{cfg.cross_fit} cross-fitted {record['model']} networks")  # type: ignore[attr-defined]


def _not_a_student(run: Run, holds: str) -> DeshiError:
    return DeshiError(
        f"The run {run.folder} holds {holds}, which can't be served, expected one network that turns a history into a "
        "hidden state and scores it against an item table: a run of deshi fit or deshi distill. Distil it first."
    )


def _fill(folder: Path, cfg: ExportConfig, exported: _Exported) -> dict[str, Parity]:
    """Write weights, table, items and graphs, and hold each graph against the student."""
    student = exported.student
    weights = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in student.state_dict().items()}
    if not exported.table_in_graph:
        del weights["items.weight"]  # a row of zeros for the padding, then the scoring table
    # The scoring table may be another one than the input's, so it has a file of its own that the engine reads alone.
    table = exported.table
    write_tensors(weights, folder / WEIGHTS)
    write_tensors({"item_table": table}, folder / TABLE)
    write_parquet(_items(exported.run), folder / ITEMS)
    if exported.counts is not None:
        write_tensors(exported.counts.table.tensors(), folder / PAIRS)
    write_graph(student, folder / GRAPHS["fp32"], exported.table_in_graph)
    parities = {"fp32": _parity(folder, "fp32", table, cfg, exported)}
    parities["fp32"].refuse("The exported graph")
    if exported.unrounded is not None:
        parities["fp16 table"] = _loss_by_rounding(cfg, exported, exported.unrounded)
    if cfg.int8:
        write_int8(folder / GRAPHS["fp32"], folder / GRAPHS["int8"])
        parities["int8"] = _parity(folder, "int8", table, cfg, exported)
    return parities


def _loss_by_rounding(cfg: ExportConfig, exported: _Exported, unrounded: SequentialRecommender) -> Parity:
    """What the rounded table changes, for the users of the parity."""
    bundle = exported.run.bundle
    examples = _sample(exported.examples, bundle, cfg.parity.users)
    scorers = SequentialScorer(unrounded), SequentialScorer(exported.student)
    return compare_scorers(*scorers, bundle, examples, exported.filter_seen, cfg.parity.tolerance)


def _index(folder: Path, cfg: ExportConfig, exported: _Exported) -> Recall | None:
    """Write the index for approximate search, if there is to be one, and what it misses for the users of the parity."""
    table, bundle = exported.table, exported.run.bundle
    if not wants_index(cfg.index, len(table)):
        return None
    log.info("An index for approximate search is made of %s items", f"{len(table):,}")
    build_index(table, folder / INDEX)
    graph = OnnxScorer(OnnxNetwork(folder / GRAPHS["fp32"], table=table), table, exported.student.max_length)
    examples = _sample(exported.examples, bundle, cfg.parity.users)
    batches = ExampleBatches(bundle, examples, bundle.n_interactions, batch_size=16, filter_seen=False)
    states = (graph.hidden(batch.histories) for batch in batches)
    added = None
    if exported.counts is not None:
        pairs = exported.counts.table
        added = (pairs.sums(history) for batch in batches for history in whole_histories(batch.histories))
    recall = measure_recall(ItemIndex(folder / INDEX, table), table, states, added)
    write_json(folder / RECALL, recall.plain())
    return recall


def _parity(folder: Path, precision: str, table: np.ndarray, cfg: ExportConfig, exported: _Exported) -> Parity:
    network = OnnxNetwork(folder / GRAPHS[precision], table=table)
    pairs = None if exported.counts is None else exported.counts.table
    graph = OnnxScorer(network, table, exported.student.max_length, pairs)
    bundle, examples = exported.run.bundle, _sample(exported.examples, exported.run.bundle, cfg.parity.users)
    return compare_scorers(exported.scorer, graph, bundle, examples, exported.filter_seen, cfg.parity.tolerance)


def _counts_report(folder: Path, cfg: ExportConfig, exported: _Exported) -> CountsReport | None:
    """Write what the counts change for the users of the parity."""
    if exported.counts is None:
        return None
    data = exported.run.bundle
    examples = _sample(exported.examples, data, cfg.parity.users)
    student = SequentialScorer(exported.student)
    report = report_counts(student, exported.counts, data, examples, exported.filter_seen)
    write_json(folder / COUNTS_REPORT, report.plain())
    return report


def _about_counts(cfg: ExportConfig, report: CountsReport | None) -> list[str]:
    """Sentences about the counts that were asked for."""
    if report is not None:
        return report.sentences()
    return [] if cfg.counts is False else ["No weight of counts is better than 0 on validation: the bundle has none."]


def _latencies(bundle: ServingBundle, exported: _Exported) -> dict[str, Latency]:
    """Times of requests with histories of the test, also without counts, noted in the manifest."""
    data, examples = exported.run.bundle, exported.examples
    ids = data.vocabulary[ITEM]
    drawn = np.random.default_rng(0).integers(0, len(examples), REQUESTS + WARM_UP)
    rows = [slice(int(examples.starts[example]), int(examples.ends[example])) for example in drawn]
    histories = [ids.gather(data.items[row]).to_list() for row in rows]
    latencies = {LATENCY: measure_latency(Engine(bundle), histories)}
    if exported.counts is not None:
        latencies[STUDENT_LATENCY] = measure_latency(Engine(bundle.without_counts()), histories)
    write_json(bundle.path / MANIFEST, bundle.manifest | {name: each.plain() for name, each in latencies.items()})
    return latencies


def _sample(examples: Examples, bundle: Bundle, users: int | None) -> Examples:
    """The examples of at most ``users`` users, drawn once and for all."""
    users_with_examples = np.unique(examples.users)
    if users is None or users >= len(users_with_examples):
        return examples
    chosen = np.zeros(bundle.n_users, dtype=bool)
    chosen[np.random.default_rng(0).choice(users_with_examples, users, replace=False)] = True
    return examples.of_users(chosen)


def _items(run: Run) -> pl.DataFrame:
    """The vocabulary with titles and training events."""
    counts = training_events(run.bundle, *run.trained_ranges()).counts()
    table = run.bundle.item_table().select("index", ITEM, pl.col(TITLE).cast(pl.String))
    return table.with_columns(pl.Series(COUNT, counts, dtype=pl.Int64))


def _config(exported: _Exported) -> dict[str, Any]:
    student, run = exported.student, exported.run
    cfg, (starts, ends) = run.config, run.trained_ranges()
    return {
        "n_items": student.n_items,
        "dim": student.dim,
        "max_length": student.max_length,
        "filter_seen": exported.filter_seen,
        "seen_targets": exported.seen,
        "student": cfg.student if isinstance(cfg, FitConfig) else None,
        "name": run.record["model"],
        "parameters": sum(value.numel() for value in student.parameters()),
        "data": run.bundle.name,
        "data_fingerprint": run.bundle.fingerprint,
        "split": run.split.description,
        "training_events": int((ends - starts).sum()),
        "leaked_test_targets": leaked_targets(exported.examples, ends),
        "run": run.record,
        COUNTS: None if exported.counts is None else exported.counts.plain(),
    }
