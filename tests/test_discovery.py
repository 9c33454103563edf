"""Where plugins come from: files that the user names, specs of Python, and what an installation leaves lying about."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from empathy_kit import KitError, Loss, __version__
from empathy_kit.options import options_of
from empathy_kit.plugins import ONLY, Provided, fingerprint, load_registry

LOSS = """from __future__ import annotations
from dataclasses import dataclass
from empathy_kit import Loss, hookimpl

@dataclass(frozen=True)
class Setting:
    gamma: float

def mine(task, *, gamma: float = 1.0): ...

@hookimpl
def empathy_kit_losses():
    yield Loss("mine", mine)
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing that is installed here is looked at; what a test imports is forgotten."""
    monkeypatch.setenv(ONLY, "")
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith(("empathy_kit_", "_empathy_kit_file"))]:
        del sys.modules[name]


def write(text: str = LOSS, name: str = "my_loss.py") -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return Path(name)


def test_a_file_is_a_plugin_by_its_name_and_a_hash_of_its_content() -> None:
    entry = load_registry([write()]).get("loss", "mine")
    digest = hashlib.sha256(LOSS.encode()).hexdigest()
    assert (entry.distribution, entry.version) == ("./my_loss.py", f"sha256:{digest[:12]}")
    assert fingerprint(entry) == digest
    assert not list(Path().glob("**/*.pyc"))


def test_the_same_file_is_one_plugin_however_it_is_named() -> None:
    path = write()
    first = load_registry([path, path.resolve(), f"../{Path.cwd().name}/my_loss.py"]).get("loss", "mine")
    for given in ([path], path, "./my_loss.py"):
        assert load_registry(given).get("loss", "mine") == first


def test_a_file_that_changed_is_read_again() -> None:
    before = load_registry([write()]).get("loss", "mine")
    after = load_registry([write(LOSS.replace("1.0", "2.0"))]).get("loss", "mine")
    assert after.version != before.version
    assert after.spec.build.__kwdefaults__ == {"gamma": 2.0}


def test_files_of_one_name_in_two_folders_are_two_plugins() -> None:
    files = [write(name="a/loss.py"), write(LOSS.replace('"mine"', '"other"'), "b/loss.py")]
    assert [entry.spec.name for entry in load_registry(files).of("loss")] == ["ce", "focal", "weighted", "mine", "other"]


LOCAL = """from typing import Literal
from empathy_kit import Loss, hookimpl

def make():
    Mode = Literal["mean", "most"]
    def mine(task, *, mode: Mode = "mean"): ...
    return mine

@hookimpl
def empathy_kit_losses():
    yield Loss("mine", make())
