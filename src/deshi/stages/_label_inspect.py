"""The work of ``deshi label inspect``: the content of a store, beside a run's lists if one is named."""

from __future__ import annotations

from deshi.configuration.targets import build
from deshi.data.splits import LeaveOneOut, Split
from deshi.hardware import training_device
from deshi.models.scorers import Scorer
from deshi.runs import Run, load_bundle
from deshi.soft_labels import Inspection, SoftLabels, inspect_soft_labels, store_path
from deshi.stages.label_inspect import LabelInspectConfig


def run(cfg: LabelInspectConfig) -> Inspection:
    """Look into a store.

    Raises:
        DeshiError: if the store, the run or their data are missing or don't belong together.
    """
    path, device = store_path(cfg.paths.soft_labels, cfg.store), str(training_device("auto"))
    manifest = SoftLabels.load(path).manifest
    bundle = load_bundle(manifest["data"], cfg.paths.data)
    soft_labels = SoftLabels.load(path, bundle, check=True)
    node = manifest["teacher"].get("split")
    split: Split = (build(node) if node else LeaveOneOut())(bundle)
    if manifest["teacher"].get("refit"):
        split = split.refitted()
    other: Scorer | None = None
    if cfg.compare_with is not None:
        run = Run.open(cfg.compare_with, cfg.paths)
        run.check_same_data(bundle)
        other = run.scorer(device, bundle)
    return inspect_soft_labels(
        soft_labels, bundle, split, other, cfg.compare_with or "", examples=cfg.examples, seed=cfg.seed, device=device
    )
