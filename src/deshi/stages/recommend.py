"""The command ``deshi recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from deshi.configuration.needs import RAY, RUNTIME
from deshi.configuration.schemas import EngineConfig, StageConfig
from deshi.configuration.stage import Stage


class RecommendConfig(StageConfig, EngineConfig):
    """Configuration of ``deshi recommend``."""

    bundle: str = Field(description="a folder of deshi export, or a run that was exported: folder, name, or latest")
    input: str = Field(description="histories: csv, tsv, txt, json, jsonl (with .gz, too) or parquet; also s3://")
    output: str | None = Field(None, description="null: the input's name with .recommendations.parquet; also s3://")
    format: Literal["parquet", "csv", "jsonl"] | None = Field(None, description="null: by the output's ending")
    user: str = Field("user_id", description="column of user ids")
    item: str = Field("item_id", description="column of item ids, where a row is an event")
    history: str | None = Field(None, description="column of lists of item ids; null: items or item_id_list, if there")
    history_separator: str | None = Field(None, description="in a list that is text; null: the comma, else blanks")
    timestamp: str | None = Field(None, description="times or positions; null: timestamp, position, or the rows' order")
    time_format: str | None = Field(None, description="of the times, such as '%d.%m.%Y %H:%M'; null: any usual one")
    separator: str | None = Field(None, description="of a text table, tab for the tab; null goes by the file's name")
    encoding: str = Field("utf-8", description="of the text files")
    quote: str | None = Field("auto", description='around fields; null: none; auto: none where tabs separate, else "')
    columns: list[str] | None = Field(None, description="the columns in their order, if the first line is data")
    on_bad_rows: Literal["error", "skip"] = Field("error", description="a malformed row stops, or is counted")
    max_bad_rows: int = Field(100, ge=0, description="with skip: stop after this many malformed rows")
    k: int = Field(10, ge=1, description="items for each user")
    filter_seen: bool | None = Field(None, description="leave items of the history out; null: as the bundle says")
    exclude: Path | None = Field(
        None, strict=False, description="a file of item ids, one a line or in a column item, never recommended"
    )
    allowed: Path | None = Field(None, strict=False, description="such a file of the only items that may be")
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
    "any known item get the most popular ones. Where no item at all is known, it is an error.",
    examples=(
        ("deshi recommend latest input=events.csv", "the 10 best items for each user of the file"),
        ("deshi recommend bundle input=events.parquet output=lists.jsonl k=100", "in another format"),
        ("deshi recommend latest input=s3://shop/events.parquet engine=ray", "from an object store, on a Ray cluster"),
    ),
    needs=(RUNTIME,),
    needs_if={("engine", "ray"): (RAY,)},
)
