"""Questions to a chat model about candidates, and the scores that its answers come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deshi.teachers._answer_cache import Answer
from deshi.teachers._asker import Asker
from deshi.teachers.cost import Cost
from deshi.teachers.endpoint import Request
from deshi.teachers.rerank_prompts import (
    Messages,
    RerankPrompt,
    letter_scores,
    list_scores,
    read_list,
    yes_score,
)
from deshi.types import DeshiError

Opinion = list[float]
"""A score of each candidate, higher is better."""


@dataclass(frozen=True)
class Question:
    """Which candidate comes next.

    Attributes:
        history: item indices, the oldest first.
        candidates: item indices, by the first stage's order.
    """

    history: tuple[int, ...]
    candidates: tuple[int, ...]


@dataclass(frozen=True)
class _Form:
    """One request of a question.

    Attributes:
        question: its number.
        order: candidates' positions in the order in which they are shown.
        messages: of the request.
    """

    question: int
    order: list[int]
    messages: Messages


class Questioner:
    """Asks a chat model about candidates and reads its answers.

    Args:
        asker: of the endpoint.
        prompt: how it is asked.
        texts: of all items.
    """

    def __init__(self, asker: Asker, prompt: RerankPrompt, texts: Sequence[str]) -> None:
        self._asker, self._prompt, self._texts = asker, prompt, texts

    def ask(self, questions: Sequence[Question]) -> list[Opinion | None]:
        """The candidates' scores for each question, None where the answer was refused or there was nothing to order.

        Raises:
            BudgetReached: and other errors, see :meth:`~deshi.teachers._asker.Asker.ask`.
        """
        forms = [form for number in range(len(questions)) for form in self._forms(number, questions[number])]
        scores = self._list_scores(forms) if self._prompt.answer == "list" else self._first_token_scores(forms)
        by_question: dict[int, list[tuple[_Form, Opinion | None]]] = {}
        for form, values in zip(forms, scores, strict=True):
            by_question.setdefault(form.question, []).append((form, values))
        opinions = [self._opinion(by_question.get(number, [])) for number in range(len(questions))]
        refused = sum(opinions[number] is None for number in by_question)
        self._asker.used += Cost(questions=len(by_question), refused=refused)
        return opinions

    def requests(self, question: Question) -> list[Request]:
        """The requests of a question, without second attempts."""
        return [self._request(form) for form in self._forms(0, question)]

    def _forms(self, number: int, question: Question) -> list[_Form]:
        prompt, candidates = self._prompt, question.candidates
        if len(candidates) < 2:
            return []
        history = [self._texts[item] for item in question.history[-prompt.history :]]
        if prompt.answer == "yes":
            orders = [[position] for position in range(len(candidates))]
        else:
            shown = question.history[-prompt.history :]
            orders = [prompt.order(shown, candidates, reverse=bool(turn)) for turn in range(prompt.orders)]
        return [
            _Form(
                number,
                order,
                prompt.messages(history, [self._texts[candidates[place]] for place in order], self._asker.count),
            )
            for order in orders
        ]

    def _request(self, form: _Form) -> Request:
        prompt = self._prompt
        return self._asker.endpoint.request(
            form.messages, prompt.most_tokens(len(form.order)), first_tokens=prompt.answer != "list"
        )

    def _ask(self, forms: Sequence[_Form]) -> list[Answer]:
        results = self._asker.ask([self._request(form) for form in forms])
        self._asker.used += sum((cost for _, cost in results), Cost())
        return [answer for answer, _ in results]

    def _list_scores(self, forms: Sequence[_Form]) -> list[Opinion | None]:
        """Scores by the ids' order in the answers, in the order of the forms' candidates as shown."""
        ids = [self._prompt.ids(len(form.order)) for form in forms]
        answers = self._ask(forms)
        read = [read_list(answer.text, names) for answer, names in zip(answers, ids, strict=True)]
        wrong = [number for number, order in enumerate(read) if isinstance(order, str)]
        second = [
            _Form(
                forms[number].question,
                forms[number].order,
                self._prompt.second_attempt(forms[number].messages, answers[number].text, str(read[number])),
            )
            for number in wrong
        ]
        self._asker.used += Cost(second_attempts=len(wrong))
        for number, answer in zip(wrong, self._ask(second), strict=True):
            read[number] = read_list(answer.text, ids[number])
        return [None if isinstance(order, str) else list_scores(order) for order in read]

    def _first_token_scores(self, forms: Sequence[_Form]) -> list[Opinion | None]:
        """Scores by the probabilities of the answers' first tokens."""
        scores: list[Opinion | None] = []
        for form, answer in zip(forms, self._ask(forms), strict=True):
            if answer.first_tokens is None:
                raise DeshiError(
                    f"{self._asker.endpoint.url} gives no log-probabilities, which prompt.answer={self._prompt.answer} "
                    "reads. Take teacher.prompt.answer=list, or a server that gives logprobs and top_logprobs."
                )
            if self._prompt.answer == "letter":
                scores.append(letter_scores(answer.first_tokens, self._prompt.ids(len(form.order))))
            else:
                score = yes_score(answer.first_tokens)
                scores.append(None if score is None else [score])
        return scores

    def _opinion(self, forms: Sequence[tuple[_Form, Opinion | None]]) -> Opinion | None:
        """One score a candidate: the mean over the orders whose answers could be used; ``yes`` needs all of them."""
        usable = [(form, values) for form, values in forms if values is not None]
        if not usable or (self._prompt.answer == "yes" and len(usable) < len(forms)):
            return None
        sums: dict[int, list[float]] = {}
        for form, values in usable:
            for candidate, value in zip(form.order, values, strict=True):
                sums.setdefault(candidate, []).append(value)
        return [sum(sums[candidate]) / len(sums[candidate]) for candidate in sorted(sums)]