"""


def test_a_file_is_compiled_as_python_would_compile_it() -> None:
    entry = load_registry([write(LOCAL)]).get("loss", "mine")  # where annotations were text, nobody could look up Mode
    assert options_of(entry.spec.build)["mode"].describe() == "mode: mean|most = mean"


BROKEN = {
    "no such file": (None, "cannot be read: No such file or directory; expected a Python file such as ./my_loss.py"),
    "an import error": ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
    "a neighbour": ("import neighbour", "ModuleNotFoundError: No module named 'neighbour'"),
    "a syntax error": ("def (", "SyntaxError: invalid syntax (my_loss.py, line 1)"),
    "no Python": ("\0", "SyntaxError: source code string cannot contain null bytes"),
    "SystemExit": ("raise SystemExit(3)", "SystemExit: 3"),
    "no hook": (
        "",
        "TypeError: no hook found, expected empathy_kit_losses, empathy_kit_rationales, empathy_kit_heads, empathy_kit_samplers, "
        "empathy_kit_trunks marked with @empathy_kit.hookimpl",
    ),
    "a built-in name": (LOSS.replace('"mine"', '"focal"'), "loss 'focal' is a built-in name; choose another"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_named_file_that_is_broken_is_an_error(case: str) -> None:
    text, reason = BROKEN[case]
    write("x = 1", "neighbour.py")
    path = Path("my_loss.py") if text is None else write(text)
    for _ in range(2):
        with pytest.raises(KitError) as error:
            load_registry([path])
        assert str(error.value) == f"--plugin my_loss.py: {reason}"


@pytest.mark.parametrize("place", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_not_waited_for(place: str, tmp_path: Path) -> None:
    path = Path("/dev/zero") if place == "device" else tmp_path / "my_loss.py"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": Path.is_char_device}[place](path)
    with pytest.raises(KitError) as error:
        load_registry([path])
    reason = "Is a directory" if place == "folder" else "not a regular file"
    assert str(error.value) == f"--plugin {path}: cannot be read: {reason}; expected a Python file such as ./my_loss.py"


def test_a_file_may_not_take_the_name_of_another() -> None:
    with pytest.raises(KitError) as error:
        load_registry([write(), write(name="b/my_loss.py")])
    version = f"sha256:{hashlib.sha256(LOSS.encode()).hexdigest()[:12]}"
    taken = f"loss 'mine' is also offered by ./my_loss.py {version}; choose another"
    assert str(error.value) == f"--plugin b/my_loss.py: {taken}"


Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts the metadata of empathy-kit-mine on the path, with the module that it offers."""
    monkeypatch.setenv(ONLY, "empathy-kit-mine")

    def add(folder: str = "site", info: str = "empathy_kit_mine-0.1.dist-info", version: str = "0.1", needs: str = "") -> Path:
        site = tmp_path / folder
        (site / info).mkdir(parents=True)
        (site / info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: empathy-kit-mine\nVersion: {version}\n{needs}")
        (site / info / "entry_points.txt").write_text("[empathy_kit]\nmine = empathy_kit_mine\n")
        (site / "empathy_kit_mine.py").write_text(LOSS)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return site

    return add


def test_what_pip_left_behind_is_no_second_plugin(install: Install) -> None:
    install()
    install(info="~mpathy_kit_mine-0.0.9.dist-info", version="0.0.9")
    registry = load_registry()
    assert registry.failures == ()
    assert registry.get("loss", "mine").version == "0.1"


def test_a_distribution_that_is_found_twice_is_the_one_that_python_imports(install: Install) -> None:
    install("checkout", "empathy_kit_mine.egg-info", "0.2")
    site = install("site")
    registry = load_registry()
    assert registry.failures == ()
    assert registry.get("loss", "mine").version == "0.1"
    assert sys.modules["empathy_kit_mine"].__file__ == str(site / "empathy_kit_mine.py")


@pytest.mark.parametrize(
    ("needs", "loads"),
    [
        ("empathy-kit>=9", False),
        ("empathy_kit>=9", False),
        ("Empathy.Kit (>=9)", False),
        ("empathy-kit[minilm]>=9", False),
        ("empathy-kit>=9; python_version >= '3'", False),
        ("empathy-kit>=9; extra == 'test'", True),
        ("empathy-kit>=9; python_version < '3'", True),
        ("empathy-kit>=0.1", True),
        ("empathy-kit[train]>=0.1", True),
        ("empathy-kit[train]>=9", False),
        ("empathy-kit-mine-too>=9", True),
        ("torch>=99", True),
    ],
)
def test_a_plugin_of_another_kit_is_skipped_however_it_says_so(install: Install, needs: str, loads: bool) -> None:
    install(needs=f"Requires-Dist: {needs}\n")
    reasons = [failure.reason for failure in load_registry().failures]
    assert reasons == ([] if loads else [f"RuntimeError: made for empathy-kit >=9, and this is empathy-kit {__version__}"])


def test_a_fingerprint_notices_code_that_changed_under_one_version(install: Install) -> None:
    site = install()
    before = fingerprint(load_registry().get("loss", "mine"))
    assert before == hashlib.sha256(LOSS.encode()).hexdigest()
    (site / "empathy_kit_mine.py").write_text(LOSS + "\n")
    assert fingerprint(load_registry().get("loss", "mine")) not in (before, None)


@pytest.mark.parametrize(
    "record", ["", "empathy_kit_mine/__init__.py,,\nempathy_kit_mine/formula.py,,\n", "__editable__x.py,,\n"]
)
def test_a_fingerprint_is_of_all_files_of_a_package(install: Install, record: str) -> None:
    site = install()
    package = site / "empathy_kit_mine"
    package.mkdir()
    (site / "empathy_kit_mine.py").rename(package / "__init__.py")
    (package / "formula.py").write_text("x = 1\n")
    (site / "__editable__x.py").write_text("")
    if record:
        (site / "empathy_kit_mine-0.1.dist-info" / "RECORD").write_text(record)
    entry = load_registry().get("loss", "mine")
    names = {"empathy_kit_mine/__init__.py": LOSS, "empathy_kit_mine/formula.py": "x = 1\n"}
    lines = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in names.items())
    assert fingerprint(entry) == hashlib.sha256(lines.encode()).hexdigest()


