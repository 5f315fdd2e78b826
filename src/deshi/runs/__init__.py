"""Finished and interrupted runs, opened by name."""

from deshi.runs.evaluation import LOSS, Evaluation, find_evaluations, finished_evaluations, read_curve, read_part
from deshi.runs.networks import new_network, resources, with_exact_names, with_named_runs
from deshi.runs.run import FORMAT, Run, fold_folder, load_bundle, trained_ranges
from deshi.runs.weights import load_weights, save_weights
from deshi.runs.writing import new_run, whole_run, write_record

__all__ = [
    "FORMAT",
    "LOSS",
    "Evaluation",
    "Run",
    "find_evaluations",
    "finished_evaluations",
    "fold_folder",
    "load_bundle",
    "load_weights",
    "new_network",
    "new_run",
    "read_curve",
    "read_part",
    "resources",
    "save_weights",
    "trained_ranges",
    "whole_run",
    "with_exact_names",
    "with_named_runs",
    "write_record",
]
