"""Promises of the project's files that no compiler checks."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

import deshi
from deshi.configuration.groups import ROOT as CHOICES
from deshi.configuration.groups import stage_groups
from deshi.stages import STAGES, compose
from test_imports import LAYERS

ROOT = Path(__file__).parents[1]
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".sh", ""}


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _project_files() -> list[Path]:
    """Tracked files, or in an unpacked archive all files outside of hidden folders."""
    if (ROOT / ".git").exists():
        done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True)
        found = [ROOT / line for line in done.stdout.splitlines()]
    else:
        found = [path for path in ROOT.rglob("*") if not any(part.startswith(".") for part in path.parts)]
    return [path for path in found if path.is_file() and path.suffix in TEXT]


def _dependencies() -> set[str]:
    extras = r"^(?:ann|llm|mlflow|ray|s3|serve|sql|tune|wandb) = \[(.*?)\]$"
    blocks = re.findall(r"^(?:dependencies|dev|serve) = \[\n(.*?)^\]|" + extras, _read("pyproject.toml"), re.M | re.S)
    quoted = re.findall(r'"([A-Za-z0-9_-]+)', "\n".join("".join(block) for block in blocks))
    return {name.lower().replace("_", "-") for name in quoted} - {"deshi"}


def _pins() -> list[tuple[str, str]]:
    lines = [line for line in _read("constraints.txt").splitlines() if line and not line.startswith("#")]
    pins = []
    for line in lines:
        match = re.fullmatch(r'([a-z0-9-]+)==[^;\s]+(?:; python_version (< "3\.11"|>= "3\.11"))?', line)
        assert match, f"not a plain pin: {line}"
        pins.append((match[1], match[2] or "all"))
    return pins


def test_versions_agree() -> None:
    """The package, the project file and the changelog speak of one version."""
    assert f'version = "{deshi.__version__}"' in _read("pyproject.toml")
    assert f"## {deshi.__version__}" in _read("CHANGELOG.md")


def test_every_dependency_is_pinned_once_for_every_python() -> None:
    """An unpinned dependency makes today's installation another one than next month's."""
    pins = _pins()
    assert len(set(pins)) == len(pins)
    ranges = {name: {marker for known, marker in pins if known == name} for name, _ in pins}
    assert {"torch", "hydra-core", "psycopg", "pytest", "polars", "transformers"} <= _dependencies()
    for name in _dependencies():
        assert ranges.get(name) in ({"all"}, {'< "3.11"', '>= "3.11"'}), name


def test_the_data_package_is_not_ignored() -> None:
    """`data/` in .gitignore once swallowed a source folder of that name: only the root's folders are results."""
    patterns = _read(".gitignore").splitlines()
    assert {"/data/", "/runs/", ".venv/"} <= set(patterns)
    assert not {"data", "data/", "runs", "runs/"} & set(patterns)


def test_no_package_host_is_named() -> None:
    """Where packages come from is the business of the machine that installs them."""
    hosts = ["pypi" + ".org", "pythonhosted" + ".org", "deb.debian" + ".org", "download.pytorch" + ".org"]
    named = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in _project_files()
        for host in hosts
        if host in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert named == []


