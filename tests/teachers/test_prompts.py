"""Prompts: every item's tokens stand where the states are read, and the embeddings where the items are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_llm import tiny_tokenizer

from deshi.teachers.prompts import ItemTokens, Prompt
from deshi.types import PAD, DeshiError

TITLES = ["Heat", "Up", "Alien"]


def pieces(**options: Any) -> ItemTokens:
    return ItemTokens(Prompt(instruction="A:", query="?", cue="!", **options), tiny_tokenizer(), TITLES)


def written(tokens: ItemTokens, segments: list[list[int]]) -> list[str]:
    """The prompts as text: ``#2`` where item 2's embedding stands."""
    layout = tokens.lay_out(torch.tensor(segments))
    texts = []
    for ids, items, numbers in zip(layout.tokens, layout.embedded, layout.segments, strict=True):
        parts = [
            f"#{int(item)}" if item >= 0 else tiny_tokenizer().decode([int(token)])
            for token, item, number in zip(ids, items, numbers, strict=True)
            if number >= 0
        ]
        texts.append("".join(parts))
    return texts


@pytest.mark.parametrize(
    ("item", "text"),
    [("title", "<s>A: Heat\n Alien\n"), ("embedding", "<s>A:#0#2"), ("hybrid", "<s>A: Heat#0 Alien#2")],
)
def test_histories_are_written_as_asked(item: str, text: str) -> None:
    """The three forms differ in what the language model learns about an item, and in a prompt's length tenfold."""
    tokens = pieces(item=item)
    segments = tokens.histories(torch.tensor([[0, 2], [1, PAD]])).tolist()
    first, second = written(tokens, segments)
    assert first == text
    assert second.startswith("<s>A:") and ("Up" in second) == (item != "embedding")


def test_the_question_names_candidates_and_ends_with_the_answer() -> None:
    """Whatever the history looks like, an answer in words needs the candidates' titles, without gaps before it."""
    tokens = pieces(item="embedding")
    questions = tokens.questions(
        torch.tensor([[0, 1], [2, PAD]]), torch.tensor([[2, 0], [1, PAD]]), torch.tensor([2, 1])
    )
    assert written(tokens, questions.tolist()) == [
        "<s>A:#0#1? Alien#2 Heat#0! Alien</s>",
        "<s>A:#2? Up#1! Up</s>",
    ]
    asked = tokens.questions(torch.tensor([[2]]), torch.tensor([[1]]))
    assert written(tokens, asked.tolist()) == ["<s>A:#2? Up#1!"]


@pytest.mark.parametrize("item", ["title", "embedding", "hybrid"])
def test_ends_are_the_last_tokens_of_their_items(item: str) -> None:
    """A state read one token early hasn't seen its item, one token late it has seen the next one."""
    tokens = pieces(item=item)
    layout = tokens.lay_out(tokens.histories(torch.tensor([[0, 2, 1], [1, PAD, PAD]])))
    for row, count in ((0, 4), (1, 2)):
        for place in range(count):
            columns = (layout.segments[row] == place).nonzero().flatten()
            assert int(layout.ends[row, place]) == int(columns[-1])
    assert layout.ends[1, 2:].tolist() == [int(layout.ends[1, 1])] * 2
    if item != "title":
        assert layout.embedded.gather(1, layout.ends)[0, 1:].tolist() == [0, 2, 1]


def test_long_titles_are_cut() -> None:
    """One title of a paragraph's length would make every prompt of its users that long."""
    assert written(pieces(item="hybrid", title_tokens=3), [[9, 0]]) == ["<s>A: He#0"]


def test_permuted_titles_are_the_same_titles_elsewhere() -> None:
    """The ablation must take nothing away but the connection between items and titles, the same way every time."""
    tokens = pieces(permute_titles=True)
    assert sorted(tokens.titles) == sorted(TITLES)
    assert tokens.titles != TITLES
    assert pieces(permute_titles=True).titles == tokens.titles


@pytest.mark.parametrize("options", [{"title_tokens": 0}, {"candidates": 1}])
def test_sizes_too_small_are_refused(options: dict[str, Any]) -> None:
    """A choice among one candidate is none."""
    with pytest.raises(DeshiError, match=f"prompt.{next(iter(options))} is"):
        Prompt(**options)
