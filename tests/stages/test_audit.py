"""The stage audit, end to end on finished runs: what it writes, says and returns, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from safetensors.torch import load_file, save_file

import deshi
from deshi.artifacts import read_json, write_json
from deshi.auditing._finding import CHECKS, Finding
from deshi.auditing._result import AuditResult
from deshi.cli import main
from deshi.types import DeshiError


def audit(root: Path, *overrides: str) -> AuditResult:
    """The stage on a folder."""
    result: AuditResult = deshi.audit(f"paths.root={root}", *overrides)
    return result


def newest(root: Path, stage: str, ending: str = "") -> Path:
    """The newest run folder of a stage."""
    return sorted(folder for folder in (root / "runs" / stage).iterdir() if folder.name.endswith(ending))[-1]


def errors(result: AuditResult) -> set[str]:
    """Names of the errors among the findings."""
    return {problem.name for problem in result.findings if problem.severity == "error"}


def test_a_clean_run_with_its_evaluation(finished_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 0, and the folder holds what a report or a pipeline needs."""
    assert main(["audit", "latest", f"paths.root={finished_root}"]) == 0
    assert "few-candidates" in capsys.readouterr().out, "a catalogue of two dozen items is explained by a note"
    folder = newest(finished_root, "audit")
    assert {"config.yaml", "environment.json", "findings.json", "run.json"} <= {path.name for path in folder.iterdir()}
    assert all(Finding.from_json(value).name in CHECKS for value in read_json(folder / "findings.json"))
    record = read_json(folder / "run.json")
    assert record["stage"] == "audit" and record["exit_code"] == 0 and len(record["evaluations"]) == 1
    assert [part["what"] for part in record["checked"]][-1] == "ranks, test"


def test_an_evaluation_can_be_named_and_is_of_its_run(finished_root: Path) -> None:
    """`deshi audit` takes both kinds of runs by name, the older ones too."""
    evaluation = sorted((finished_root / "runs" / "evaluate").iterdir())[0]
    result = audit(finished_root, f"run={evaluation.name}")
    record = read_json(result.folder / "run.json")
    assert record["evaluations"] == [str(evaluation)] and record["run"].endswith("tiny_seed0")


def test_a_data_set_alone(finished_root: Path, config_dir: Path) -> None:
    """Before any training: the bundle and its split, with any split rule."""
    result = deshi.audit(f"paths.root={finished_root}", "split=ratio", data="tiny", config_dir=config_dir)
    assert [part.what for part in result.checked] == ["bundle", "split", "pairwise evidence"] and result.exit_code == 0
    assert "What was looked at" in str(result) and "What was looked at" in result._repr_html_()


