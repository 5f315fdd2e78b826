"""Texts of items: a template over the item table's columns, filled without debris, and names for prompts."""

from __future__ import annotations

import logging
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from deshi.configuration.targets import suggestion
from deshi.types import ITEM, TEXT, TITLE, DeshiError

log = logging.getLogger(__name__)

FALLBACK = "unknown item"
"""The text of every item without any. It is the same for all: an id or an index would tell a model the items' age or
order (MovieLens numbers its films roughly by their entry), which is not text. Such items can't be told apart by it."""

ADVICE = "Prepare the data set with an item table (data.source.items_path), or take a teacher that reads ids."

_MISSING = "\uf8ff"  # characters of private use stand for the fields while a template is cleaned
_FIRST = 0xE000
_FIELD = "\ue000-\uf8fe"
_OPEN, _CLOSE = r"(\[<«“\"", r")\]>»”\""
_EMPTY_BRACKET = re.compile(rf"\s*[{_OPEN}][^{_OPEN}{_CLOSE}{_FIELD}]*{_MISSING}[^{_OPEN}{_CLOSE}{_FIELD}]*[{_CLOSE}]")
_WITH_ITS_WORDS = re.compile(rf"[^{_OPEN}{_CLOSE}{_FIELD}{_MISSING}]*{_MISSING}")
_SEPARATORS = r"[\s,;:.|/&+–—·-]+"


@dataclass(frozen=True)
class ItemTexts:
    """The texts of all items, in index order.

    Attributes:
        texts: one per item, never empty.
        missing: how many items have no text and got :data:`FALLBACK`.
        duplicated: how many items share their text with another item.
    """

    texts: list[str]
    missing: int
    duplicated: int


class Template:
    """A text with fields in braces, such as ``"{title} ({category})"``; doubled braces stand for braces.

    A bracket or quotation in which every field is missing goes. Any other missing field takes the words before it
    along, back to the field or bracket before; separators that then begin the text or a bracket go too:
    ``"{title} ({category}), brand: {brand}"`` gives ``Heat``, ``Heat (Crime)`` or ``Heat, brand: X``.
    """

    def __init__(self, template: str) -> None:
        """Parse the template.

        Raises:
            DeshiError: if it has no field, or isn't a template.
        """
        self.fields: list[str] = []
        self._pattern = ""
        for literal, field in _parsed(template):
            self._pattern += literal
            if field is not None:
                self._pattern += chr(_FIRST + len(self.fields))
                self.fields.append(field)
        if not self.fields:
            raise DeshiError(f"The item template {template!r} has no field. Write e.g. '{{title}} ({{category}})'.")
        self._cleaned: dict[tuple[bool, ...], list[str]] = {}

    def fill(self, values: Sequence[str | None]) -> str | None:
        """The text with ``values`` of :attr:`fields`, or None if all of them are missing (None or blank)."""
        clean = [" ".join((value or "").split()) for value in values]
        present = tuple(map(bool, clean))
        if not any(present):
            return None
        if present not in self._cleaned:
            self._cleaned[present] = re.split(f"([{_FIELD}])", self._without_debris(present))
        parts = self._cleaned[present]
        # every second part is a field's character
        parts = [clean[ord(part) - _FIRST] if number % 2 else part for number, part in enumerate(parts)]
        return "".join(parts).strip()

    def _without_debris(self, present: Sequence[bool]) -> str:
        """The pattern with the present fields only."""
        if all(present):
            return self._pattern
        pattern = self._pattern
        for number, kept in enumerate(present):
            if not kept:
                pattern = pattern.replace(chr(_FIRST + number), _MISSING)
        # brackets without a present field, then missing fields with the words before them, then leading separators
        pattern = _EMPTY_BRACKET.sub("", pattern)
        pattern = _WITH_ITS_WORDS.sub("", pattern)
        pattern = re.sub(rf"([{_OPEN}]){_SEPARATORS}", r"\1", pattern)
        return pattern if present[0] else re.sub(f"^{_SEPARATORS}", "", pattern)


