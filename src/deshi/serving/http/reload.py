"""The engine that answers, and its replacement by that of a new bundle without losing a request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from deshi.serving.bundle import ServingBundle
from deshi.serving.engine import Engine
from deshi.serving.http.logs import FIELDS
from deshi.serving.http.metrics import Metrics
from deshi.serving.http.schemas import ReloadResponse
from deshi.types import DeshiError

log = logging.getLogger(__name__)


class ReloadBusy(DeshiError):
    """A reload is asked for while another is under way."""


class Engines:
    """Holds the engine that answers.

    Who takes :attr:`current` once keeps that engine for the whole request, whatever happens meanwhile; the old one
    goes when its last request is over.

    Args:
        find: opens and checks the bundle that lies on disk now.
        start: makes an engine of it.
        metrics: told of every attempt.

    Attributes:
        current: the engine that answers.
    """

    def __init__(
        self, find: Callable[[], ServingBundle], start: Callable[[ServingBundle], Engine], metrics: Metrics
    ) -> None:
        self._find, self._start, self._metrics = find, start, metrics
        self._lock = threading.Lock()
        self.current = start(find())
        probe(self.current)
        metrics.bundle(self.current)

    def reload(self) -> ReloadResponse:
        """Open the bundle that lies on disk now beside the old one, ask it something, and let it answer from now on.

        Raises:
            ReloadBusy: if another reload is under way.
            DeshiError: if the new bundle is refused; the old one keeps answering.
        """
        if not self._lock.acquire(blocking=False):
            raise ReloadBusy("A reload is under way. Ask again when it is done.")
        try:
            return self._exchange()
        except Exception as error:
            self._metrics.reload("failed")
            log.error("The new bundle is refused, the old one keeps answering: %s", error)
            raise
        finally:
            self._lock.release()

    def _exchange(self) -> ReloadResponse:
        begin, old = time.perf_counter(), self.current
        bundle = self._find()
        changed = bundle.version != old.bundle.version
        if changed:
            replacement = self._start(bundle)
            probe(replacement)
            self.current = replacement
            self._metrics.bundle(replacement)
        self._metrics.reload("swapped" if changed else "unchanged")
        answer = ReloadResponse(
            reloaded=changed,
            previous=old.bundle.version,
            version=bundle.version,
            seconds=round(time.perf_counter() - begin, 3),
        )
        log.info("reload", extra={FIELDS: answer.model_dump()})
        return answer


def probe(engine: Engine) -> None:
    """Ask an engine about one event.

    Raises:
        DeshiError: if it doesn't answer.
    """
    try:
        answered = len(engine.recommend([0], k=1, filter_seen=False).items)
    except Exception as error:  # whatever onnxruntime raises
        raise DeshiError(f"The bundle {engine.bundle.path} does not answer ({error}). Export it again.") from error
    if answered != 1:
        raise DeshiError(f"The bundle {engine.bundle.path} answers with {answered} items, expected 1. Export it again.")
