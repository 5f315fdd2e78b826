"""The command ``deshi export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from deshi.configuration.needs import EXPORTER, FAISS, RUNTIME
from deshi.configuration.schemas import Closed, StageConfig
from deshi.configuration.stage import Stage


class ParityConfig(Closed):
    """How an exported graph is held against the PyTorch model."""

    users: int | None = Field(None, ge=1, description="test users that are asked; null: all")
    tolerance: float = Field(1e-3, gt=0, description="largest difference of a score that counts as none")


class ExportConfig(StageConfig):
    """Configuration of ``deshi export``."""

    run: str = Field(description="a run of deshi fit or deshi distill: folder, name, or latest")
    output: Path | None = Field(
        None, strict=False, description="the bundle's folder; null: serving, in the run's folder"
    )
    int8: bool = Field(False, description="an int8 graph too, with what it loses")
    table_dtype: Literal["fp32", "fp16"] = Field(
        "fp32", description="of the stored item table; fp16: half the memory, with what the rounding changes"
    )
    index: Literal["auto", "exact", "approximate"] = Field(
        "auto",
        description="approximate: an index for catalogues that are too large to be scored whole; exact: none; "
        "auto: above a million items",
    )
    counts: bool | Annotated[float, Field(gt=0, le=10)] = Field(
        False,
        description="add transition counts to the student's scores: true chooses settings and weight on validation, a "
        "number is the weight",
    )
    parity: ParityConfig = Field(default_factory=ParityConfig)


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
        ("deshi export latest counts=true", "scores are the student's plus transition counts"),
    ),
    needs=(RUNTIME, EXPORTER),
    needs_if={("index", "approximate"): (FAISS,)},
)
