"""The schema of every stage's configuration: what keys there are, what they mean, and what they may hold.

Models are strict (a number written as text is refused) and closed (an unknown key is refused). The defaults stand
here and nowhere else: the YAML files of ``deshi.conf`` hold only what differs from them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from deshi.targets import TARGET, ConfigError, Problem, arguments, check_node, complete, show, suggestion
from deshi.types import DeshiError

CONFIG_FILE = "config.yaml"
OVERRIDES_FILE = "overrides.yaml"

RUNTIME: dict[str, tuple[str, ...]] = {"student": ("n_items",), "loss": (), "split": (), "source": ()}
"""Arguments that deshi supplies when it builds a node of that kind, and a configuration therefore may not."""


def _node(kind: str) -> AfterValidator:
    def check(node: dict[str, Any]) -> dict[str, Any]:
        problems = check_node(node, RUNTIME[kind])
        if problems:
            raise ConfigError(problems)
        return complete(node, RUNTIME[kind])

    return AfterValidator(check)


SourceNode = Annotated[dict[str, Any], _node("source")]
SplitNode = Annotated[dict[str, Any], _node("split")]
StudentNode = Annotated[dict[str, Any], _node("student")]
LossNode = Annotated[dict[str, Any], _node("loss")]
LEAVE_ONE_OUT = {TARGET: "deshi.data.splits.LeaveOneOut"}


class Closed(BaseModel):
    """Base of all models: strict types, no unknown keys, no change after the check."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=False)


