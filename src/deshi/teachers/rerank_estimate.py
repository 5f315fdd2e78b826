"""The cost of a reranker's questions before any is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deshi.configuration.targets import TARGET, build, target_class
from deshi.data.bundle import Bundle
from deshi.teachers._asker import Asker
from deshi.teachers._item_text import item_texts
from deshi.teachers._rerank_questions import Question, Questioner
from deshi.teachers.cost import Budget, Cost
from deshi.teachers.rerank import Rerank
from deshi.teachers.rerank_prompts import RerankPrompt

_DRAWN = 50
"""Questions whose prompts are written for the estimate."""


def is_reranker(node: Mapping[str, Any] | None) -> bool:
    """Whether a node names :class:`~deshi.teachers.rerank.Rerank` or a class of its kind."""
    return target_class(node, Rerank) is not None


def expected_cost(node: Mapping[str, Any], bundle: Bundle, questions: int) -> Cost:
    """What a reranker's questions cost at most, without second attempts and without answers that are cached.

    Tokens are those of prompts about histories of the data and candidates drawn at random, and of the longest answers.

    Args:
        node: of the teacher.
        bundle: the data.
        questions: how many.
    """
    prompt: RerankPrompt = build(node["prompt"]) if node.get("prompt") else RerankPrompt()
    asker = Asker(build(node["endpoint"]), Budget(None), Path())
    questioner = Questioner(asker, prompt, item_texts(bundle.item_table(), prompt.template).texts)
    generator, costs, count = np.random.default_rng(0), [], 0
    candidates = min(int(node.get("candidates", 20)), bundle.n_items)
    for event in generator.integers(len(bundle.items), size=min(_DRAWN, questions)):
        owner = int(np.searchsorted(bundle.offsets, event, side="right")) - 1
        history = np.asarray(bundle.items)[bundle.offsets[owner] : event + 1].tolist()
        listed = generator.choice(bundle.n_items, candidates, replace=False).tolist()
        costs += [asker.expected(request) for request in questioner.requests(Question(tuple(history), tuple(listed)))]
        count += 1
    return replace(sum(costs, Cost()).scaled(questions / max(1, count)), questions=questions)


def sentence(cost: Cost, budget: Mapping[str, Any] | None) -> str:
    """The estimate in words, with the budget that may end the command sooner."""
    money = f", {cost.money:.2f} of money" if cost.money else ""
    limits = [f"{name} {value:,}" for name, value in (budget or {}).items() if name != TARGET and value is not None]
    ends = f"; the budget ends it at {', '.join(limits)}" if limits else "; no budget"
    return (
        f"at most {cost.requests:,} requests, {cost.prompt_tokens:,} + {cost.answer_tokens:,} tokens{money}, less what "
        f"is cached{ends}"
    )
