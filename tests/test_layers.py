"""The import law of the design: arrows run one way, and only `core` is heavy."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import empathy_kit

PACKAGE = Path(empathy_kit.__file__).parent

# A module may use the rooms of smaller numbers, and its own. The vocabulary is what `import empathy_kit` gives an author.
LAW = {
    "locks": -1,
    "errors": 0,
    "contracts": 0,
    "files": 0,
    "cache": 1,
    "cluster": 1,
    "processor": 1,
    "reading": 1,
    "hookspecs": 1,
    "vocabulary": 2,
    "options": 2,
    "discovery": 3,
    "plugins": 4,
    "data": 3,
    "encoders": 3,
    "config": 4,
    "core": 5,
    "builtin": 6,
    "losses": 6,
    "runs": 7,
    "testing": 7,
    "pytest_plugin": 7,
    "timings": 7,
    "scaffold": 7,
    "comparison": 8,
    "inference": 8,
    "service": 9,
    "cli": 10,
    "__main__": 11,
}
CORE_MAY_USE = {"core", "contracts", "errors", "files", "locks", "cache", "processor"}
MAY_BE_HEAVY = {"core"}  # and the promises of the conformance kit, which only its checks import
HEAVY = {"torch", "transformers", "sklearn", "safetensors"}
IS_A = {"empathy_kit.inference.estimator": {"sklearn"}}  # what a class inherits from; loaded when the class is asked for


@cache
def modules() -> dict[str, Path]:
    """Dotted name to file of every module of the package."""
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def room(module: str) -> str:
    """``empathy_kit.data.pairs`` stands in ``data``; ``empathy_kit`` itself is the vocabulary."""
    return module.split(".")[1] if "." in module else "vocabulary"


def imports(tree: ast.AST, module: str, *, everywhere: bool) -> Iterator[str]:
    """The modules that a module imports, but for type checkers; those inside functions only where asked."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from imports(ast.Module(node.orelse, []), module, everywhere=everywhere)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*module.split(".")[: -node.level], *([node.module] if node.module else [])])
                if node.level
                else node.module
            )
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in modules() else str(base)
        elif everywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, module, everywhere=everywhere)


def faults(module: str, source: str) -> list[str]:
    """What a module does against the law."""
    tree, own = ast.parse(source), room(module)
    found = []
    for used in imports(tree, module, everywhere=True):
        if used.split(".")[0] == "empathy_kit":
            other = room(used)
            if other != own and not LAW[other] < LAW[own]:
                found.append(f"{module} imports {used}: {own} comes before {other}")
            elif own == "core" and other not in CORE_MAY_USE:
                found.append(f"{module} imports {used}: core uses contracts, errors, files and cache alone")
    if own not in MAY_BE_HEAVY and not module.startswith("empathy_kit.testing."):
        barred = HEAVY - IS_A.get(module, set())
        heavy = sorted({used for used in imports(tree, module, everywhere=False) if used.split(".")[0] in barred})
        found += [f"{module} imports {used} at module level: only core may" for used in heavy]
    return found


@pytest.mark.parametrize("module", modules())
def test_every_module_obeys_the_import_law(module: str) -> None:
    assert room(module) in LAW, "a new room: give it a place in the law"
    assert faults(module, modules()[module].read_text(encoding="utf-8")) == []


def test_what_everything_stands_on_needs_nothing_but_the_standard_library() -> None:
    for name in ("contracts", "errors", "locks", "files"):
        source = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
        used = {name.split(".")[0] for name in imports(ast.parse(source), f"empathy_kit.{name}", everywhere=True)}
        assert used - {"empathy_kit"} <= sys.stdlib_module_names  # what of the kit, the law says


def test_accelerate_is_used_for_its_trackers_alone() -> None:
    """Its Accelerator is one per process and reads the environment: two runs would share it, and a variable change a run."""
    for module, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {name for name in imports(tree, module, everywhere=True) if name.split(".")[0] == "accelerate"}
        assert not used or module == "empathy_kit.runs.tracking", module
        assert "Accelerator" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}, module


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("empathy_kit.config", "from empathy_kit.runs.record import Record", "config comes before runs"),
        ("empathy_kit.config", "from empathy_kit.runs import record", "config comes before runs"),
        ("empathy_kit.config", "def f():\n    from empathy_kit.core.model import Model", "config comes before core"),
        ("empathy_kit.data.pairs", "from ..cli import main", "data comes before cli"),
        ("empathy_kit.data.pairs", "import empathy_kit.plugins", "data comes before plugins"),
        ("empathy_kit.hookspecs", "from empathy_kit import Loss", "hookspecs comes before vocabulary"),
        ("empathy_kit.core.model", "from empathy_kit.options import parse", "core uses contracts, errors, files and cache alone"),
        ("empathy_kit.data.tables", "from empathy_kit.config import RunConfig", "data comes before config"),
        ("empathy_kit.runs.load", "from empathy_kit.comparison import plan", "runs comes before comparison"),
        ("empathy_kit.core.trainer", "from empathy_kit.builtin import losses", "core comes before builtin"),
        (
            "empathy_kit.core.batch",
            "from empathy_kit.data.pairs import Pair",
            "core uses contracts, errors, files and cache alone",
        ),
        ("empathy_kit.files", "from empathy_kit.errors import KitError", "files comes before errors"),
        ("empathy_kit.losses", "import torch", "only core may"),
        ("empathy_kit.testing", "import torch", "only core may"),  # `plugins check` starts without it
        ("empathy_kit.runs.train", "import torch.nn", "only core may"),
        ("empathy_kit.inference.estimator", "import torch", "only core may"),
        ("empathy_kit.runs.memory", "from empathy_kit.inference import estimator", "runs comes before inference"),
        ("empathy_kit.runs.train", "class A:\n    from transformers import AutoModel", "only core may"),
        ("empathy_kit.runs.train", "try:\n    import sklearn\nexcept ImportError:\n    pass", "only core may"),
        ("empathy_kit.runs.train", "if TYPE_CHECKING:\n    import torch\nelse:\n    import torch", "only core may"),
    ],
)
def test_the_law_would_be_broken_by(module: str, source: str, fault: str) -> None:
    (found,) = faults(module, source)
    assert found.endswith(fault)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("empathy_kit.runs.train", "def f():\n    import torch"),
        ("empathy_kit.runs.train", "if TYPE_CHECKING:\n    import torch\n    from empathy_kit.cli import main"),
        ("empathy_kit.core.losses.focal", "import torch\nfrom empathy_kit.core.batch import Batch"),
        ("empathy_kit.testing.losses", "import torch"),
        ("empathy_kit.data.tables", "from .pairs import Pair\nfrom ..errors import KitError"),
    ],
)
def test_the_law_allows(module: str, source: str) -> None:
    assert faults(module, source) == []
