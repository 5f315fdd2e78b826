"""BIGRec, LLaRA and iLoRA: lists come back on their rows, and what doesn't fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from foreign_data import ITEMS, Taught, taught

from deshi.soft_labels.foreign import _bigrec as bigrec
from deshi.soft_labels.foreign import _llara as llara
from deshi.soft_labels.foreign import _titles as titles
from deshi.soft_labels.foreign._alignment import align_embeddings, align_rows
from deshi.soft_labels.foreign._frames import read_sequences
from deshi.soft_labels.foreign._mapping import map_by_title
from deshi.soft_labels.foreign._tensors import read_vectors
from deshi.types import PAD, DeshiError
from foreign_files import write_answers, write_bigrec, write_llara

pytestmark = pytest.mark.usefixtures("python_texts")

EMBEDDINGS = torch.arange(ITEMS * 3.0).reshape(ITEMS, 3) / 7


@pytest.fixture
def data(tmp_path: Path) -> Taught:
    awkward = [f"Title {item}" for item in range(ITEMS - 3)] + ['Say "Hi", "Bob"', "It's: 50%, really", "Ünïcode ☃"]
    return taught(tmp_path, titles=awkward)


def test_bigrec_lists_come_back(tmp_path: Path, data: Taught) -> None:
    """Titles with quotes, commas and colons in them come back as the items that they belong to."""
    file, names_file = write_bigrec(tmp_path, data.bundle, data.rows, data.items, EMBEDDINGS)
    names = titles.bigrec_names(names_file)
    lists = bigrec.read_examples(file, names)
    mapping = map_by_title(names, data.bundle)
    aligned = align_rows(lists, data.bundle, mapping)
    kept = aligned.rows != PAD
    assert kept.sum() > len(data.rows) - 5 and np.array_equal(aligned.rows[kept], data.rows[kept])
    assert np.array_equal(aligned.items[kept], data.items[kept]) and aligned.scores is None
    assert lists.notes[0] == "histories and outputs: 0 titles unknown, 0 of several items"
    vectors = read_vectors(tmp_path / "item_embedding.pt", len(names))
    assert torch.equal(align_embeddings(vectors, "item_embedding.pt", data.bundle, mapping), EMBEDDINGS)


def test_bigrec_with_shared_titles(tmp_path: Path) -> None:
    """Items that share a title are counted and left out, in histories, outputs and answers alike."""
    data = taught(tmp_path, titles=["Same", "Same", *(f"Title {item}" for item in range(2, ITEMS))])
    file, names_file = write_bigrec(tmp_path, data.bundle, data.rows, data.items)
    names = titles.bigrec_names(names_file)
    lists = bigrec.read_examples(file, names)
    assert not np.isin(lists.items, [0, 1]).any() and lists.notes[2] == "2 of 40 items share their title with another"
    aligned = align_rows(lists, data.bundle, map_by_title(names, data.bundle))
    events = np.asarray(data.bundle.items)
    assert aligned.report.unknown > 0
    assert not np.isin(events[aligned.rows[aligned.rows != PAD] + 1], [0, 1]).any()


def test_bigrec_answers_that_are_no_titles(tmp_path: Path) -> None:
    """A language model makes titles up; those are counted, and a list has each item once."""
    example: dict[str, object] = {
        "input": 'The user has watched the following movies before:"A", "B"\n ',
        "output": '"C"',
    }
    example["predict"] = ['"C"', "C", '"D (1999)"', '"a"']
    (tmp_path / "t.json").write_text(json.dumps([example]))
    lists = bigrec.read_examples(tmp_path / "t.json", {0: "A", 1: "B", 2: "C"})
    assert lists.items.tolist() == [[2, 0]] and lists.history.tolist() == [0, 1] and lists.next_items is not None
    assert lists.notes[1] == "generated: 1 titles unknown, 0 of several items"
    for content, says in (("{}", "isn't a list"), ("[", "can't be read"), ('[{"input": "x", "output": "y"}]', "colon")):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(DeshiError, match=says):
            bigrec.read_examples(tmp_path / "t.json", {0: "A"})


def long_rows(data: Taught) -> np.ndarray:
    """Rows with at least three events up to them: LLaRA asks about no others."""
    starts = np.repeat(data.bundle.offsets[:-1], np.diff(data.bundle.offsets))
    return data.rows[data.rows - starts[data.rows] >= 2]


def test_llara_answers_come_back(tmp_path: Path) -> None:
    """Answers come back on their rows; titles that contain each other aren't told apart by the programs."""
    numbered = taught(tmp_path / "n", titles=[f"<{item:02}>" for item in range(ITEMS)])
    rows = long_rows(numbered)
    frame_file, names_file = write_llara(tmp_path, numbered.bundle, rows)
    random, truth = np.random.default_rng(1), np.asarray(numbered.bundle.items)[rows + 1]
    candidates = np.stack([random.choice(ITEMS, 6, replace=False) for _ in rows])
    candidates[:, 0] = np.where((candidates == truth[:, None]).any(axis=1), candidates[:, 0], truth)
    answers = candidates[:, 0]
    file = write_answers(tmp_path / "test.csv", numbered.bundle, rows, answers, candidates)
    names = titles.llara_names(names_file)
    answered = llara.read_answers(file, read_sequences(frame_file, ITEMS), names)
    assert answered.valid == 1.0 and answered.hit_ratio == answered.hits == pytest.approx((answers == truth).mean())
    assert np.array_equal(answered.lists.items[:, 0], answers)
    aligned = align_rows(answered.lists, numbered.bundle, map_by_title(names, numbered.bundle))
    kept = aligned.rows != PAD
    assert kept.sum() > len(rows) - 5 and np.array_equal(aligned.rows[kept], rows[kept])
    assert np.array_equal(aligned.items[kept, 0], answers[kept])


