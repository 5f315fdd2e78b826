"""The page at ``/``: bundles and a teacher side by side. One HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from deshi.serving.engine import Engine
from deshi.serving.http.app import Service
from deshi.serving.http.comparison import Listed, ask, compared, place, shown
from deshi.serving.http.demo import Demo, DemoUser
from deshi.serving.http.errors import Refusal
from deshi.serving.http.schemas import Asked, History

PAGE = Path(__file__).with_name("page.html")
MAX_SHOWN = 50


class CompareRequest(Asked):
    """A history that all models are asked about; with ``user``, that of a test user, whose next item is known."""

    history: History
    k: int = Field(10, ge=1, le=MAX_SHOWN)
    user: int | None = Field(None, ge=0, description="number of a test user")


def page(service: Service, beside: Mapping[str, Engine], demo: Demo) -> APIRouter:
    """The routes of the page.

    Args:
        service: its engine is the first model.
        beside: engines that are shown only here, by label.
        demo: test users and the teacher's lists.
    """
    router = APIRouter(include_in_schema=False)
    text = PAGE.read_bytes()
    headers = {
        "Content-Security-Policy": policy(text.decode()),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    def models() -> dict[str, Engine]:
        engine = service.engines.current
        return {label_of(engine, beside): engine, **beside}

    @router.get("/")
    async def html() -> Response:
        return Response(text, headers=headers, media_type="text/html; charset=utf-8")

    @router.get("/demo")
    async def setup() -> dict[str, Any]:
        catalogue = service.engines.current
        return {
            "models": [
                {"label": label, "version": engine.bundle.version, "items": engine.n_items, "api": number == 0}
                for number, (label, engine) in enumerate(models().items())
            ],
            "teacher": demo.teacher,
            "data": demo.data,
            "users": [
                {"user_id": one.user_id, "length": len(one.history), "truth": shown(catalogue, one.truth)}
                for one in demo.users
            ],
        }

    @router.get("/demo/users/{number}")
    async def user(number: int) -> dict[str, Any]:
        catalogue, one = service.engines.current, user_of(demo, number)
        return {
            "user_id": one.user_id,
            "history": [shown(catalogue, item) for item in one.history],
            "truth": shown(catalogue, one.truth),
        }

    @router.post("/demo/compare")
    async def compare(request: CompareRequest) -> dict[str, Any]:
        asked = models()

        def work() -> dict[str, Any]:
            known = None if request.user is None else user_of(demo, request.user)
            same = known is not None and known.history == request.history
            truth = known.truth if known is not None and same else None
            lists = [ask(label, engine, request.history, request.k, truth) for label, engine in asked.items()]
            if demo.teacher is not None:
                stored = known.teacher if known is not None and same else None
                lists.append(of_teacher(demo.teacher, stored, request.k, truth, set(asked)))
            return compared(next(iter(asked.values())), lists, truth)

        return await service.apart(work)

    return router


def label_of(engine: Engine, others: Mapping[str, Engine]) -> str:
    """A model's label: its name, with its version where another has the same name."""
    name = engine.bundle.name
    return f"{name} ({engine.bundle.version})" if name in others else name


def user_of(demo: Demo, number: int) -> DemoUser:
    """A test user by number.

    Raises:
        Refusal: if there is none.
    """
    if not 0 <= number < len(demo.users):
        raise Refusal(404, f"There is no test user {number}, expected a number below {len(demo.users)}.")
    return demo.users[number]


def of_teacher(name: str, stored: list[str] | None, k: int, truth: str | None, taken: set[str]) -> Listed:
    """The teacher's list: it lies in a file, for the histories of test users alone."""
    label = f"{name} (teacher)" if name in taken else name
    if stored is None:
        return Listed(label, [], None, None, 0, "Its lists are stored: it has one for the unchanged history of a user.")
    return Listed(label, stored[:k], None, place(truth, stored), len(stored), "From its store, not asked now.")


def policy(text: str) -> str:
    """The Content-Security-Policy of a page: its own style and script by their hashes, its own server, nothing else."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in found)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
