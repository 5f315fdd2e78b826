"""Requests to a chat model: concurrent, under limits, kept in a cache, so that nothing is asked twice."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from deshi.configuration.needs import OPENAI
from deshi.teachers._answer_cache import Answer, AnswerCache, request_key
from deshi.teachers.cost import Budget, BudgetReached, Cost, message_tokens
from deshi.teachers.endpoint import Endpoint, Request
from deshi.types import DeshiError

log = logging.getLogger(__name__)

NO_KEY = "none"
"""Sent to servers that ask for no key: the client sends something always."""
LOG_SECONDS = 30.0
"""Between two lines of the log."""
GO_ON = "Answers that came are kept: the same command goes on and asks nothing twice."
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
"""Seconds before a response that can't be read is asked for again: as the client pauses."""


class Unreadable(DeshiError):
    """A response that holds no answer."""


class Asker:
    """Requests to one endpoint, with a cache, a budget and the account of what was spent.

    Args:
        endpoint: what is asked.
        budget: of everything that this object sends.
        cache: folder of the answers.

    Attributes:
        count: the number of tokens of a text.
        spent: on what was sent.
        used: the cost of the answers that were made use of, those from the cache too.
    """

    def __init__(self, endpoint: Endpoint, budget: Budget, cache: Path) -> None:
        if budget.money is not None and not endpoint.prices.known:
            raise DeshiError(
                f"budget.money is {budget.money}, but endpoint.prices are 0, so that it would never be reached. Give "
                "teacher.endpoint.prices.prompt and .answer: money for a million tokens."
            )
        self.endpoint, self._budget, self._folder = endpoint, budget, cache
        self._answers: AnswerCache | None = None
        self._client: Any = None
        self._start_at, self._told_at = 0.0, time.monotonic()
        self.count = endpoint.token_counter()
        self.spent, self.used = Cost(), Cost()

    @property
    def cache(self) -> AnswerCache:
        """The answers on disk, opened at first use."""
        if self._answers is None:
            self._answers = AnswerCache(self._folder)
        return self._answers

    def ask(self, requests: Sequence[Request]) -> list[tuple[Answer, Cost]]:
        """The answers to requests, in their order, each with its cost.

        Answers from the cache are not asked for again; requests of the same content are asked once.

        Raises:
            BudgetReached: before the first request that might exceed the budget; what came by then is in the cache.
            DeshiError: if the endpoint can't be reached, refuses the key, or gives up after all retries.
        """
        keys = [request_key(request) for request in requests]
        by_key = dict(zip(keys, requests, strict=True))
        answers = self.cache.read(by_key)
        missing = [key for key in by_key if key not in answers]
        if missing:
            with self.cache.asking():
                answers |= self.cache.read(missing)  # another process may have asked meanwhile
                missing = [key for key in missing if key not in answers]
                answers |= self._send({key: by_key[key] for key in missing})
        prices, fresh = self.endpoint.prices, set(missing)
        results = []
        for key in keys:
            results.append((answers[key], prices.cost(answers[key], cached=key not in fresh)))
            fresh.discard(key)
        return results

    def _send(self, requests: Mapping[str, Request]) -> dict[str, Answer]:
        """Ask, at most ``concurrency`` at a time; after a failure or at the budget's end nothing new is begun."""
        if not requests:
            return {}
        client, answers = self._connected(), dict[str, Answer]()
        running: dict[Future[Answer], tuple[str, Cost]] = {}
        refusal, failure = None, None
        with ThreadPoolExecutor(self.endpoint.concurrency) as pool:
            for key, request in requests.items():
                while len(running) >= self.endpoint.concurrency:
                    failure = self._collect(running, answers) or failure
                expected = self.expected(request)
                reserved = sum((cost for _, cost in running.values()), Cost())
                refusal = self._budget.refusal(self.spent + reserved + expected)
                if refusal or failure:
                    break
                self._pace(expected)
                self._tell(len(answers), len(requests))
                running[pool.submit(self._one, client, request)] = key, expected
            while running:
                failure = self._collect(running, answers) or failure
        if failure is not None:
            raise self._failed(failure) from failure
        if refusal is not None:
            raise BudgetReached(f"{refusal} is reached: {self._account()}. {GO_ON} It may then spend as much again.")
        return answers

    def _collect(self, running: dict[Future[Answer], tuple[str, Cost]], answers: dict[str, Answer]) -> Any:
        """Wait for one request or more; put the answers into ``answers`` and return a failure if there is one."""
        failure = None
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            key, _ = running.pop(future)
            failure = future.exception() or failure
            if future.exception() is None:
                answers[key] = future.result()
                self.spent += self.endpoint.prices.cost(answers[key], cached=False)
        return failure

    def expected(self, request: Request) -> Cost:
        """What a request costs at most, by the estimate of its tokens."""
        prompt = message_tokens(request["messages"], self.count)
        answer = int(request.get("max_tokens") or request.get("max_completion_tokens") or 0)
        money = self.endpoint.prices.money(prompt, answer)
        return Cost(requests=1, prompt_tokens=prompt, answer_tokens=answer, money=money)

    def _pace(self, expected: Cost) -> None:
        """Wait until the limits per minute let the next request start."""
        time.sleep(max(0.0, self._start_at - time.monotonic()))
        tokens = expected.prompt_tokens + expected.answer_tokens
        per_request, per_token = self.endpoint.requests_per_minute, self.endpoint.tokens_per_minute
        pauses = (60 / per_request if per_request else 0.0, 60 * tokens / per_token if per_token else 0.0)
        self._start_at = time.monotonic() + max(pauses)

    def _tell(self, done: int, total: int) -> None:
        """A line in the log now and then: answers may take minutes."""
        if time.monotonic() - self._told_at > LOG_SECONDS:
            self._told_at = time.monotonic()
            log.info("%d of %d answers; in all %s", done, total, self._account())

    def _one(self, client: Any, request: Request) -> Answer:
        """Ask once, and keep the answer at once. Runs in a thread of its own."""
        begin = time.perf_counter()
        for attempt in range(self.endpoint.retries + 1):
            try:
                response = client.chat.completions.create(**request)
                answer = self._read(response, request, time.perf_counter() - begin)
                break
            except (ValueError, Unreadable) as error:  # half a body, or none of a chat: the client raises it at once
                if attempt == self.endpoint.retries:
                    raise Unreadable(str(error)) from error
                time.sleep(min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE))
        self.cache.write(request, answer)
        return answer

    def _read(self, response: Any, request: Request, seconds: float) -> Answer:
        """The parts of a response that are kept.

        Raises:
            Unreadable: for a response without an answer.
        """
        choices = getattr(response, "choices", None)
        if not choices or choices[0].message is None:
            raise Unreadable(f"a response without choices, which is no chat completion: {str(response)[:200]}")
        text = choices[0].message.content or ""
        usage, tokens = getattr(response, "usage", None), choices[0].logprobs
        first = tokens.content[0].top_logprobs if tokens is not None and tokens.content else None
        return Answer(
            text=text,
            prompt_tokens=usage.prompt_tokens if usage else message_tokens(request["messages"], self.count),
            answer_tokens=usage.completion_tokens if usage else self.count(text),
            seconds=round(seconds, 3),
            first_tokens=None if first is None else [(token.token, token.logprob) for token in first],
            model=str(response.model or ""),
        )

    def _connected(self) -> Any:
        if self._client is None:
            endpoint = self.endpoint
            key = os.environ.get(endpoint.key_variable, "") if endpoint.key_variable else ""
            self._client = OPENAI.load().OpenAI(
                api_key=key or NO_KEY, base_url=endpoint.url, timeout=endpoint.timeout, max_retries=endpoint.retries
            )
        return self._client

    def _failed(self, failure: BaseException) -> DeshiError:
        """The failure in words, without the key, which some servers repeat."""
        openai, url = OPENAI.load(), self.endpoint.url
        words = self._without_key(" ".join(str(failure).split()))[:300]
        if isinstance(failure, openai.AuthenticationError | openai.PermissionDeniedError):
            variable = self.endpoint.key_variable
            hint = f"Check the key in {variable}." if variable else "Name its variable: teacher.endpoint.key_variable"
            return DeshiError(f"{url} refuses the key: {words}. {hint} {GO_ON}")
        if isinstance(failure, openai.NotFoundError):
            return DeshiError(f"{url} doesn't know {self.endpoint.model!r} or isn't the API: {words}. Check both.")
        if isinstance(failure, openai.APIConnectionError) and not isinstance(failure, openai.APITimeoutError):
            return DeshiError(f"{url} can't be reached ({words}). Is the server running? {GO_ON}")
        if isinstance(failure, openai.BadRequestError | openai.UnprocessableEntityError):
            return DeshiError(
                f"{url} refuses the request: {words}. A parameter that it doesn't take goes by "
                "teacher.endpoint.parameters={NAME: null}; a prompt that is too long by teacher.prompt.tokens."
            )
        if isinstance(failure, openai.OpenAIError | Unreadable):
            return DeshiError(f"{url} gave no answer after {self.endpoint.retries} retries: {words}. {GO_ON}")
        raise failure

    def _without_key(self, text: str) -> str:
        key = os.environ.get(self.endpoint.key_variable or "", "")
        return text.replace(key, "***") if key else text

    def _account(self) -> str:
        spent = self.spent
        money = f", {spent.money:.4f} of money" if self.endpoint.prices.known else ""
        return f"{spent.requests:,} requests, {spent.prompt_tokens + spent.answer_tokens:,} tokens{money}"
