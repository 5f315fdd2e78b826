"""Foreign files become teachers only where their ids, numbers and directions are beyond doubt."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from deshi.data.bundle import Bundle
from deshi.data.sequences import history_batches
from deshi.data.splits import LeaveOneOut
from deshi.evaluation import evaluate_ranks
from deshi.models.scorers import Scorer
from deshi.teachers.base import Resources
from deshi.teachers.file_vectors import ItemVectors
from deshi.teachers.files import RankedLists, ScoreMatrix
from deshi.types import PAD, Batch, DeshiError
from tiny_bundles import tiny_bundle

INF = float("inf")
SEQUENCES = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Users u0, u1, u2 and items i0 to i4."""
    return tiny_bundle(tmp_path, SEQUENCES, n_items=5)


@pytest.fixture
def resources(bundle: Bundle, tmp_path: Path) -> Resources:
    def none(name: str) -> tuple:
        raise AssertionError("files need no student")

    return Resources(bundle, tmp_path / "cache", none, torch.device("cpu"))


def asked(bundle: Bundle, held_out: int = 1, users: tuple[int, ...] = (0, 1, 2)) -> Batch:
    """The histories without their latest ``held_out`` events, in the order of ``users``."""
    numbers = np.array(users)
    starts, ends = bundle.offsets[numbers], bundle.offsets[numbers + 1] - held_out
    ((_, batch),) = history_batches(np.asarray(bundle.items), numbers, starts, ends, 100, 100)
    return batch


def write(path: Path, text: str) -> str:
    path.write_text(text, errors="surrogateescape")
    return str(path)


def lists(tmp_path: Path, *rows: str, header: str = "user_id,item_id,score", name: str = "lists.csv") -> str:
    return write(tmp_path / name, "\n".join([header, *rows]) + "\n")


FULL = ("u0,i4,0.9", "u0,i1,0.5", "u1,i0,3", "u2,i2,-1", "u2,i3,-2")


