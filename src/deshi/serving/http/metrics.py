"""Counters of the service for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from deshi.serving.engine import Engine, Recommendation

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.008, 0.012, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper ends in seconds: close together where a single answer lies."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one service, in a registry of its own. No label holds anything that a client has chosen."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = Counter("deshi_requests", "Requests answered.", ("route", "status"), registry=registry)
        self._seconds = Histogram(
            "deshi_request_seconds", "From the request's head to the answer's end.", ("route",),
            buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge("deshi_requests_in_flight", "Requests under way.", registry=registry)
        self._histories = Counter("deshi_histories", "Histories answered.", registry=registry)
        self._events = Counter("deshi_history_events", "Events of the histories.", ("known",), registry=registry)
        self._popular = Counter(
            "deshi_popularity_answers", "Histories without a known item, answered by popularity.", registry=registry
        )
        self._reloads = Counter("deshi_reloads", "Attempts to open a new bundle.", ("result",), registry=registry)
        self._bundle = Gauge("deshi_bundle", "1 for the bundle that answers.", ("name", "version"), registry=registry)
        self._items = Gauge("deshi_bundle_items", "Items that the bundle knows.", registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answers(self, *answers: Recommendation) -> None:
        """Count histories, their known and unknown events, and answers by popularity."""
        self._histories.inc(len(answers))
        self._events.labels("yes").inc(sum(answer.known_events for answer in answers))
        self._events.labels("no").inc(sum(answer.unknown_events for answer in answers))
        self._popular.inc(sum(answer.fallback is not None for answer in answers))

    def reload(self, result: str) -> None:
        """Count an attempt to reload: ``swapped``, ``unchanged`` or ``failed``."""
        self._reloads.labels(result).inc()

    def bundle(self, engine: Engine) -> None:
        """Say which bundle answers."""
        self._bundle.clear()
        self._bundle.labels(engine.bundle.name, engine.bundle.version).set(1)
        self._items.set(engine.n_items)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
