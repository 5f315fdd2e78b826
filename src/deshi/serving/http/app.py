"""The HTTP application: routes over an engine. ``middleware.py`` holds what all requests pass through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Path, Query, Response, Security
from fastapi.security import APIKeyHeader

from deshi.serving.engine import Engine, RequestError
from deshi.serving.http._errors import APIError, error_responses, install_handlers
from deshi.serving.http.metrics import CONTENT_TYPE, Metrics
from deshi.serving.http.middleware import KEY_HEADER, RequestLimits
from deshi.serving.http.reload import Engines, ReloadBusy, probe
from deshi.serving.http.schemas import (
    BatchRequest,
    BatchResponse,
    Health,
    ItemsResponse,
    ListedItem,
    Ready,
    RecommendationList,
    RecommendRequest,
    RecommendResponse,
    ReloadResponse,
    SearchQuery,
    SimilarQuery,
)
from deshi.types import MAX_ID, DeshiError

T = TypeVar("T")

INLINE_ITEMS = 100_000
"""Up to so many items a single history is answered in the event loop: it takes less than a thread's hand-over costs."""

WORKERS = 2
"""Threads for what takes longer: batches, searches, large catalogues. onnxruntime and numpy let them run together."""


@dataclass(eq=False)
class Service:
    """The engine and the settings that all routes share.

    Attributes:
        engines: the engine that answers, and its exchange.
        metrics: counters.
        api_key: that requests must bring, or None.
        body_bytes: longest body.
        timeout: seconds that a request may take.
        log_requests: whether each request is a line of the log.
    """

    engines: Engines
    metrics: Metrics
    api_key: str | None = field(default=None, repr=False)
    body_bytes: int = 4 << 20
    timeout: float = 5.0
    log_requests: bool = True

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="deshi-serve")

    async def run_in_thread(self, work: Callable[[], T]) -> T:
        """Do longer work in a thread, so that other requests don't wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def reload(self) -> ReloadResponse:
        """Open the bundle that lies on disk now: see :meth:`deshi.serving.http.reload.Engines.reload`."""
        return await asyncio.to_thread(self.engines.reload)  # not in the pool: answers don't wait for a load


def create_app(service: Service, pages: Sequence[APIRouter] = (), hooks: Sequence[Callable[[], Any]] = ()) -> FastAPI:
    """The application.

    Args:
        service: engine and settings.
        pages: further routes.
        hooks: called in the event loop before the first request.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for hook in hooks:
            hook()
        yield

    app = FastAPI(
        title="deshi",
        version=version("deshi"),
        description="Recommendations from a serving bundle.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    key = [Security(APIKeyHeader(name=KEY_HEADER, auto_error=False))] if service.api_key is not None else []
    errors = error_responses(413, 422, 504) | (error_responses(401) if key else {})
    for router in (recommendation_routes(service), item_routes(service), reload_routes(service), *pages):
        app.include_router(router, dependencies=key, responses=errors)
    app.include_router(monitoring_routes(service))
    install_handlers(app)
    app.add_middleware(
        RequestLimits,
        metrics=service.metrics,
        api_key=service.api_key,
        body_bytes=service.body_bytes,
        timeout=service.timeout,
        log_requests=service.log_requests,
    )
    return app


def recommendation_routes(service: Service) -> APIRouter:
    """``/recommend`` and ``/recommend/batch``."""
    router = APIRouter(tags=["recommend"])

    @router.post("/recommend", responses=error_responses(400, 408))
    async def recommend(request: RecommendRequest) -> RecommendResponse:
        """The items most likely to come next after a history."""
        engine = service.engines.current
        arguments = request.arguments()
        if engine.n_items <= INLINE_ITEMS:
            answer = engine.recommend(request.history, **arguments)
        else:
            answer = await service.run_in_thread(lambda: engine.recommend(request.history, **arguments))
        service.metrics.answers(answer)
        content = RecommendationList.of(answer).__dict__
        return RecommendResponse.model_construct(**content, version=engine.bundle.version)

    @router.post("/recommend/batch", responses=error_responses(400, 408))
    async def recommend_batch(request: BatchRequest) -> BatchResponse:
        """The same for many histories with the same options, in their order."""
        engine = service.engines.current
        arguments = request.arguments()
        answers = await service.run_in_thread(lambda: engine.recommend_batch(request.histories, **arguments))
        service.metrics.answers(*answers)
        lists = [RecommendationList.of(answer) for answer in answers]
        return BatchResponse.model_construct(answers=lists, version=engine.bundle.version)

    return router


def item_routes(service: Service) -> APIRouter:
    """``/items``: searching titles, and similar items."""
    router = APIRouter(tags=["items"])

    async def answer(engine: Engine, work: Callable[[], Sequence[Any]]) -> ItemsResponse:
        items = [ListedItem.of(item) for item in await service.run_in_thread(work)]
        return ItemsResponse.model_construct(items=items, version=engine.bundle.version)

    @router.get("/items")
    async def search_items(search: Annotated[SearchQuery, Query()]) -> ItemsResponse:
        """Items whose title holds every word, or whose id is the query; the score is the number of training events."""
        engine = service.engines.current
        return await answer(engine, lambda: engine.search_items(search.query, search.limit))

    @router.get("/items/{item_id:path}/similar", responses=error_responses(404))
    async def similar_items(
        item_id: Annotated[str, Path(min_length=1, max_length=MAX_ID)], options: Annotated[SimilarQuery, Query()]
    ) -> ItemsResponse:
        """The items whose vectors have the greatest cosine with this one's, which is the score."""
        engine = service.engines.current
        try:
            index = engine.index_of(item_id)
        except RequestError as error:
            raise APIError(404, str(error)) from error
        return await answer(engine, lambda: engine.similar_items(index, options.k))

    return router


def reload_routes(service: Service) -> APIRouter:
    """``/reload``."""
    router = APIRouter(tags=["operate"])

    @router.post("/reload", responses=error_responses(403, 409, 503))
    async def reload() -> ReloadResponse:
        """Open the bundle that lies on disk now, check it, and let it answer from now on. Needs a service with a key.

        The old bundle answers until then, and keeps answering if the new one is refused.
        """
        if service.api_key is None:
            raise APIError(403, "This service has no API key, so that any client could reload it: send SIGHUP instead.")
        try:
            return await service.reload()
        except ReloadBusy as error:
            raise APIError(409, str(error)) from error
        except DeshiError as error:
            raise APIError(503, f"The old bundle keeps answering: {error}") from error

    return router


def monitoring_routes(service: Service) -> APIRouter:
    """``/health``, ``/ready`` and ``/metrics``, which need no key."""
    router = APIRouter(tags=["operate"])

    @router.get("/health")
    async def health() -> Health:
        """The process answers."""
        return Health()

    @router.get("/ready", responses=error_responses(503))
    async def ready() -> Ready:
        """The bundle has answered a request just now."""
        engine = service.engines.current
        try:
            await service.run_in_thread(lambda: probe(engine))
        except DeshiError as error:
            raise APIError(503, str(error)) from error
        bundle = engine.bundle
        weight = None if bundle.pair_table is None else bundle.pair_table.weight
        return Ready(bundle=bundle.name, version=bundle.version, items=engine.n_items, counts=weight)

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counts and times for Prometheus."""
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE)

    return router
