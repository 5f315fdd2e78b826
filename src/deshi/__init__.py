"""deshi: distil an LLM recommender into a student that answers in a millisecond, and trust the numbers.

The stages of the command line, as functions that return result objects::

    import deshi

    deshi.prepare(data="ml-100k")
    deshi.fit("student=gru4rec", data="ml-100k", train={"max_epochs": 3})
    deshi.evaluate(run="latest")

Importing the package loads nothing heavy; a stage loads what it needs when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deshi.auditing.result import AuditResult
    from deshi.comparison import CompareResult
    from deshi.data.prepare import PrepareResult
    from deshi.gap_analysis.result import GapResult
    from deshi.pipeline.summary import RunResult
    from deshi.pipeline.tuned import TuneResult
    from deshi.reporting import ReportResult
    from deshi.serving.engine import Engine
    from deshi.serving.http.result import RecommendResult
    from deshi.serving.result import ExportResult
    from deshi.soft_labels import Inspection
    from deshi.stages._evaluate import EvaluateResult
    from deshi.stages._label import LabelResult
    from deshi.stages._serve import ServeResult
    from deshi.training.fit import FitResult

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "audit",
    "compare",
    "distill",
    "evaluate",
    "export",
    "fit",
    "gap",
    "import_labels",
    "inspect_labels",
    "label",
    "load",
    "prepare",
    "recommend",
    "report",
    "run",
    "serve",
    "teach",
    "tune",
]


def prepare(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> PrepareResult:
    """Fetch, filter and write a data bundle: ``deshi.prepare(data="ml-100k")``.

    Args:
        overrides: ``"key=value"`` texts, as on the command line.
        config_dir: a folder with configuration groups of your own.
        values: group choices and values by name; a nested dict sets the keys below.

    Raises:
        DeshiError: for anything wrong with the configuration or the data.
    """
    return _run("prepare", overrides, config_dir, values)


def fit(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> FitResult:
    """Train a student: ``deshi.fit("student=gru4rec", data="ml-100k", train={"max_epochs": 3})``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("fit", overrides, config_dir, values)


def teach(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> FitResult:
    """Make a teacher: ``deshi.teach(teacher="text", data="ml-100k")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("teach", overrides, config_dir, values)


def label(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> LabelResult:
    """Write a run's ranked lists as soft labels: ``deshi.label(run="latest", store="lists")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("label", overrides, config_dir, values)


def inspect_labels(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> Inspection:
    """Look into a store of soft labels: ``deshi.inspect_labels(store="lists")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("label_inspect", overrides, config_dir, values)


def import_labels(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> LabelResult:
    """Write lists of other programs as soft labels: ``deshi.import_labels("source=dllm2rec", store="lists")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("label_import", overrides, config_dir, values)


def distill(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> FitResult:
    """Train a student on data and soft labels: ``deshi.distill(data="ml-100k", soft_labels=["STORE"])``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("distill", overrides, config_dir, values)


def tune(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> TuneResult:
    """Search for the best values: ``deshi.tune(trials=20, space={"train": {"learning_rate": "log(1e-4,1e-2)"}})``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("tune", overrides, config_dir, values)


def evaluate(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> EvaluateResult:
    """Measure a run: ``deshi.evaluate(run="latest", with_baselines=True)``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("evaluate", overrides, config_dir, values)


def audit(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> AuditResult:
    """Find what makes figures wrong: ``deshi.audit(run="latest")``, ``deshi.audit(data="ml-100k")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("audit", overrides, config_dir, values)


def gap(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> GapResult:
    """Explain why validation and test of a run differ: ``deshi.gap(run="latest")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("gap", overrides, config_dir, values)


def report(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> ReportResult:
    """One HTML page about finished evaluations: ``deshi.report(runs=["latest"])``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("report", overrides, config_dir, values)


def compare(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> CompareResult:
    """Put evaluated runs side by side: ``deshi.compare(runs=["*_ml-100k_*"], against="popularity")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("compare", overrides, config_dir, values)


def run(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> RunResult:
    """All stages, from the data to a report on a distilled student: ``deshi.run(experiment="ml-100k")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("run", overrides, config_dir, values)


def export(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> ExportResult:
    """Make a run's student servable: ``deshi.export(run="latest")``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("export", overrides, config_dir, values)


def recommend(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> RecommendResult:
    """Answer a file of histories: ``deshi.recommend(bundle="latest", input="events.csv", k=100)``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("recommend", overrides, config_dir, values)


def serve(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> ServeResult:
    """Answer over HTTP until stopped: ``deshi.serve(bundle="latest", port=8000)``.

    Arguments and errors as for :func:`prepare`.
    """
    return _run("serve", overrides, config_dir, values)


def load(bundle: str | Path, **options: Any) -> Engine:
    """Open a serving bundle: ``deshi.load("bundle").recommend(["item 1", "item 2"], k=10)``.

    Options and errors as for :func:`deshi.serving.engine.load`.
    """
    from deshi.serving.engine import load as open_bundle

    return open_bundle(bundle, **options)


def _run(stage: str, overrides: tuple[str, ...], config_dir: str | Path | None, values: dict[str, Any]) -> Any:
    from deshi.stages import run_stage

    return run_stage(stage, *overrides, config_dir=config_dir, **values)
