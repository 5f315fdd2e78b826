"""The command ``deshi serve``."""

from __future__ import annotations

from deshi.configuration.schemas import ServeConfig
from deshi.configuration.stage import Stage

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
)
