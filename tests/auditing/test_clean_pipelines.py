"""Clean pipelines of all sources, splits, students and losses, without one false alarm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import deshi
from deshi.auditing._bundle import audit_bundle
from deshi.auditing._candidates import audit_candidates
from deshi.auditing._finding import Finding
from deshi.auditing._provenance import audit_embeddings
from deshi.auditing._ranks import audit_ranks
from deshi.auditing._reranking import recompute
from deshi.auditing._split import audit_split, audit_training_ranges
from deshi.auditing._student import audit_student
from deshi.auditing._table import audit_table
from deshi.baselines import BASELINES
from deshi.data.bundle import Bundle
from deshi.data.splits import PARTS, LeaveOneOut, Ratio, Split, Temporal
from deshi.evaluation import evaluate_ranks, summarise
from deshi.models.base import SequentialRecommender
from deshi.models.caser import Caser
from deshi.models.gru4rec import GRU4Rec
from deshi.models.sasrec import SASRec
from deshi.models.scorers import SequentialScorer
from planted_faults import Shop, candidate_sets, open_shop, ranked
from shop_files import SOURCES
from tiny_bundles import random_sequences, tiny_bundle

SPLITS: dict[str, Callable[[Bundle], Split]] = {
    "leave-one-out": LeaveOneOut(),
    "temporal next": Temporal(validation_share=0.2, test_share=0.2),
    "temporal all": Temporal(validation_share=0.2, test_share=0.2, targets="all"),
    "ratio next": Ratio(0.2, 0.2),
    "ratio all": Ratio(0.2, 0.2, targets="all"),
}


def alarms(findings: list[Finding]) -> list[str]:
    """What a clean pipeline must not raise: everything above a note, but for the repeats that these data do have."""
    return [
        f"{problem.name}: {problem.what}"
        for problem in findings
        if problem.severity != "note" and problem.name != "seen-targets"
    ]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The shop, prepared from the format of every source."""
    root = tmp_path_factory.mktemp("shops")
    opened = {}
    for name, source in SOURCES.items():
        (root / name).mkdir()
        result = deshi.prepare(f"paths.root={root / name}", *source.write(root / name))
        opened[name] = result.bundle
    return opened


@pytest.mark.parametrize("name", SOURCES)
def test_bundles_of_all_sources_are_clean(name: str, bundles: dict[str, Bundle]) -> None:
    """An alarm about a bundle that deshi itself has prepared would teach people to ignore alarms."""
    assert audit_bundle(bundles[name]) == []


@pytest.mark.parametrize("rule", SPLITS)
@pytest.mark.parametrize("name", SOURCES)
def test_splits_and_ranks_are_clean(name: str, rule: str, bundles: dict[str, Bundle]) -> None:
    """Every split of every source: the split, the ranges that are trained on, a baseline's ranks."""
    if rule.startswith("temporal") and not SOURCES[name].timed:
        pytest.skip("a split by time needs times")
    bundle = bundles[name]
    split: Split = SPLITS[rule](bundle)
    findings = audit_split(bundle, split)
    findings += audit_training_ranges(bundle, split, split.refit_ranges(bundle), ["test"])
    scorer = BASELINES["popularity"]().fit(bundle, *split.train_ranges(bundle))
    for part in PARTS:
        examples = split.examples(bundle, part)
        ranks = evaluate_ranks(scorer, bundle, examples).ranks
        findings += audit_ranks(ranks, bundle, split, part, recomputed=recompute(scorer, bundle, examples))
    assert alarms(findings) == []


@pytest.mark.parametrize("build", [SASRec, GRU4Rec, Caser, partial(SASRec, norm="original")], ids=range(4))
def test_students_are_clean(build: Callable[..., SequentialRecommender], bundles: dict[str, Bundle]) -> None:
    """Untrained weights are the noisiest there are: neither probes nor shifts may raise an alarm on them."""
    bundle = bundles["movielens"]
    split = LeaveOneOut()(bundle)
    torch.manual_seed(0)
    student = build(bundle.n_items, 16, 8)
    examples = split.examples(bundle, "validation")
    findings = audit_student(student, bundle, examples)
    values = evaluate_ranks(SequentialScorer(student), bundle, examples)
    recorded = float(summarise(values.ranks, values.top_items, [10], bundle.n_items)["ndcg@10"])
    assert alarms(findings + audit_table(SequentialScorer(student), bundle, examples, recorded)) == []


@pytest.mark.parametrize("seed", range(5))
def test_histories_without_any_order_raise_no_alarm(seed: int, tmp_path: Path) -> None:
    """Where there is nothing to learn, chance alone must not look like a shift of embeddings or of items."""
    bundle = tiny_bundle(tmp_path, random_sequences(150, 60, 4, 12, seed))
    split = LeaveOneOut()(bundle)
    embeddings = np.random.default_rng(seed).normal(size=(60, 8))
    scorer = SequentialScorer(SASRec(60, 8, 8))
    findings = audit_embeddings(embeddings, bundle) + audit_table(scorer, bundle, split.examples(bundle, "validation"))
    assert alarms(findings) == []


def test_the_shop_of_the_planted_faults_is_clean(tmp_path: Path) -> None:
    """Each planted fault must be what raises its alarm, not the shop."""
    shop: Shop = open_shop(tmp_path)
    findings = audit_bundle(shop.bundle) + audit_split(shop.bundle, shop.split)
    findings += audit_student(shop.student, shop.bundle, shop.examples)
    findings += audit_table(SequentialScorer(shop.student), shop.bundle, shop.validation, shop.ndcg())
    findings += ranked(shop, shop.ranks()) + audit_candidates(candidate_sets(shop), shop.ranks())
    assert alarms(findings) == []


RUNS = {
    "sasrec, softmax": ["student=sasrec"],
    "gru4rec, bce, temporal, dropped items": [
        "student=gru4rec", "loss=bce", "split=temporal", "split.validation_share=0.2", "split.test_share=0.2",
        "train.augment.item_drop=0.3",
    ],
    "caser, gbce, ratio, refit": ["student=caser", "loss=gbce", "split=ratio", "train.refit=true"],
    "original sasrec, sampled softmax, averaged": [
        "student=sasrec-original", "loss=sampled_softmax", "train.ema_decay=0.9", "train.windows=last",
    ],
}  # fmt: skip


@pytest.mark.parametrize("overrides", RUNS.values(), ids=RUNS)
def test_runs_are_clean(overrides: list[str], bundles: dict[str, Bundle]) -> None:
    """A run that deshi has trained and evaluated, from its training ranges to its ranks."""
    bundle = bundles["table"]
    root = f"paths.root={bundle.path.parents[1]}"
    small = ["student.dim=8", "student.max_length=8", "train.max_epochs=2", "train.progress=false", "train.threads=1"]
    fitted = deshi.fit(root, "data=tabular", "data.source.path=unused", "data.name=table", *small, *overrides)
    deshi.evaluate(root, f"run={fitted.folder}")
    result = deshi.audit(root, run=str(fitted.folder))
    assert alarms(list(result.findings)) == [] and result.exit_code == 0
    assert {"training ranges", "recorded figure", "ranks, test"} <= {part.what for part in result.checked}
