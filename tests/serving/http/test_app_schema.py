"""Schemathesis reads the OpenAPI document and asks what it allows, and what it doesn't.

Its operations are taken one by one instead of through its pytest plugin, which doesn't know pytest 9.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

from service_process import KEY, app_on

QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
QUICK = settings(max_examples=12, deadline=None, suppress_health_check=QUIET, phases=[Phase.explicit, Phase.generate])
LONG = settings(max_examples=500, deadline=None, suppress_health_check=QUIET)
ASKING = [
    ("POST", "/recommend"),
    ("POST", "/recommend/batch"),
    ("GET", "/items"),
    ("GET", "/items/{item_id}/similar"),
]
"""Operations with something to fill in; the others take nothing."""
PLAIN = [("POST", "/reload"), ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics")]


@pytest.fixture(scope="module")
def open_document(serving: Path) -> Any:
    """The document of a service without a key."""
    return schemathesis.openapi.from_asgi("/openapi.json", app_on(serving, body_bytes=64 << 20))


@pytest.fixture(scope="module")
def guarded_document(serving: Path) -> Any:
    """The document of a service with a key."""
    return schemathesis.openapi.from_asgi("/openapi.json", app_on(serving, api_key=KEY, body_bytes=64 << 20))


def ask(document: Any, path: str, method: str, mode: GenerationMode, effort: settings, **headers: str) -> None:
    """Ask one operation; every answer must keep to the document."""

    @effort
    @given(example=document[path][method].as_strategy(generation_mode=mode))
    def asked(example: Any) -> None:
        example.call_and_validate(headers=headers or None)

    asked()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), ASKING)
def test_what_the_document_says_is_what_happens(
    open_document: Any, method: str, path: str, mode: GenerationMode
) -> None:
    """Status, type and form of every answer; what is allowed is accepted, what isn't is refused, nothing crashes."""
    ask(open_document, path, method, mode, QUICK)


@pytest.mark.parametrize(("method", "path"), [*ASKING, *PLAIN])
def test_it_holds_with_a_key(guarded_document: Any, method: str, path: str) -> None:
    """Asked with the key; a check of schemathesis takes it away and expects to be refused."""
    effort = settings(QUICK, max_examples=4 if (method, path) in ASKING else 1)
    ask(guarded_document, path, method, GenerationMode.POSITIVE, effort, **{"X-API-Key": KEY})


def test_no_operation_is_left_out(guarded_document: Any) -> None:
    """A route that is added later must be asked, too."""
    found = {(one.ok().method.upper(), one.ok().path) for one in guarded_document.get_all_operations()}
    assert found == {*ASKING, *PLAIN}


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("method", "path"), ASKING)
def test_it_holds_for_long(open_document: Any, method: str, path: str, mode: GenerationMode) -> None:
    """The same with many more questions, shrunk where one fails."""
    ask(open_document, path, method, mode, LONG)