def test_the_widened_range_is_called_a_leak(finished_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report that deshi started from: errors make the command exit with 1, for pipelines."""
    folder = newest(finished_root, "fit")
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    saved["train"]["train_targets"] = "including_validation"
    (folder / "config.yaml").write_text(yaml.safe_dump(saved))
    assert main(["audit", "latest", f"paths.root={finished_root}"]) == 1
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "error: validation-target-trained-on" in out and "60 of 60 validation examples" in out
    assert "This run's student: NDCG@10" in out


def test_ranks_that_were_edited(finished_root: Path) -> None:
    """Ranks, figures and examples that don't fit together are told apart."""
    path = newest(finished_root, "evaluate") / "ranks.parquet"
    ranks = pl.read_parquet(path)
    pl.concat([ranks, ranks.tail(4)]).write_parquet(path)
    assert errors(audit(finished_root, "run=latest")) >= {"user-evaluated-twice"}
    ranks.with_columns(pl.col("rank").reverse()).write_parquet(path)
    assert errors(audit(finished_root, "run=latest")) >= {"rank-not-reproduced"}


def test_weights_of_another_run(finished_root: Path) -> None:
    """The recorded figure must come back from the weights that stand beside it."""
    folder = newest(finished_root, "fit")
    metrics = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", {name: value * 2 + 0.1 for name, value in metrics.items()})
    assert errors(audit(finished_root, "run=latest")) & {"metrics-not-reproduced", "item-table-permuted"}


def test_a_run_of_other_data_stops_the_audit_of_the_run_not_of_the_data(finished_root: Path) -> None:
    """Batches and ranks of other data say nothing, and asking the weights about them would crash."""
    folder = newest(finished_root, "fit")
    record = read_json(folder / "run.json")
    write_json(folder / "run.json", record | {"data_fingerprint": "0" * 64})
    result = audit(finished_root, "run=latest")
    assert errors(result) == {"made-on-another-bundle"}
    assert [part.what for part in result.checked] == ["bundle", "split", "provenance of the run"]


def test_weights_that_diverged(finished_root: Path) -> None:
    """NaN weights are named by tensor, without a crash in the probes."""
    path = newest(finished_root, "fit") / "model.safetensors"
    weights = load_file(path)
    weights["norm.weight"][0] = float("nan")
    save_file(weights, path)
    (problem,) = (one for one in audit(finished_root, "run=latest").findings if one.severity == "error")
    assert problem.name == "not-finite" and "norm.weight" in problem.where[0]


def test_a_knowledge_store_beside_the_run(finished_root: Path) -> None:
    """SoftLabels that was made on another bundle is named before anybody distils from it."""
    folder = finished_root / "soft_labels" / "old"
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {"data_fingerprint": "1" * 64, "n_items": 7})
    assert errors(audit(finished_root, "run=latest", f"soft_labels={folder}")) == {"made-on-another-bundle"}


def test_a_pair_of_files(finished_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outsiders' audit runs by the same command and writes the same folder."""
    monkeypatch.chdir(tmp_path)
    events = [f"{user},{(user + place) % 9},{place}" for user in range(30) for place in range(6)]
    lists = [f"{user},{(user + 5 + place) % 9},{1 / (1 + place)}" for user in range(30) for place in range(3)]
    Path("events.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(events) + "\n")
    Path("lists.csv").write_text("user_id,item_id,score\n" + "\n".join(lists) + "\n")
    result = deshi.audit(interactions="events.csv", predictions="lists.csv", ks=[1, 3])
    assert result.metrics["ndcg@3"][0] == pytest.approx(1.0) and "Computed again" in str(result)
    assert json.loads((result.folder / "run.json").read_text())["predictions"] == "lists.csv"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "nothing to audit: give a run"),
        (["run=latest", "interactions=a.csv", "predictions=b.csv"], "audit one at a time"),
        (["interactions=a.csv"], "needs both"),
        (["run=latest", "claimed=ndcg@10=0.1"], "belong to interactions=FILE"),
        (["run=latest", "split=ratio"], "uses the run's own split"),
        (["run=nowhere"], "No run 'nowhere'"),
        (["run=latest", "soft_labels=nowhere"], "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(finished_root: Path, overrides: list[str], message: str) -> None:
    """Each with what was got and what to give instead."""
    with pytest.raises(DeshiError, match=message):
        audit(finished_root, *overrides)


def test_an_unfinished_run_is_no_finding(finished_root: Path) -> None:
    """It has nothing to audit yet; the message says how to go on."""
    folder = newest(finished_root, "fit")
    (folder / "metrics.json").unlink()
    with pytest.raises(DeshiError, match=r"isn't finished. Finish it: deshi fit resume="):
        audit(finished_root, "run=latest")
    (folder / "run.json").unlink()
    with pytest.raises(DeshiError, match="isn't finished"):
        audit(finished_root, "run=latest")


def test_a_removed_run_leaves_its_evaluation_to_audit(finished_root: Path) -> None:
    """Runs are cleaned up; their ranks may still be checked against the data, and a note says what was not."""
    import shutil

    evaluation = newest(finished_root, "evaluate")
    shutil.rmtree(newest(finished_root, "fit"))
    result = audit(finished_root, f"run={evaluation.name}")
    assert "is gone" in result.notes[0] and result.exit_code == 0
