"""The stage export: what a bundle holds, what is refused, and what loading notices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

import deshi
from deshi.artifacts import file_sha256, fingerprint, read_json, write_json
from deshi.configuration.targets import build
from deshi.data.bundle import Bundle
from deshi.data.splits import LeaveOneOut
from deshi.evaluation import evaluate_ranks
from deshi.models.scorers import SequentialScorer
from deshi.serving.bundle import GRAPHS, REQUIRED, BundleError, ServingBundle, find_bundle
from deshi.serving.latency import REQUESTS
from deshi.serving.onnx_network import OnnxNetwork
from deshi.serving.parity import OnnxScorer
from deshi.types import DeshiError


def test_a_bundle_is_complete_and_holds_no_pickle(serving: Path, bundle: ServingBundle) -> None:
    """It is copied to machines that have neither the data nor the run: what isn't inside is lost."""
    files = {path.name for path in serving.iterdir()}
    assert files == {*REQUIRED, *GRAPHS.values(), "manifest.json"}
    assert {Path(name).suffix for name in files} == {".json", ".parquet", ".safetensors", ".onnx", ".md"}
    assert {entry["sha256"] for entry in bundle.manifest["files"].values()} == {
        file_sha256(serving / name) for name in files - {"manifest.json"}
    }
    assert (bundle.n_items, bundle.dim, bundle.max_length, bundle.filter_seen) == (40, 16, 10, True)
    assert bundle.precisions == ["fp32", "int8"] and bundle.name == "tiny_seed0"


def test_items_have_ids_titles_and_training_counts(bundle: ServingBundle, _finished_root: Path) -> None:
    """Popularity, the answer to an empty history, must not know validation and test events."""
    data = Bundle.load(_finished_root / "data" / "tiny")
    starts, ends = LeaveOneOut()(data).train_ranges(data)
    trained = np.concatenate([data.items[a:b] for a, b in zip(starts, ends, strict=True)])
    assert bundle.items["count"].to_list() == np.bincount(trained, minlength=40).tolist()
    assert bundle.items["item_id"].to_list() == data.vocabulary["item_id"].to_list()
    assert bundle.items["title"][0].startswith("Film ")


def test_the_graph_ranks_all_test_users_as_the_evaluation_did(
    serving: Path, bundle: ServingBundle, _finished_root: Path
) -> None:
    """What is served must have the figures that were published: rank for rank."""
    parity = read_json(serving / "parity.json")
    assert parity["fp32"]["holds"] and parity["fp32"]["ranks_equal"] == parity["fp32"]["targets"] == 60
    assert 0 <= parity["int8"]["ranks_equal"] <= 60
    data = Bundle.load(_finished_root / "data" / "tiny")
    scorer = OnnxScorer(OnnxNetwork(bundle.graph()), bundle.item_table, bundle.max_length)
    found = evaluate_ranks(scorer, data, LeaveOneOut()(data).examples(data, "test")).ranks
    written = min((_finished_root / "runs" / "evaluate").glob("*_tiny_sasrec")) / "ranks.parquet"
    expected = pl.read_parquet(written).filter(pl.col("part") == "test")
    assert found["rank"].to_list() == expected["rank"].to_list()


def test_single_requests_are_timed(bundle: ServingBundle) -> None:
    """A size is chosen by what it costs: the engine itself is timed, and the times change no bundle's version."""
    assert bundle.latency is not None and bundle.latency["requests"] == REQUESTS and bundle.latency["k"] == 10
    assert 0 < bundle.latency["p50_ms"] <= bundle.latency["p99_ms"] and bundle.latency["cpu_p50_ms"] > 0
    assert bundle.version == fingerprint([("files", bundle.manifest["files"])])[:12]
    assert bundle.weight_bytes == (bundle.path / "weights.safetensors").stat().st_size


def test_the_weights_build_the_student_again(serving: Path, bundle: ServingBundle) -> None:
    """A bundle outlives its run: training can go on from it, in PyTorch."""
    student = build(bundle.config["student"], n_items=bundle.n_items)
    student.load_state_dict(load_file(serving / "weights.safetensors"))
    items, lengths = torch.tensor([[3, 4, 5], [6, -1, -1]]), torch.tensor([3, 1])
    with torch.no_grad():
        expected = student.eval().last_hidden(items, lengths)
        np.testing.assert_array_equal(SequentialScorer(student).item_vectors(), bundle.item_table)
    found = OnnxNetwork(bundle.graph()).hidden(items.numpy(), lengths.numpy())
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=1e-5)


