"""The work of ``deshi distill``: a student trained on the data and on a teacher's soft labels."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deshi.artifacts import fingerprint, read_array, read_json, write_array, write_json
from deshi.configuration.schemas import DistillConfig
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.extra_histories import MoreHistories
from deshi.data.splits import Split
from deshi.distillation.objective import Distillation, Objective
from deshi.distillation.soft_label_batches import SoftLabelLists
from deshi.distillation.term import Context, Term
from deshi.hardware import training_device
from deshi.models.base import Recommender, SequentialRecommender
from deshi.runs import Run, with_named_runs
from deshi.soft_labels import TRAIN, Histories, SoftLabels, row_targets, store_path
from deshi.training._ranks import Ranks
from deshi.training.fit import network_name, run_training
from deshi.training.selection import choose
from deshi.training.trainer import Training
from deshi.types import DeshiError

log = logging.getLogger(__name__)

SOFT_LABELS_FILE = "soft_labels.json"
CHOSEN_FILE = "chosen.npy"
KNOWN_ALREADY = 0.9
"""Share of training rows whose first item is what really came next from which a store is taken for the answers."""
ENOUGH = 100
"""Number of rows from which that share says something."""


def run(cfg: DistillConfig) -> Run:
    """Distil as ``cfg`` says; ``cfg.resume`` goes on with an interrupted run.

    Raises:
        DeshiError: as :func:`deshi.training.fit.run`, or for a store that is missing, damaged, about other data, or
            made by a teacher that knew what the student is selected and tested on.
    """
    if cfg.resume is None and cfg.distill.selection is not None:
        group = cfg.distill.model_copy(update={"selection": with_named_runs(cfg.distill.selection, cfg.paths)})
        cfg = cfg.model_copy(update={"distill": group})
    return run_training("distill", cfg, network_name(cfg.student), train_run)


def train_run(cfg: DistillConfig, bundle: Bundle, split: Split, folder: Path, ranks: Ranks) -> None:
    """The training of a student with soft labels in its run folder, on one of its ranks."""
    DistillTraining(cfg, bundle, split, folder, ranks).run()


class DistillTraining(Training):
    """The training of one student with the terms of ``cfg.distill``.

    Args:
        cfg: of the stage.
        bundle: the data.
        split: of that bundle.
        folder: where everything goes.
        ranks: the processes that train together.
    """

    cfg: DistillConfig

    def __init__(
        self, cfg: DistillConfig, bundle: Bundle, split: Split, folder: Path, ranks: Ranks | None = None
    ) -> None:
        super().__init__(cfg, bundle, split, folder, network_name(cfg.student), ranks=ranks)
        refit = isinstance(cfg.train.refit, str)
        # With train.refit=true one set of lists serves the selection and the refit: those at training positions.
        self.taught_split = split.refitted() if refit else split
        folder_of_stores = cfg.paths.soft_labels
        self.stores = [open_store(folder_of_stores, name, bundle, split, cfg.split, refit) for name in cfg.soft_labels]
        self.ranks.first_alone(self._check_same_stores)
        whole = SoftLabelLists(bundle.n_interactions, self.stores, cfg.distill.k)
        self.trained = self._training_rows(whole.n_rows)
        self.candidates = whole.covered & self.trained
        chosen = self.candidates if cfg.distill.selection is None else self._chosen(cfg.distill.selection)
        self.lists = SoftLabelLists(bundle.n_interactions, self.stores, cfg.distill.k, chosen)
        self._tell()

    def objective(self, counts: Tensor) -> tuple[Recommender, Objective]:
        """The student, its item table made of what was asked for, and its loss with the terms."""
        cfg = self.cfg
        student = self._first_network()
        if not isinstance(student, SequentialRecommender):
            raise DeshiError(f"{self.name} has no hidden states and item table, expected a student of deshi fit.")
        context = Context(
            self.bundle.n_items, student.dim, self.lists.score_kind, self.lists.k, counts, self.item_embeddings,
            next((vectors for store in self.stores if (vectors := store.user_embeddings()) is not None), None),
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cfg.seed + 1)
            if cfg.distill.item_table is not None:
                vectors = context.needed_embeddings(network_name(cfg.distill.item_table))
                student.items = build(
                    cfg.distill.item_table, n_items=student.n_items, dim=student.dim, embeddings=vectors
                )  # fmt: skip
            terms: dict[str, Term] = {name: build(node) for name, node in cfg.distill.terms.items()}
            for term in terms.values():
                term.prepare(context)
        return student, Distillation(build(cfg.loss), terms, self.lists, cfg.distill.hard_loss_weight)

    def more_histories(self) -> MoreHistories | None:
        """The augmented histories of the stores that have some, with rows as :class:`SoftLabelLists` counts them."""
        if not self._augmented:
            return None
        extra = [histories for _, histories in self._augmented]
        starts = [histories.offsets[:-1] + begin for begin, histories in self._augmented]
        ends = [histories.offsets[1:] + begin for begin, histories in self._augmented]
        users = np.concatenate([histories.users for histories in extra])
        order = np.argsort(users, kind="stable")
        items = np.concatenate([np.asarray(self.bundle.items), *(np.asarray(histories.items) for histories in extra)])
        return MoreHistories(
            items,
            np.concatenate(starts)[order],
            np.concatenate(ends)[order],
            users[order],
            self.cfg.distill.augmented_targets,
        )

    @cached_property
    def item_embeddings(self) -> Tensor | None:
        """The first vectors of the items that a store has."""
        return next((vectors for store in self.stores if (vectors := store.item_embeddings()) is not None), None)

    def _check_same_stores(self) -> None:
        """A resumed run must find the soft labels that it began with."""
        now = {name: fingerprint_of(store) for name, store in zip(self.cfg.soft_labels, self.stores, strict=True)}
        file = self.folder / SOFT_LABELS_FILE
        if not file.exists():
            write_json(file, now)
        elif read_json(file) != now:
            raise DeshiError(
                f"The soft-label stores have changed since {self.folder} was begun: it has {read_json(file)}, now they "
                f"are {now}. Put the old ones back, or begin a new run."
            )

    @cached_property
    def _augmented(self) -> list[tuple[int, Histories]]:
        """The stores' augmented histories, each with the number of its first row."""
        extra = [store.histories(self.bundle) for store in self.stores if store.augmented]
        begins = self.bundle.n_interactions + np.cumsum([0, *(histories.n_interactions for histories in extra)])
        return [(int(begin), histories) for begin, histories in zip(begins, extra, strict=False)]

    def _training_rows(self, n_rows: int) -> NDArray[np.bool_]:
        """``(R,)`` the rows that are followed by a training event; all others are held out and never taught.

        In a refit of another run the validation events are training events.
        """
        is_training = np.zeros(n_rows, dtype=np.bool_)
        for begin, histories in [(0, Histories.of(self.bundle)), *self._augmented]:
            is_training[begin + row_targets(histories, self.bundle, self.taught_split)[0].rows] = True
        return is_training

    def _chosen(self, node: dict[str, Any]) -> NDArray[np.bool_]:
        """``(R,)`` what the strategy chose when the run was begun; rows of augmented histories aren't its business."""
        file, events = self.folder / CHOSEN_FILE, self.bundle.n_interactions
        self.ranks.first_alone(lambda: self._choose(node, file))
        chosen = self.candidates.copy()
        chosen[:events] = False
        chosen[read_array(file)] = True
        return chosen

    def _choose(self, node: dict[str, Any], file: Path) -> None:
        """Write what the strategy chooses, unless it has chosen already."""
        events, cfg = self.bundle.n_interactions, self.cfg
        plain_store = next((store for store in self.stores if not store.augmented), None)
        rows = np.flatnonzero(self.candidates[:events])
        if plain_store is None or not len(rows):
            raise DeshiError(
                "distill.selection chooses among the data's own training positions, but "
                f"{', '.join(cfg.soft_labels)} cover "
                "none. Give a store on the data's own histories, or leave the strategy out."
            )
        if not file.exists():
            histories, device = Histories.of(self.bundle), training_device(cfg.train.accelerator)
            marked = choose(
                node, histories, rows, bundle=self.bundle, split=cfg.split, paths=cfg.paths, soft_labels=plain_store,
                seed=cfg.seed, device=device,
            )  # fmt: skip
            write_array(file, np.flatnonzero(marked & self.candidates[:events]))

    def _tell(self) -> None:
        events, covered = self.bundle.n_interactions, self.lists.covered
        extra = int(covered[events:].sum())
        log.info(
            "soft labels of %s: lists of up to %d at %d of %d training positions%s",
            ", ".join(store.teacher for store in self.stores),
            self.lists.k,
            int(self.candidates[:events].sum()),
            int(self.trained[:events].sum()),
            f", and at {extra} positions of augmented histories" if extra else "",
        )
        if self.cfg.distill.selection is not None:
            log.info("%s chose %d of them", network_name(self.cfg.distill.selection), int(covered[:events].sum()))

    def _record(self, *values: Any) -> dict[str, Any]:
        """Facts that later stages need, the origin of the soft labels among them."""
        stores = [
            {"store": name, "teacher": store.manifest["teacher"], "coverage": store.manifest["coverage"]}
            for name, store in zip(self.cfg.soft_labels, self.stores, strict=True)
        ]
        record = {"soft_labels": stores, "distilled": int(self.lists.covered.sum())}
        if self.cfg.distill.selection is not None:
            events = self.bundle.n_interactions
            counts = {"chosen": int(self.lists.covered[:events].sum()), "of": int(self.candidates[:events].sum())}
            record["selection"] = {"name": network_name(self.cfg.distill.selection), **counts}
        return super()._record(*values) | record


