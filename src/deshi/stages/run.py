"""The command ``deshi run``."""

from __future__ import annotations

from deshi.configuration.stage import Stage
from deshi.pipeline.schema import RunConfig

STAGE = Stage(
    name="run",
    schema=RunConfig,
    work="deshi.stages._run:run",
    subject="data",
    summary="all of it: plain student, teacher, knowledge, distilled student, tests, report",
    purpose="Runs the stages below one after the other and ends with one table, a paired test and report.html, in\n"
    "runs/run/TIME_NAME. Stages that are done already with the same configuration on the same data are taken\n"
    "as they are. Interrupted or failed, it goes on by the same command, or by deshi run resume=latest.",
    examples=(
        ("deshi run experiment=ml-100k", "SASRec, taught by itself and a text model, on MovieLens 100K"),
        ("deshi run experiment=ml-100k seeds=[0,1,2]", "mean and spread of three seeds"),
        ("deshi run student=gru4rec recipe=wide", "another student; the teacher is a wider ID model"),
        ("deshi run soft_labels.lists.k=50 distill.terms.kl.temperature=2", "other lists, softer"),
    ),
)
