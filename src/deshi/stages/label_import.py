"""The command ``deshi label import``."""

from __future__ import annotations

from deshi.configuration.schemas import LabelImportConfig
from deshi.configuration.stage import Stage

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
