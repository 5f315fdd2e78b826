"""The shape of the code: imports go one way, and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
LAYERS = [
    "types", "arrays", "hardware", "configuration", "conf", "cluster", "artifacts", "rendering", "tables", "data",
    "metrics", "losses", "models", "baselines", "evaluation", "teachers", "runs", "soft_labels", "distillation",
    "training", "testing", "serving", "comparison", "gap_analysis", "reporting", "auditing", "stages", "_functions",
    "cli", "__main__",
]  # fmt: skip
"""From the ground up: a module imports from its own layer and from those before it, never from those after it."""

MODULES = sorted((SOURCE / "deshi").rglob("*.py"))
ALLOWED = (
    ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign,
)  # fmt: skip


def _layer(module: str) -> int:
    """The place of a dotted module name; the package itself stands above everything."""
    parts = module.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 else len(LAYERS)


def _imported(tree: ast.AST, package: str) -> list[tuple[str, int]]:
    """All modules of deshi that are imported anywhere in ``tree``, with line numbers."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found += [(f"{module}.{alias.name}" if module == "deshi" else module, node.lineno) for alias in node.names]
    return [(name, line) for name, line in found if name.split(".")[0] == "deshi"]


def violations(text: str, module: str) -> list[str]:
    """Imports in a module's text that go against the layers."""
    package = module if module.endswith("__init__") else module.rpartition(".")[0]
    own = _layer(module.removesuffix(".__init__"))
    return [
        f"{module}:{line} imports {name}"
        for name, line in _imported(ast.parse(text), package)
        if _layer(name) > own
    ]  # fmt: skip


def private_imports(text: str, module: str) -> list[str]:
    """Imports of a private module, or of a private name, of another package."""
    package = module if module.endswith("__init__") else module.rpartition(".")[0]
    package = package.removesuffix(".__init__")
    tree = ast.parse(text)
    imported = [(name, line) for name, line in _imported(tree, package)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "deshi":
            imported += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    wrong = []
    for name, line in imported:
        parts = name.split(".")
        for place, part in enumerate(parts):
            parent = ".".join(parts[:place])
            private = part.startswith("_") and not part.startswith("__")
            if private and not f"{module}.".startswith(f"{parent}."):
                wrong.append(f"{module}:{line} imports {name}")
    return wrong


def _module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_imports_go_one_way(path: Path) -> None:
    """A cycle of layers can't be tested, replaced or understood part by part; type-checking imports count too."""
    assert violations(path.read_text(encoding="utf-8"), _module(path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "from deshi.training.fit import run",
        "import deshi.cli",
        "from deshi import evaluation",
        "def f():\n    from deshi.serving.http import app",
        "if TYPE_CHECKING:\n    from deshi.training.module import TrainingModule",
        "from ..training import fit",
    ],
)
def test_the_layer_test_sees_every_kind_of_import(text: str) -> None:
    """A guard that overlooks lazy, relative or type-checking imports guards nothing."""
    assert violations(text, "deshi.data.bundle") != []


def test_the_layer_test_lets_good_imports_pass() -> None:
    """Else the guard would be switched off."""
    assert violations("from deshi.types import PAD\nfrom deshi.data.raw import Source", "deshi.data.bundle") == []


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_what_is_private_to_a_package_stays_there(path: Path) -> None:
    """A name with an underscore may change at any time: only its own package may rely on it."""
    assert private_imports(path.read_text(encoding="utf-8"), _module(path)) == []


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("from deshi.data._columns import convert", True),
        ("from deshi.metrics.ranks import _check", True),
        ("import deshi.data._columns", True),
        ("from deshi.losses._kernels import softmax", False),
        ("from deshi.metrics import ranks", False),
        ("from deshi import __version__", False),
    ],
)
def test_the_private_test_sees_modules_and_names(text: str, refused: bool) -> None:
    """Private modules and private names of other packages are refused, those of the own package aren't."""
    assert bool(private_imports(text, "deshi.losses.softmax")) == refused


@pytest.mark.parametrize("path", MODULES, ids=_module)
def test_nothing_executes_at_import(path: Path) -> None:
    """A module's top level holds definitions only: no call for its effect, no loop, no work."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guard = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        assert isinstance(node, ALLOWED) or docstring or guard, f"{_module(path)}:{node.lineno} {ast.unparse(node)}"


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_package_and_the_command_load_nothing_heavy() -> None:
    """`deshi --help` and `import deshi` must answer at once."""
    heavy = "['torch', 'lightning', 'hydra', 'polars', 'matplotlib', 'pandas']"
    modules = "deshi, deshi.cli, deshi.stages, deshi.configuration.run_folders"
    code = f"import sys, {modules}; print([m for m in {heavy} if m in sys.modules])"
    assert _python(code) == "[]"


def test_every_module_imports_silently() -> None:
    """A print, a download or a missing dependency at import would show here."""
    names = [_module(path).removesuffix(".__init__") for path in MODULES if path.stem != "__main__"]
    assert _python(f"import importlib\nfor name in {names!r}: importlib.import_module(name)") == ""
