"""The command ``deshi recommend``."""

from __future__ import annotations

from deshi.configuration.schemas import RecommendConfig
from deshi.configuration.stage import Stage

STAGE = Stage(
    name="recommend",
    schema=RecommendConfig,
    work="deshi.stages._recommend:run",
    subject="bundle",
    summary="answer a file of histories with lists of items",
    purpose="Reads histories from csv, parquet or jsonl, answers them from an exported bundle, writes user_id,\n"
    "item_id, score and rank as parquet, csv or jsonl. Unknown items are left out and counted; users without\n"
    "any known item get the most popular ones.",
    examples=(
        ("deshi recommend latest input=events.csv", "the 10 best items for each user of the file"),
        ("deshi recommend bundle input=events.parquet output=lists.jsonl k=100", "in another format"),
    ),
)