def answers_file(path: Path, generated: list[str], real: list[str]) -> Path:
    cans = [["One", "Two", "Three"]] * len(real)
    path.write_text(json.dumps({"generate": generated, "real": real, "cans": cans}))
    return path


def test_llara_counts_as_the_papers_do(tmp_path: Path, data: Taught) -> None:
    """HitRatio@1 divides by valid answers only; an answer with two candidates in it is invalid."""
    frame = read_sequences(write_llara(tmp_path, data.bundle, long_rows(data)[:4])[0], ITEMS)
    names = dict(enumerate(["One", "Two", "Three", *(f"x{item}" for item in range(3, ITEMS))]))
    real = [names[number] for number in frame.next_items.tolist()]
    path = answers_file(tmp_path / "a.json", ["one.", "One or Two", "nothing"], real[:3])
    answered = llara.read_answers(path, frame, names)
    assert answered.valid == pytest.approx(1 / 3) and answered.lists.items.tolist() == [[0], [PAD], [PAD]]
    assert "3 of 4 rows" in answered.lists.notes[0] and len(answered.lists) == 3


def test_llara_answers_of_other_rows_are_refused(tmp_path: Path, data: Taught) -> None:
    """Answers are joined to rows by their order alone: the true titles prove it or refute it."""
    frame_file, names_file = write_llara(tmp_path, data.bundle, long_rows(data)[:4])
    frame, names = read_sequences(frame_file, ITEMS), titles.llara_names(names_file)
    real = [names[number] for number in frame.next_items.tolist()]
    with pytest.raises(DeshiError, match=r"of 4 true titles aren't those"):
        llara.read_answers(answers_file(tmp_path / "a.json", [""] * 4, real[::-1]), frame, names)
    with pytest.raises(DeshiError, match="5 answers, expected 1 to 4"):
        llara.read_answers(answers_file(tmp_path / "a.json", [""] * 5, [*real, "x"]), frame, names)
    (tmp_path / "a.csv").write_text(",generate,real,cans\n0,x,y,\"__import__('os').getcwd()\"\n")
    with pytest.raises(DeshiError, match="expected a list of titles"):
        llara.read_answers(tmp_path / "a.csv", frame, names)


def test_ilora_movielens_frames_have_ratings(tmp_path: Path) -> None:
    """Pairs of item and rating, pickled by pandas with numpy numbers inside; padding is the pair (1682, 0)."""
    table = pandas.DataFrame(
        {
            "seq": [[(np.int64(704), 5), (155, 3), (1682, 0)], [(1, 1), (1682, 0), (1682, 0)]],
            "len_seq": [2, 1],
            "next": [(3, 4), (132, np.int64(5))],
        }
    )
    table.to_pickle(tmp_path / "Test_data.df")
    found = read_sequences(tmp_path / "Test_data.df", 1682)
    assert found.history.tolist() == [704, 155, 1] and found.next_items.tolist() == [3, 132]
    assert "ratings are left out" in found.notes[0]


def test_title_lists_of_every_program(tmp_path: Path) -> None:
    """Two programs, two spellings of the same list; a gap or a repeated number means a wrong file."""
    (tmp_path / "b.txt").write_text(' Half-Life 2\t0\n"Quake"\t1\n')
    assert titles.bigrec_names(tmp_path / "b.txt") == {0: "Half-Life 2", 1: "Quake"}
    (tmp_path / "l.txt").write_text("0::Morcheeba\n1::A::B\n", encoding="utf-8")
    assert titles.llara_names(tmp_path / "l.txt") == {0: "Morcheeba", 1: "A::B"}
    (tmp_path / "b.txt").write_text("A\t0\nB\t0\n")
    with pytest.raises(DeshiError, match="stands in two lines"):
        titles.bigrec_names(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("A\t1\nB\t2\n")
    with pytest.raises(DeshiError, match="expected 0 to 1 without gaps"):
        titles.bigrec_names(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("no number\n")
    with pytest.raises(DeshiError, match="line 1 reads"):
        titles.bigrec_names(tmp_path / "b.txt")


def test_a_byte_order_mark_hides_no_title(tmp_path: Path) -> None:
    """Editors on Windows write one: the first title would match nothing."""
    (tmp_path / "id2name.txt").write_text("\ufeffHeat\t0\r\nRan\t1\r\n", encoding="utf-8")
    assert titles.bigrec_names(tmp_path / "id2name.txt") == {0: "Heat", 1: "Ran"}
    (tmp_path / "id2name.txt").write_bytes(b"Caf\xe9\t0\n")
    with pytest.raises(DeshiError, match="line 1 is no utf-8 text"):
        titles.bigrec_names(tmp_path / "id2name.txt")