def open_store(
    folder: Path, name: str, bundle: Bundle, split: Split, node: dict[str, Any], refit: bool = False
) -> SoftLabels:
    """Open a store to learn from and refuse what would spoil the student or its figures.

    Args:
        folder: where stores lie.
        name: of the store, or its folder.
        bundle: the data.
        split: of that bundle, the student's.
        node: how the split is configured.
        refit: whether the student is the refit of another run, which selects nothing.

    Raises:
        DeshiError: for missing, damaged or foreign stores, rows that are wrong, a teacher of another split or one
            that was trained on validation by which the student is selected, lists that end with the training part in
            a refit, and rows that hold the answers.
    """
    path = store_path(folder, name)
    store = SoftLabels.load(path, bundle, check=True)
    teacher = store.manifest["teacher"]
    if teacher.get("split", node) != node:
        raise DeshiError(
            f"The teacher of {path} was trained on the split {teacher['split']}, the student's is {node}: what the "
            "student is selected and tested on may have been the teacher's training data. Use the same split for both."
        )
    if refit:
        _check_newest(path, store, bundle, split)
    elif teacher.get("refit") or teacher.get("train_targets", "train") == "including_validation":
        raise DeshiError(
            f"The teacher of {path} was trained on validation events, which the student is selected on: the choice "
            "would mean nothing. Train the teacher without train.refit and with train.train_targets=train; a student "
            "that was selected before learns from these lists with train.refit=RUN."
        )
    _refuse_answers(path, store, bundle, split.refitted() if refit else split)
    return store