class TestRankedLists:
    def test_scores_stand_at_their_users_and_items(self, resources: Resources, tmp_path: Path) -> None:
        """A shifted user or item would be a teacher of noise that no figure gives away at once."""
        teacher = RankedLists(5, resources, lists(tmp_path, *FULL))
        scores = teacher.scores(asked(resources.bundle))
        expected = [[-INF, 0.5, -INF, -INF, 0.9], [3, -INF, -INF, -INF, -INF], [-INF, -INF, -1, -2, -INF]]
        torch.testing.assert_close(scores, torch.tensor(expected))
        reversed_users = teacher.scores(asked(resources.bundle, users=(2, 0)))
        torch.testing.assert_close(reversed_users, torch.tensor(expected)[[2, 0]])

    @pytest.mark.parametrize(
        ("header", "options", "best"),
        [
            ("user_id,item_id,score", {}, 1),
            ("user_id,item_id,score", {"higher_is_better": False}, 4),
            ("user_id,item_id,rank", {}, 4),
            ("user_id,item_id,distance", {"score": "distance", "higher_is_better": False}, 4),
            ("user_id,item_id,position", {"rank": "position"}, 4),
        ],
    )
    def test_directions(self, resources: Resources, tmp_path: Path, header: str, options: dict, best: int) -> None:
        """Ranks and distances are better when they are smaller: the wrong direction teaches the opposite."""
        path = lists(tmp_path, "u0,i4,1", "u0,i1,2", "u1,i4,1", "u1,i1,2", "u2,i4,1", "u2,i1,2", header=header)
        scores = RankedLists(5, resources, path, **options).scores(asked(resources.bundle))
        assert scores.argmax(1).tolist() == [best] * 3

    def test_formats_give_the_same(self, resources: Resources, tmp_path: Path) -> None:
        """The ending decides how a file is read, never what it says; whole float ids are ids."""
        frame = pl.read_csv(lists(tmp_path, *FULL))
        frame.write_parquet(tmp_path / "lists.parquet")
        frame.write_csv(tmp_path / "lists.tsv", separator="\t")
        read = [
            RankedLists(5, resources, str(tmp_path / f"lists.{kind}")).scores(asked(resources.bundle))
            for kind in ("csv", "parquet", "tsv")
        ]
        assert torch.equal(read[0], read[1]) and torch.equal(read[0], read[2])

    def test_every_writing_of_a_table_gives_the_same(self, resources: Resources, tmp_path: Path) -> None:
        """The same rows: packed, as JSON, marked, with decimal commas, behind a name that looks like a pattern."""
        frame = pl.read_csv(lists(tmp_path, *FULL))
        text = (tmp_path / "lists.csv").read_text()
        (tmp_path / "lists.csv.gz").write_bytes(gzip.compress(text.encode()))
        frame.write_ndjson(tmp_path / "lists.jsonl")
        (tmp_path / "lists.json").write_text(json.dumps(frame.to_dicts()))
        write(tmp_path / "marked.csv", "\ufeff" + text)
        write(tmp_path / "comma.tsv", text.replace(",", "\t").replace(".", ","))
        write(tmp_path / "lists[1].csv", text)
        lists(tmp_path, "u0,i0,1", "u1,i0,1", "u2,i0,1", name="lists1.csv")
        expected = RankedLists(5, resources, str(tmp_path / "lists.csv")).scores(asked(resources.bundle))
        for name in ("lists.csv.gz", "lists.jsonl", "lists.json", "marked.csv", "comma.tsv", "lists[1].csv"):
            scores = RankedLists(5, resources, str(tmp_path / name)).scores(asked(resources.bundle))
            assert torch.equal(scores, expected), name

    def test_truncated_tables_are_refused(self, resources: Resources, tmp_path: Path) -> None:
        """An export that broke off would teach the first users only."""
        packed = gzip.compress(Path(lists(tmp_path, *FULL)).read_bytes())
        (tmp_path / "lists.csv.gz").write_bytes(packed[: len(packed) // 2])
        pl.read_csv(tmp_path / "lists.csv").write_parquet(tmp_path / "whole.parquet")
        (tmp_path / "lists.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
        for name, message in (("lists.csv.gz", "truncated"), ("lists.parquet", "can't be read as parquet")):
            with pytest.raises(DeshiError, match=message):
                RankedLists(5, resources, str(tmp_path / name))

    def test_nested_ids_are_refused(self, resources: Resources, tmp_path: Path) -> None:
        """A row with a whole list of items is another format, and a list's text is no id."""
        wide = pl.DataFrame({"user_id": ["u0"], "item_id": [["i1", "i2"]], "score": [1.0]})
        wide.write_parquet(tmp_path / "wide.parquet")
        with pytest.raises(DeshiError, match="holds List.*one id a row"):
            RankedLists(5, resources, str(tmp_path / "wide.parquet"))

    def test_numeric_ids(self, tmp_path: Path) -> None:
        """A data frame with a gap writes 7 as 7.0; it is still item 7."""
        bundle = tiny_bundle(tmp_path, [["7", "8", "9"]])
        bundle.users.replace_column(1, pl.Series("user_id", ["1"]))
        pl.DataFrame({"user_id": [1], "item_id": [9.0], "score": [1.0]}).write_parquet(tmp_path / "lists.parquet")
        resources = Resources(bundle, tmp_path, lambda name: pytest.fail("no student"), torch.device("cpu"))
        scores = RankedLists(3, resources, str(tmp_path / "lists.parquet")).scores(asked(bundle, users=(0,)))
        assert scores.tolist() == [[-INF, -INF, 1.0]]

    def test_unknown_ids_are_counted(
        self, resources: Resources, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Lists of the unfiltered data name items that the filters took out: known loss, but never silent."""
        path = lists(tmp_path, *FULL, "u0,x,9", "u0,y,8", "stranger,i0,7")
        with caplog.at_level(logging.WARNING, logger="deshi"):
            teacher = RankedLists(5, resources, path)
        assert "1 of 4 user ids are not in the data set (first: 'stranger')" in caplog.text
        assert "2 of 7 item ids are not in the data set (first: 'x')" in caplog.text
        assert teacher.scores(asked(resources.bundle))[0].argmax() == 4

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (["u0,i1,nan", *FULL], r"1 of 6 rows whose score is no finite number, the first is row 1 with 'nan'"),
            ([*FULL, "u0,i2,"], r"1 of 6 rows whose score is no finite number, the first is row 6 with None"),
            (["u0,i1,good", *FULL], "no finite number"),
            ([*FULL, "u0,i4,0.1"], "repeats 1 items in a user's list, the first is 'i4' of the user 'u0'"),
            (["0,i1,1"], "None of the 1 user ids .* is known, for example '0'; the data set has ids such as 'u0'"),
            (["u0,1,1"], "None of the 1 item ids"),
            ([",i1,1"], "1 rows without an id, the first is row 1"),
            ([], "has no rows"),
            (["u0,i1,1,9", *FULL], "1 malformed lines, the first is line 2: 4 columns, expected 3: 'u0,i1,1,9'"),
            ([*FULL, 'u0,"i3,1'], "1 malformed lines, the first is line 7: a quote opens that isn't closed"),
            (["u0,Caf\udce9,1", *FULL], "1 malformed lines, the first is line 2: not valid text"),
            (["u0,i1,1"], "has nothing for 2 of the data set's 3 users, the first is 'u1'"),
        ],
    )
    def test_faults_are_refused(self, resources: Resources, tmp_path: Path, rows: list[str], message: str) -> None:
        """Each of these would become a teacher that is wrong for some users only."""
        with pytest.raises(DeshiError, match=message):
            RankedLists(5, resources, lists(tmp_path, *rows))

    def test_missing_and_misnamed_things(self, resources: Resources, tmp_path: Path) -> None:
        """The nearest name is most of the repair."""
        path = lists(tmp_path, *FULL, header="user_id,items_id,scores")
        with pytest.raises(DeshiError, match="neither a column 'score' nor 'rank'; it has user_id, items_id, scores"):
            RankedLists(5, resources, path)
        with pytest.raises(DeshiError, match="no column item_id.*Did you mean 'items_id'"):
            RankedLists(5, resources, path, score="scores")
        with pytest.raises(DeshiError, match="Did you mean .*lists.csv"):
            RankedLists(5, resources, str(tmp_path / "list.csv"))
        with pytest.raises(DeshiError, match="xlsx can't be told from its name"):
            RankedLists(5, resources, write(tmp_path / "lists.xlsx", "x"))
        with pytest.raises(DeshiError, match="n_items is 4"):
            RankedLists(4, resources, path)

    def test_users_without_a_list_are_ranked_by_chance(self, resources: Resources, tmp_path: Path) -> None:
        """Chance is the honest figure of no answer: the middle of the list, and nothing to learn from."""
        teacher = RankedLists(5, resources, lists(tmp_path, "u0,i4,1"), missing_users="chance")
        ranking = evaluate_ranks(
            teacher, resources.bundle, LeaveOneOut()(resources.bundle).examples(resources.bundle, "test"), top_k=2
        )
        assert ranking.ranks["rank"].to_list() == [2.0, 1.5, 1.5]  # candidates: u0's i3 behind i4; others two each
        assert ranking.top_items.tolist() == [[4, PAD], [PAD, PAD], [PAD, PAD]]

    def test_a_second_history_is_refused(self, resources: Resources, tmp_path: Path) -> None:
        """One list a user can't know what follows on every prefix: copying it there would leak the future."""
        teacher = RankedLists(5, resources, lists(tmp_path, *FULL))
        teacher.scores(asked(resources.bundle, held_out=1))
        teacher.scores(asked(resources.bundle, held_out=1))
        with pytest.raises(DeshiError, match="one ranking a user.*'u[012]' after event.*another history"):
            teacher.scores(asked(resources.bundle, held_out=2))
        assert not teacher.max_length

    def test_held_out_names_the_history(self, resources: Resources, tmp_path: Path) -> None:
        """Lists for the test example, asked for validation, would have seen the validation target."""
        teacher = RankedLists(5, resources, lists(tmp_path, *FULL), held_out=1)
        with pytest.raises(DeshiError, match="held_out=1 says"):
            teacher.scores(asked(resources.bundle, held_out=2))
        assert teacher.scores(asked(resources.bundle, held_out=1)).shape == (3, 5)
        with pytest.raises(DeshiError, match="held_out is -1"):
            RankedLists(5, resources, lists(tmp_path, *FULL), held_out=-1)

    def test_a_changed_file_is_another_teacher(self, resources: Resources, tmp_path: Path) -> None:
        """Figures that were recorded for one file must not be claimed for the next."""
        path = lists(tmp_path, *FULL)
        state = RankedLists(5, resources, path).fit(None)  # type: ignore[arg-type]
        RankedLists(5, resources, path).restore(state)
        lists(tmp_path, *FULL[::-1])
        with pytest.raises(DeshiError, match="has the sha256"):
            RankedLists(5, resources, path).restore(state)


class TestScoreMatrix:
    MATRIX = np.array([[1.0, 2, 3, 4, 5], [5, 4, 3, 2, 1], [0, 9, 0, -3, 8]], dtype=np.float32)

    def files(self, tmp_path: Path, matrix: np.ndarray | None = None, **ids: str) -> tuple[str, str, str]:
        np.save(tmp_path / "scores.npy", self.MATRIX if matrix is None else matrix)
        users = write(tmp_path / "users.txt", ids.get("users", "u2\nu0\nu1\n"))
        items = write(tmp_path / "items.csv", ids.get("items", "item_id\ni4\ni3\ni2\ni1\ni0\n"))
        return str(tmp_path / "scores.npy"), users, items

    def test_rows_and_columns_go_by_id(self, resources: Resources, tmp_path: Path) -> None:
        """The file's order is its own: only the ids say which row and column is whose."""
        scores = ScoreMatrix(5, resources, *self.files(tmp_path)).scores(asked(resources.bundle))
        torch.testing.assert_close(scores, torch.from_numpy(self.MATRIX[[1, 2, 0]][:, ::-1].copy()))

    def test_lower_is_better(self, resources: Resources, tmp_path: Path) -> None:
        """Distances are turned round, and their worst value is plus infinity."""
        matrix = self.MATRIX.copy()
        matrix[0, 0] = INF
        scores = ScoreMatrix(5, resources, *self.files(tmp_path, matrix), higher_is_better=False)
        rows = scores.scores(asked(resources.bundle, users=(2,)))
        assert rows.tolist() == [[-5, -4, -3, -2, -INF]]
        with pytest.raises(DeshiError, match="has inf in row 0, column 0"):
            ScoreMatrix(5, resources, *self.files(tmp_path, matrix))

    def test_whole_numbers_and_arrays_of_ids(self, resources: Resources, tmp_path: Path) -> None:
        """Matrices of ranks are integers; their negation must not wrap."""
        path, _, items = self.files(tmp_path, np.array([[0, 1, 2, 3, 4]] * 3, dtype=np.uint8))
        np.save(tmp_path / "users.npy", np.array(["u0", "u1", "u2"]))
        users = str(tmp_path / "users.npy")
        scores = ScoreMatrix(5, resources, path, users, items, higher_is_better=False).scores(asked(resources.bundle))
        assert scores[0].tolist() == [-4, -3, -2, -1, 0]

    def test_id_files_of_other_systems(self, resources: Resources, tmp_path: Path) -> None:
        """A byte order mark would hide the first id, and an empty last line is none."""
        np.save(tmp_path / "scores.npy", np.arange(15.0).reshape(3, 5))
        items = write(tmp_path / "items.txt", "i0\ni1\ni2\ni3\ni4\n")
        users = write(tmp_path / "users.txt", "\ufeffu0\r\nu1 \r\nu2\r\n\r\n")
        teacher = ScoreMatrix(5, resources, str(tmp_path / "scores.npy"), users, items)
        assert teacher.scores(asked(resources.bundle))[0].tolist() == [0, 1, 2, 3, 4]

    def test_a_truncated_matrix_is_refused(self, resources: Resources, tmp_path: Path) -> None:
        """Every cut of an array is one sentence, never a traceback."""
        np.save(tmp_path / "whole.npy", np.arange(15.0).reshape(3, 5))
        content = (tmp_path / "whole.npy").read_bytes()
        users, items = write(tmp_path / "u.txt", "u0\nu1\nu2\n"), write(tmp_path / "i.txt", "i0\ni1\ni2\ni3\ni4\n")
        for size in (1, 5, 9, 40, 127, 128, len(content) - 1):
            (tmp_path / "cut.npy").write_bytes(content[:size])
            with pytest.raises(DeshiError, match="can't be read as .npy"):
                ScoreMatrix(5, resources, str(tmp_path / "cut.npy"), users, items)
        (tmp_path / "cut.npy").write_bytes(b"PK\x03\x04" + content[:100])
        with pytest.raises(DeshiError, match="can't be read as .npy"):
            ScoreMatrix(5, resources, str(tmp_path / "cut.npy"), users, items)

    def test_gaps_need_a_strategy(self, resources: Resources, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Users and items that the file doesn't know must not get somebody else's numbers."""
        gaps: dict[str, Any] = {"users": "u2\nghost\nu1\n", "items": "item_id\ni4\ni3\nghost\ni1\ni0\n"}
        files = self.files(tmp_path, **gaps)
        with pytest.raises(DeshiError, match="nothing for 1 of the data set's 3 users, the first is 'u0'"):
            ScoreMatrix(5, resources, *files)
        with pytest.raises(DeshiError, match="nothing for 1 of the data set's 5 items, the first is 'i2'"):
            ScoreMatrix(5, resources, *files, missing_users="chance")
        with caplog.at_level(logging.WARNING, logger="deshi"):
            teacher = ScoreMatrix(5, resources, *files, missing_users="chance", missing_items="last")
        assert "they come behind all others" in caplog.text and "all items tie for them" in caplog.text
        scores = teacher.scores(asked(resources.bundle))
        assert scores.tolist() == [[-INF] * 5, [8, -3, -INF, 9, 0], [5, 4, -INF, 2, 1]]

    @pytest.mark.parametrize(
        ("matrix", "message"),
        [
            (np.zeros((3, 4), np.float32), r"shape \(3, 4\), but .* has 3 ids and .* 5"),
            (np.zeros(5, np.float32), r"shape \(5,\), expected 2 dimensions"),
            (np.full((3, 5), np.nan, np.float32), "has nan in row 0, column 0"),
            (np.zeros((3, 5), "U1"), "holds <U1, expected numbers"),
        ],
    )
    def test_faults_are_refused(self, resources: Resources, tmp_path: Path, matrix: np.ndarray, message: str) -> None:
        """A matrix that doesn't fit its ids fits others' ids by accident."""
        with pytest.raises(DeshiError, match=message):
            ScoreMatrix(5, resources, *self.files(tmp_path, matrix))

    def test_pickles_and_repeated_ids_are_refused(self, resources: Resources, tmp_path: Path) -> None:
        """An array of objects is a pickle, which can run code; an id that stands twice has two rows."""
        path, users, items = self.files(tmp_path, users="u0\nu0\nu1\n")
        with pytest.raises(DeshiError, match="names 1 ids more than once, the first is 'u0'"):
            ScoreMatrix(5, resources, path, users, items)
        np.save(tmp_path / "objects.npy", np.array([[None]], dtype=object), allow_pickle=True)
        with pytest.raises(DeshiError, match="can't be read as .npy"):
            ScoreMatrix(5, resources, str(tmp_path / "objects.npy"), users, items)

    def test_a_second_history_is_refused(self, resources: Resources, tmp_path: Path) -> None:
        """A row a user knows one history, like a list."""
        teacher = ScoreMatrix(5, resources, *self.files(tmp_path))
        teacher.scores(asked(resources.bundle))
        with pytest.raises(DeshiError, match="one ranking a user"):
            teacher.scores(asked(resources.bundle, held_out=2))


VECTORS = np.array([[2, 0], [0, 1], [1, 1], [-1, 0], [0, -3]], dtype=np.float32)


class TestItemVectors:
    def parquet(self, tmp_path: Path, vectors: np.ndarray = VECTORS, ids: tuple[str, ...] = ()) -> str:
        names = list(ids) or [f"i{number}" for number in range(len(vectors))]
        pl.DataFrame({"item_id": names, "vector": vectors.tolist()}).write_parquet(tmp_path / "vectors.parquet")
        return str(tmp_path / "vectors.parquet")

    def batch(self, *histories: list[int]) -> Batch:
        lengths = torch.tensor([len(history) for history in histories])
        items = torch.full((len(histories), int(lengths.max())), PAD)
        for row, history in enumerate(histories):
            items[row, : len(history)] = torch.tensor(history)
        return Batch(torch.zeros(len(histories), dtype=torch.int64), items, lengths, items * 0 + PAD, items * 0 + PAD)

    def test_the_mean_of_the_last_items(self, resources: Resources, tmp_path: Path) -> None:
        """By hand: dot products with the mean of (0, 1) and (1, 1), the older item being out of reach."""
        teacher = ItemVectors(5, resources, self.parquet(tmp_path), last=2, similarity="dot")
        scores = teacher.scores(self.batch([4, 1, 2], [0]))
        torch.testing.assert_close(scores[0], torch.tensor([1.0, 1.0, 1.5, -0.5, -3.0]))
        torch.testing.assert_close(scores[1], torch.tensor([4.0, 0.0, 2.0, -2.0, 0.0]))

    def test_decay(self, resources: Resources, tmp_path: Path) -> None:
        """By hand: weights 1/4, 1/2, 1 of items 0, 1, 2; (0.5 + 0 + 1, 0 + 0.5 + 1) / 1.75."""
        teacher = ItemVectors(5, resources, self.parquet(tmp_path), decay=0.5, similarity="dot")
        scores = teacher.scores(self.batch([0, 1, 2]))
        mean = torch.tensor([1.5, 1.5]) / 1.75
        torch.testing.assert_close(scores[0], torch.from_numpy(VECTORS) @ mean)

    def test_cosine(self, resources: Resources, tmp_path: Path) -> None:
        """Lengths don't count: after items 0 and 1 the direction is (1, 1)."""
        scores = ItemVectors(5, resources, self.parquet(tmp_path)).scores(self.batch([0, 1]))
        half = 0.5**0.5
        torch.testing.assert_close(scores[0], torch.tensor([half, half, 1.0, -half, -half]))

    def test_positions_equal_prefixes(self, resources: Resources, tmp_path: Path) -> None:
        """SoftLabels is written after every position in one pass, which must see what the prefix alone sees."""
        teacher = ItemVectors(5, resources, self.parquet(tmp_path), last=3, decay=0.8)
        assert teacher.max_length
        batch = self.batch([4, 1, 2, 0, 3], [2, 2])
        where = batch.items != PAD
        found = teacher.position_scores(batch, where)
        prefixes = [[4, 1, 2, 0, 3][: end + 1] for end in range(5)] + [[2], [2, 2]]
        expected = torch.cat([teacher.scores(self.batch(prefix)) for prefix in prefixes])
        torch.testing.assert_close(found, expected)

    def test_formats_give_the_same(self, resources: Resources, tmp_path: Path) -> None:
        """Three ways to write one table; the order of the rows is the file's own."""
        order = [3, 0, 4, 1, 2]
        ids = write(tmp_path / "ids.txt", "\n".join(f"i{number}" for number in order))
        np.save(tmp_path / "v.npy", VECTORS[order].astype(np.float64))
        save_file({"v": VECTORS[order].astype(np.float16)}, tmp_path / "v.safetensors")
        readers: list[Scorer] = [
            ItemVectors(5, resources, self.parquet(tmp_path)),
            ItemVectors(5, resources, str(tmp_path / "v.npy"), ids),
            ItemVectors(5, resources, str(tmp_path / "v.safetensors"), ids),
        ]
        first, *others = (reader.scores(self.batch([0, 1])) for reader in readers)
        assert all(torch.equal(first, other) for other in others)
        np.testing.assert_array_equal(readers[2].item_vectors(), VECTORS)

    def test_items_without_a_vector(self, resources: Resources, tmp_path: Path) -> None:
        """They are passed over in histories and can't be recommended; a history of them alone is no answer."""
        path = self.parquet(tmp_path, VECTORS[:4])
        with pytest.raises(DeshiError, match="nothing for 1 of the data set's 5 items, the first is 'i4'"):
            ItemVectors(5, resources, path)
        teacher = ItemVectors(5, resources, path, similarity="dot", missing_items="last")
        scores = teacher.scores(self.batch([4, 1], [1], [4]))
        assert torch.equal(scores[0], scores[1]) and scores[0].tolist() == [0, 1, 1, 0, -INF]
        assert bool((scores[2] == -INF).all())

    @pytest.mark.parametrize(
        ("vectors", "ids", "message"),
        [
            (VECTORS * np.array([[1], [1], [1], [1], [np.nan]], np.float32), (), "infinity in 1 of 5 .* 'i4'"),
            (VECTORS * np.array([[1], [0], [1], [1], [1]], np.float32), (), "1 vectors that are all zero.*'i1'"),
            (VECTORS, ("i0", "i1", "i2", "i3", "i3"), "names 1 ids more than once"),
        ],
    )
    def test_faults_are_refused(
        self, resources: Resources, tmp_path: Path, vectors: np.ndarray, ids: tuple[str, ...], message: str
    ) -> None:
        """One NaN in a mean makes every score NaN; a zero vector has no direction."""
        with pytest.raises(DeshiError, match=message):
            ItemVectors(5, resources, self.parquet(tmp_path, vectors, ids))

    def test_files_that_do_not_fit(self, resources: Resources, tmp_path: Path) -> None:
        """More vectors than ids is the classic padding row: a shift by one in the making."""
        np.save(tmp_path / "v.npy", np.vstack([np.zeros(2), VECTORS]))
        ids = write(tmp_path / "ids.txt", "i0\ni1\ni2\ni3\ni4\n")
        with pytest.raises(DeshiError, match="has 6 vectors, .* has 5 ids"):
            ItemVectors(5, resources, str(tmp_path / "v.npy"), ids)
        with pytest.raises(DeshiError, match="a .parquet file brings its ids"):
            ItemVectors(5, resources, str(tmp_path / "v.npy"))
        save_file({"a": VECTORS, "b": VECTORS}, tmp_path / "v.safetensors")
        with pytest.raises(DeshiError, match="holds a, b that could be vectors"):
            ItemVectors(5, resources, str(tmp_path / "v.safetensors"), ids)
        with pytest.raises(DeshiError, match="has no tensor 'c'"):
            ItemVectors(5, resources, str(tmp_path / "v.safetensors"), ids, vectors="c")
        (tmp_path / "v.safetensors").write_bytes(b"nonsense")
        with pytest.raises(DeshiError, match="can't be read as safetensors"):
            ItemVectors(5, resources, str(tmp_path / "v.safetensors"), ids)
        with pytest.raises(DeshiError, match="last=0"):
            ItemVectors(5, resources, self.parquet(tmp_path), last=0)

    def test_it_is_evaluated_like_any_scorer(self, resources: Resources, tmp_path: Path) -> None:
        """The seam to the ranking pass: whole histories in, one exact rank a target out."""
        teacher = ItemVectors(5, resources, self.parquet(tmp_path))
        ranking = evaluate_ranks(
            teacher, resources.bundle, LeaveOneOut()(resources.bundle).examples(resources.bundle, "test")
        )
        assert ranking.ranks["rank"].is_finite().all()


def test_scores_never_change_the_file_or_each_other(resources: Resources, tmp_path: Path) -> None:
    """A caller that masks the scores it got must not mask them for the next."""
    teacher = RankedLists(5, resources, lists(tmp_path, *FULL))
    first: Tensor = teacher.scores(asked(resources.bundle))
    first.fill_(7)
    assert float(teacher.scores(asked(resources.bundle))[0, 4]) == pytest.approx(0.9)
