"""The command ``deshi serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from deshi.configuration.needs import RUNTIME, SERVER
from deshi.configuration.schemas import StageConfig
from deshi.configuration.stage import Stage


class ServeConfig(StageConfig):
    """Configuration of ``deshi serve``."""

    bundle: str = Field(description="a folder of deshi export, or a run that was exported: folder, name, or latest")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 is all of the machine's")
    port: int = Field(8000, ge=0, le=65535, description="0: any that is free")
    compare_with: list[str] = Field([], description="further bundles that the page at / shows")
    demo: Path | None = Field(
        None, strict=False, description="test users and a teacher's lists for the page: a file of write_demo"
    )
    api_key_file: Path | None = Field(None, strict=False, description="a file that holds the key requests must bring")
    api_key_env: str = Field("DESHI_API_KEY", min_length=1, description="without a file: the variable that holds it")
    body_bytes: int = Field(4 << 20, ge=1024, description="longest body of a request")
    timeout: float = Field(5.0, gt=0, description="seconds that a request may take")
    connections: int = Field(1000, ge=1, description="at a time; further ones are answered by 503")
    log_requests: bool = Field(True, description="a line of the log for each request")
    precision: Literal["fp32", "int8"] = Field("fp32", description="int8 needs a bundle that was exported with it")
    search: Literal["auto", "exact"] = Field("auto", description="auto: by the bundle's index, if it has one")
    threads: int = Field(1, ge=1, description="of onnxruntime for one answer; one is the fastest for a small network")


STAGE = Stage(
    name="serve",
    schema=ServeConfig,
    work="deshi.stages._serve:run",
    subject="bundle",
    summary="answer over HTTP from an exported bundle",
    purpose="Opens a serving bundle and listens on 127.0.0.1:8000 until it is stopped: recommendations, similar\n"
    "items, search, health and metrics, described by /openapi.json. SIGHUP opens a new bundle in the place of\n"
    "the old one without losing a request.",
    examples=(
        ("deshi serve latest", "the newest run, exported by deshi export latest"),
        ("deshi serve bundle host=0.0.0.0 api_key_file=key.txt", "for other machines, with a key"),
    ),
    needs=(RUNTIME, SERVER),
)
