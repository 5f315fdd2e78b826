"""Users' profiles: whose they are, what is refused, and texts that tell what a student is tested on."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tiny_models import write_tiny_bert
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from deshi.teachers.encoders import SentenceEncoder
from deshi.teachers.user_profiles import UserProfiles
from deshi.types import ITEM, TITLE, USER, DeshiError
from tiny_bundles import random_sequences, tiny_bundle

N_ITEMS, N_USERS = 30, 40


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    names = [f"i{item}" for item in range(N_ITEMS)]
    items = pl.DataFrame({ITEM: names, TITLE: [f"The story of film {item:02d}" for item in range(N_ITEMS)]})
    return tiny_bundle(tmp_path, random_sequences(N_USERS, N_ITEMS, 5, 8), n_items=N_ITEMS, items=items)


def written(folder: Path, users: list[str], profiles: list[object]) -> str:
    path = folder / "profiles.parquet"
    pl.DataFrame({USER: users, "profile": profiles}).write_parquet(path)
    return str(path)


def vectors(bundle: Bundle, folder: Path, profiles: UserProfiles) -> Tensor:
    return profiles(bundle, LeaveOneOut()(bundle), folder)


def test_texts_become_vectors_of_their_users(bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In any order; users without a text have zeros, ids that aren't in the data are told."""
    pytest.importorskip("transformers")
    encoder = SentenceEncoder(str(write_tiny_bert(tmp_path / "bert")))
    ids = bundle.users[USER]
    names = [str(ids[3]), "nobody", str(ids[0]), str(ids[5])]
    path = written(tmp_path, names, ["a love story", "a war film", "space robot", "  "])
    found = vectors(bundle, tmp_path, UserProfiles(path, encoder))
    assert found.shape == (N_USERS, 12)
    assert found.any(1).nonzero().flatten().tolist() == [0, 3] and not torch.equal(found[0], found[3])
    assert "1 of 3 user ids are not in the data set" in caplog.text


def test_vectors_are_taken_as_they_are(bundle: Bundle, tmp_path: Path) -> None:
    """Made elsewhere by any encoder."""
    ids = bundle.users[USER]
    path = written(tmp_path, [str(ids[7]), str(ids[2])], [[1.0, 2.0], [3.0, 4.0]])
    found = vectors(bundle, tmp_path, UserProfiles(path, encoder=None))
    assert found[[2, 7]].tolist() == [[3.0, 4.0], [1.0, 2.0]] and int(found.any(1).sum()) == 2


@pytest.mark.parametrize(
    ("users", "profiles", "message"),
    [
        (["0", "0"], ["a film", "a war"], "more than one profile of 1 users, the first is '0'"),
        (["0", "1"], ["", None], "no text in its column 'profile'"),
        (["zero", "one"], ["a film", "a war"], "None of the 2 user ids"),
    ],
)
def test_files_without_use_are_refused(
    bundle: Bundle, tmp_path: Path, users: list[str], profiles: list[object], message: str
) -> None:
    """With what is wrong in them."""
    named = [str(bundle.users[USER][int(user)]) if user.isdigit() else user for user in users]
    message = message.replace("'0'", repr(named[0]))
    with pytest.raises(DeshiError, match=message):
        vectors(bundle, tmp_path, UserProfiles(written(tmp_path, named, profiles)))
    with pytest.raises(DeshiError, match="there is no such file"):
        vectors(bundle, tmp_path, UserProfiles(str(tmp_path / "none.csv")))
    (tmp_path / "other.csv").write_text("user_id,text\n1,a film\n")
    with pytest.raises(DeshiError, match="has no column profile.*A table of profiles has both"):
        vectors(bundle, tmp_path, UserProfiles(str(tmp_path / "other.csv")))
    with pytest.raises(DeshiError, match="vectors come in a .parquet"):
        vectors(bundle, tmp_path, UserProfiles(str(tmp_path / "other.csv"), encoder=None))


def test_texts_may_have_several_lines(bundle: Bundle, tmp_path: Path) -> None:
    """Chat models write paragraphs."""
    pytest.importorskip("transformers")
    encoder = SentenceEncoder(str(write_tiny_bert(tmp_path / "bert")))
    ids = bundle.users[USER]
    (tmp_path / "profiles.csv").write_text(f'user_id,profile\n{ids[1]},"A war film,\n\nno crime."\n{ids[4]},love\n')
    found = vectors(bundle, tmp_path, UserProfiles(str(tmp_path / "profiles.csv"), encoder))
    assert found.any(1).nonzero().flatten().tolist() == [1, 4]


@pytest.mark.parametrize("knows_the_answers", [True, False])
def test_profiles_that_tell_the_answers_are_warned_of(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture, knows_the_answers: bool
) -> None:
    """A text written from the whole history names the test item; one from training events names it by chance."""
    pytest.importorskip("transformers")
    encoder = SentenceEncoder(str(write_tiny_bert(tmp_path / "bert")))
    titles, end = bundle.item_table()[TITLE], 0 if knows_the_answers else 2
    texts = [
        "Likes " + ", ".join(titles[int(item)] for item in np.unique(bundle.items[start : stop - end]))
        for start, stop in zip(bundle.offsets[:-1], bundle.offsets[1:], strict=True)
    ]
    path = written(tmp_path, [str(user) for user in bundle.users[USER]], list(texts))
    with caplog.at_level(logging.WARNING):
        vectors(bundle, tmp_path, UserProfiles(path, encoder))
    assert ("profiles name an item of their user's validation or test events" in caplog.text) == knows_the_answers