def test_a_fingerprint_is_of_the_code_that_ran_and_not_of_what_is_installed_beside_it(install: Install) -> None:
    """A checkout that Python finds first, as with ``python -m`` in it."""
    site = install()
    info = site / "empathy_kit_mine-0.1.dist-info"
    (info / "RECORD").write_text("empathy_kit_mine.py,,\n")
    installed = fingerprint(load_registry().get("loss", "mine"))
    checkout = site.parent / "checkout"
    checkout.mkdir()
    changed = LOSS + "scale = 500\n"
    (checkout / "empathy_kit_mine.py").write_text(changed)
    sys.path.insert(0, str(checkout))
    try:
        del sys.modules["empathy_kit_mine"]
        importlib.invalidate_caches()
        found = fingerprint(load_registry().get("loss", "mine"))
    finally:
        sys.path.remove(str(checkout))
    assert found == hashlib.sha256(changed.encode()).hexdigest() != installed


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")], ids=["pip", "uv"])
def test_a_fingerprint_of_an_editable_installation_is_of_the_modules_next_to_it_too(
    install: Install, separators: tuple[str, str]
) -> None:
    site = install()
    origin = json.dumps({"url": "file:///x", "dir_info": {"editable": True}}, separators=separators)
    (site / "empathy_kit_mine-0.1.dist-info" / "direct_url.json").write_text(origin)
    (site / "empathy_kit_mine.py").write_text(f"{LOSS}\n\ndef late():\n    import mine_formulas\n")
    (site / "mine_formulas.py").write_text("from mine_more import y\n")
    (site / "mine_more").mkdir()
    (site / "mine_more" / "__init__.py").write_text("y = 0\n")
    (site / "mine_more" / "template.py").write_text("import {name}\n")  # which is no Python yet
    entry, found = load_registry().get("loss", "mine"), []
    for path, text in ((site / "mine_formulas.py", "import mine_more\n"), (site / "mine_more" / "__init__.py", "y = 1\n")):
        found.append(fingerprint(entry))
        path.write_text(text)
    (site / "plot.py").write_text("")  # which it does not import
    assert fingerprint(entry) == fingerprint(load_registry().get("loss", "mine"))
    assert len({*found, fingerprint(entry), None}) == 4


@pytest.mark.parametrize("origin", ['{"dir_info": {"editable": true}', '{"dir_info": {}}', "[]"])
def test_what_is_not_written_down_as_editable_is_its_own_files_alone(install: Install, origin: str) -> None:
    site = install()
    (site / "empathy_kit_mine-0.1.dist-info" / "direct_url.json").write_text(origin)
    (site / "empathy_kit_mine.py").write_text(f"{LOSS}\n\ndef late():\n    import mine_formulas\n")
    (site / "mine_formulas.py").write_text("x = 1\n")
    digest = hashlib.sha256((site / "empathy_kit_mine.py").read_bytes()).hexdigest()
    assert fingerprint(load_registry().get("loss", "mine")) == digest


