"""The stages: one registry behind the command line and the Python API. Importing it loads no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deshi.configuration.schemas import (
    AuditConfig,
    CompareConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    FitConfig,
    GapConfig,
    KnowConfig,
    PrepareConfig,
    RecommendConfig,
    ReportConfig,
    ServeConfig,
    StageConfig,
    TeachConfig,
)
from deshi.configuration.targets import nearest
from deshi.pipeline.schema import RunConfig, TuneConfig
from deshi.types import DeshiError

if TYPE_CHECKING:
    from deshi.auditing.result import AuditResult
    from deshi.comparison.result import CompareResult
    from deshi.data.prepare import PrepareResult
    from deshi.evaluation.stage import EvaluateResult
    from deshi.gap_analysis.result import GapResult
    from deshi.pipeline.summary import RunResult
    from deshi.pipeline.tuned import TuneResult
    from deshi.reporting.result import ReportResult
    from deshi.serving.http.result import RecommendResult
    from deshi.serving.http.server import ServeResult
    from deshi.serving.result import ExportResult
    from deshi.soft_labels.inspection_result import Inspection
    from deshi.training.fit import FitResult
    from deshi.training.label import KnowResult


@dataclass(frozen=True)
class Stage:
    """One stage of the work.

    Attributes:
        name: of the command.
        summary: one line for the list of stages.
        purpose: what it reads and writes, for its own help.
        schema: of its configuration.
        run: from a configuration to a result.
        examples: commands with what they do.
    """

    name: str
    summary: str
    purpose: str
    schema: type[StageConfig]
    run: Callable[[Any], Any]
    examples: Sequence[tuple[str, str]]


def _run_prepare(config: PrepareConfig) -> PrepareResult:
    from deshi.data.prepare import run

    return run(config)


def _run_fit(config: FitConfig) -> FitResult:
    from deshi.training.fit import run

    return run(config)


def _run_teach(config: TeachConfig) -> FitResult:
    from deshi.training.teach import run

    return run(config)


def _run_know(config: KnowConfig) -> KnowResult | Inspection:
    from deshi.training.label import run

    return run(config)


def _run_distill(config: DistillConfig) -> FitResult:
    from deshi.training.distill import run

    return run(config)


def _run_evaluate(config: EvaluateConfig) -> EvaluateResult:
    from deshi.evaluation.stage import run

    return run(config)


def _run_gap(config: GapConfig) -> GapResult:
    from deshi.gap_analysis.stage import run

    return run(config)


def _run_report(config: ReportConfig) -> ReportResult:
    from deshi.reporting.stage import run

    return run(config)


def _run_compare(config: CompareConfig) -> CompareResult:
    from deshi.comparison.stage import run

    return run(config)


def _run_audit(config: AuditConfig) -> AuditResult:
    from deshi.auditing.stage import run

    return run(config)


def _run_export(config: ExportConfig) -> ExportResult:
    from deshi.serving.stage import run

    return run(config)


def _run_recommend(config: RecommendConfig) -> RecommendResult:
    from deshi.serving.http.recommend import run

    return run(config)


def _run_serve(config: ServeConfig) -> ServeResult:
    from deshi.serving.http.server import run

    return run(config)


def _run_all(config: RunConfig) -> RunResult:
    from deshi.pipeline.run import run

    return run(config, {name: stage.run for name, stage in STAGES.items()})


def _run_tune(config: TuneConfig) -> TuneResult:
    from deshi.pipeline.tune import run

    return run(config, {name: stage.run for name, stage in STAGES.items()})


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "run",
            "all of it: plain student, teacher, knowledge, distilled student, tests, report",
            "Runs the stages below one after the other and ends with one table, a paired test and report.html, in\n"
            "runs/run/TIME_NAME. Stages that are done already with the same configuration on the same data are taken\n"
            "as they are. Interrupted or failed, it goes on by the same command, or by deshi run resume=latest.",
            RunConfig,
            _run_all,
            (
                ("deshi run experiment=ml-100k", "SASRec, taught by itself and a text model, on MovieLens 100K"),
                ("deshi run experiment=ml-100k seeds=[0,1,2]", "mean and spread of three seeds"),
                ("deshi run student=gru4rec recipe=wide", "another student; the teacher is a wider ID model"),
                ("deshi run soft_labels.lists.k=50 distill.terms.kl.temperature=2", "other lists, softer"),
            ),
        ),
        Stage(
            "prepare",
            "fetch a data set, filter it, write its bundle",
            "Reads a data set (downloaded when it is missing) and writes the bundle data/NAME: histories, vocabulary,\n"
            "item table, statistics. A bundle that is up to date is left as it is.",
            PrepareConfig,
            _run_prepare,
            (
                ("deshi prepare data=ml-100k", "MovieLens 100K"),
                ("deshi prepare data=ml-1m data.filters.min_rating=4", "only ratings of 4 and 5"),
                ("deshi prepare data=ml-1m data.filters.min_user_interactions=10", "only users with 10 events or more"),
            ),
        ),
        Stage(
            "fit",
            "train a student on a bundle",
            "Trains a student on the bundle of a data set, selects the best epoch by NDCG@10 on validation, leaves\n"
            "a run folder runs/fit/TIME_NAME with weights, learning curve, times and the resolved configuration.",
            FitConfig,
            _run_fit,
            (
                ("deshi fit data=ml-100k", "SASRec on MovieLens 100K"),
                ("deshi fit data=ml-100k student=gru4rec train.max_epochs=3", "three epochs of another student"),
                ("deshi fit data=ml-100k student.dim=64 train.augment.item_drop=0.3", "narrower, with augmentation"),
                ("deshi fit resume=latest", "go on with an interrupted run"),
            ),
        ),
        Stage(
            "teach",
            "make a teacher: train a network, or weigh an ensemble",
            "Trains a teacher by the same machinery as a student, with cross_fit one for each fold of the users, or\n"
            "chooses the weights of an ensemble of runs on validation; leaves a run folder runs/teach/TIME_NAME.",
            TeachConfig,
            _run_teach,
            (
                ("deshi teach data=ml-100k", "a sequence model over embeddings of the items' texts"),
                ("deshi teach teacher=ensemble teacher.members=[RUN,RUN]", "the weighted scores of finished runs"),
                ("deshi teach cross_fit=4", "each user answered by a teacher that has not seen that user"),
            ),
        ),
        Stage(
            "know",
            "write down what a teacher knows, look into it, take it from elsewhere",
            "export: a finished run ranks the next item after every event of the data and writes the lists, in shards\n"
            "that survive a kill, to soft_labels/STORE. inspect: coverage, agreement with the truth, the memorisation\n"
            "gap. import: lists of other programs.",
            KnowConfig,
            _run_know,
            (
                ("deshi know export latest k=100", "the newest run's 100 best items after every event"),
                ("deshi know export latest positions=last:20+held_out", "fewer rows"),
                ("deshi know export latest augment.item_drop=0.3 copies=2", "after augmented histories instead"),
                ("deshi know inspect STORE", "what the store holds"),
            ),
        ),
        Stage(
            "distill",
            "train a student on the data and on what a teacher knows",
            "Trains a student as fit does, with terms that draw it to the lists of a soft-label store, and item "
            "tables\n"
            "made of a language model's vectors, merged at the end: nothing of the teacher is needed afterwards.\n"
            "Leaves a run folder runs/distill/TIME_NAME.",
            DistillConfig,
            _run_distill,
            (
                ("deshi distill soft_labels=[STORE]", "SASRec by listwise distillation"),
                ("deshi distill soft_labels=[STORE] distill.terms.kl.temperature=2", "softer lists"),
                ("deshi distill resume=latest", "go on with an interrupted run"),
            ),
        ),
        Stage(
            "tune",
            "search for the best values of any keys of fit, teach or distill",
            "Trains a stage again and again with values that Optuna proposes, judged by NDCG@10 on validation; the\n"
            "first trial is the configuration as it is given. Leaves runs/tune/TIME_NAME with a table, best first,\n"
            "and a run folder for each trial. deshi tune resume=latest goes on; with trials=N it adds some.",
            TuneConfig,
            _run_tune,
            (
                ('deshi tune space.train.learning_rate="log(1e-4,1e-2)"', "20 learning rates of SASRec"),
                (
                    'deshi tune trials=30 space.student.dim="choice(64,128)" space.student.dropout="interval(0,0.5)"',
                    "two keys at a time",
                ),
                (
                    'deshi tune stage=distill soft_labels=[STORE] space.distill.terms.kl.weight="log(0.1,10)"',
                    "a distilled student; give the plain one as many trials",
                ),
            ),
        ),
        Stage(
            "evaluate",
            "measure a run by exact full ranking",
            "Ranks the whole catalogue for every user and writes metrics.json and ranks.parquet. Baselines\n"
            "(popularity, item-kNN, EASE, last-item Markov) show whether a student has learned anything.",
            EvaluateConfig,
            _run_evaluate,
            (
                ("deshi evaluate run=latest", "the newest run, on its own data and split"),
                ("deshi evaluate run=latest with_baselines=true", "beside the baselines"),
                ("deshi evaluate run=latest candidates=llara", "HitRatio@1 among 20 candidates"),
                ("deshi evaluate baseline=popularity data=ml-100k", "a baseline alone"),
            ),
        ),
        Stage(
            "audit",
            "find what makes figures wrong: leaks, shifts, ties, lost examples",
            "Checks the bundle, its split, the batches that really reach the model, the student and its ranks, or a\n"
            "pair of files from any tool. Says what, where, how much and how to fix it; exits with 1 for an error.",
            AuditConfig,
            _run_audit,
            (
                ("deshi audit latest", "the newest run, with its newest evaluation"),
                ("deshi audit data=ml-100k", "a data set and its leave-one-out split"),
                ("deshi audit interactions=events.csv predictions=lists.csv", "files of any tool"),
            ),
        ),
        Stage(
            "gap",
            "explain why validation and test of a run differ",
            "Asks the run's student about validation, test, the test without the newest event and the last training\n"
            "targets; tells chance, other users and items (drift) and leaks apart. Trains nothing.",
            GapConfig,
            _run_gap,
            (
                ("deshi gap latest", "of the newest run"),
                ("deshi gap latest metric=recall@20 steps=8", "another metric, further back into training"),
            ),
        ),
        Stage(
            "report",
            "one HTML page about finished evaluations",
            "Writes a page that needs no network: intervals, learning curves, slices, validation against test,\n"
            "popularity, examples with titles, configurations; and every figure as SVG and PNG.",
            ReportConfig,
            _run_report,
            (
                ("deshi report latest", "the newest evaluation"),
                ("deshi report latest examples=40 output=report.html", "more examples, and a copy of the page"),
            ),
        ),
        Stage(
            "compare",
            "put evaluated runs side by side, with intervals and paired tests",
            "Joins runs that differ only in the seed, gives every figure a bootstrap interval over users, tests all\n"
            "pairs by permutation and Wilcoxon with Holm's correction; writes Markdown, CSV, LaTeX, HTML and JSON.",
            CompareConfig,
            _run_compare,
            (
                ("deshi compare latest", "the newest evaluation alone, with intervals"),
                ("deshi compare '*_ml-100k_*' metrics=[ndcg@10,mrr@10]", "all evaluations on a data set, by pattern"),
                ("deshi compare latest with_baselines=true against=popularity", "against a baseline"),
            ),
        ),
        Stage(
            "export",
            "make a run's student servable: a bundle with an ONNX graph",
            "Writes the folder serving into the run's folder, or where it is told: weights, item table, vocabulary,\n"
            "an ONNX graph that was held against the PyTorch model on all test users, and a model card.",
            ExportConfig,
            _run_export,
            (
                ("deshi export latest", "the newest run of deshi fit"),
                ("deshi export latest int8=true output=bundle", "with an int8 graph and what it loses"),
            ),
        ),
        Stage(
            "recommend",
            "answer a file of histories with lists of items",
            "Reads histories from csv, parquet or jsonl, answers them from an exported bundle, writes user_id,\n"
            "item_id, score and rank as parquet, csv or jsonl. Unknown items are left out and counted; users without\n"
            "any known item get the most popular ones.",
            RecommendConfig,
            _run_recommend,
            (
                ("deshi recommend latest input=events.csv", "the 10 best items for each user of the file"),
                ("deshi recommend bundle input=events.parquet output=lists.jsonl k=100", "in another format"),
            ),
        ),
        Stage(
            "serve",
            "answer over HTTP from an exported bundle",
            "Opens a serving bundle and listens on 127.0.0.1:8000 until it is stopped: recommendations, similar\n"
            "items, search, health and metrics, described by /openapi.json. SIGHUP opens a new bundle in the place of\n"
            "the old one without losing a request.",
            ServeConfig,
            _run_serve,
            (
                ("deshi serve latest", "the newest run, exported by deshi export latest"),
                ("deshi serve bundle host=0.0.0.0 api_key_file=key.txt", "for other machines, with a key"),
            ),
        ),
    )
}


def find_stage(name: str) -> Stage:
    """The stage of that name.

    Raises:
        DeshiError: with the nearest names.
    """
    if name not in STAGES:
        near = nearest(name, STAGES)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"The stages are {', '.join(STAGES)}."
        raise DeshiError(f"There is no stage {name!r}. {hint} `deshi --help` explains them.")
    return STAGES[name]


def compose(stage: str, overrides: Sequence[str], values: dict[str, Any], config_dir: Path | None = None) -> Any:
    """A stage's checked configuration from ``key=value`` texts and Python values; the values come last and win."""
    from deshi.configuration.compose import load
    from deshi.configuration.overrides import from_python

    return load(stage, find_stage(stage).schema, [*overrides, *from_python(values)], config_dir)


def run_stage(stage: str, *overrides: str, config_dir: str | Path | None = None, **values: Any) -> Any:
    """Compose a stage's configuration and run it.

    Args:
        stage: its name.
        overrides: ``"key=value"`` texts, as on the command line.
        config_dir: a folder with configuration groups of your own.
        values: group choices and values by name; a nested dict sets the keys below.
    """
    folder = Path(config_dir) if config_dir is not None else None
    return find_stage(stage).run(compose(stage, overrides, values, folder))
