"""The baselines of an evaluation: the named one, or all that this data and this machine allow."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from deshi.baselines import BASELINES, EASE, STAR, Baseline, Star
from deshi.configuration.needs import LLM
from deshi.data.bundle import Bundle
from deshi.stages.evaluate import EvaluateConfig
from deshi.teachers import ItemEmbeddings
from deshi.types import TEXT

TEMPLATE = "{text}"
"""The items' whole texts, as the text teacher reads them: both use the same cached vectors."""


def chosen_baselines(cfg: EvaluateConfig, bundle: Bundle) -> tuple[dict[str, Baseline], list[str]]:
    """The baselines to evaluate, the named one first, and notes about those left out.

    Raises:
        DeshiError: if STAR is named and the items have no texts, or the encoder can't be had.
    """
    names = [*BASELINES, STAR] if cfg.with_baselines else []
    names = list(dict.fromkeys([*([cfg.baseline] if cfg.baseline else []), *names]))
    baselines: dict[str, Baseline] = {}
    notes = []
    for name in names:
        if name == "ease" and name != cfg.baseline and bundle.n_items > EASE.max_items:
            notes.append(f"ease was left out: {bundle.n_items} items are more than its limit of {EASE.max_items}.")
        elif name != STAR:
            baselines[name] = BASELINES[name]()
        elif name == cfg.baseline:
            baselines[name] = star(bundle, cfg.paths.cache)
        else:
            model, reason = cached_star(bundle, cfg.paths.cache)
            if model is not None:
                baselines[name] = model
            else:
                notes.append(f"star was left out: {reason}")
    return baselines, notes


def star(bundle: Bundle, cache: Path) -> Star:
    """STAR on the items' text vectors, which are computed, and their encoder fetched, if need be."""
    return Star(ItemEmbeddings(template=TEMPLATE)(bundle, cache))


def cached_star(bundle: Bundle, cache: Path) -> tuple[Star | None, str]:
    """STAR on text vectors that were computed before, or None and the reason; nothing is fetched or encoded."""
    texts = bundle.item_table()[TEXT].cast(pl.String).str.strip_chars()
    if not (texts.str.len_bytes() > 0).any():
        return None, "the items have no texts."
    vectors = None if LLM.missing() else ItemEmbeddings(template=TEMPLATE).cached(bundle, cache)
    if vectors is not None:
        return Star(vectors), ""
    return None, (
        "the items' texts have no cached vectors, and comparing with baselines downloads and encodes nothing. "
        f"deshi evaluate baseline=star data={bundle.name} makes them."
    )
