"""Data sets: sources, bundles, splits, histories. Nothing is exported that loads PyTorch; batches are in modules."""

from deshi.data.bundle import Bundle
from deshi.data.dataset import Dataset
from deshi.data.histories import Histories, histories_of
from deshi.data.raw import BadRowLog, BadRows, FileRecord, RawData, Source
from deshi.data.splits import Examples, LeaveOneOut, Ratio, Split, Temporal

__all__ = [
    "BadRowLog",
    "BadRows",
    "Bundle",
    "Dataset",
    "Examples",
    "FileRecord",
    "Histories",
    "LeaveOneOut",
    "Ratio",
    "RawData",
    "Source",
    "Split",
    "Temporal",
    "histories_of",
]