class PathsConfig(Closed):
    """Where files are; relative paths count from the folder in which the command runs."""

    root: Path = Field(Path("."), strict=False, description="folder under which data and runs lie")
    data: Path = Field(Path("data"), strict=False, description="data bundles; by default ROOT/data")
    runs: Path = Field(Path("runs"), strict=False, description="run folders; by default ROOT/runs")
    cache: Path = Field(
        Path("~/.cache/deshi"), strict=False, description="downloads; by default $DESHI_CACHE or ~/.cache/deshi"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        root = str(values.get("root") or ".")
        cache = os.environ.get("DESHI_CACHE") or "~/.cache/deshi"
        defaults = {
            "root": root,
            "data": os.path.join(root, "data"),
            "runs": os.path.join(root, "runs"),
            "cache": cache,
        }
        return defaults | {key: value for key, value in values.items() if value is not None}

    @field_validator("root", "data", "runs", "cache")
    @classmethod
    def _home(cls, path: Path) -> Path:
        return path.expanduser()


class FilterConfig(Closed):
    """What preparation leaves out, in this order."""

    min_rating: float | None = Field(None, description="keep interactions rated at least this")
    duplicates: Literal["keep", "first", "last", "error"] = Field(
        "keep", description="when a user has the same item more than once"
    )
    min_user_interactions: int = Field(1, ge=1, description="keep users with at least this many interactions")
    min_item_interactions: int = Field(1, ge=1, description="keep items with at least this many interactions")
    k_core: bool = Field(True, description="repeat the two minima until nothing changes")
    min_history: int = Field(
        1, ge=1, description="at the end, drop users with fewer events (with k_core the minima hold again)"
    )


class DataConfig(Closed):
    """A data set: its name, where it comes from and how it is filtered."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="folder of the bundle under paths.data")
    source: SourceNode = Field(description="the reader of the original files")
    filters: FilterConfig = Field(default_factory=FilterConfig)
    on_bad_rows: Literal["error", "skip"] = Field("error", description="a malformed row stops, or is counted")
    max_bad_rows: int = Field(100, ge=0, description="with skip: stop after this many malformed rows")


class AugmentConfig(Closed):
    """Changes to training histories, drawn anew for every epoch; 0 is off."""

    item_drop: float = Field(0.0, ge=0, lt=1, description="probability that an item of a history is left out")
    crop: float = Field(0.0, ge=0, lt=1, description="probability that a history is cut to a random stretch")
    reorder: float = Field(0.0, ge=0, lt=1, description="share of a history that is shuffled in place")


class TrainConfig(Closed):
    """How a network is trained."""

    max_epochs: int = Field(50, ge=1, description="passes over the training data, at most")
    batch_positions: int = Field(3200, ge=1, description="positions (events to predict) per batch")
    max_batch_size: int = Field(512, ge=1, description="histories per batch, at most")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's learning rate")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")
    betas: tuple[float, float] = Field((0.9, 0.98), strict=False, description="AdamW's betas")
    warmup_steps: int = Field(100, ge=0, description="steps over which the learning rate rises from 0")
    schedule: Literal["constant", "cosine", "linear"] = Field("constant", description="learning rate after warm-up")
    gradient_clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null is none")
    averaging: float = Field(0.0, ge=0, lt=1, description="decay of the weights' moving average; 0 is none")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 if measured faster, else fp32")
    patience: int = Field(10, ge=1, description="stop after this many validations without a better NDCG@10")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    threads: int | None = Field(None, ge=1, description="CPU threads; null leaves it to PyTorch")
    accelerator: str = Field("auto", description="auto, cpu, gpu, ...: Lightning's accelerators")
    train_targets: Literal["train", "including_validation"] = Field(
        "train", description="including_validation is a LEAK: it trains on what model selection looks at"
    )
    refit: bool = Field(False, description="retrain on train + validation for the selected number of epochs")
    windows: Literal["last", "all", "random"] = Field("all", description="which part of over-long histories is seen")
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    progress: bool = Field(True, description="show a progress bar")
    max_minutes: float | None = Field(None, gt=0, description="stop training after this time")


class EvalConfig(Closed):
    """How rankings are measured."""

    ks: list[Annotated[int, Field(ge=1)]] = Field([1, 5, 10, 20, 50], min_length=1, description="cut-offs K")
    filter_seen: bool = Field(True, description="leave items of the user's history out of the ranking")
    batch_size: int = Field(512, ge=1, description="histories per batch")


class StageConfig(Closed):
    """What the configurations of all stages share."""

    paths: PathsConfig = Field(default_factory=PathsConfig)
    _overrides: list[str] = PrivateAttr(default_factory=list)

    @property
    def overrides(self) -> list[str]:
        """The ``key=value`` arguments that this configuration was made with."""
        return list(self._overrides)


class PrepareConfig(StageConfig):
    """Configuration of ``deshi prepare``."""

    data: DataConfig
    force: bool = Field(False, description="prepare again even if the bundle is there and up to date")


class FitConfig(StageConfig):
    """Configuration of ``deshi fit``."""

    data: DataConfig
    split: SplitNode = Field(default_factory=lambda: dict(LEAVE_ONE_OUT))
    student: StudentNode
    loss: LossNode
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    seed: int = Field(0, ge=0, description="same seed, same bits (on the CPU)")
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="ends the run folder's name; null: data_student"
    )
    resume: str | None = Field(None, description="a run folder (or its name, or latest) to continue")


class EvaluateConfig(StageConfig):
    """Configuration of ``deshi evaluate``."""

    run: str | None = Field(None, description="a run folder, its name, or latest")
    reference: Literal["popularity", "itemknn", "ease", "markov"] | None = Field(
        None, description="evaluate a reference ranker instead of a run"
    )
    with_references: bool = Field(False, description="evaluate all reference rankers beside the run")
    part: Literal["validation", "test", "both"] = Field("test", description="which targets are asked for")
    data: DataConfig | None = Field(None, description="null: the run's")
    split: SplitNode | None = Field(None, description="null: the run's, or leave-one-out without a run")
    eval: EvalConfig = Field(default_factory=EvalConfig)

    @model_validator(mode="after")
    def _something_to_do(self) -> EvaluateConfig:
        if self.run and self.reference:
            raise ValueError("got run and reference: give one of them, or run with with_references=true")
        if not self.run and not (self.reference or self.with_references):
            raise ValueError("nothing to evaluate: give run=FOLDER (or run=latest), or reference=popularity")
        if not self.run and self.data is None:
            raise ValueError("a reference ranker needs a data set: give data=NAME, e.g. data=ml-100k")
        return self


Config = TypeVar("Config", bound=StageConfig)


def validate(
    model: type[Config], values: Mapping[str, Any], overrides: Iterable[str] = (), known: Iterable[str] = ()
) -> Config:  # fmt: skip
    """Check plain ``values`` (as read from YAML) against a stage's schema.

    Args:
        model: the schema.
        values: the configuration.
        overrides: the ``key=value`` arguments behind it, kept with the result.
        known: further names that a suggestion may name, such as groups.

    Raises:
        ConfigError: with every problem found: the dotted key, what was got, what was expected, the nearest names.
    """
    try:
        config = model.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        names = [*valid_keys(model, values), *known]
        raise ConfigError([p for detail in error.errors() for p in _problems(names, detail)]) from None
    config._overrides = list(overrides)
    return config


def _problems(names: Iterable[str], detail: Any) -> list[Problem]:
    """Pydantic's error in deshi's words."""
    key = ".".join(str(part) for part in detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return [problem.under(key) for problem in cause.problems]
    if cause is not None:
        return [Problem(key, f"{cause}.")]
    if detail["type"] == "extra_forbidden":
        leaves = [".".join([key, *path]) for path in _leaf_paths(detail["input"])]
        return [Problem(leaf, f"unknown key. {suggestion(leaf, names, 'keys')}") for leaf in leaves]
    if detail["type"] == "missing":
        return [Problem(key, "is missing and has no default. Give it a value, or choose a group that has one.")]
    expected = detail["msg"]
    for prefix in ("Input should be ", "String should ", "Input should ", "a valid "):
        expected = expected.removeprefix(prefix)
    hint = ""
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        choices = [choice.strip("' ") for choice in expected.replace(" or ", ",").split(",")]
        hint = f" {suggestion(detail['input'], choices, 'values')}"
    return [Problem(key, f"got {show(detail['input'])}, expected {expected}.{hint}")]


def _leaf_paths(value: Any) -> Iterator[list[str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            for path in _leaf_paths(inner):
                yield [str(name), *path]
    else:
        yield []


def valid_keys(model: type[BaseModel], values: Mapping[str, Any]) -> Iterator[str]:
    """All dotted keys that a stage knows: the schema's, and the arguments of the targets named in ``values``."""
    for name, field in model.model_fields.items():
        inner = nested_model(field.annotation)
        value = values.get(name)
        if inner is not None:
            yield from (f"{name}.{key}" for key in valid_keys(inner, value if isinstance(value, Mapping) else {}))
            continue
        yield name
        if isinstance(value, Mapping) and TARGET in value:
            try:
                yield from (f"{name}.{key}" for key in arguments(value, RUNTIME.get(name, ())))
            except DeshiError:  # the target's own problem is reported where it is checked
                continue


def schema_defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The plain defaults of a schema, for interpolations such as ``name=seed_${seed}``; paths depend on their root."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = nested_model(field.annotation)
        if inner is None and not field.is_required() and field.default_factory is None:
            found[name] = list(field.default) if isinstance(field.default, tuple) else field.default
        if inner is not None and inner is not PathsConfig and type(None) not in get_args(field.annotation):
            found[name] = schema_defaults(inner)
    return found


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model inside a field's annotation (``Model`` or ``Model | None``), if any."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def resolved(config: BaseModel) -> dict[str, Any]:
    """The configuration as plain dicts, lists and scalars, every default written out."""
    return config.model_dump(mode="json")


def save_config(folder: Path, config: StageConfig) -> None:
    """Write ``config.yaml`` (resolved) and ``overrides.yaml`` into a run folder."""
    for name, content in ((CONFIG_FILE, resolved(config)), (OVERRIDES_FILE, config.overrides)):
        temporary = folder / f".{name}.tmp"
        temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        os.replace(temporary, folder / name)


def read_saved(folder: Path) -> dict[str, Any]:
    """The plain content of a run folder's ``config.yaml``.

    Raises:
        DeshiError: if there is none or it isn't YAML.
    """
    path = folder / CONFIG_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DeshiError(f"{folder} holds no {CONFIG_FILE}: it is no run folder. Give a folder under runs/.") from error
    except yaml.YAMLError as error:
        raise DeshiError(f"{path} is not valid YAML ({error}).") from error
    if not isinstance(content, dict):
        raise DeshiError(f"{path} holds {type(content).__name__}, expected keys and values: the file is damaged.")
    return content


def load_config(folder: Path, model: type[Config]) -> Config:
    """The configuration that a stage saved in ``folder``, checked again."""
    return validate(model, read_saved(folder))


def find_run(runs: Path, stage: str, text: str) -> Path:
    """The run folder that ``text`` names: a path, a folder's name under ``runs/stage``, or ``latest``.

    Raises:
        DeshiError: with the names nearest to it.
    """
    if (Path(text).expanduser() / CONFIG_FILE).is_file():
        return Path(text).expanduser()
    folder = runs / stage
    known = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG_FILE}"))
    if text == "latest" and known:
        return folder / known[-1]
    if text in known:
        return folder / text
    hint = suggestion(text, known, "runs") if known else f"There is no run under {folder}: run `deshi {stage}` first."
    raise DeshiError(f"No run {text!r}: it is neither a run folder nor the name of one under {folder}. {hint}")
