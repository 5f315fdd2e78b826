"""The commands as Python functions with typed keywords.

Every function takes what its command works on first (a data set, a run, a store, a bundle), or by its keyword; a data
set's name and values below the key ``data`` go together:
``deshi.prepare("ml-100k", data={"filters": {"k_core": True}})``. The other keywords are the command's keys: a group's
choice by its name (``student="gru4rec"``), or values below a key as a dict (``train={"max_epochs": 3}``). A keyword
that is None leaves the key as it is. Override strings as on the command line may stand among the first arguments;
keywords win over them. ``config`` repeats a saved run, with the other arguments on top; ``config_dir`` is a folder with
groups of your own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from deshi.types import as_list

if TYPE_CHECKING:
    from deshi.auditing import AuditResult
    from deshi.comparison import CompareResult
    from deshi.data.dataset import Dataset
    from deshi.data.prepare import PrepareResult
    from deshi.evaluation import EvaluateResult
    from deshi.gap_analysis import GapResult
    from deshi.reporting import ReportResult
    from deshi.runs import Run
    from deshi.serving.engine import Engine
    from deshi.serving.http.result import RecommendResult, ServeResult
    from deshi.serving.result import ExportResult
    from deshi.soft_labels import Inspection, LabelResult
    from deshi.stages.run_result import RunResult
    from deshi.stages.tune_result import TuneResult

Folder: TypeAlias = "str | Path | Run | LabelResult | ExportResult"
"""A path, a name, or an object that has a folder."""
RunName: TypeAlias = "str | Path | Run"
Values: TypeAlias = Mapping[str, Any]
"""Values below a key, nested as deep as need be."""
Group: TypeAlias = str | Mapping[str, Any]
"""The choice of a group, or values below it."""
DataSet: TypeAlias = "str | Values | Dataset"
SHARED = ("words", "paths", "config", "config_dir")
"""Arguments that are no keys of a schema, or of all schemas."""


def _call(stage: str, arguments: dict[str, Any]) -> Any:
    """Run a stage with the arguments of its function."""
    from deshi.configuration.overrides import from_python
    from deshi.stages import find_stage

    words, config_dir = [as_list(word) for word in arguments.pop("words")], arguments.pop("config_dir")
    texts = [word for word in words if isinstance(word, str) and "=" in word]
    subjects = [word for word in words if not (isinstance(word, str) and "=" in word)]
    given = {key: as_list(value) for key, value in arguments.items() if value is not None}
    subject = find_stage(stage).subject
    if subjects and isinstance(given.get(subject), Mapping):  # a choice by its name, and values below it
        texts += from_python({subject: given.pop(subject)})
    values = {**_paths_of_runs(given, subjects), **find_stage(stage).with_subject(subjects, given)}
    if hasattr(values.get("data"), "data_config"):
        texts += _prepared(values.pop("data"), texts, values.get("paths"), stage)
    return _run(stage, tuple(texts), config_dir, {key: _plain(value) for key, value in values.items()})


def _run(stage: str, overrides: tuple[str, ...], config_dir: Folder | None, values: dict[str, Any]) -> Any:
    from deshi.stages import run_stage

    return run_stage(stage, *overrides, config_dir=_plain(config_dir), **values)


def _paths_of_runs(values: Mapping[str, Any], subjects: Sequence[Any]) -> dict[str, Any]:
    """The paths of a run that is given as an object: what a command makes of it lies where it lies."""
    runs = [*subjects, values.get("run"), *(values.get("runs") or ())]
    paths = next((run.paths for run in runs if hasattr(run, "paths")), None)
    return {} if paths is None or "paths" in values else {"paths": paths.model_dump(mode="json")}


def _prepared(dataset: Any, texts: Sequence[str], paths: Mapping[str, Any] | None, stage: str) -> list[str]:
    """Override strings that name a data set of frames; its bundle is made if need be."""
    from deshi.configuration.overrides import from_python
    from deshi.configuration.schemas import PathsConfig

    moved = [text for text in texts if text.startswith("paths.")]
    places = PathsConfig.model_validate({**dict(text[6:].split("=", 1) for text in moved), **(paths or {})})
    config = dataset.data_config(places.data)
    source = {key: value for key, value in config["source"].items() if key != "_target_"}
    overrides = ["data=tabular", *from_python({"data": {**config, "source": source}})]
    if stage != "prepare":
        _run("prepare", (*moved, *overrides), None, {"paths": paths} if paths else {})
    return overrides


def _plain(value: Any) -> Any:
    """Objects with a folder as that folder's path."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    folder = getattr(value, "folder", value)
    return str(folder) if isinstance(folder, Path) else value


