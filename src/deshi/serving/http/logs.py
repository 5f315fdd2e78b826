"""The service's log: a line of JSON for each event, on stderr."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("deshi.serving.http", "deshi.stages", "uvicorn")
FIELDS = "fields"
"""The attribute of a record that holds its further keys: ``log.info(text, extra={FIELDS: {...}})``."""


class JsonFormatter(logging.Formatter):
    """A record as one line: ``time``, ``level``, ``logger``, ``message``, its own keys, and ``traceback``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content)  # ASCII: no client can forge a line or break the terminal


@contextmanager
def json_logs() -> Iterator[None]:
    """While it is open, what the service and uvicorn log goes to stderr as JSON, and nowhere else."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
