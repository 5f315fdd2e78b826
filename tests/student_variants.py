"""The students of deshi and their variants, by name, as the contract tests build them."""

from __future__ import annotations

from functools import partial

from deshi.models.bsarec import BSARec
from deshi.models.caser import Caser
from deshi.models.gru4rec import GRU4Rec
from deshi.models.hstu import HSTU
from deshi.models.ligr import LiGR
from deshi.models.sasrec import SASRec
from deshi.testing.students import DIM, MAX_LENGTH, Build


def rotary_sasrec(n_items: int, dim: int, max_length: int, dropout: float) -> SASRec:
    return SASRec(n_items, dim, max_length, heads=2, dropout=dropout, positions="rotary")


def original_sasrec(n_items: int, dim: int, max_length: int, dropout: float) -> SASRec:
    return SASRec(
        n_items, dim, max_length, heads=1, feed_forward=1.0, dropout=dropout, activation="relu", norm="original"
    )  # fmt: skip


def wide_gru(n_items: int, dim: int, max_length: int, dropout: float) -> GRU4Rec:
    return GRU4Rec(n_items, dim, max_length, hidden=24, layers=2, dropout=dropout)


def rotary_ligr(n_items: int, dim: int, max_length: int, dropout: float) -> LiGR:
    return LiGR(n_items, dim, max_length, blocks=1, heads=4, feed_forward=2.0, dropout=dropout, positions="rotary")


def rotary_bsarec(n_items: int, dim: int, max_length: int, dropout: float) -> BSARec:
    return BSARec(n_items, dim, max_length, blocks=1, heads=4, dropout=dropout, alpha=0.3, positions="rotary")


STUDENTS: dict[str, Build] = {
    "sasrec": SASRec,
    "sasrec_original": original_sasrec,
    "sasrec_rotary": rotary_sasrec,
    "gru4rec": partial(GRU4Rec, hidden=DIM),
    "gru4rec_projected": wide_gru,
    "caser": Caser,
    "caser_window_over_history": partial(Caser, window=MAX_LENGTH + 3),
    "hstu": HSTU,
    "hstu_one_unit": partial(HSTU, blocks=1, heads=1),
    "ligr": LiGR,
    "ligr_rotary": rotary_ligr,
    "bsarec": BSARec,
    "bsarec_rotary": rotary_bsarec,
}
