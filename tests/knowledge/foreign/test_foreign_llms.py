"""BIGRec, LLaRA, iLoRA, LLM2Rec, LLMEmb and LLM-ESR: round trips, and what doesn't fit."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_data import ITEMS, K, Taught, distances, taught

from deshi.soft_labels.foreign import bigrec, llara, llm2rec, llmemb, titles
from deshi.soft_labels.foreign.alignment import align_embeddings, align_rows
from deshi.soft_labels.foreign.frames import read_sequences
from deshi.soft_labels.foreign.mapping import map_by_id, map_by_index, map_by_title
from deshi.types import PAD, DeshiError

EMBEDDINGS = torch.arange(ITEMS * 3.0).reshape(ITEMS, 3) / 7


@pytest.fixture
def data(tmp_path: Path) -> Taught:
    awkward = [f"Title {item}" for item in range(ITEMS - 3)] + ['Say "Hi", "Bob"', "It's: 50%, really", "Ünïcode ☃"]
    return taught(tmp_path, titles=awkward)


def test_bigrec_round_trip(tmp_path: Path, data: Taught) -> None:
    """Titles with quotes, commas and colons in them come back as the items that they belong to."""
    bigrec.write_bigrec(tmp_path, "train.json", data.bundle, data.rows, data.items, EMBEDDINGS)
    names = titles.bigrec_names(tmp_path / "id2name.txt")
    lists = bigrec.read_examples(tmp_path / "train.json", names)
    mapping = map_by_title(names, data.bundle)
    found = align_rows(lists, data.bundle, mapping)
    kept = found.rows != PAD
    assert kept.sum() > len(data.rows) - 5 and np.array_equal(found.rows[kept], data.rows[kept])
    assert np.array_equal(found.items[kept], data.items[kept]) and found.scores is None
    assert lists.notes[0] == "histories and outputs: 0 titles unknown, 0 of several items"
    vectors = bigrec.read_embeddings(tmp_path / "item_embedding.pt", len(names))
    assert torch.equal(align_embeddings(vectors, data.bundle, mapping), EMBEDDINGS)


def test_bigrec_with_shared_titles(tmp_path: Path) -> None:
    """Items that share a title are counted and left out, in histories, outputs and answers alike."""
    data = taught(tmp_path, titles=["Same", "Same", *(f"Title {item}" for item in range(2, ITEMS))])
    bigrec.write_bigrec(tmp_path, "t.json", data.bundle, data.rows, data.items)
    names = titles.bigrec_names(tmp_path / "id2name.txt")
    lists = bigrec.read_examples(tmp_path / "t.json", names)
    assert not np.isin(lists.items, [0, 1]).any() and lists.notes[2] == "2 of 40 items share their title with another"
    found = align_rows(lists, data.bundle, map_by_title(names, data.bundle))
    events = np.asarray(data.bundle.items)
    assert found.report.unknown > 0
    assert not np.isin(events[found.rows[found.rows != PAD] + 1], [0, 1]).any()


def test_bigrec_by_distance(tmp_path: Path, data: Taught) -> None:
    """Grounding by distance is BIGRec's answer; its rank matrix, which is positions, is refused."""
    bigrec.write_bigrec(tmp_path, "t.json", data.bundle, data.rows)
    lists = bigrec.read_examples(tmp_path / "t.json", titles.bigrec_names(tmp_path / "id2name.txt"))
    matrix = distances(data)
    found = bigrec.with_distances(lists, matrix, K)
    assert np.array_equal(found.items, matrix.argsort(axis=1)[:, :K]) and not found.higher_is_better
    with pytest.raises(DeshiError, match="BIGRec's rank"):
        bigrec.with_distances(lists, matrix.argsort(axis=1).argsort(axis=1), K)
    with pytest.raises(DeshiError, match="expected"):
        bigrec.with_distances(lists, matrix[:-1], K)


def test_bigrec_answers_that_are_no_titles(tmp_path: Path) -> None:
    """A language model makes titles up; those are counted, and a list has each item once."""
    example = {"input": 'The user has watched the following movies before:"A", "B"\n ', "output": '"C"'}
    example["predict"] = ['"C"', "C", '"D (1999)"', '"a"']
    (tmp_path / "t.json").write_text(json.dumps([example]))
    lists = bigrec.read_examples(tmp_path / "t.json", {0: "A", 1: "B", 2: "C"})
    assert lists.items.tolist() == [[2, 0]] and lists.history.tolist() == [0, 1] and lists.next_items is not None
    assert lists.notes[1] == "generated: 1 titles unknown, 0 of several items"
    for content, says in (("{}", "isn't a list"), ("[", "can't be read"), ('[{"input": "x", "output": "y"}]', "colon")):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(DeshiError, match=says):
            bigrec.read_examples(tmp_path / "t.json", {0: "A"})