@pytest.mark.parametrize("content", [b"empathy_kit_mine.py,,\n\xe9,,\n", b"empathy_kit_mine.py,,\ngone.py,,\n"])
def test_a_record_that_cannot_be_read_or_names_what_is_gone_ends_nothing(install: Install, content: bytes) -> None:
    site = install()
    (site / "empathy_kit_mine-0.1.dist-info" / "RECORD").write_bytes(content)
    entry = load_registry().get("loss", "mine")
    before = fingerprint(entry)
    (site / "empathy_kit_mine.py").write_text(LOSS + "\n")
    assert (before is None) == (b"\xe9" in content)
    assert before is None or fingerprint(entry) != before


RECORD = "".join(f"empathy_kit_mine/{name},,\n" for name in ("__init__.py", "cues.json", "words/a.txt", "py.typed"))


@pytest.mark.parametrize("record", ["", RECORD])
def test_a_fingerprint_notices_what_a_plugin_reads_and_nothing_that_it_does_not(install: Install, record: str) -> None:
    site = install()
    package = site / "empathy_kit_mine"
    package.mkdir()
    (site / "empathy_kit_mine.py").rename(package / "__init__.py")
    info = site / "empathy_kit_mine-0.1.dist-info"
    (info / "RECORD").write_text(f"{record}{info.name}/METADATA,,\n../bin/mine,,\n" if record else "")
    for name in ("words/a.txt", "py.typed", "__pycache__/own.cpython.pyc", ".hidden"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("")
    entry, cues = load_registry().get("loss", "mine"), package / "cues.json"
    seen = []
    for change in (cues, package / "words" / "a.txt"):
        change.write_text('["sorry"]')
        seen.append(fingerprint(entry))
    cues.write_text('["sorry", "glad"]')
    assert len({*seen, fingerprint(entry), None}) == 4
    cues.write_text('["sorry"]')
    for name in ("py.typed", "__pycache__/own.cpython.pyc", ".hidden"):
        (package / name).write_text("changed")
    assert fingerprint(entry) == seen[-1]


def test_a_fingerprint_of_somebodys_own_package_is_of_its_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study's package may hold its results: they would make its plugins others with every run."""
    write(LOSS, "empathy_kit_study/__init__.py")
    write("{}", "empathy_kit_study/results.json")
    monkeypatch.syspath_prepend(tmp_path)
    build = importlib.import_module("empathy_kit_study").mine
    entry = load_registry().with_specs(Loss("own", build)).get("loss", "own")
    assert fingerprint(entry) == hashlib.sha256(LOSS.encode()).hexdigest()


def test_a_fingerprint_of_a_source_tree_is_not_of_its_documentation(install: Install) -> None:
    site = install("checkout", "empathy_kit_mine.egg-info")
    (site / "empathy_kit_mine.egg-info" / "SOURCES.txt").write_text("README.md\nempathy_kit_mine.py\n")
    (site / "README.md").write_text("Mine.")
    assert fingerprint(load_registry().get("loss", "mine")) == hashlib.sha256(LOSS.encode()).hexdigest()


def test_the_kits_own_and_what_has_no_file_has_no_fingerprint() -> None:
    assert fingerprint(load_registry().get("loss", "ce")) is None
    assert fingerprint(Provided("loss", Loss("own", load_registry), "python", "unknown")) is None
    assert fingerprint(Provided("loss", Loss("own", load_registry), "python", "unknown", "no_such_module")) is None


def test_a_spec_of_a_program_from_standard_input_has_no_version() -> None:
    program = (
        "from empathy_kit import Loss\nfrom empathy_kit.plugins import load_registry\n"
        "def own(task): ...\nprint(load_registry().with_specs(Loss('own', own)).get('loss', 'own').version)\n"
    )
    run = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True)
    assert run.stdout == "unknown\n"
