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
from deshi.serving.http._errors import APIError
from deshi.serving.http.app import Service
from deshi.serving.http.comparison import ModelList, compared, label_of, list_of_engine, rank_of, shown
from deshi.serving.http.demo import Demo, DemoUser
from deshi.serving.http.schemas import History, StrictModel

PAGE = Path(__file__).with_name("page.html")
MAX_SHOWN = 50


class CompareRequest(StrictModel):
    """A history for all models; with ``user``, that of a test user, whose next item is known."""

    history: History
    k: int = Field(10, ge=1, le=MAX_SHOWN)
    user: int | None = Field(None, ge=0, description="number of a test user")


def page(service: Service, compare_with: Mapping[str, Engine], demo: Demo) -> APIRouter:
    """The routes of the page.

    Args:
        service: its engine is the first model.
        compare_with: further engines that only the page asks, by label.
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
        return {label_of(engine, compare_with): engine, **compare_with}

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
                {"user_id": user.user_id, "length": len(user.history), "truth": shown(catalogue, user.truth)}
                for user in demo.users
            ],
        }

    @router.get("/demo/users/{number}")
    async def demo_user(number: int) -> dict[str, Any]:
        catalogue, user = service.engines.current, user_of(demo, number)
        return {
            "user_id": user.user_id,
            "history": [shown(catalogue, item) for item in user.history],
            "truth": shown(catalogue, user.truth),
        }

    @router.post("/demo/compare")
    async def compare(request: CompareRequest) -> dict[str, Any]:
        engines = models()

        def work() -> dict[str, Any]:
            user = None if request.user is None else user_of(demo, request.user)
            if user is not None and user.history != request.history:  # an edited history is no test user's any longer
                user = None
            truth = None if user is None else user.truth
            lists = [
                list_of_engine(label, engine, request.history, request.k, truth) for label, engine in engines.items()
            ]
            if demo.teacher is not None:
                stored = None if user is None else user.teacher
                lists.append(list_of_teacher(demo.teacher, stored, request.k, truth, set(engines)))
            return compared(next(iter(engines.values())), lists, truth)

        return await service.run_in_thread(work)

    return router


def user_of(demo: Demo, number: int) -> DemoUser:
    """A test user by number.

    Raises:
        APIError: if there is none.
    """
    if not 0 <= number < len(demo.users):
        raise APIError(404, f"There is no test user {number}, expected a number below {len(demo.users)}.")
    return demo.users[number]


def list_of_teacher(name: str, stored: list[str] | None, k: int, truth: str | None, labels: set[str]) -> ModelList:
    """The teacher's list, from a file that holds one for each test user's history."""
    label = f"{name} (teacher)" if name in labels else name
    if stored is None:
        return ModelList(
            label, [], None, None, 0, "Its lists are stored: it has one for the unchanged history of a user."
        )
    return ModelList(label, stored[:k], None, rank_of(truth, stored), len(stored), "From its store, not computed now.")


def policy(text: str) -> str:
    """The Content-Security-Policy of a page: its own style and script by their hashes, its own server, nothing else."""

    def hashes(tag: str) -> str:
        digests = [hashlib.sha256(part.encode()).digest() for part in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)]
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
