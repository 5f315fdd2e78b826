"""The groups of keys that several stages share: types, meanings and defaults.

Models are strict (a number written as text is refused) and closed (an unknown key is refused). The defaults stand
here and nowhere else: the YAML files of ``deshi.conf`` hold only what differs from them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from deshi.configuration.targets import TARGET, ConfigError, check_node, complete, refusals

RUNTIME: dict[str, tuple[str, ...]] = {
    "student": ("n_items",),
    "term": (),
    "item_table": ("n_items", "dim", "embeddings"),
    "selection": (),
    "profiles": (),
    "teacher": ("n_items", "resources"),
    "loss": (),
    "split": (),
    "source": (),
    "candidates": (),
    "foreign": ("bundle",),
}
"""Arguments that deshi supplies when it builds a node of that kind, and a configuration therefore may not."""
READERS = ("source", "foreign")
"""Nodes that look into their files when they are built: not before the work."""


def _node(kind: str) -> AfterValidator:
    def check(node: dict[str, Any]) -> dict[str, Any]:
        problems = check_node(node, RUNTIME[kind])
        if not problems and kind not in READERS:
            problems = refusals(node, RUNTIME[kind])
        if problems:
            raise ConfigError(problems)
        return complete(node, RUNTIME[kind])

    return AfterValidator(check)


def _folds(value: int) -> int:
    if value == 1:
        raise ValueError("got 1, expected 0 (none) or 2 folds and more: one fold leaves nobody to train on")
    return value


SourceNode = Annotated[dict[str, Any], _node("source")]
SplitNode = Annotated[dict[str, Any], _node("split")]
StudentNode = Annotated[dict[str, Any], _node("student")]
TeacherNode = Annotated[dict[str, Any], _node("teacher")]
TermNode = Annotated[dict[str, Any], _node("term")]
TableNode = Annotated[dict[str, Any], _node("item_table")]
SelectionNode = Annotated[dict[str, Any], _node("selection")]
ProfilesNode = Annotated[dict[str, Any], _node("profiles")]
LossNode = Annotated[dict[str, Any], _node("loss")]
ForeignNode = Annotated[dict[str, Any], _node("foreign")]
CandidatesNode = Annotated[dict[str, Any], _node("candidates")]
Folds = Annotated[int, AfterValidator(_folds)]
ModelNames = Annotated[
    list[Annotated[str, Field(min_length=1)]] | None,
    Field(description="names of the models in their order; null: student and the settings that differ"),
]
LEAVE_ONE_OUT = {TARGET: "deshi.data.splits.LeaveOneOut"}


class Closed(BaseModel):
    """Base of all models: strict types, no unknown keys, no change after the check."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=False)


class PathsConfig(Closed):
    """Where files are; relative paths count from the folder in which the command runs."""

    root: Path = Field(Path("."), strict=False, description="folder under which data and runs lie")
    data: Path = Field(Path("data"), strict=False, description="data bundles; by default ROOT/data")
    runs: Path = Field(Path("runs"), strict=False, description="run folders; by default ROOT/runs")
    soft_labels: Path = Field(
        Path("soft_labels"), strict=False, description="soft-label stores; by default ROOT/soft_labels"
    )
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
            "soft_labels": os.path.join(root, "soft_labels"),
            "cache": cache,
        }
        return defaults | {key: value for key, value in values.items() if value is not None}

    @field_validator("root", "data", "runs", "soft_labels", "cache")
    @classmethod
    def _home(cls, path: Path) -> Path:
        return path.expanduser()


