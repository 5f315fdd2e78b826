"""deshi: an LLM recommender distilled into a student that answers in a millisecond, with figures to trust.

The commands are functions::

    import deshi

    deshi.prepare("ml-100k")
    run = deshi.fit("ml-100k", student="gru4rec", train={"max_epochs": 3})
    deshi.evaluate(run)

Importing the package loads nothing heavy; a function loads what it needs when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deshi._functions import (
    audit,
    compare,
    distill,
    evaluate,
    export,
    fit,
    gap,
    import_labels,
    inspect_labels,
    label,
    load,
    prepare,
    recommend,
    report,
    run,
    serve,
    teach,
    tune,
)

if TYPE_CHECKING:
    from deshi.data.dataset import Dataset
    from deshi.runs import Run

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "Run",
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
_CLASSES = {"Dataset": "deshi.data.dataset", "Run": "deshi.runs"}


def __getattr__(name: str) -> Any:
    """Classes whose modules are heavy, imported when they are asked for."""
    if name not in _CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_CLASSES[name]), name)
