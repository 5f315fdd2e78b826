"""The command ``deshi export``."""

from __future__ import annotations

from deshi.configuration.schemas import ExportConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="export",
    schema=ExportConfig,
    work="deshi.stages._export:run",
    subject="run",
    summary="make a run's student servable: a bundle with an ONNX graph",
    purpose="Writes the folder serving into the run's folder, or where it is told: weights, item table, vocabulary,\n"
    "an ONNX graph that was held against the PyTorch model on all test users, and a model card.",
    examples=(
        ("deshi export latest", "the newest run of deshi fit"),
        ("deshi export latest int8=true output=bundle", "with an int8 graph and what it loses"),
    ),
)
