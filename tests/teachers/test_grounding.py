"""Grounding decides which item a text means: every shortcut here would turn into another item's score."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest
import torch
from byte_llm import ByteLLM, byte_tokenizer

from deshi.teachers._grounding import (
    by_length,
    discounted,
    embed_texts,
    item_titles,
    l2_distances,
    left_padded,
    unquoted,
)


def table(*rows: tuple[str | None, str | None]) -> pl.DataFrame:
    titles, texts = zip(*rows, strict=True)
    ids = [f"i{number}" for number in range(len(rows))]
    schema = {"item_id": pl.String, "title": pl.String, "text": pl.String}
    return pl.DataFrame({"item_id": ids, "title": titles, "text": texts}, schema=schema)


class TestTitles:
    def test_items_with_one_title_share_a_text(self, caplog: pytest.LogCaptureFixture) -> None:
        """A generated title means all of them: they must be one text, so that they tie exactly."""
        items = table(("Alien", None), ("Heat", None), ("Alien ", None), ('"Heat"', None), ("Solaris", None))
        with caplog.at_level(logging.WARNING, logger="deshi"):
            titles = item_titles(items, byte_tokenizer(), 20)
        assert titles.texts == ["Alien", "Heat", "Solaris"]
        assert titles.text_of.tolist() == [0, 1, 0, 1, 2]
        assert titles.duplicates == 4 and "4 of 5 items share their title" in caplog.text
        assert titles[3] == "Heat"

    def test_items_without_a_title(self, caplog: pytest.LogCaptureFixture) -> None:
        """They must stay apart from each other and be counted, never be dropped or tie as 'None'."""
        items = table((None, "genres: Drama"), ("  ", None), (None, ""), ("Heat", None))
        with caplog.at_level(logging.WARNING, logger="deshi"):
            titles = item_titles(items, byte_tokenizer(), 20)
        assert [titles[item] for item in range(4)] == ["genres: Drama", "item i1", "item i2", "Heat"]
        assert "1 of 4 items have no title but a text, 2 go by their id" in caplog.text

    def test_long_titles_are_cut(self, caplog: pytest.LogCaptureFixture) -> None:
        """What can't be generated in the tokens allowed must not be what generated text is compared with."""
        items = table(("The same beginning, one", None), ("The same beginning, two", None), ("Short", None))
        with caplog.at_level(logging.WARNING, logger="deshi"):
            titles = item_titles(items, byte_tokenizer(), 12)
        assert titles.texts == ["The same beg", "Short"]
        assert (titles.cut, titles.duplicates) == (2, 2) and "over 12 tokens" in caplog.text


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('"Heat (1995)"', "Heat (1995)"),
        ('\n "Heat (1995)" \nand "Alien"', "Heat (1995)"),
        ('"Heat (1995)', "Heat (1995)"),
        ('My "odd" title', 'My "odd" title'),
        ("", ""),
    ],
)
def test_unquoted(text: str, title: str) -> None:
    """A model that has learned little forgets a quote or goes on: the title is still the title."""
    assert unquoted(text) == title


def test_left_padding() -> None:
    """Sequences end together; positions count real tokens from 0, padding has none."""
    tokens, mask, positions = left_padded([[5, 6, 7], [8]], pad=0)
    assert tokens.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]


def test_batches_by_length_hold_everything_once() -> None:
    """A lost member would be an answer that stays empty."""
    batches = list(by_length(["a", "ccc", "bb", "dddd", ""], 2))
    assert batches == [[3, 1], [2, 0], [4]]


class TestEmbedding:
    def test_neighbours_and_padding_change_nothing(self) -> None:
        """An item's embedding must not depend on the other titles of its batch."""
        loaded = ByteLLM().load(Path("unused"))
        texts = ["Heat", "A much longer title than the others", "", "Alien", *(f"Film {n}" for n in range(70))]
        together = embed_texts(texts, loaded.backbone, loaded.tokenizer)
        assert together.shape == (74, 32) and together.dtype == torch.float32
        for number in (0, 1, 2, 73):
            alone = embed_texts([texts[number]], loaded.backbone, loaded.tokenizer)
            torch.testing.assert_close(together[number], alone[0], atol=1e-5, rtol=1e-4)

    def test_it_is_the_state_of_the_last_token(self) -> None:
        """Against the model called by hand, unpadded, after its final norm."""
        loaded = ByteLLM().load(Path("unused"))
        tokens = [loaded.tokenizer.eos_token_id, *loaded.tokenizer("Heat")["input_ids"]]
        output = loaded.model(torch.tensor([tokens]), output_hidden_states=True)
        found = embed_texts(["Heat"], loaded.backbone, loaded.tokenizer)
        torch.testing.assert_close(found[0], output.hidden_states[-1][0, -1])


def test_distances_do_not_depend_on_the_batch() -> None:
    """A matrix product would lose small distances; an exact hit must be 0 and the same in any company."""
    generator = torch.Generator().manual_seed(0)
    rows = 100 + torch.randn(200, 16, generator=generator)
    distances = l2_distances(rows, rows)
    assert bool((distances.diagonal() == 0).all())
    assert torch.equal(distances[7:8], l2_distances(rows[7:8], rows))
    torch.testing.assert_close(distances[0, 1], (rows[0] - rows[1]).norm())


def test_popularity_discount_by_hand() -> None:
    """D = (0, .5, 1), P = (0, 1, .5): D / (1 + P) ** 2 is (0, .125, .444); gamma 0 leaves the order."""
    distances, popularity = torch.tensor([[2.0, 4.0, 6.0], [6.0, 4.0, 2.0]]), torch.tensor([10.0, 30.0, 20.0])
    found = discounted(distances, popularity, 2.0)
    torch.testing.assert_close(found[0], torch.tensor([0.0, 0.5 / 4, 1 / 2.25]))
    torch.testing.assert_close(found[1], torch.tensor([1.0, 0.5 / 4, 0.0]))
    assert torch.equal(discounted(distances, popularity, 0.0).argsort(1), distances.argsort(1))
    assert bool(discounted(distances, torch.zeros(3), 2.0).isfinite().all()), "before any event was seen"