def test_nothing_is_pickled() -> None:
    """A pickle executes what it holds: artifacts are safetensors, npy, parquet, json and yaml.

    One file reads pickles, by a restricted unpickler, since other programs' frames are pickled.
    """
    risky = re.compile(r"^\s*(import|from) pickle\b|torch\.save\(|allow_pickle=True|weights_only=False|joblib", re.M)
    files = set((ROOT / "src").rglob("*.py")) - {ROOT / "src/deshi/soft_labels/foreign/_pickled_frames.py"}
    assert [str(path) for path in files if risky.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("target", ["quickstart", "test", "test-slow", "coverage", "lint", "typecheck", "bench"])
def test_make_targets_exist(target: str) -> None:
    """README, CI and habit rely on these names."""
    done = subprocess.run(["make", "-n", "-C", str(ROOT), target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("recipe", [(), ("RECIPE=text",)])
def test_the_quickstart_distils_a_small_student(recipe: tuple[str, ...]) -> None:
    """It is the first command of a newcomer: its keys are valid, and one word swaps the recipe."""
    done = subprocess.run(["make", "-n", "-C", str(ROOT), "quickstart", *recipe], capture_output=True, text=True)
    words = shlex.split(next(line for line in done.stdout.splitlines() if "deshi run" in line))
    assert all(word.replace("RECIPE", "recipe") in words for word in recipe)
    config = compose("run", words[2:], {})
    smallest, *_, largest = config.students
    assert smallest.width < largest.width and config.data.name == "ml-100k"


def test_ci_runs_the_tests() -> None:
    """The script that continuous integration calls is executable, strict, and ends in `make test`."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    text = script.read_text(encoding="utf-8")
    assert "set -euo pipefail" in text and text.rstrip().splitlines()[-1].startswith("make test")


def test_the_licence_is_apache() -> None:
    """The whole text, as the licence asks for."""
    text = _read("LICENSE")
    assert "Apache License" in text and "TERMS AND CONDITIONS" in text and "END OF TERMS" in text
    assert 'license = "Apache-2.0"' in _read("pyproject.toml")


ARCHITECTURE = "docs/architecture.md"
PICTURE = "docs/architecture.svg"


def _section(text: str, heading: str) -> str:
    match = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert match, f"{ARCHITECTURE} has no section {heading!r}"
    return match[1]


def test_the_table_of_packages_is_the_order_of_layers() -> None:
    """A map that shows other floors than the import test enforces leads every newcomer astray."""
    names = re.findall(r"^\| `(\w+)` \|", _section(_read(ARCHITECTURE), "Packages"), re.M)
    assert names == [name for name in LAYERS if name != "__main__"]
    packages = {path.stem for path in (ROOT / "src/deshi").iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}
    assert packages - {"__init__", "__main__"} <= {*names}


def test_functions_and_classes_that_the_architecture_names_exist() -> None:
    """Names of code in a page outlive the code, unless somebody looks."""
    links = re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/.]+\.py)\)", _read(ARCHITECTURE))
    assert len(links) > 30
    missing = [
        f"{file} has no {name}"
        for name, file in links
        for part in name.split(".")
        if not re.search(rf"^ *(class|def) {part}\b|^{part}\b.* = ", _read(file), re.M)
    ]
    assert missing == []


def test_the_picture_is_valid_and_small() -> None:
    """A broken picture is a hole at the top of the README; every command that it shows is a stage."""
    assert len(_read(PICTURE)) < 12_000
    root = ElementTree.fromstring(_read(PICTURE))
    words = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    shown = {match for text in words for match in re.findall(r"deshi (\w+)", text)}
    assert shown <= set(STAGES)
    assert set(STAGES) - shown - {"label_inspect", "label_import"} <= {"fit", "teach", "label", "distill", "export"}
    assert {"fit", "teach", "label", "distill", "export"} <= set(words)


def _without_code(text: str) -> tuple[str, list[str]]:
    fence = r"^```.*?^```\n"
    return re.sub(fence, "", text, flags=re.M | re.S), re.findall(fence, text, re.M | re.S)


def test_the_japanese_readme_says_the_same() -> None:
    """A translation that lags behind shows commands that no longer exist, and figures that nobody measured."""
    (english, code), (japanese, japanese_code) = (_without_code(_read(name)) for name in ("README.md", "README.ja.md"))
    assert japanese_code == code
    figures = [
        re.findall(r"\d+(?:\.\d+)?", "\n".join(re.findall(r"^\|.*$", text, re.M))) for text in (english, japanese)
    ]
    assert figures[0] == figures[1]
    numbers = [set(re.findall(r"(?<![\w.])\d[\d.,]*\d|(?<![\w.])\d", text)) for text in (english, japanese)]
    assert numbers[0] == numbers[1]
    links = [re.findall(r"\]\(([^)]+)\)", text.replace("README.ja.md", "README.md")) for text in (english, japanese)]
    assert sorted(links[0]) == sorted(links[1])


def test_the_table_of_groups_is_that_of_the_stages() -> None:
    """A group that the table forgets is never found, and a stage that lost one is tried in vain."""
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([\w ,]+) \|$", _read("docs/configuration.md"), re.M))
    stages = {name: STAGES[name].command for name in STAGES}
    groups = {path.name for path in CHOICES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    by_group = {group: {stages[name] for name in STAGES if group in stage_groups(name)} for group in groups}
    shown = {group: set(stages.values() if text == "all" else text.split(", ")) for group, text in rows.items()}
    assert shown == by_group
