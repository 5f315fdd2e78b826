"""Texts about users, written by a language model or a person: their vectors are what a student's states may learn."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from deshi.arrays import Bools, Ints
from deshi.configuration.needs import Component, LocalFile, Need
from deshi.configuration.schemas import RayConfig
from deshi.data.bundle import Bundle
from deshi.data.splits import Split
from deshi.data.vocabulary import indices_of
from deshi.tables import table_kind
from deshi.teachers._embedding import embed
from deshi.teachers._file_readers import complete_ids, need_file, read_columns, read_vectors
from deshi.teachers.encoders import SentenceEncoder
from deshi.types import PAD, TITLE, USER, DeshiError

log = logging.getLogger(__name__)

COLUMN = "profile"
_SHORTEST_TITLE = 8
"""Characters from which a title in a profile is no chance."""
_SURE = 3.0
"""Standard deviations by which profiles must name held-out items more often than other users' ones."""


@dataclass(frozen=True)
class UserProfiles(Component):
    """A table of texts about users, or of their vectors.

    Profiles must be written from training events alone. Texts that name items of their users' validation and test
    events more often than those of other users are warned of.

    Attributes:
        path: a table with the columns ``user_id`` and ``profile``; users without a row, and empty texts, have none.
        encoder: of texts; None: the file is a .parquet whose profiles are vectors, all zero for none.
    """

    path: str
    encoder: SentenceEncoder | None = field(default_factory=SentenceEncoder)

    @classmethod
    def needs(cls, arguments: Mapping[str, Any]) -> list[Need]:
        """The file, and what the default encoder needs, if none is given."""
        file = LocalFile("profiles.path", Path(str(arguments.get("path"))).expanduser())
        return [file, *([] if "encoder" in arguments else SentenceEncoder.needs({}))]

    def __call__(
        self, bundle: Bundle, split: Split, cache: Path, device: torch.device | str = "cpu",
        ray: RayConfig | None = None,
    ) -> Tensor:  # fmt: skip
        """The vectors of the profiles.

        Args:
            bundle: the data.
            split: of that bundle, which says what is held out.
            cache: deshi's folder of downloads and of computed embeddings.
            device: where the encoder computes.
            ray: a Ray cluster whose workers encode instead.

        Returns:
            ``(n_users, D)`` float32 on the CPU, zeros for users without a profile.

        Raises:
            DeshiError: for a file that can't be read, users that are named twice or none that is known, vectors that
                aren't finite, and a file without any profile.
        """
        file = need_file(self.path, "profiles.path")
        if self.encoder is None:
            if table_kind(file) not in (".parquet", ".pq"):
                raise DeshiError(f"profiles.path={file}: vectors come in a .parquet. Texts are profiles=texts.")
            names, table = read_vectors(file, None, USER, COLUMN)
            users, vectors = indices_of(names, bundle.users[USER], "user", file), torch.from_numpy(table)
        else:
            users, texts = _texts(file, bundle)
            _warn_of_answers(users, texts, bundle, split, file)
            vectors = embed(texts, self.encoder, cache, device, ray)
        numbers = torch.tensor(users)
        filled = (numbers != PAD) & vectors.any(1)
        if not filled.any():
            raise DeshiError(f"{file} has no vector that isn't zero, expected a profile for each of some users.")
        result = torch.zeros(bundle.n_users, vectors.shape[1])
        result[numbers[filled]] = vectors[filled].float()
        log.info("%s: profiles of %d of %d users", file, int(filled.sum()), bundle.n_users)
        return result


def _texts(file: Path, bundle: Bundle) -> tuple[Ints, list[str]]:
    """The indices of users with a text, ``PAD`` for unknown ones, and their texts."""
    advice = "A table of profiles has both: rename its columns."
    frame = read_columns(file, {USER: USER, COLUMN: COLUMN}, advice, single_line=[USER])
    frame = frame.with_columns(
        complete_ids(frame[USER], file).alias(USER), pl.col(COLUMN).cast(pl.String).str.strip_chars()
    )
    frame = frame.filter(pl.col(COLUMN).fill_null("") != "")
    if frame.is_empty():
        raise DeshiError(f"{file} has no text in its column {COLUMN!r}, expected a profile for each of some users.")
    twice = frame[USER].filter(frame[USER].is_duplicated())
    if len(twice):
        raise DeshiError(f"{file} has more than one profile of {twice.n_unique()} users, the first is {twice[0]!r}.")
    return indices_of(frame[USER], bundle.users[USER], "user", file), frame[COLUMN].to_list()


def _warn_of_answers(users: Ints, texts: list[str], bundle: Bundle, split: Split, file: Path) -> None:
    """Warn if profiles name the titles of held-out items of their users more often than those of other users."""
    table = bundle.item_table()
    if TITLE not in table.columns:
        return
    titles = [str(title or "").casefold() for title in table[TITLE]]
    in_data = np.flatnonzero(users != PAD)
    folded = [texts[number].casefold() for number in in_data]
    held_out = _held_out_items(users[in_data], bundle, split)

    def named(owners: Ints) -> Bools:
        """Whether a profile names one of the held-out items of the owner that it is given here."""
        asked = [[titles[item] for item in held_out[owner]] for owner in owners]
        return np.array(
            [
                any(len(title) >= _SHORTEST_TITLE and title in text for title in some)
                for text, some in zip(folded, asked, strict=True)
            ]
        )

    numbers = np.arange(len(in_data))
    own_named, others = int(named(numbers).sum()), int(named(np.roll(numbers, 1)).sum())
    if own_named - others > _SURE * np.sqrt(own_named + others):
        log.warning(
            "%s: %d of %d profiles name an item of their user's validation or test events, %d one of another user's. "
            "They seem to be written from whole histories: a student that learns them is validated and tested on what "
            "it was told. Write them from training events alone", file, own_named, len(in_data), others,
        )  # fmt: skip


def _held_out_items(users: Ints, bundle: Bundle, split: Split) -> list[Ints]:
    """The items of the users' events after their training ranges."""
    ends = split.train_ranges(bundle)[1]
    return [np.asarray(bundle.items[ends[user] : bundle.offsets[user + 1]]) for user in users]
