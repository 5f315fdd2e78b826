"""The middleware around every request: its id, the key, the largest body, the time limit, log and counters."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from typing import Any

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deshi.serving.http._errors import APIError, error_body
from deshi.serving.http.logs import FIELDS
from deshi.serving.http.metrics import Metrics

log = logging.getLogger(__name__)

KEY_HEADER = "X-API-Key"
OPEN = frozenset({"/", "/health", "/ready", "/metrics", "/openapi.json"})
"""Paths that are answered without a key: none of them says anything about a user or an item."""

GONE = 499
"""The status in the log of a request whose client left before the answer."""

CHALLENGE = {"WWW-Authenticate": "ApiKey"}
CLOSING = {"Connection": "close"}
"""For a body that isn't read to its end: what follows on the connection is no request."""

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
UNMATCHED = "other"


class RequestLimits:
    """ASGI middleware: limits, key, log and counters of every request.

    Args:
        app: the application.
        metrics: told of every request.
        api_key: that requests must bring, or None.
        body_bytes: longest body.
        timeout: seconds from a request's head to its answer's end.
        log_requests: whether each request is a line of the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        api_key: str | None,
        body_bytes: int,
        timeout: float,
        log_requests: bool,
    ) -> None:
        self._app, self._metrics = app, metrics
        self._key = None if api_key is None else _digest(api_key.encode())
        self.body_bytes, self._timeout, self._log_requests = body_bytes, timeout, log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; whatever fails becomes an answer, too."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = _Call(scope, receive, send, self.body_bytes)
        self._metrics.in_flight.inc()
        try:
            self._check(call)
            with anyio.fail_after(self._timeout):
                await self._app(scope, call.receive, call.send)
        except APIError as error:
            await call.refuse(error.status_code, str(error.detail), dict(error.headers or {}))
        except TimeoutError:
            status, step = (504, "answered") if call.complete else (408, "received")
            headers = None if call.complete else CLOSING
            await call.refuse(status, f"The request was not {step} within {self._timeout:g} s.", headers)
        except Exception:
            log.exception("A request failed", extra={FIELDS: {"request_id": call.request_id}})
            await call.refuse(500, "The service failed to answer. Its log says why, under the request's id.")
        finally:
            self._metrics.in_flight.dec()
            self._report(call)

    def _check(self, call: _Call) -> None:
        length = call.header(b"content-length")
        if length.isdigit() and int(length[:20]) > self.body_bytes:
            raise too_large(self.body_bytes, int(length[:20]))
        if self._key is None or call.scope["path"] in OPEN:
            return
        key = call.header(KEY_HEADER.lower().encode())
        if not hmac.compare_digest(_digest(key), self._key):
            got = "another one" if key else "none"
            raise APIError(401, f"Expected the service's key in the header {KEY_HEADER}, got {got}.", CHALLENGE)

    def _report(self, call: _Call) -> None:
        scope, seconds = call.scope, time.perf_counter() - call.begin
        route = getattr(scope.get("route"), "path_format", UNMATCHED)
        self._metrics.request(route, call.status, seconds)
        if self._log_requests:
            fields = {
                "request_id": call.request_id,
                "method": scope["method"],
                "route": route,
                "status": call.status,
                "milliseconds": round(seconds * 1000, 3),
                "received_bytes": call.received,
                "client": (scope.get("client") or ("",))[0],
            }
            log.info("request", extra={FIELDS: fields})


class _Call:
    """A request under way: counts the bytes that come in, marks the response that goes out."""

    __slots__ = ("_limit", "_receive", "_send", "begin", "complete", "received", "request_id", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self.begin = time.perf_counter()
        self.scope, self._receive, self._send, self._limit = scope, receive, send, limit
        client_id = self.header(b"x-request-id")
        self.request_id = client_id.decode() if REQUEST_ID.fullmatch(client_id) else secrets.token_hex(8)
        scope["request_id"] = self.request_id
        self.status, self.received, self.complete = GONE, 0, False

    def header(self, name: bytes) -> bytes:
        """The first header of that name in lower case, or nothing."""
        return next((value for key, value in self.scope["headers"] if key == name), b"")

    async def receive(self) -> Message:
        """The next part of the body, unless it is too much."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
            if self.received > self._limit:
                raise too_large(self._limit, self.received)
        return message

    async def send(self, message: Message) -> None:
        """Pass a part of the answer on, its head with the request's number."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", []),
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
        await self._send(message)

    async def refuse(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer with an error, if no answer has begun."""
        if self.status != GONE:
            log.warning("An answer broke off", extra={FIELDS: {"request_id": self.request_id, "error": status}})
            return
        body = error_body(status, message, self.request_id)
        pairs: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        pairs += [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body})


def too_large(limit: int, got: int) -> APIError:
    """The error of a body above the limit."""
    return APIError(413, f"The body has {got:,} bytes or more, expected {limit:,} at most.", CLOSING)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
