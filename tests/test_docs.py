"""Every command and every Python example of the documentation runs.

Commands on MovieLens 100K, or on a run, do their work: on a tiny data set in the same format, with a small student and
one epoch. So do those on a table of one's own whose file the page shows, and services that a page starts with ``&``,
asks with curl and ends with kill. Commands on other data sets are checked up to the point where the work would start
(``--dry-run``), since their files aren't here. CONTRIBUTING.md says the same to authors.
"""

from __future__ import annotations

import pkgutil
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deshi import _functions, stages
from deshi.cli import WRONG_USE, main
from deshi.configuration.needs import LocalFile
from deshi.configuration.overrides import from_python
from deshi.teachers._models import PretrainedModel
from doc_services import Services

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "README.ja.md", ROOT / "CHANGELOG.md"]
"""All pages; the commands of the Japanese README are those of the English one (tests/test_project.py)."""
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
SHORT = ["train.max_epochs=1", "train.progress=false", "train.threads=1", "student.dim=8"]
NOT_RUN = {
    "git", "cd", "source", "python", "python3", "pip", "tensorboard",
    ".venv/bin/python", ".venv/bin/pre-commit", ".ci/run",
}  # fmt: skip
"""Programs whose commands are checked for existing files and options instead."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of a page's bash blocks as words, without comments and environment settings."""
    return (words for words, _ in commands_with_codes(page))


def commands_with_codes(page: Path) -> Iterator[tuple[list[str], int]]:
    """The same, each with its exit code: 0, or 1 where the line ends in ``# exits with 1``."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words = words[1:]
            if words:
                yield words, int(line.rstrip().endswith("# exits with 1"))


def test_commands_are_read_as_a_shell_reads_them(tmp_path: Path) -> None:
    """A command that this test overlooked would be one that nobody has run."""
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\n# first\nX=1 deshi fit \\\n  'a=b c'  # why\n\n```\n```python\n1\n```\n```bash\nmake test\n```\n"
    )
    assert list(commands(page)) == [["deshi", "fit", "a=b c"], ["make", "test"]]
    assert blocks(page, "python") == ["1\n"]


def adapted(words: list[str], files: Path) -> list[str]:
    """A deshi command in the form in which a test can run it."""
    stage, *rest = words
    if any(word.startswith("-") for word in words):
        return words
    data = [word.partition("=")[2] for word in rest if word.startswith("data=")]
    if data not in ([], ["ml-100k"]) and not is_here(rest):
        return [*words, "--dry-run"]
    if stage == "prepare" and data == ["ml-100k"]:
        return [*words, f"data.source.path={files}"]
    if stage == "run":
        quick = any(word in ("recipe=wide", "recipe=self") for word in rest)
        return [*words, *SHORT, f"data.source.path={files}"] if quick else [*words, "--dry-run"]
    if stage == "teach":
        quick = any(word in ("teacher=sasrec", "teacher=pairwise", "teacher=ensemble") for word in rest)
        return [*words, *(word for word in SHORT if word.startswith("train."))] if quick else [*words, "--dry-run"]
    if stage in ("fit", "distill", "tune") and not any(word.startswith("resume=") for word in rest):
        return [*words, *SHORT]
    return words


def is_here(words: list[str]) -> bool:
    """Whether a data set of one's own can be worked on: the page shows its file, or has prepared it already."""
    given = dict(word.partition("=")[::2] for word in words)
    file, name = given.get("data.source.path", ""), given.get("data.name", "")
    return Path(file).is_file() or bool(name and (Path("data") / name).is_dir())


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_movielens: Path) -> Path:
    """A folder in which ``data=ml-100k`` is prepared and one run has finished."""
    folder = tmp_path_factory.mktemp("docs")
    root = f"paths.root={folder}"
    stages.run_stage("prepare", "data=ml-100k", f"data.source.path={tiny_movielens}", root)
    stages.run_stage("fit", "data=ml-100k", *SHORT, root)
    return folder


@pytest.fixture
def workplace(prepared: Path, tmp_path: Path, tiny_movielens: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in, with the Python API adapted as commands are."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    for need in (LocalFile, PretrainedModel):  # dry runs of a page name files of the reader's own
        monkeypatch.setattr(need, "problem", lambda self, cache: None)

    def run(stage: str, overrides: tuple[str, ...], config_dir: Any, values: dict[str, Any]) -> Any:
        words = adapted([stage, *overrides, *from_python(values)], tiny_movielens)
        if words[-1] == "--dry-run":
            return stages.compose(stage, words[1:-1], {}, config_dir)
        return stages.run_stage(*words, config_dir=config_dir)

    monkeypatch.setattr(_functions, "_run", run)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page_run(
    page: Path,
    workplace: Path,
    tiny_movielens: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    """One after the other in one folder, as a reader would type them, beside the files that the page shows."""
    for name, _, content in re.findall(
        r"`(\S+\.(yaml|csv))`:\n\n```\2\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M
    ):
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text(content, encoding="utf-8")
    services = Services()
    request.addfinalizer(services.end)
    for words, expected in commands_with_codes(page):
        program, *rest = words
        if services.knows(words):
            services.run(words)
        elif program == "deshi":
            code = main(adapted(rest, tiny_movielens))
            assert code == expected, f"{shlex.join(words)}\n{capsys.readouterr().err}"
        elif program == "make":
            targets = [word for word in rest if "=" not in word]
            assert all(f"\n{target}:" in (ROOT / "Makefile").read_text(encoding="utf-8") for target in targets), words
        else:
            check_named_files(words)


ERRORS = [(page, block) for page in PAGES for block in blocks(page, "text") if re.match(r"\$ deshi .*\nerror:", block)]


@pytest.mark.parametrize(("page", "block"), ERRORS, ids=lambda value: value.name if isinstance(value, Path) else "")
def test_errors_that_a_page_shows_are_those_of_the_command(
    page: Path, block: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Messages and nearest names change with the code; a page that shows old ones is of no help."""
    command, _, message = block.partition("\n")
    assert main(shlex.split(command)[2:]) == WRONG_USE
    assert message.strip() in capsys.readouterr().err


def check_named_files(words: list[str]) -> None:
    """Another program's command: it must be one we know, and scripts and options that it names must exist."""
    assert words[0] in NOT_RUN, f"test_docs knows no way to check: {shlex.join(words)}"
    for script in [word for word in words if re.fullmatch(r"benchmarks/.*\.py", word)]:
        text = (ROOT / script).read_text(encoding="utf-8")
        options = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert all(f'"{option}"' in text for option in options), f"{script} doesn't know all of {options}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_python_examples_of_a_page_run(page: Path, workplace: Path) -> None:
    """The blocks of a page run in one namespace, one after the other."""
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A page or a heading that was renamed leaves dead links behind."""
    links = re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8"))
    targets = [(page.parent / link if link else page, anchor) for link, anchor in links]
    assert [str(target) for target, _ in targets if not target.exists()] == []
    assert [f"{target}#{anchor}" for target, anchor in targets if anchor and anchor not in anchors(target)] == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    try:
        return pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_names_of_code_in_a_page_exist(page: Path) -> None:
    """Modules, classes and functions that were renamed live on in prose, where no import fails."""
    names = set(re.findall(r"(?<![\w./-])deshi(?:\.\w+)+", page.read_text(encoding="utf-8")))
    assert [name for name in sorted(names) if not exists(name)] == []


def test_every_page_is_in_the_index() -> None:
    """A page that no other names is never read."""
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md") if path.name != "index.md"]
    assert [name for name in pages if f"({name})" not in index] == []