class FilterConfig(Closed):
    """What preparation leaves out, in this order."""

    keep: dict[str, list[str | int | float | bool | None]] = Field(
        default_factory=dict, description="values to keep by column of the source, such as {event: [purchase]}"
    )
    min_rating: float | None = Field(None, description="keep interactions rated at least this")
    duplicates: Literal["keep", "exact", "first", "last", "error"] = Field(
        "keep", description="when a user has the same item more than once (exact: at the same time)"
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
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay of the weights' moving average; 0 is none")
    sparse_table: bool | Literal["auto"] = Field(
        "auto",
        description="gradients and optimizer state of the item table for the rows that a step reads alone, with a loss "
        "of sampled negatives; auto: above 50,000 items",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 if measured faster, else fp32")
    patience: int = Field(10, ge=1, description="stop after this many validations without a better NDCG@10")
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    threads: int | None = Field(None, ge=1, description="CPU threads; null: one for each free core")
    accelerator: str = Field("auto", description="auto, cpu, gpu, ...: Lightning's accelerators")
    devices: int = Field(1, ge=1, description="processes on each node, a device each, that share every batch")
    nodes: int = Field(1, ge=1, description="nodes, each with so many processes")
    train_targets: Literal["train", "without_last", "including_validation"] = Field(
        "train",
        description="mistakes to reproduce: including_validation, a LEAK, trains on what model selection looks at; "
        "without_last stops one target short",
    )
    refit: bool | Annotated[str, Field(min_length=1)] = Field(
        False,
        description="train on train + validation: true, in the same run after its selection; RUN (folder, name, "
        "latest), for the epochs that this earlier run selected",
    )
    start_from: str | None = Field(
        None, description="an older run of a student (folder, name, latest) whose weights are the first ones"
    )
    windows: Literal["last", "all", "random"] = Field("all", description="which part of over-long histories is seen")
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    logger: Literal["tensorboard", "csv", "mlflow", "wandb"] = Field(
        "tensorboard", description="where curves are written; mlflow and wandb read their own environment variables"
    )
    progress: bool = Field(True, description="show a progress bar")
    max_minutes: float | None = Field(None, gt=0, description="stop training after this time")


class EvalConfig(Closed):
    """How rankings are measured."""

    ks: list[Annotated[int, Field(ge=1)]] = Field([1, 5, 10, 20, 50], min_length=1, description="cut-offs K")
    filter_seen: bool = Field(True, description="leave items of the user's history out of the ranking")
    batch_size: int = Field(128, ge=1, description="histories per batch")


class SelectionConfig(EvalConfig):
    """How the epochs of a training are measured on validation."""

    max_validation_users: int | None = Field(
        None, ge=1, description="a random sample of so many users, the same for every seed; null: all users"
    )


class StageConfig(Closed):
    """What the configurations of all stages share."""

    data_of_run: ClassVar[bool] = False
    """Whether ``data`` and ``split`` are those of ``run`` unless they are given."""
    resumed_with: ClassVar[tuple[str, ...]] = ()
    """Keys that may be given anew when a run is resumed."""

    paths: PathsConfig = Field(default_factory=PathsConfig)
    _overrides: list[str] = PrivateAttr(default_factory=list)

    @property
    def overrides(self) -> list[str]:
        """The ``key=value`` arguments that this configuration was made with."""
        return list(self._overrides)

    @classmethod
    def completed(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Plain ``values`` before they are checked, with what some keys take over from others written out."""
        return values


class RayConfig(Closed):
    """Where tasks run with ``engine=ray``, and what each takes of a node."""

    address: str | None = Field(
        None, description="auto, HOST:PORT or ray://HOST:PORT; null: $RAY_ADDRESS, or else a cluster on this machine"
    )
    cpus: float = Field(1.0, ge=0, strict=False, description="cores of a task")
    gpus: float = Field(0.0, ge=0, strict=False, description="GPUs of a task; 0.5: two tasks share one")

    @model_validator(mode="after")
    def _something(self) -> RayConfig:
        if self.cpus == self.gpus == 0:
            raise ValueError("a task needs a share of something: ray.cpus or ray.gpus above 0")
        return self

    @property
    def threads(self) -> int:
        """CPU threads of a task."""
        return max(1, int(self.cpus))


class EngineConfig(Closed):
    """Where the work of a command is done."""

    engine: Literal["local", "ray"] = Field("local", description="ray: in tasks on a Ray cluster")
    ray: RayConfig = Field(default_factory=RayConfig)


class PrepareConfig(StageConfig):
    """Configuration of ``deshi prepare``."""

    data: DataConfig
    force: bool = Field(False, description="prepare again even if the bundle is there and up to date")


class LearningConfig(StageConfig):
    """What is learnt from, how, and by what measure: shared by all stages that train, or have others train."""

    data: DataConfig
    split: SplitNode = Field(default_factory=lambda: dict(LEAVE_ONE_OUT))
    loss: LossNode
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: SelectionConfig = Field(default_factory=SelectionConfig)
    name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="ends the run folder's name; null: data_network"
    )
    resume: str | None = Field(None, description="a run folder (or its name, or latest) to continue")


class TrainingConfig(LearningConfig):
    """What the stages that train have in common."""

    stage: ClassVar[str] = "fit"
    resumed_with: ClassVar[tuple[str, ...]] = ("train.devices", "train.nodes")

    seed: int = Field(0, ge=0, description="same seed, same bits (on the CPU)")


class FitConfig(TrainingConfig):
    """Configuration of ``deshi fit``."""

    student: StudentNode


class TeachConfig(TrainingConfig, EngineConfig):
    """Configuration of ``deshi teach``; ``engine`` is where its texts are encoded."""

    stage: ClassVar[str] = "teach"

    teacher: TeacherNode
    cross_fit: Folds = Field(
        0, ge=0, description="folds of users: each user is answered by a teacher trained on others"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TeachConfig:
        if self.train.start_from is not None:
            raise ValueError("train.start_from is for students (deshi fit, deshi distill): leave it out")
        if self.cross_fit and isinstance(self.train.refit, str):
            raise ValueError(
                f"cross_fit={self.cross_fit} makes teachers of parts of the users, and train.refit={self.train.refit} "
                "is one training on all of them: leave one out"
            )
        return self


class DistillGroup(Closed):
    """What a student learns from a teacher."""

    terms: dict[str, TermNode] = Field(default_factory=dict, description="by name: what is added to the loss")
    hard_loss_weight: float = Field(1.0, ge=0, description="weight of the student's own loss on what really came next")
    item_table: TableNode | None = Field(
        None, description="item table made of the teacher's item vectors; null: plain numbers that start at random"
    )
    selection: SelectionNode | None = Field(None, description="which covered positions are distilled; null: all")
    k: int | None = Field(None, ge=1, description="longest list that is read; null: as long as they are")
    augmented_targets: bool = Field(
        False, description="train on the true next items of the stores' augmented histories, too"
    )


def check_start(train: TrainConfig, distill: DistillGroup) -> None:
    """Refuse two origins of the items' vectors.

    Raises:
        ValueError: if an older run's vectors and the teacher's are both asked for.
    """
    if train.start_from is not None and distill.item_table is not None:
        raise ValueError(
            "train.start_from takes the items' vectors from an older run, and distill.item_table makes them of the "
            "teacher's: leave one out, e.g. distill=listwise"
        )


class DistillConfig(FitConfig):
    """Configuration of ``deshi distill``."""

    stage: ClassVar[str] = "distill"

    soft_labels: list[str] = Field(
        min_length=1, description="stores of soft labels that deshi label wrote: folders or names"
    )
    distill: DistillGroup = Field(default_factory=DistillGroup)

    @model_validator(mode="after")
    def _one_item_table(self) -> DistillConfig:
        check_start(self.train, self.distill)
        return self


class ListsConfig(Closed):
    """The lists that a teacher writes."""

    positions: str = Field(
        "train+held_out",
        description="which events a list is written after: all, train, last:N, sample:SHARE, held_out, joined by +",
    )
    selection: SelectionNode | None = Field(
        None, description="which of the training positions a list is written after; null: all of them"
    )
    k: int = Field(100, ge=1, description="length of a list")
    filter_seen: bool | None = Field(
        None, description="leave items of the history out of its list; null: as the run's lists (eval.filter_seen)"
    )
    normalise: bool = Field(False, description="store log-probabilities over all candidates instead of logits")
    dtype: Literal["float32", "float16"] = Field("float32", description="of the stored scores")
    batch_size: int = Field(256, ge=1, description="rows scored at a time")
    min_context: int | None = Field(
        None,
        ge=1,
        description="answer rows beyond the teacher's max_length in overlapping windows, so that each reads more than "
        "so many events, instead of one by one; null: with all max_length",
    )
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    copies: int = Field(1, ge=1, description="with augment: augmented histories of each user")
    vectors: Literal["scoring", "text", "none"] = Field(
        "scoring",
        description="vectors of the items that go along: those that the teacher scores with, or those that its "
        "language model made of the texts",
    )
    profiles: ProfilesNode | None = Field(
        None, description="texts about the users, whose vectors go along; written from training events alone"
    )


class ReportConfig(StageConfig):
    """Configuration of ``deshi report``."""

    runs: list[str] = Field(min_length=1, description="trained or evaluated runs: folders, names, patterns, or latest")
    part: Literal["validation", "test"] = Field("test", description="which targets the page is about")
    metric: str = Field(
        "ndcg@10", pattern=r"^(ndcg|recall|hr|mrr|map)@[1-9][0-9]*$", description="the headline metric, with its K"
    )
    examples: int = Field(12, ge=0, le=200, description="examples shown with titles, half of them hits")
    examples_seed: int = Field(0, ge=0, description="of the draw of the examples")
    output: Path | None = Field(
        None, strict=False, description="an HTML file to write too, beside the run folder's report.html"
    )
    names: ModelNames = None


class FileColumns(Closed):
    """The columns of one file where they differ from those of the others; null: as in columns."""

    user: str | None = Field(None, description="user ids")
    item: str | None = Field(None, description="item ids")
    timestamp: str | None = Field(None, description="times or positions")
    score: str | None = Field(None, description="scores")
    rank: str | None = Field(None, description="ranks")
    separator: str | None = Field(None, description="between the fields of a text table")
    encoding: str | None = Field(None, description="of a text table")


class ColumnsConfig(Closed):
    """The columns of files that no deshi stage has written."""

    user: str = Field("user_id", description="user ids")
    item: str = Field("item_id", description="item ids")
    timestamp: str | None = Field(None, description="times or positions; null: timestamp, if the file has it")
    score: str | None = Field(None, description="scores; null: score, if the file has it")
    rank: str | None = Field(None, description="ranks; null: rank, if the file has it")
    higher_is_better: bool = Field(True, description="whether a greater score means a better item")
    separator: str | None = Field(None, description="between the fields of text tables; null: by the file's name")
    encoding: str = Field("utf-8", description="of text tables")
    interactions: FileColumns = Field(default_factory=FileColumns)
    predictions: FileColumns = Field(default_factory=FileColumns)
    test: FileColumns = Field(default_factory=FileColumns)
    trained_on: FileColumns = Field(default_factory=FileColumns)


class AuditConfig(StageConfig):
    """Configuration of ``deshi audit``: of a run, of a data set, or of a pair of files."""

    run: str | None = Field(None, description="a trained or evaluated run: folder, name, or latest")
    data: DataConfig | None = Field(None, description="a data set alone; null: the run's")
    split: SplitNode | None = Field(None, description="with data; null: leave-one-out")
    soft_labels: Path | None = Field(None, strict=False, description="a soft-label store to hold against the data")
    interactions: Path | None = Field(None, strict=False, description="anybody's events: csv, tsv, JSON or parquet")
    predictions: Path | None = Field(None, strict=False, description="anybody's ranked lists: likewise")
    test: Path | None = Field(None, strict=False, description="held-out events; null: each user's last is the target")
    trained_on: Path | None = Field(None, strict=False, description="what the model was trained on, to look for leaks")
    columns: ColumnsConfig = Field(default_factory=ColumnsConfig)
    claimed: str | None = Field(None, description="figures that another tool printed, e.g. 'ndcg@10=0.117 hr@10=0.2'")
    ks: list[Annotated[int, Field(ge=1)]] = Field([1, 5, 10, 20, 50], min_length=1, description="cut-offs K of files")
    max_bad_rows: int = Field(100, ge=0, description="malformed rows of a file that are left out")

    @model_validator(mode="after")
    def _one_subject(self) -> AuditConfig:
        if (self.interactions is None) != (self.predictions is None):
            raise ValueError("got one of interactions and predictions: the audit of files needs both")
        subjects = [self.run is not None or self.data is not None, self.interactions is not None]
        if sum(subjects) != 1:
            got = "a run or data and files too: audit one at a time" if all(subjects) else "nothing to audit"
            raise ValueError(
                f"{got}: give a run (deshi audit latest), data=NAME, or interactions=FILE predictions=FILE"
            )
        if self.run is not None and self.split is not None:
            raise ValueError("the audit of a run uses the run's own split: leave split out, or the run")
        if self.interactions is None and (self.test or self.trained_on or self.claimed):
            raise ValueError("test, trained_on and claimed belong to interactions=FILE predictions=FILE")
        if self.interactions is not None and self.soft_labels is not None:
            raise ValueError("soft_labels belongs to a run or a data set: give one of them")
        return self