def llara_files(folder: Path, data: Taught, rows: np.ndarray) -> np.ndarray:
    """Frames and answers; returns the candidates."""
    llara.write_llara(folder, data.bundle, {"Test_data": rows})
    random = np.random.default_rng(1)
    truth = np.asarray(data.bundle.items)[rows + 1]
    candidates = np.stack([random.choice(ITEMS, 6, replace=False) for _ in rows])
    candidates[:, 0] = np.where((candidates == truth[:, None]).any(axis=1), candidates[:, 0], truth)
    return candidates


def test_llara_round_trip(tmp_path: Path, data: Taught) -> None:
    """Frames, candidates and answers come back; titles that contain each other aren't told apart by the programs."""
    numbered = taught(tmp_path / "n", titles=[f"<{item:02}>" for item in range(ITEMS)])
    starts = np.repeat(numbered.bundle.offsets[:-1], np.diff(numbered.bundle.offsets))
    rows = numbered.rows[numbered.rows - starts[numbered.rows] >= 2]
    candidates = llara_files(tmp_path, numbered, rows)
    answers = candidates[:, :1]
    llara.write_answers(tmp_path / "test.csv", numbered.bundle, rows, answers, candidates)
    names = titles.llara_names(tmp_path / "id2name.txt")
    frame = read_sequences(tmp_path / "Test_data.parquet", ITEMS)
    found = llara.read_answers(tmp_path / "test.csv", frame, names)
    right = (answers[:, 0] == np.asarray(numbered.bundle.items)[rows + 1]).mean()
    assert found.valid == 1.0 and found.hit_ratio == found.hits == pytest.approx(right)
    assert np.array_equal(found.candidates, candidates) and np.array_equal(found.lists.items, answers)
    aligned = align_rows(found.lists, numbered.bundle, map_by_title(names, numbered.bundle))
    kept = aligned.rows != PAD
    assert kept.sum() > len(rows) - 5 and np.array_equal(aligned.rows[kept], rows[kept])
    assert np.array_equal(aligned.items[kept], answers[kept])


def answers_file(path: Path, generated: list[str], real: list[str]) -> Path:
    cans = [["One", "Two", "Three"]] * len(real)
    path.write_text(json.dumps({"generate": generated, "real": real, "cans": cans}))
    return path


def test_llara_counts_as_the_papers_do(tmp_path: Path, data: Taught) -> None:
    """HitRatio@1 divides by valid answers only; an answer with two candidates in it is invalid."""
    llara.write_llara(tmp_path, data.bundle, {"Test_data": data.rows[3:7]})
    frame = read_sequences(tmp_path / "Test_data.parquet", ITEMS)
    names = dict(enumerate(["One", "Two", "Three", *(f"x{item}" for item in range(3, ITEMS))]))
    real = [names[number] for number in frame.next_items.tolist()]
    path = answers_file(tmp_path / "a.json", ["one.", "One or Two", "nothing"], real[:3])
    found = llara.read_answers(path, frame, names, shortest=1)
    assert found.valid == pytest.approx(1 / 3) and found.lists.items.tolist() == [[0], [PAD], [PAD]]
    assert "3 of 4 rows" in found.lists.notes[0] and len(found.lists) == 3


def test_llara_answers_of_other_rows_are_refused(tmp_path: Path, data: Taught) -> None:
    """Answers are joined to rows by their order alone: the true titles prove it or refute it."""
    llara.write_llara(tmp_path, data.bundle, {"Test_data": data.rows[:4]})
    frame = read_sequences(tmp_path / "Test_data.parquet", ITEMS)
    names = titles.llara_names(tmp_path / "id2name.txt")
    real = [names[number] for number in frame.next_items.tolist()]
    with pytest.raises(DeshiError, match=r"of 4 true titles aren't those"):
        llara.read_answers(answers_file(tmp_path / "a.json", [""] * 4, real[::-1]), frame, names, shortest=1)
    with pytest.raises(DeshiError, match="5 answers, expected 1 to 4"):
        llara.read_answers(answers_file(tmp_path / "a.json", [""] * 5, [*real, "x"]), frame, names, shortest=1)
    (tmp_path / "a.csv").write_text(",generate,real,cans\n0,x,y,\"__import__('os').getcwd()\"\n")
    with pytest.raises(DeshiError, match="expected a list of titles"):
        llara.read_answers(tmp_path / "a.csv", frame, names, shortest=1)


