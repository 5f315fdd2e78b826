"""The command ``deshi label import``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from deshi.configuration.schemas import DataConfig, ForeignNode, StageConfig
from deshi.configuration.stage import Stage


class LabelImportConfig(StageConfig):
    """Configuration of ``deshi label import``."""

    store: str = Field(description="the new store's name or folder")
    source: ForeignNode = Field(description="the reader of the other program's files, e.g. source=dllm2rec")
    data: DataConfig = Field(description="the data set that the lists are about, e.g. data=ml-1m")
    dtype: Literal["float32", "float16"] = Field("float32", description="of the stored scores")
    force: bool = Field(False, description="replace a store that was written by another request")


STAGE = Stage(
    name="label_import",
    schema=LabelImportConfig,
    work="deshi.stages._label_import:run",
    subject="store",
    summary="write lists of other programs as soft labels",
    purpose="Reads the files of another program (DLLM2Rec, BIGRec, LLaRA), joins their rows to the events of a bundle\n"
    "and writes them to soft_labels/STORE.",
    examples=(
        (
            "deshi label import STORE data=ml-1m source=dllm2rec source.data=FOLDER source.tocf=FOLDER",
            "lists and vectors of DLLM2Rec",
        ),
    ),
)