def item_texts(table: pl.DataFrame, template: str = "{title}", permute: int | None = None) -> ItemTexts:
    """Fill the template for every row of an item table (:meth:`deshi.data.bundle.Bundle.item_table`).

    Args:
        table: ``item_id``, ``title``, ``text`` and the source's further columns, in index order.
        template: see :class:`Template`.
        permute: deal the texts out to other items, by this seed: an ablation that keeps the texts and takes their
            meaning away. None leaves them where they belong.

    Raises:
        DeshiError: if the template names a column that isn't there (lists the valid ones), or no item has a text.
    """
    parsed = Template(template)
    valid = [column for column in table.columns if column != "index"]
    for field in parsed.fields:
        if field not in valid:
            raise DeshiError(
                f"The item template {template!r} names the column {field!r}, which the items don't have. "
                f"{suggestion(field, valid, 'columns')} All columns: {', '.join(valid)}."
            )
    columns = [table[field].cast(pl.String).to_list() for field in parsed.fields]
    filled = [parsed.fill(values) for values in zip(*columns, strict=True)]
    if permute is not None:
        filled = [filled[item] for item in np.random.default_rng(permute).permutation(len(filled))]
    return _counted(filled, template)


def item_names(table: pl.DataFrame) -> list[str]:
    """A name for every item: its title, else its text, else ``item ID``; the latter two are counted in the log.

    Args:
        table: ``item_id``, ``title``, ``text`` in index order (:meth:`deshi.data.bundle.Bundle.item_table`).
    """
    columns = [table[name].to_list() if name in table.columns else [None] * len(table) for name in (TITLE, TEXT)]
    names, counts = [], {"text": 0, "id": 0}
    for title, text, item in zip(*columns, table[ITEM].to_list(), strict=True):
        candidates = [(" ".join(value.split()), kind) for value, kind in ((title, ""), (text, "text")) if value]
        name, kind = next((pair for pair in candidates if pair[0]), (f"item {item}", "id"))
        names.append(name)
        if kind:
            counts[kind] += 1
    if any(counts.values()):
        log.warning(
            "%d of %d items have no title but a text, %d go by their id", counts["text"], len(names), counts["id"]
        )
    return names


def require_texts(table: pl.DataFrame) -> None:
    """Refuse an item table without any title or text, of which a language model would learn ids.

    Raises:
        DeshiError: says where titles come from.
    """
    columns = [table[name].cast(pl.String).str.strip_chars() for name in (TITLE, TEXT) if name in table.columns]
    if not any((column != "").any() for column in columns):
        raise DeshiError(f"None of the {len(table)} items has a title or a text, which this teacher reads. {ADVICE}")


def _parsed(template: str) -> list[tuple[str, str | None]]:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise DeshiError(f"The item template {template!r} can't be read: {error}. Write e.g. '{{title}}'.") from error
    for _, field, format_spec, conversion in parsed:
        if field is not None and (format_spec or conversion or not field):
            raise DeshiError(f"The item template {template!r} has a field that is not just a column's name in braces.")
    return [(literal, field) for literal, field, _, _ in parsed]


def _counted(filled: Sequence[str | None], template: str) -> ItemTexts:
    times = Counter(text for text in filled if text is not None)
    duplicated = sum(count for count in times.values() if count > 1)
    missing = sum(text is None for text in filled)
    if missing == len(filled):
        raise DeshiError(f"None of the {len(filled)} items has a text by {template!r}. {ADVICE}")
    log.info("item texts by %r: %d items, %d share their text with another", template, len(filled), duplicated)
    if missing:
        log.warning("%d of %d items have no text by %r: they are %r", missing, len(filled), template, FALLBACK)
    return ItemTexts([FALLBACK if text is None else text for text in filled], missing, duplicated)
