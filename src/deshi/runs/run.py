"""Run folders as objects: configuration, record, data, network and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from deshi.arrays import Ints
from deshi.artifacts import read_array, read_json
from deshi.configuration.run_folders import (
    CHECKPOINTS,
    DATA_FILE,
    FOLDS_FILE,
    METRICS_FILE,
    RUN_FILE,
    TEACHER_FILE,
    TIME_FILE,
    TRAINING_STAGES,
    WEIGHTS_FILE,
    find_run,
    load_config,
    read_saved,
)
from deshi.configuration.schemas import (
    LEAVE_ONE_OUT,
    DistillConfig,
    FitConfig,
    PathsConfig,
    TeachConfig,
    TrainConfig,
    TrainingConfig,
)
from deshi.configuration.targets import build
from deshi.data.bundle import MANIFEST, Bundle, missing_bundle
from deshi.data.splits import Split
from deshi.models.base import Recommender, SequentialRecommender
from deshi.models.scorers import Scorer, scorer_of
from deshi.rendering import Block, Result, paragraphs
from deshi.runs.weights import load_weights
from deshi.teachers.base import FittedTeacher
from deshi.teachers.cross_fit import CrossFitted
from deshi.types import ITEM, DeshiError

if TYPE_CHECKING:
    import polars as pl

    from deshi.runs.evaluation import Evaluation

FORMAT = 2
"""Of ``run.json``: a reader refuses records of another format."""
SCHEMAS: dict[str, type[TrainingConfig]] = {"fit": FitConfig, "teach": TeachConfig, "distill": DistillConfig}


class Run(Result):
    """A folder that a command left.

    Args:
        folder: the run folder.
        paths: where its data and other runs lie; None: where the run itself had them.
    """

    def __init__(self, folder: Path, paths: PathsConfig | None = None) -> None:
        self.folder = folder
        places = paths or PathsConfig.model_validate(self.saved.get("paths") or {})
        parent = folder.resolve().parent
        if parent.name in (*TRAINING_STAGES, "evaluate"):  # other runs are looked for where this one lies
            places = places.model_copy(update={"runs": parent.parent})
        self.paths = places

    @classmethod
    def open(
        cls,
        name: Run | Path | str = "latest",
        paths: PathsConfig | None = None,
        stages: Sequence[str] = TRAINING_STAGES,
    ) -> Run:
        """The run that ``name`` means, by one rule for all commands.

        Args:
            name: a run, its folder, the folder's name, the name that the run was given, or ``latest``.
            paths: where runs and data lie; None: below the working folder.
            stages: commands whose runs a name may mean; the newest of one name is meant.

        Returns:
            The run, an :class:`~deshi.runs.Evaluation` for the folder of ``deshi evaluate``.

        Raises:
            DeshiError: with the names nearest to it.
        """
        if isinstance(name, Run):
            return name
        from deshi.runs.evaluation import Evaluation

        places = paths or PathsConfig()
        run = cls(find_run(places.runs, stages, str(name)), places)
        is_evaluation = (run.folder / RUN_FILE).is_file() and run.readable and run.stage == "evaluate"
        return Evaluation(run.folder, places) if is_evaluation else run

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def blocks(self) -> Sequence[Block]:
        """One line: folder, epochs, seconds and metrics."""
        if not self.finished:
            return paragraphs(f"{self.folder}: not finished")
        facts = [f"{name} {value:.4f}" for name, value in self.metrics.items()]
        if self.stage in SCHEMAS:
            facts = [f"{self._training} in {self.seconds:.0f} s", *facts]
        return paragraphs(f"{self.folder}: {', '.join(facts)}")

    @property
    def _training(self) -> str:
        epochs, refit = f"selected epoch {self.epochs}", self.config.train.refit
        if refit is True:
            return f"{epochs}, refitted on training and validation events,"
        if refit:
            return f"refitted on training and validation events for the {self.epochs} epochs that {refit} selected"
        return epochs

    @property
    def name(self) -> str:
        """The folder's name, which finds the run again."""
        return self.folder.name

    @cached_property
    def saved(self) -> dict[str, Any]:
        """The content of ``config.yaml``, as plain values."""
        return read_saved(self.folder)

    @property
    def stage(self) -> str:
        """The command that made the run."""
        keys = (("teacher", "teach"), ("distill", "distill"), ("student", "fit"))
        trained = next((stage for key, stage in keys if key in self.saved), None)
        return trained or str(read_json(self.folder / RUN_FILE).get("stage"))

    @cached_property
    def config(self) -> TrainingConfig:
        """The checked configuration of a training.

        Raises:
            DeshiError: for a run of another command.
        """
        if self.stage not in SCHEMAS:
            raise DeshiError(f"{self.folder} is a run of deshi {self.stage}, expected one of {_or(TRAINING_STAGES)}.")
        return load_config(self.folder, SCHEMAS[self.stage])

    @property
    def epochs(self) -> int:
        """The number of epochs that the selected network was trained for; 0 for what isn't trained in epochs."""
        return int(self.record["selected_epoch"])

    @property
    def seconds(self) -> float:
        """Of training and validation, a refit included."""
        return float(read_json(self.folder / TIME_FILE)["wall_seconds"])

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return (self.folder / METRICS_FILE).is_file()

    @cached_property
    def record(self) -> dict[str, Any]:
        """The content of ``run.json``: data, protocol, seed and what the run came to.

        Raises:
            DeshiError: if the run isn't finished, with the command that finishes it, or of another format.
        """
        if self.stage in SCHEMAS and not self.finished:
            raise DeshiError(
                f"The run {self.folder} isn't finished. Finish it: deshi {self.stage} resume={self.folder}"
            )
        record = cast(dict[str, Any], read_json(self.folder / RUN_FILE))
        if not self.readable:
            raise DeshiError(
                f"{self.folder} has run format {record.get('format')}, this version of deshi reads {FORMAT}. "
                f"Run deshi {record.get('stage')} again."
            )
        return record

    @property
    def readable(self) -> bool:
        """Whether the record has the format of this version of deshi."""
        return bool(read_json(self.folder / RUN_FILE).get("format") == FORMAT)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of ``metrics.json``."""
        return cast(dict[str, Any], read_json(self.folder / METRICS_FILE))

    @cached_property
    def bundle(self) -> Bundle:
        """The data of the run, in the first folder that has them; the same data that it was made on.

        Raises:
            DeshiError: with the command that prepares them, or for other data.
        """
        bundle = load_bundle(str(self.saved["data"]["name"]), *self.data_folders)
        self.check_same_data(bundle)
        return bundle

    @property
    def data_folders(self) -> list[Path]:
        """Where the data may lie."""
        return [self.paths.data, PathsConfig.model_validate(self.saved.get("paths") or {}).data]

    def split_of(self, bundle: Bundle) -> Split:
        """The split of the run on its data."""
        split: Split = build(self.saved.get("split") or LEAVE_ONE_OUT)(bundle)
        return split

    @cached_property
    def split(self) -> Split:
        """The split of the run on :attr:`bundle`."""
        return self.split_of(self.bundle)

    def trained_ranges(self, bundle: Bundle | None = None) -> tuple[Ints, Ints]:
        """``(n_users,)`` flat positions: the first, and one past the last event that the final weights were trained on.

        Args:
            bundle: the data of the run, if they are open already.
        """
        data = bundle or self.bundle
        return trained_ranges(self.config.train, self.split_of(data), data)

    @property
    def is_refitted(self) -> bool:
        """Whether the final weights have learnt the validation events, after the selection was done."""
        return bool(self.config.train.refit)

    def trained_split(self, bundle: Bundle) -> Split:
        """The split by which the final weights were trained: the run's own, or with validation as a part of training.

        Args:
            bundle: the data of the run.
        """
        split = self.split_of(bundle)
        return split.refitted() if self.is_refitted else split

    @cached_property
    def selected_run(self) -> Run:
        """The run whose choice on validation this one has: that which ``train.refit`` names, or itself.

        Raises:
            DeshiError: if it is gone.
        """
        refit = self.config.train.refit
        return Run.open(refit, self.paths, (self.stage,)) if isinstance(refit, str) else self

    def check_same_data(self, bundle: Bundle) -> None:
        """Refuse other data than those that the run was made on.

        Raises:
            DeshiError: with both fingerprints.
        """
        interrupted = self.stage in SCHEMAS and not self.finished
        recorded = read_json(self.folder / DATA_FILE)["fingerprint"] if interrupted else self.record["data_fingerprint"]
        fingerprint = str(recorded)
        if fingerprint != bundle.fingerprint:
            raise DeshiError(
                f"The run {self.folder} was made on data with fingerprint {fingerprint[:16]}, but {bundle.path} has "
                f"fingerprint {bundle.fingerprint[:16]}. Prepare the data as they were for the run, or train a new run "
                "on these."
            )

    def evaluations(self) -> list[Evaluation]:
        """The finished evaluations of this run, the newest last; none of its serving bundle."""
        from deshi.runs.evaluation import finished_evaluations

        folder = self.folder.resolve()
        evaluations = finished_evaluations(self.paths)
        return [
            evaluation
            for evaluation in evaluations
            if evaluation.run is not None
            and evaluation.run.folder.resolve() == folder
            and not evaluation.record.get("served")
        ]

    def evaluation(self) -> Evaluation:
        """The newest evaluation among all items, or else among candidate sets.

        Raises:
            DeshiError: if there is none, with the command that makes one.
        """
        evaluations = self.evaluations()
        if not evaluations:
            raise DeshiError(f"The run {self.folder} was not evaluated yet. Run: deshi evaluate run={self.folder}")
        full = [evaluation for evaluation in evaluations if evaluation.record["protocol"]["candidates"] == "full"]
        return (full or evaluations)[-1]

    def ranks(self, part: str = "test") -> pl.DataFrame:
        """A row a target: the ranks of the newest evaluation, see ``docs/metrics.md``."""
        return self.evaluation().ranks(part)

    @property
    def is_one_network(self) -> bool:
        """Whether the run left the weights of one network; an ensemble and cross-fitted teachers are none."""
        return (self.folder / WEIGHTS_FILE).is_file()

    def network(self, bundle: Bundle | None = None) -> Recommender:
        """The trained network, in evaluation mode.

        Args:
            bundle: for a teacher that draws on the data, if they are open already.

        Raises:
            DeshiError: if the run isn't finished, or trained none or several networks.
        """
        from deshi.runs.networks import new_network

        record = self.record
        if not self.is_one_network:
            raise DeshiError(
                f"The run {self.folder} holds {record['model']}, which is not one trained network, expected a run of "
                "deshi fit, or of deshi teach with such a teacher and without cross_fit."
            )
        network = cast(Recommender, new_network(self.config, bundle, record["n_items"], self.paths))
        load_weights(network, self.folder / WEIGHTS_FILE)
        return network.eval()

    def student(self) -> SequentialRecommender:
        """The trained student, in evaluation mode.

        Raises:
            DeshiError: as :meth:`network`, or for a network without hidden states and an item table.
        """
        network = self.network()
        if not isinstance(network, SequentialRecommender):
            raise DeshiError(
                f"The run {self.folder} holds a {type(network).__name__}, expected a network with hidden states and an "
                "item table, such as a run of deshi fit."
            )
        return network

    def selected_student(self) -> SequentialRecommender:
        """The student that validation selected, before any refit, in evaluation mode.

        Raises:
            DeshiError: as :meth:`student`, or if the checkpoints of a refitted run, or the run that it refits, were
                removed.
        """
        if self.selected_run is not self:
            return self.selected_run.selected_student()
        student = self.student()
        if self.is_refitted:
            path = self.folder / CHECKPOINTS / WEIGHTS_FILE
            if not path.is_file():
                raise DeshiError(
                    f"{path} is missing: the run was refitted, and only that file holds what was selected."
                )
            load_weights(student, path)
        return student.eval()

    def selected_scorer(self, device: torch.device | str = "cpu", bundle: Bundle | None = None) -> Scorer:
        """The model that validation selected, before any refit, as a scorer; see :meth:`scorer`."""
        if not self.is_refitted:
            return self.scorer(device, bundle)
        if self.selected_run is not self:
            return self.selected_run.scorer(device, bundle)
        return scorer_of(self.selected_student(), device)

    def scorer(self, device: torch.device | str = "cpu", bundle: Bundle | None = None) -> Scorer:
        """The model of the run, whatever it is, as a scorer.

        Args:
            device: where it computes.
            bundle: the data of the run, if they are open already.

        Raises:
            DeshiError: if the run isn't finished or doesn't fit its configuration.
        """
        from deshi.runs.networks import new_network

        record = self.record
        if self.is_one_network:
            return scorer_of(self.network(bundle), device)
        data = bundle or self.bundle
        if (self.folder / FOLDS_FILE).is_file():
            return self.cross_fitted(device, data)
        teacher = cast(FittedTeacher, new_network(self.config, data, record["n_items"], self.paths))
        teacher.restore(read_json(self.folder / TEACHER_FILE))
        return teacher

    def recommend(self, histories: Any, k: int = 10, filter_seen: bool | None = None) -> pl.DataFrame:
        """The items most likely to come next, answered in memory by the exported engine's rules.

        Counts that an export may add to the scores are not part of the run, nor of these lists.

        Args:
            histories: a frame of pandas, Polars or pyarrow with ``user_id`` and ``item_id`` (a row for each event,
                in the order of ``timestamp`` if there is such a column) or ``items`` (a list for each user); or a dict
                from user ids to lists of item ids. Unknown items are left out.
            k: length of a list.
            filter_seen: whether items of the history are left out; None: as the run was validated.

        Returns:
            ``user_id``, ``item_id``, ``score``, ``rank`` and ``title``; a user without a known item gets the most
            popular items, with their training events as scores.

        Raises:
            DeshiError: for histories that can't be read, or a run that isn't finished.
        """
        from deshi.baselines import training_events
        from deshi.data.histories import histories_of
        from deshi.models.recommend import Catalogue, recommend

        bundle = self.bundle
        catalogue = Catalogue(bundle.item_table(), training_events(bundle, *self.trained_ranges()).counts())
        if filter_seen is None:
            filter_seen = self.config.eval.filter_seen
        return recommend(self.scorer(), catalogue, histories_of(histories, catalogue.items[ITEM]), k, filter_seen)

    def cross_fitted(self, device: torch.device | str, bundle: Bundle) -> CrossFitted:
        """The teachers of the folds, each answering for the users that it was not trained on."""
        from deshi.runs.networks import new_network

        folds = np.array(read_array(self.folder / FOLDS_FILE))
        scorers = []
        for fold in range(int(folds.max()) + 1):
            network = new_network(self.config, bundle, bundle.n_items, self.paths)
            load_weights(network, fold_folder(self.folder, fold) / WEIGHTS_FILE)
            scorers.append(scorer_of(network.eval(), device))
        return CrossFitted(scorers, folds)


def trained_ranges(train: TrainConfig, split: Split, bundle: Bundle) -> tuple[Ints, Ints]:
    """``(n_users,)`` flat positions of the events that a training's final weights see, see :meth:`Run.trained_ranges`.

    Args:
        train: of the training.
        split: of that bundle.
        bundle: the data.
    """
    if train.refit or train.train_targets == "including_validation":
        return split.refit_ranges(bundle)
    return split.train_ranges(bundle, train.train_targets)


def fold_folder(folder: Path, fold: int) -> Path:
    """Where the training of one fold of a cross-fitted run lies."""
    return folder / f"fold-{fold}"


def load_bundle(name: str, *folders: Path) -> Bundle:
    """A data set's bundle in the first folder that has it.

    Args:
        name: of the data set.
        folders: where bundles lie.

    Raises:
        DeshiError: with the command that prepares it.
    """
    paths = [folder / name for folder in folders]
    path = next((path for path in paths if (path / MANIFEST).is_file()), None)
    if path is None:
        raise missing_bundle(name, folders)
    return Bundle.load(path)


def _or(stages: Sequence[str]) -> str:
    return ", ".join(f"deshi {stage}" for stage in stages[:-1]) + f" or deshi {stages[-1]}"
