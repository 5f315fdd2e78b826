"""The command ``deshi recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from deshi.configuration.needs import RUNTIME
from deshi.configuration.schemas import Closed, StageConfig
from deshi.configuration.stage import Stage


class HistoryColumns(Closed):
    """The columns of a file of histories."""

    user: str = Field("user_id", description="user ids")
    item: str = Field("item_id", description="item ids, where a row is an event")
    items: str = Field("items", description="lists of item ids, where a row is a history")
    order: str | None = Field(None, description="times or places of events; null: timestamp or position, or the rows'")


class RecommendConfig(StageConfig):
    """Configuration of ``deshi recommend``."""

    bundle: str = Field(description="a folder of deshi export, or a run that was exported: folder, name, or latest")
    input: Path = Field(strict=False, description="histories: csv, tsv, parquet, jsonl or ndjson")
    output: Path | None = Field(None, strict=False, description="null: the input's name with .recommendations.parquet")
    format: Literal["parquet", "csv", "jsonl"] | None = Field(None, description="null: by the output's ending")
    columns: HistoryColumns = Field(default_factory=HistoryColumns)
    separator: str = Field(" ", min_length=1, max_length=1, description="between the items of a list in a csv file")
    k: int = Field(10, ge=1, description="items for each user")
    filter_seen: bool | None = Field(None, description="leave items of the history out; null: as the bundle says")
    exclude: Path | None = Field(None, strict=False, description="a file of item ids, one a line, never recommended")
    allowed: Path | None = Field(None, strict=False, description="a file of the only item ids that may be")
    precision: Literal["fp32", "int8"] = Field("fp32", description="int8 needs a bundle that was exported with it")
    search: Literal["auto", "exact"] = Field("auto", description="auto: by the bundle's index, if it has one")
    threads: int | None = Field(None, ge=1, description="answering at a time; null: one a core")
    batch_size: int = Field(8, ge=1, description="histories that go through the network at a time")
    progress: bool = Field(True, description="log how far it is")


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
    needs=(RUNTIME,),
)