def load(bundle: Folder, **options: Any) -> Engine:
    """Open a serving bundle: ``deshi.load("bundle").recommend(["item 1", "item 2"], k=10)``.

    Options and errors as for :func:`deshi.serving.engine.load`.
    """
    from deshi.serving.engine import load as open_bundle

    return open_bundle(_plain(bundle), **options)


def run(
    *words: DataSet, data: DataSet | None = None, split: Group | None = None, loss: Group | None = None,
    train: Group | None = None, eval: Group | None = None, name: str | None = None, resume: str | None = None,
    student: Group | None = None, teachers: Values | None = None, soft_labels: Values | None = None,
    distill: Group | None = None, distilled: Values | None = None, seeds: Sequence[int] | None = None,
    teacher_seed: int | None = None, sizes: Sequence[int] | None = None, refit: bool | None = None,
    with_baselines: bool | None = None, experiment: str | None = None, recipe: str | None = None,
    paths: Values | None = None, config: Folder | None = None, config_dir: Folder | None = None,
) -> RunResult:  # fmt: skip
    """All stages, from the data to a report: ``deshi.run(experiment="ml-100k", seeds=[0, 1, 2])``.

    ``deshi run --help`` explains the keys.
    """
    return _call("run", locals())


def prepare(
    *words: DataSet, data: DataSet | None = None, force: bool | None = None, paths: Values | None = None,
    config: Folder | None = None, config_dir: Folder | None = None,
) -> PrepareResult:  # fmt: skip
    """Fetch, filter and write a data bundle: ``deshi.prepare("ml-100k")``.

    ``deshi prepare --help`` explains the keys.
    """
    return _call("prepare", locals())


def fit(
    *words: DataSet, data: DataSet | None = None, split: Group | None = None, loss: Group | None = None,
    train: Group | None = None, eval: Group | None = None, name: str | None = None, resume: str | None = None,
    seed: int | None = None, student: Group | None = None, experiment: str | None = None,
    paths: Values | None = None, config: Folder | None = None, config_dir: Folder | None = None,
) -> Run:  # fmt: skip
    """Train a student: ``deshi.fit("ml-100k", student="gru4rec", train={"max_epochs": 3})``.

    ``deshi fit --help`` explains the keys.
    """
    return _call("fit", locals())


def teach(
    *words: DataSet, data: DataSet | None = None, split: Group | None = None, loss: Group | None = None,
    train: Group | None = None, eval: Group | None = None, name: str | None = None, resume: str | None = None,
    seed: int | None = None, teacher: Group | None = None, cross_fit: int | None = None,
    engine: str | None = None, ray: Values | None = None, paths: Values | None = None, config: Folder | None = None,
    config_dir: Folder | None = None,
) -> Run:  # fmt: skip
    """Train a teacher, or choose the weights of an ensemble: ``deshi.teach("ml-100k", teacher="text")``.

    ``deshi teach --help`` explains the keys.
    """
    return _call("teach", locals())


def label(
    *words: RunName, run: RunName | None = None, positions: str | None = None, selection: Group | None = None,
    k: int | None = None, filter_seen: bool | None = None, normalise: bool | None = None, dtype: str | None = None,
    batch_size: int | None = None, min_context: int | None = None, augment: Values | None = None,
    copies: int | None = None, vectors: str | None = None, profiles: Group | None = None,
    engine: str | None = None, ray: Values | None = None, store: Folder | None = None, force: bool | None = None,
    seed: int | None = None, paths: Values | None = None, config: Folder | None = None,
    config_dir: Folder | None = None,
) -> LabelResult:  # fmt: skip
    """Write the ranked lists of a run as soft labels: ``deshi.label("latest", store="lists", k=50)``.

    ``deshi label --help`` explains the keys.
    """
    return _call("label", locals())


