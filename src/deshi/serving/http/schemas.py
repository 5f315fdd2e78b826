"""Requests and responses of the service with their limits; OpenAPI is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from deshi.serving.engine import Recommendation, ScoredItem
from deshi.types import MAX_ID

MAX_QUERY = 200
MAX_HISTORY, MAX_BATCH, MAX_K, MAX_ITEM_IDS, MAX_SEARCH = 5_000, 256, 1_000, 20_000, 100

ItemId = Annotated[str, Field(max_length=MAX_ID)]
# One wrong item is reported, not each of thousands.
History = Annotated[
    list[ItemId],
    Field(
        max_length=MAX_HISTORY,
        fail_fast=True,
        description="item ids, oldest first; unknown ones are left out and counted",
    ),
]
ItemIds = Annotated[list[ItemId], Field(max_length=MAX_ITEM_IDS, fail_fast=True)]


def _whole(value: Any) -> Any:
    """JSON doesn't tell 5.0 from 5, and some languages write all numbers so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class StrictModel(BaseModel):
    """Base of requests: no unknown keys, no numbers written as texts."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RecommendOptions(StrictModel):
    """Which items may be recommended, and how many."""

    k: Annotated[int, BeforeValidator(_whole)] = Field(10, ge=1, le=MAX_K, description="items of a list, at most")
    exclude: ItemIds = Field([], description="item ids that may not be recommended; unknown ones are counted")
    candidates: ItemIds | None = Field(None, description="the only item ids that may be; null: the whole catalogue")
    filter_seen: bool | None = Field(
        None, description="leave items of the history out; null: as the bundle says, and no for candidates"
    )

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :meth:`deshi.serving.engine.Engine.recommend`."""
        return {
            "k": self.k, "exclude": self.exclude, "candidates": self.candidates, "filter_seen": self.filter_seen,
        }  # fmt: skip


class RecommendRequest(RecommendOptions):
    """One history."""

    history: History


class BatchRequest(RecommendOptions):
    """Many histories with the same options."""

    histories: list[History] = Field(min_length=1, max_length=MAX_BATCH, fail_fast=True)


class SimilarQuery(BaseModel):
    """How many similar items."""

    model_config = ConfigDict(extra="forbid")

    k: int = Field(10, ge=1, le=MAX_K, description="items of the list, at most")


class SearchQuery(BaseModel):
    """Words of a title."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(min_length=1, max_length=MAX_QUERY, description="words of a title, or an item id")
    limit: int = Field(20, ge=1, le=MAX_SEARCH, description="items of the list, at most")


class ListedItem(BaseModel):
    """An item of a list."""

    item_id: str
    title: str | None = Field(description="null where the data had none")
    score: float = Field(description="higher is better; only comparable within one list")

    @classmethod
    def of(cls, item: ScoredItem) -> ListedItem:
        """The engine's item without its number, which another version of the bundle may give to another item."""
        return cls.model_construct(item_id=item.item_id, title=item.title, score=item.score)


class RecommendationList(BaseModel):
    """The recommendations after a history."""

    items: list[ListedItem] = Field(description="best first; fewer than k where no more are allowed")
    known_events: int = Field(description="events of the history whose item the bundle knows")
    unknown_events: int = Field(description="events of unknown items, which were left out")
    unknown_excluded: int = Field(description="ids of exclude that the bundle doesn't know")
    unknown_candidates: int = Field(description="ids of candidates that the bundle doesn't know")
    fallback: Literal["popularity"] | None = Field(
        description="popularity where the history holds no known item: scores are training events then"
    )

    @classmethod
    def of(cls, answer: Recommendation) -> RecommendationList:
        """The engine's answer."""
        return cls.model_construct(
            items=[ListedItem.of(item) for item in answer.items],
            known_events=answer.known_events,
            unknown_events=answer.unknown_events,
            unknown_excluded=answer.unknown_excluded,
            unknown_candidates=answer.unknown_candidates,
            fallback=None if answer.fallback is None else "popularity",
        )


class RecommendResponse(RecommendationList):
    """The recommendations after a history, and the version of the bundle that made them."""

    version: str = Field(description="of the bundle that answered")


class BatchResponse(BaseModel):
    """An answer to each history, in their order."""

    answers: list[RecommendationList]
    version: str = Field(description="of the bundle that answered")


class ItemsResponse(BaseModel):
    """A list of items."""

    items: list[ListedItem] = Field(description="best first")
    version: str = Field(description="of the bundle that answered")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """The bundle answers."""

    status: Literal["ready"] = "ready"
    bundle: str = Field(description="its name")
    version: str
    items: int = Field(description="that it knows")
    counts: float | None = Field(description="weight of the transition counts in its scores; null: none")


class ReloadResponse(BaseModel):
    """The outcome of a reload."""

    reloaded: bool = Field(description="false: the bundle on disk is the one that answers already")
    previous: str = Field(description="version that answered before")
    version: str = Field(description="version that answers now")
    seconds: float = Field(description="for opening and checking it")


class Problem(BaseModel):
    """A mistake in a request."""

    location: str = Field(description="e.g. body.history.3")
    got: str
    expected: str


class ErrorResponse(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="a word for programs, e.g. invalid_request")
    message: str = Field(description="a sentence for people")
    problems: list[Problem] = Field([], description="of an invalid request, ten at most")
    request_id: str = Field(description="stands in the service's log, too")