def test_ilora_movielens_frames_have_ratings(tmp_path: Path) -> None:
    """Pairs of item and rating, pickled by pandas with numpy numbers inside; padding is the pair (1682, 0)."""
    pandas = pytest.importorskip("pandas")
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
    """Four programs, four spellings of the same list; a gap or a repeated number means a wrong file."""
    (tmp_path / "b.txt").write_text(' Half-Life 2\t0\n"Quake"\t1\n')
    assert titles.bigrec_names(tmp_path / "b.txt") == {0: "Half-Life 2", 1: "Quake"}
    (tmp_path / "l.txt").write_text("0::Morcheeba\n1::A::B\n", encoding="utf-8")
    assert titles.llara_names(tmp_path / "l.txt") == {0: "Morcheeba", 1: "A::B"}
    (tmp_path / "u.item").write_text("1|Matrix, The (1999)|x\n2|Amélie (2001)|x\n", encoding="latin-1")
    assert titles.movielens_names(tmp_path / "u.item") == {0: "The Matrix", 1: "Amélie"}
    (tmp_path / "m.dat").write_text("7::Jumanji (1995)::A\n9::Heat (1995)::B\n", encoding="latin-1")
    assert titles.movies_dat(tmp_path / "m.dat") == ({0: "Jumanji (1995)", 1: "Heat (1995)"}, {0: "7", 1: "9"})
    (tmp_path / "b.txt").write_text("A\t0\nB\t0\n")
    with pytest.raises(DeshiError, match="stands in two lines"):
        titles.bigrec_names(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("A\t1\nB\t2\n")
    with pytest.raises(DeshiError, match="expected 0 to 1 without gaps"):
        titles.bigrec_names(tmp_path / "b.txt")
    (tmp_path / "b.txt").write_text("no number\n")
    with pytest.raises(DeshiError, match="line 1 reads"):
        titles.bigrec_names(tmp_path / "b.txt")


def test_llm2rec_round_trip(tmp_path: Path, data: Taught) -> None:
    """Row 0 is a placeholder: read as item 1, every item would have its neighbour's vector."""
    llm2rec.write_llm2rec(tmp_path, "qwen_title", data.bundle, EMBEDDINGS)
    names = llm2rec.read_titles(tmp_path / "item_titles.json")
    file = tmp_path / "qwen_title_item_embs.npy"
    vectors = llm2rec.read_embeddings(file, len(names))
    assert "all zeros" in vectors.notes[0]
    assert torch.equal(align_embeddings(vectors, data.bundle, map_by_title(names, data.bundle)), EMBEDDINGS)
    assert torch.equal(align_embeddings(vectors, data.bundle, map_by_index(data.bundle, id_base=1)), EMBEDDINGS)
    with pytest.raises(DeshiError, match=r"\(41, 3\), expected \(40, D\).*Pass pad_row=true"):
        llm2rec.read_embeddings(file, ITEMS, pad_row=False)
    np.save(file, EMBEDDINGS.numpy())
    with pytest.raises(DeshiError, match=r"\(40, 3\), expected \(41, D\).*Pass pad_row=false"):
        llm2rec.read_embeddings(file, ITEMS)
    (tmp_path / "item_titles.json").write_text('{"0": "A", "1": "B"}')
    with pytest.raises(DeshiError, match="expected 1 to 2"):
        llm2rec.read_titles(tmp_path / "item_titles.json")


def test_llmemb_round_trip(tmp_path: Path, data: Taught) -> None:
    """No padding row, items from 1; read with the program's own pickle and with deshi's .npy."""
    llmemb.write_llmemb(tmp_path, "itm_emb_np", data.bundle, EMBEDDINGS)
    ids = llmemb.read_id_map(tmp_path / "id_map.json")
    mapping = map_by_id(ids, data.bundle)
    with (tmp_path / "itm_emb_np.pkl").open("wb") as handle:
        pickle.dump(np.load(tmp_path / "itm_emb_np.npy"), handle)
    for suffix in ("npy", "pkl"):
        vectors = llmemb.read_embeddings(tmp_path / f"itm_emb_np.{suffix}", len(ids))
        assert torch.equal(align_embeddings(vectors, data.bundle, mapping), EMBEDDINGS)
    with pytest.raises(DeshiError, match=r"\(40, 3\), expected \(41, D\)"):
        llmemb.read_embeddings(tmp_path / "itm_emb_np.pkl", ITEMS + 1)
    (tmp_path / "d.pkl").write_bytes(pickle.dumps({"a": [1.0]}))
    with pytest.raises(DeshiError, match="holds dict, expected a numpy array"):
        llmemb.read_embeddings(tmp_path / "d.pkl", ITEMS)


def test_id_maps_must_agree_with_themselves(tmp_path: Path) -> None:
    """Both directions stand in the file; if they differ, one of them is of another run."""
    good = {"item2id": {"x": "1", "y": "2"}, "id2item": {"1": "x", "2": "y"}, "user2id": {}}
    (tmp_path / "m.json").write_text(json.dumps(good))
    assert llmemb.read_id_map(tmp_path / "m.json") == {1: "x", 2: "y"}
    for change, says in (
        ({"id2item": {"1": "y", "2": "x"}}, "isn't the inverse"),
        ({"item2id": {"x": "0", "y": "1"}, "id2item": {"0": "x", "1": "y"}}, "expected 1 to 2"),
        ({"item2id": []}, "expected item2id and id2item"),
    ):
        (tmp_path / "m.json").write_text(json.dumps(good | change))
        with pytest.raises(DeshiError, match=says):
            llmemb.read_id_map(tmp_path / "m.json")