def _check_newest(path: Path, store: SoftLabels, bundle: Bundle, split: Split) -> None:
    """A refit learns the validation events: from lists after the events before them, of a teacher that knows them."""
    if not store.manifest["teacher"].get("refit"):
        log.warning(
            "The teacher of %s was not refitted: its lists don't know the validation events, which this refit trains "
            "on. Refit the teacher (deshi teach train.refit=RUN) and let it write them anew", path,
        )  # fmt: skip
    if store.augmented:
        return
    newest = split.examples(bundle, "validation").ends - 1
    if len(newest) and not store.covered[newest].any():
        raise DeshiError(
            f"{path} has no list at the events that are followed by a validation event, which this refit trains on: "
            f"its positions are {store.manifest['positions']!r}, by the split before the refit. Refit the teacher and "
            "write them anew: deshi teach train.refit=RUN, deshi label REFIT."
        )


def _refuse_answers(path: Path, store: SoftLabels, bundle: Bundle, split: Split) -> None:
    """No teacher predicts nearly everything: such lists were made with the answers at hand."""
    training = next(targets for targets in row_targets(store.histories(bundle), bundle, split) if targets.name == TRAIN)
    covered = training.at(store.covered[training.rows])
    if len(covered.rows) < ENOUGH:
        return
    share = float((store.items[covered.rows, 0] == covered.items).mean())
    if share > KNOWN_ALREADY:
        raise DeshiError(
            f"In {path} the first item is what really came next at {share:.0%} of {len(covered.rows):,} training rows. "
            "No teacher knows that. The lists were made from histories that held the answer (a row is the ranking "
            "after the event, not of it), or by a teacher that has learnt them by heart: write them again, or "
            "cross-fit the teacher."
        )


def fingerprint_of(store: SoftLabels) -> str:
    """A sha256 over what the store says that its files hold."""
    return fingerprint([("manifest", str(sorted(store.manifest["files"].items())))])
