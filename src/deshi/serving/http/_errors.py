"""Error responses: one JSON form for all, without a traceback."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from deshi.serving.engine import RequestError
from deshi.serving.http.schemas import ErrorResponse

CODES = {
    400: "bad_request",
    401: "unauthorised",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "too_large",
    422: "invalid_request",
    500: "internal_error",
    503: "unavailable",
    504: "timeout",
}
"""The word of each status."""

ROUTING = {
    404: "There is no such path; /openapi.json lists those that there are.",
    405: "This path has other methods; the header Allow and /openapi.json list them.",
}
"""The message for a path or method that the service doesn't have."""

SHOWN = 10
"""Problems of one request that are listed."""


class APIError(HTTPException):
    """A request that isn't answered; ``detail`` is a sentence that says why."""


def error_body(status: int, message: str, request_id: str, problems: Sequence[Mapping[str, str]] = ()) -> bytes:
    """The JSON text of an error; half a surrogate pair, which UTF-8 can't hold, becomes a question mark."""
    content = {
        "error": CODES.get(status, "error"),
        "message": message,
        "problems": list(problems),
        "request_id": request_id,
    }
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of an operation, for OpenAPI."""
    return {status: {"model": ErrorResponse, "description": CODES[status].replace("_", " ")} for status in statuses}


def install_handlers(app: FastAPI) -> None:
    """Answer every kind of error in the one form."""

    def answer(
        request: Request,
        status: int,
        message: str,
        problems: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        body = error_body(status, message, request.scope.get("request_id", ""), problems)
        return Response(body, status, headers, media_type="application/json")

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = error.errors()
        problems = [_problem(detail) for detail in errors[:SHOWN]]
        first = problems[0]
        more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
        message = f"{first['location']}: got {first['got']}, expected: {first['expected']}{more}"
        return answer(request, 422, message, problems)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = ROUTING.get(error.status_code) if type(error) is HTTPException else None
        return answer(request, error.status_code, message or str(error.detail), headers=error.headers)

    async def bad_request(request: Request, error: Exception) -> Response:
        return answer(request, 422, str(error))

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestError, bad_request)


def _problem(error: Mapping[str, Any]) -> dict[str, str]:
    got, expected = shortened(error.get("input")), str(error["msg"])
    if error["type"] == "json_invalid":
        got, expected = f"no JSON ({error['ctx']['error']})", "a JSON object"
    elif isinstance(error.get("input"), bytes):  # FastAPI reads JSON only where the header says so
        got, expected = "no JSON", "a JSON object, with content-type: application/json"
    elif error["type"] == "missing":
        got, expected = "nothing", "a value"
    location = ".".join(str(part)[:40] for part in error["loc"]) or "body"
    return {"location": location, "got": got, "expected": expected}


def shortened(value: Any) -> str:
    """A value of a request, in at most about 80 characters however large it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    short.maxlist = short.maxdict = short.maxtuple = 3
    short.maxlevel = 2
    try:
        text = short.repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."
