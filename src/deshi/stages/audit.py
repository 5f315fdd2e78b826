"""The command ``deshi audit``."""

from __future__ import annotations

from deshi.configuration.schemas import AuditConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="audit",
    schema=AuditConfig,
    work="deshi.stages._audit:run",
    subject="run",
    summary="find what makes figures wrong: leaks, shifts, ties, lost examples",
    purpose="Checks the bundle, its split, the batches that really reach the model, the student and its ranks, or a\n"
    "pair of files from any tool. Says what, where, how much and how to fix it; exits with 1 for an error.",
    examples=(
        ("deshi audit latest", "the newest run, with its newest evaluation"),
        ("deshi audit data=ml-100k", "a data set and its leave-one-out split"),
        ("deshi audit interactions=events.csv predictions=lists.csv", "files of any tool"),
    ),
)