def inspect_labels(
    *words: Folder, store: Folder | None = None, compare_with: RunName | None = None, examples: int | None = None,
    seed: int | None = None, paths: Values | None = None, config: Folder | None = None,
    config_dir: Folder | None = None,
) -> Inspection:  # fmt: skip
    """Look into a store of soft labels: ``deshi.inspect_labels("lists", compare_with="latest")``.

    ``deshi label inspect --help`` explains the keys.
    """
    return _call("label_inspect", locals())


def import_labels(
    *words: Folder, store: Folder | None = None, source: Group | None = None, data: DataSet | None = None,
    dtype: str | None = None, force: bool | None = None, paths: Values | None = None, config: Folder | None = None,
    config_dir: Folder | None = None,
) -> LabelResult:  # fmt: skip
    """Write lists of other programs as soft labels: ``deshi.import_labels("lists", source="bigrec")``.

    ``deshi label import --help`` explains the keys.
    """
    return _call("label_import", locals())


def distill(
    *words: DataSet, data: DataSet | None = None, split: Group | None = None, loss: Group | None = None,
    train: Group | None = None, eval: Group | None = None, name: str | None = None, resume: str | None = None,
    seed: int | None = None, student: Group | None = None, soft_labels: Sequence[Folder] | None = None,
    distill: Group | None = None, experiment: str | None = None, paths: Values | None = None,
    config: Folder | None = None, config_dir: Folder | None = None,
) -> Run:  # fmt: skip
    """Train a student on the data and on soft labels: ``deshi.distill("ml-100k", soft_labels=["lists"])``.

    ``deshi distill --help`` explains the keys.
    """
    return _call("distill", locals())


def tune(
    *words: DataSet, data: DataSet | None = None, split: Group | None = None, loss: Group | None = None,
    train: Group | None = None, eval: Group | None = None, name: str | None = None, resume: str | None = None,
    stage: str | None = None, space: Values | None = None, trials: int | None = None,
    max_minutes: float | None = None, storage: str | None = None, seed: int | None = None,
    student: Group | None = None, teacher: Group | None = None, cross_fit: int | None = None,
    soft_labels: Sequence[Folder] | None = None,
    distill: Group | None = None, experiment: str | None = None, paths: Values | None = None,
    config: Folder | None = None, config_dir: Folder | None = None,
) -> TuneResult:  # fmt: skip
    """Search for the best values of a training: ``deshi.tune("ml-100k", space={"student": {"dim": "choice(32,64)"}})``.

    ``deshi tune --help`` explains the keys.
    """
    return _call("tune", locals())


def evaluate(
    *words: RunName, run: RunName | None = None, served: bool | Folder | None = None, search: str | None = None,
    baseline: str | None = None, with_baselines: bool | None = None, part: str | None = None,
    data: DataSet | None = None, split: Group | None = None, eval: Group | None = None,
    candidates: Group | None = None, answers: int | None = None, sample: int | None = None,
    paths: Values | None = None, config: Folder | None = None, config_dir: Folder | None = None,
) -> EvaluateResult:  # fmt: skip
    """Measure a run, or a baseline, by exact ranks: ``deshi.evaluate("latest", with_baselines=True)``.

    ``deshi evaluate --help`` explains the keys.
    """
    return _call("evaluate", locals())


def audit(
    *words: RunName, run: RunName | None = None, data: DataSet | None = None, split: Group | None = None,
    soft_labels: Folder | None = None, interactions: Folder | None = None, predictions: Folder | None = None,
    test: Folder | None = None, trained_on: Folder | None = None, columns: Values | None = None,
    claimed: str | None = None, ks: Sequence[int] | None = None, max_bad_rows: int | None = None,
    paths: Values | None = None, config: Folder | None = None, config_dir: Folder | None = None,
) -> AuditResult:  # fmt: skip
    """Find what makes figures wrong: ``deshi.audit("latest")``.

    ``deshi audit --help`` explains the keys.
    """
    return _call("audit", locals())


