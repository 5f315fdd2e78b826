"""Item texts: templates without debris, the fallback, the counts, the permutation."""

from __future__ import annotations

import logging

import polars as pl
import pytest

from deshi.teachers._item_text import FALLBACK, Template, item_names, item_texts, require_texts
from deshi.types import DeshiError

A, B, C = "Heat", "Crime", "1995"
TABLE = pl.DataFrame(
    {
        "index": [0, 1, 2, 3],
        "item_id": ["9", "7", "8", "1"],
        "title": ["Heat", None, " Heat\n", "  "],
        "category": ["Crime", "Drama", None, None],
    }
)


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("{a}", [A], "Heat"),
        ("{a}", ["  Heat \n 2 "], "Heat 2"),
        ("{a} ({b})", [A, B], "Heat (Crime)"),
        ("{a} ({b})", [A, None], "Heat"),
        ("{a} ({b})", [None, B], "(Crime)"),
        ("{a} ({b})", [None, " "], None),
        ("{a} (by {b})", [A, None], "Heat"),
        ("{a} ({b}, {c})", [A, None, C], "Heat (1995)"),
        ("{a} ({b}, {c})", [A, B, None], "Heat (Crime)"),
        ("{a} ({b}, {c})", [A, None, None], "Heat"),
        ("{a}. Brand: {b}. Year: {c}", [A, None, C], "Heat. Year: 1995"),
        ("{a}. Brand: {b}. Year: {c}", [None, B, C], "Brand: Crime. Year: 1995"),
        ("{a} by {b} ({c})", [A, None, C], "Heat (1995)"),
        ("{a} - {b} - {c}", [None, B, None], "Crime"),
        ('"{a}" is {b}', [None, B], "is Crime"),
        ('The film "{a}" ({c})', [A, None], 'The film "Heat"'),
        ("{a} {{{b}}}", [A, B], "Heat {Crime}"),
        ("{a}, {a}", [A, A], "Heat, Heat"),
        ("{a} ({b})", ["Who? ()", None], "Who? ()"),
        ("{a}: {b}", ["{b}", "- x (y)"], "{b}: - x (y)"),
    ],
)
def test_missing_fields_leave_no_debris(template: str, values: list[str | None], expected: str | None) -> None:
    """Empty brackets and dangling labels are words that an encoder would take for content; values stay as they are."""
    assert Template(template).fill(values) == expected


@pytest.mark.parametrize("template", ["", "no field", "{", "{}", "{a!r}", "{a:>3}", "a}"])
def test_what_is_no_template_is_refused(template: str) -> None:
    """A template that says the same about every item, or formats instead of naming a column, is a slip."""
    with pytest.raises(DeshiError, match="template"):
        Template(template)


def test_every_item_has_a_text_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Items without text share one text, and the log says how many they are and how many can't be told apart."""
    with caplog.at_level(logging.INFO, "deshi"):
        found = item_texts(TABLE, "{title}")
    assert found.texts == ["Heat", FALLBACK, "Heat", FALLBACK] and (found.missing, found.duplicated) == (2, 2)
    assert "2 of 4 items have no text" in caplog.text and "2 share their text" in caplog.text
    assert item_texts(TABLE, "{title} ({category})").texts == ["Heat (Crime)", "(Drama)", "Heat", FALLBACK]


def test_the_fallback_tells_nothing_about_the_item() -> None:
    """An id or index in the text would leak the items' order: reversing the table must reverse the texts only."""
    assert item_texts(TABLE[::-1], "{title}").texts == item_texts(TABLE, "{title}").texts[::-1]
    assert not any(character.isdigit() for character in FALLBACK)


@pytest.mark.parametrize("field", ["titel", "index"])
def test_unknown_column_names_the_valid_ones(field: str) -> None:
    """A slip is told with the columns; the index is no text."""
    with pytest.raises(DeshiError, match="item_id, title, category"):
        item_texts(TABLE, f"{{title}} {{{field}}}")


def test_a_catalogue_without_any_text_is_refused() -> None:
    """All items would have the same vector, or names of ids: a text teacher of nothing, trained for hours."""
    empty = pl.DataFrame({"item_id": ["a", "b"], "title": [None, "  "], "text": ["", None]})
    with pytest.raises(DeshiError, match="None of the 2 items has a text by '{title}'.*item table"):
        item_texts(empty)
    for table in (empty, empty.select("item_id"), empty.with_columns(title=pl.lit(None))):
        with pytest.raises(DeshiError, match="None of the 2 items has a title or a text.*item table"):
            require_texts(table)
    require_texts(TABLE)


def test_permuted_texts_are_the_same_texts_elsewhere() -> None:
    """The ablation keeps the distribution of texts, moves them, and is the same for the same seed."""
    table = pl.DataFrame({"index": range(50), "item_id": map(str, range(50)), "title": [f"t{i}" for i in range(50)]})
    plain, dealt = item_texts(table).texts, item_texts(table, permute=1).texts
    assert sorted(dealt) == sorted(plain) and sum(a == b for a, b in zip(plain, dealt, strict=True)) < 5
    assert dealt == item_texts(table, permute=1).texts != item_texts(table, permute=2).texts


def test_items_without_a_title_have_a_name_and_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """An item without text is no reason to fail, but nobody should have to find out from the results."""
    table = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["Heat", None, "  "], "text": [None, "a  film", None]})
    with caplog.at_level(logging.WARNING):
        assert item_names(table) == ["Heat", "a film", "item c"]
    assert "1 of 3 items have no title but a text, 1 go by their id" in caplog.text
    assert item_names(table.select("item_id")) == ["item a", "item b", "item c"]
