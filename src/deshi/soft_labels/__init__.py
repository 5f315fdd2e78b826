"""Soft labels: stores of teachers' ranked lists, written, opened, checked and inspected."""

from deshi.soft_labels._augmented import augment_histories
from deshi.soft_labels._histories import Histories
from deshi.soft_labels._inspection import inspect_soft_labels, sharpness
from deshi.soft_labels._inspection_result import Inspection
from deshi.soft_labels._labeller import Labeller
from deshi.soft_labels._manifest import store_path
from deshi.soft_labels._positions import choose_rows
from deshi.soft_labels._result import LabelResult
from deshi.soft_labels._store import SoftLabels
from deshi.soft_labels._targets import TRAIN, Targets, row_targets
from deshi.soft_labels._writer import write_lists, write_soft_labels

__all__ = [
    "augment_histories", "choose_rows", "Histories", "inspect_soft_labels", "Inspection", "Labeller",
    "LabelResult", "row_targets", "sharpness", "SoftLabels", "store_path", "Targets", "TRAIN", "write_lists",
    "write_soft_labels",
]  # fmt: skip