def gap(
    *words: RunName, run: RunName | None = None, metric: str | None = None, steps: int | None = None,
    samples: int | None = None, confidence: float | None = None, seed: int | None = None,
    paths: Values | None = None, config: Folder | None = None, config_dir: Folder | None = None,
) -> GapResult:  # fmt: skip
    """Explain why validation and test of a run differ: ``deshi.gap("latest", metric="recall@20")``.

    ``deshi gap --help`` explains the keys.
    """
    return _call("gap", locals())


def report(
    *words: RunName | Sequence[RunName], runs: Sequence[RunName] | None = None, part: str | None = None,
    metric: str | None = None, examples: int | None = None, examples_seed: int | None = None,
    output: Folder | None = None, names: Sequence[str] | None = None, paths: Values | None = None,
    config: Folder | None = None, config_dir: Folder | None = None,
) -> ReportResult:  # fmt: skip
    """Write one HTML page about finished evaluations: ``deshi.report("latest", output="report.html")``.

    ``deshi report --help`` explains the keys.
    """
    return _call("report", locals())


def compare(
    *words: RunName | Sequence[RunName], runs: Sequence[RunName] | None = None, part: str | None = None,
    metrics: Sequence[str] | None = None, against: RunName | None = None, names: Sequence[str] | None = None,
    with_baselines: bool | None = None, each_run: bool | None = None, samples: int | None = None,
    permutations: int | None = None, confidence: float | None = None, seed: int | None = None,
    paths: Values | None = None, config: Folder | None = None, config_dir: Folder | None = None,
) -> CompareResult:  # fmt: skip
    """Compare evaluated runs, with intervals and tests: ``deshi.compare(["first", "second"], against="first")``.

    ``deshi compare --help`` explains the keys.
    """
    return _call("compare", locals())


def export(
    *words: RunName, run: RunName | None = None, output: Folder | None = None, int8: bool | None = None,
    table_dtype: str | None = None, index: str | None = None, counts: bool | float | None = None,
    parity: Values | None = None, paths: Values | None = None, config: Folder | None = None,
    config_dir: Folder | None = None,
) -> ExportResult:  # fmt: skip
    """Write a serving bundle of a run: ``deshi.export("latest", int8=True)``.

    ``deshi export --help`` explains the keys.
    """
    return _call("export", locals())


def recommend(
    *words: Folder, bundle: Folder | None = None, input: Folder | None = None, output: Folder | None = None,
    format: str | None = None, user: str | None = None, item: str | None = None, history: str | None = None,
    history_separator: str | None = None, timestamp: str | None = None, time_format: str | None = None,
    separator: str | None = None, encoding: str | None = None, quote: str | None = None,
    columns: Sequence[str] | None = None, on_bad_rows: str | None = None, max_bad_rows: int | None = None,
    k: int | None = None, filter_seen: bool | None = None, exclude: Folder | None = None,
    allowed: Folder | None = None, precision: str | None = None, search: str | None = None,
    threads: int | None = None, batch_size: int | None = None, progress: bool | None = None,
    engine: str | None = None, ray: Values | None = None, paths: Values | None = None,
    config: Folder | None = None, config_dir: Folder | None = None,
) -> RecommendResult:  # fmt: skip
    """Answer a file of histories: ``deshi.recommend("latest", input="events.csv", k=100)``.

    ``deshi recommend --help`` explains the keys.
    """
    return _call("recommend", locals())


def serve(
    *words: Folder, bundle: Folder | None = None, host: str | None = None, port: int | None = None,
    compare_with: Sequence[RunName] | None = None, demo: Folder | None = None, api_key_file: Folder | None = None,
    api_key_env: str | None = None, body_bytes: int | None = None, timeout: float | None = None,
    connections: int | None = None, log_requests: bool | None = None, precision: str | None = None,
    search: str | None = None, threads: int | None = None, paths: Values | None = None,
    config: Folder | None = None, config_dir: Folder | None = None,
) -> ServeResult:  # fmt: skip
    """Answer over HTTP until stopped: ``deshi.serve("latest", port=8000)``.

    ``deshi serve --help`` explains the keys.
    """
    return _call("serve", locals())
