"""`plugins new`: a distribution that works as it is written, for every kind, whole or not at all."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from cli_reply import Reply

from empathy_kit import Task, __version__
from empathy_kit.errors import KitError
from empathy_kit.plugins import KINDS, Kind, Registry
from empathy_kit.scaffold import files, scaffold

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_plugins_new_says_where_it_wrote_and_what_comes_next(kit: Reply, tmp_path: Path, kind: Kind) -> None:
    code, out, err = kit("plugins", "new", "my-own", "--kind", kind)
    assert (code, err) == (0, "")
    assert out == (
        "written: empathy-kit-my-own\nnext:\n  cd empathy-kit-my-own\n  pip install --editable '.[test]'\n"
        "  empathy-kit plugins check my-own\n  pytest\n"
    )
    written = {path.relative_to(tmp_path / "empathy-kit-my-own").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        ".gitignore",
        "empathy_kit_my_own.py",
        "tests/test_my_own.py",
    }
    assert not any("$" in path.read_text() for path in (tmp_path / "empathy-kit-my-own").rglob("*.py"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one distribution of each kind."""
    folder = tmp_path_factory.mktemp("written")
    for kind in KINDS:
        scaffold(f"my-{kind}", kind, folder, Registry(()))
    return folder


def test_what_is_written_passes_ruff(written: Path) -> None:
    for folder in written.iterdir():
        checked = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=folder, capture_output=True)
        assert checked.returncode == 0, checked.stdout.decode()


def test_what_is_written_passes_mypys_strict_checks(written: Path) -> None:
    # All at once, from here, so that what mypy knows of torch is not computed again.
    modules = [str(path) for path in sorted(written.rglob("*.py"))]
    paths = ":".join(str(folder) for folder in written.iterdir())
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *modules],
        cwd=ROOT,
        env={"PATH": "", "MYPYPATH": paths},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def words(kind: Kind) -> Iterator[str]:
    """Every word of a kind's template that could be a plugin's name, and the words of Python that could."""
    text = files("zzz", kind)["empathy_kit_zzz.py"]
    found = {token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.NAME}
    for word in {*found, "class", "lambda", "none", "true", "match", "type", "hookimpl", "print", "object", "self", "float"}:
        name = word.lower().replace("_", "-").strip("-")
        if name and name[0].isalpha():
            yield name


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_is_refused_or_works(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from empathy_kit.testing import checks

    refused, said = set(), set()
    for number, name in enumerate(sorted(set(words(kind)))):
        try:
            folder = scaffold(name, kind, tmp_path, Registry(()))
        except KitError as error:
            refused.add(name)
            said.add(str(error))
            continue
        module = ModuleType(f"written_{number}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        (path,) = folder.glob("*.py")
        exec(compile(path.read_text(), str(path), "exec"), vars(module))
        (spec,) = next(value for key, value in vars(module).items() if key.startswith("empathy_kit_"))()
        assert spec.name == name
        built = {str(check): check for check in checks(spec)}
        assert built["leaves-the-world-alone"].judge() is None  # built, and called
    assert {"class", "lambda", "hookimpl", "none", "print", "float"} <= refused
    meaning = "that word has another meaning in the plugin's code"
    assert said == {f"plugins new {name}: {meaning}; use another such as my-{name}" for name in refused}


CANNOT_BE_WRITTEN = {
    "not a name": (
        ["My Own", "--kind", "loss"],
        "plugins new 'My Own': expected lower-case letters, digits and hyphens, first a letter, such as my-loss",
    ),
    "a path": (
        ["../up", "--kind", "head"],
        "plugins new '../up': expected lower-case letters, digits and hyphens, first a letter, such as my-head",
    ),
    "no distribution's name": (
        ["a-b-", "--kind", "loss"],
        "plugins new a-b-: a distribution's name has single hyphens, and none at its end; use another name",
    ),
    "a keyword": (
        ["lambda", "--kind", "loss"],
        "plugins new lambda: that word has another meaning in the plugin's code; use another such as my-lambda",
    ),
    "taken": (
        ["focal", "--kind", "loss"],
        f"plugins new focal: empathy-kit {__version__} has a loss of that name; use another name",
    ),
    "another distribution": (
        ["elsewhere", "--kind", "loss"],
        "plugins new elsewhere: empathy-kit-elsewhere is installed, and installing another would remove it; use another name",
    ),
    "the folder exists": (
        ["there", "--kind", "loss"],
        "plugins new there: empathy-kit-there already exists, and nothing is overwritten; use another name or --into",
    ),
    "the place is a file": (
        ["mine", "--kind", "loss", "--into", "a-file"],
        "plugins new mine: a-file/empathy-kit-mine cannot be written: File exists",
    ),
}


@pytest.mark.parametrize("case", CANNOT_BE_WRITTEN)
def test_plugins_new_refuses_in_one_line_and_leaves_nothing_behind(
    kit: Reply, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "empathy_kit_elsewhere-0.1.dist-info").mkdir()
    (site / "empathy_kit_elsewhere-0.1.dist-info" / "METADATA").write_text("Name: empathy-kit-elsewhere\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(site)
    (tmp_path / "empathy-kit-there").mkdir()
    (tmp_path / "a-file").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = CANNOT_BE_WRITTEN[case]
    assert kit("plugins", "new", *arguments) == (2, "", f"Error: {message}\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_plugins_new_names_the_kinds_that_there_are(kit: Reply, tmp_path: Path) -> None:
    code, out, err = kit("plugins", "new", "mine", "--kind", "encoder")
    assert (code, out) == (2, "")
    told = err.splitlines()[-1]
    assert told.startswith("Error: ")
    assert [word for word in re.findall(r"'([^']+)'", told) if word != "--kind"] == ["encoder", *KINDS]
    assert list(tmp_path.iterdir()) == []


def test_plugins_new_on_a_full_disk_leaves_nothing_behind(kit: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = Path.write_text, []

    def full(path: Path, text: str, **how: str) -> int:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return write(path, text, **how)

    monkeypatch.setattr(Path, "write_text", full)
    code, out, err = kit("plugins", "new", "mine", "--kind", "loss")
    assert (code, out) == (2, "")
    assert err == "Error: plugins new mine: empathy-kit-mine cannot be written: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_a_loss_may_bear_the_name_of_a_head(kit: Reply) -> None:
    assert kit("plugins", "new", "focal", "--kind", "head")[0] == 0


def test_the_loss_refuses_what_its_formula_does_not_take() -> None:
    module = ModuleType("zzz")
    exec(files("zzz", "loss")["empathy_kit_zzz.py"], vars(module))
    for alpha in (-0.1, 1.0, float("nan")):
        with pytest.raises(KitError, match=f"^loss zzz of ER: option 'alpha' is {alpha}; expected 0 or more and less than 1$"):
            module.zzz(Task("ER", ("0", "1"), (5, 5)), alpha=alpha)


def test_the_templates_import_nothing_heavy_at_the_top() -> None:
    for kind in KINDS:
        tree = ast.parse(files("zzz", kind)["empathy_kit_zzz.py"])
        tops = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert tops == {"__future__", "collections.abc", "typing", "empathy_kit"}