def test_the_card_has_figures_with_intervals_or_says_that_there_are_none(serving: Path, finished_root: Path) -> None:
    """A model without figures is not a good model: silence would be read as one."""
    card = (serving / "MODEL_CARD.md").read_text()
    metrics = read_json(min((finished_root / "runs" / "evaluate").glob("*_tiny_sasrec")) / "metrics.json")
    assert "| test, 60 users | mean | 95 % interval | ease | itemknn | markov | pairwise | popularity |" in card
    assert f"| NDCG@10 | {metrics['test/ndcg@10']:.4f} | " in card and "## Limits" in card
    shutil.rmtree(finished_root / "runs" / "evaluate")
    result = deshi.export(f"paths.root={finished_root}", run="tiny_seed1", parity={"users": 7})
    assert "No figure was measured" in (result.folder / "MODEL_CARD.md").read_text()
    assert result.parity["fp32"].examples == 7 and "7 of 7 test ranks" in str(result)
    assert result.folder.parent.name.endswith("_tiny_seed1") and result.folder.name == "serving"
    assert find_bundle(finished_root / "runs", "tiny_seed1") == result.folder
    with pytest.raises(BundleError, match="was not exported.*deshi export"):
        find_bundle(finished_root / "runs", "tiny_seed0")


def test_what_is_no_student_is_refused(finished_root: Path, config_dir: Path) -> None:
    """An ensemble has no hidden state and no item table; the message must say what to do."""
    words = ["teacher=ensemble", "teacher.members=[tiny_seed0,tiny_seed1]", f"paths.root={finished_root}", "data=tiny"]
    deshi.teach(*words, config_dir=config_dir)
    with pytest.raises(DeshiError, match=r"holds ensemble, which can't be served.*Distil it first"):
        deshi.export(f"paths.root={finished_root}", run=str(next((finished_root / "runs" / "teach").iterdir())))


def test_a_folder_that_is_no_bundle_is_left_alone(finished_root: Path, tmp_path: Path) -> None:
    """`output=.` must not replace somebody's work."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(DeshiError, match="is no serving bundle; it is left alone"):
        deshi.export(f"paths.root={finished_root}", run="tiny_seed0", output=str(tmp_path / "thesis"))
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_graph_that_answers_otherwise_never_appears(
    finished_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in tracing, a wrong bundle must not be found by a server that watches the place."""
    monkeypatch.setattr(OnnxNetwork, "hidden", lambda self, items, lengths: np.ones((len(items), 16), np.float32))
    with pytest.raises(DeshiError, match="does not answer as the PyTorch model does"):
        deshi.export(f"paths.root={finished_root}", run="tiny_seed0", output=str(tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


def edited(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = read_json(folder / name)
        change(content)
        write_json(folder / name, content)

    return edit


def flip(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.onnx").write_bytes(bytes(content))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (flip, "model.onnx does not have the sha256"),
    "a missing file": (lambda folder: (folder / "items.parquet").unlink(), "items.parquet missing"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
    "half a manifest": (
        lambda folder: (folder / "manifest.json").write_text('{"kind": "deshi'),
        "not that of a deshi serving bundle",
    ),
    "another program's manifest": (lambda folder: write_json(folder / "manifest.json", [1]), "not that of a deshi"),
    "another format": (edited("manifest.json", lambda m: m.update(format=2)), "has format 2.*expected 1"),
    "no files": (edited("manifest.json", lambda m: m.pop("files")), "lacks files"),
    "an unlisted graph": (edited("manifest.json", lambda m: m["files"].pop("model.onnx")), "model.onnx not in"),
    "a path outside": (
        edited("manifest.json", lambda m: m["files"].update({"../secret": {"sha256": ""}})),
        r"names \.\./secret outside",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_noticed_and_named(name: str, serving: Path, tmp_path: Path) -> None:
    """Half a copy that answers is worse than one that doesn't start."""
    shutil.copytree(serving, tmp_path / "copy")
    damage, said = DAMAGES[name]
    damage(tmp_path / "copy")
    with pytest.raises(BundleError, match=said):
        ServingBundle.load(tmp_path / "copy")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_items": 41}, r"float32\(40, 16\), expected float32\(41, 16\).*40 rows"),
        ({"dim": "16"}, "lacks one of n_items"),
        ({"max_length": 0}, "lacks one of n_items"),
    ],
)
def test_files_that_do_not_belong_together_are_noticed_without_hashes(
    change: dict[str, object], said: str, serving: Path, tmp_path: Path
) -> None:
    """A reload may skip the hashes, never the shapes: a wrong table would answer with other items."""
    shutil.copytree(serving, tmp_path / "copy")
    config = json.loads((serving / "config.json").read_text())
    write_json(tmp_path / "copy" / "config.json", config | change)
    with pytest.raises(BundleError, match=said):
        ServingBundle.load(tmp_path / "copy", check=False)


def test_a_precision_that_was_not_exported_is_asked_for_in_vain(serving: Path, tmp_path: Path) -> None:
    """The message names the option that makes it."""
    shutil.copytree(serving, tmp_path / "copy")
    edited("manifest.json", lambda m: m["files"].pop("model-int8.onnx"))(tmp_path / "copy")
    with pytest.raises(BundleError, match="int8=true"):
        ServingBundle.load(tmp_path / "copy").graph("int8")
