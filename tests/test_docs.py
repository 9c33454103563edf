"""The documentation's commands and code run as they are written, its tree is the tree, and its reference is complete."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hatchling.build import build_wheel

from empathy_kit import Encoded, Head, Injection, Loss, Rationale, Sampler, Task, Texts, Trunk, __version__, hookspecs
from empathy_kit.cli import cli
from empathy_kit.comparison.parse import parse_configurations
from empathy_kit.config import RunConfig
from empathy_kit.data.schema import MISSING
from empathy_kit.data.sources import load_corpus
from empathy_kit.plugins import Registry, load_registry
from empathy_kit.runs.choose import choose_plugins
from empathy_kit.scaffold import files, scaffold
from empathy_kit.testing import examine

ROOT = Path(__file__).parent.parent
PLUGINS = sorted((ROOT / "plugins").glob("empathy-kit-*"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *(folder / "README.md" for folder in PLUGINS)]
TUTORIALS = sorted((ROOT / "docs").glob("tutorial-*.md"))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The plugins of the documentation as if they were installed: those of plugins/, and one as `plugins new mine` writes it.

    Gives the folders that were put on the path for that.
    """
    site = tmp_path / "site"
    site.mkdir()
    mine = scaffold("mine", "loss", tmp_path / "new", Registry((), ()))
    for folder in (*PLUGINS, mine):
        _install(folder, site)
    folders = [site, mine, *PLUGINS]
    for folder in folders:
        monkeypatch.syspath_prepend(folder)
    yield folders
    for name in [name for name in sys.modules if re.match(r"empathy_kit_", name)]:
        del sys.modules[name]  # or a test that has the real thing would find these


def _install(folder: Path, site: Path) -> None:
    """The metadata that a wheel of the folder would have; the code stays where it is."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    needs = "".join(f"Requires-Dist: {need}\n" for need in project["dependencies"])
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n{needs}")
    points = "".join(f"{name} = {module}\n" for name, module in project["entry-points"]["empathy_kit"].items())
    (info / "entry_points.txt").write_text(f"[empathy_kit]\n{points}")


def _commands(program: str) -> list[str]:
    blocks = [block for page in PAGES for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return sorted({line for line in lines if shlex.split(line)[0] == program})


def _blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """What stands after the language (the file that a block is, or nothing), and the block."""
    found = re.findall(rf"```{language}( [^\n]+)?\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    return [(name.strip(), text) for name, text in found]


@pytest.fixture(scope="session")
def finished(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run for the pages that use one."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    quick = ["--encoder", str(tiny_roberta), "--epochs", "1", "--max-tokens", "16", "--threads", "1", "-o", "trunk.hidden", "8"]
    result = CliRunner().invoke(cli, ["run", "--loss", "focal", "--out", str(folder), *quick], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


COMMANDS = _commands("empathy-kit")
ON_REDDIT = next(command for command in COMMANDS if "reddit" in shlex.split(command))  # the others show another flag


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_documentation_works(
    command: str,
    tmp_path: Path,
    cache: Path,
    tiny_roberta: Path,
    in_threads: None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    arguments = shlex.split(command)[1:]
    if arguments[:2] != ["plugins", "new"]:  # which refuses a name that is taken
        request.getfixturevalue("published")
    if arguments[:2] == ["plugins", "check"] and len(arguments) == 3:  # `plugins check` alone keeps all of their promises
        assert load_registry().named(arguments[2])
        return
    if command != ON_REDDIT:
        arguments = ["sample" if each == "reddit" else each for each in arguments]
    else:
        (cache / "epitome-reddit").symlink_to(request.getfixturevalue("reddit_folder").resolve())
        arguments += ["--train-share", "0.2"]
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "export":
        request.getfixturevalue("each_graph_once")
    if arguments[0] in ("predict", "evaluate", "export"):  # of a run that the page has made before
        run = request.getfixturevalue("finished")
        shutil.copytree(run, arguments[1])
        with Path("posts.csv").open("w", encoding="utf-8", newline="") as stream:
            posts = [(pair.seeker, pair.response) for pair in load_corpus("sample").pairs[:20]]
            csv.writer(stream).writerows([("seeker_post", "response_post"), *posts])
    # The encoder and a small trunk stand in for minutes of training; what is given last wins.
    quick = ["--encoder", str(tiny_roberta), "--epochs", "1", "--max-tokens", "16", "--threads", "1"]
    if "--trunk" not in arguments:
        quick += ["-o", "trunk.hidden", "8", "-o", "trunk.layers", "1"]
    if arguments[0] == "compare":  # one at a time, for torch has one random state per process
        quick += ["--seeds", "1", "--jobs", "1"]
    if arguments[0] in ("run", "compare"):
        arguments += quick
    if arguments[:2] == ["data", "audit"]:
        if "--runs" in arguments:
            folder = Path(arguments[arguments.index("--runs") + 1])
            shutil.copytree(request.getfixturevalue("finished"), folder / "run")
        else:
            arguments += ["--folds", "2", *quick]
    if arguments[:2] == ["data", "describe"]:
        arguments += ["--encoder", str(tiny_roberta)]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", _commands("make"))
def test_every_make_target_of_the_documentation_exists(command: str) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_make_run_runs_the_main_job_word_for_word() -> None:
    assert "\t$(BIN)/empathy-kit run --loss focal --no-rationale\n" in (ROOT / "Makefile").read_text("utf-8")


def test_the_example_of_a_table_is_one(tmp_path: Path) -> None:
    ((name, text),) = _blocks(ROOT / "docs" / "data.md", "csv")
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = load_corpus(str(tmp_path / name))
    assert [pair.levels for pair in found.pairs] == [(2, 2, 0), (0, 0, MISSING), (2, 0, 1)]
    assert [[len(spans) for spans in pair.spans] for pair in found.pairs] == [[1, 1, 0], [0, 0, 0], [2, 0, 1]]
    assert not any(sum(pair.unplaced) for pair in found.pairs)


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


WHOLE = ("builtin/", "cli/")  # folders that the tree describes as a whole


def test_the_annotated_tree_names_every_module_in_its_place() -> None:
    modules = {path.relative_to(ROOT / "empathy_kit").as_posix() for path in (ROOT / "empathy_kit").rglob("[!_]*.py")}
    named = _in_tree((ROOT / "docs" / "index.md").read_text("utf-8"))
    missing = {module for module in modules - named if not module.startswith(WHOLE)}
    assert (missing, named - modules) == (set(), set())


def _in_tree(page: str) -> set[str]:
    """The modules in the page's tree: those that have a line, and those that the text of their folder names."""
    (tree,) = re.findall(r"^empathy_kit/\n((?: .*\n)+)", page, re.MULTILINE)
    found: set[str] = set()
    above, folder = {"  ": ""}, ""  # the folder of each indentation; the folder that a text is of
    for line in tree.splitlines():
        text = line  # what stands farther right continues a text
        if entry := re.fullmatch(r"(  |    )(\S+(?: \S+\.py)*) +(.*)", line):
            indent, names, text = entry.groups()
            folder = above[indent + "  "] = above[indent] + names if names.endswith("/") else ""
            found |= {above[indent] + name for name in names.split() if not folder}
        found |= {folder + name for name in re.findall(r"\w+\.py\b", text) if folder}
    return found - {"__init__.py"}


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_the_comparison_that_a_plugins_page_names_can_be_made(folder: Path, published: list[Path]) -> None:
    (command,) = re.findall(r"^(empathy-kit compare .+)$", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    _, _, *given = shlex.split(command)
    assert given[-3:] == ["--data", "reddit", "--resplit"]
    configurations, _ = parse_configurations(given[:-3], None, RunConfig(), {})
    used = [choose_plugins(config, load_registry()) for config in configurations.values()]
    assert folder.name in {entry.distribution for plugins in used for entry in plugins.chosen.values()}


def test_a_finished_run_is_loaded_as_the_readme_loads_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((_, code),) = [each for each in _blocks(ROOT / "README.md", "python") if each[0] == "example.py"]
    (folder,) = re.findall(r'load\("(.+)"\)', code)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, folder)
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert all(re.fullmatch(r"\{'ER': '[012]', 'EX': '[012]', 'IP': '[012]'\}", line) for line in lines)
    # The page on inference begins with the folder that `make run` leaves.
    ((_, code),) = [each for each in _blocks(ROOT / "docs" / "inference.md", "python") if each[0] == "use.py"]
    exec(compile(code.replace("runs/sample-focal-none-0", folder), "inference.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 1)[0] for line in lines] == ["ER", "EX", "IP"] * 2


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            target, _, anchor = link.partition("#")
            if "://" not in target:
                there = page.parent / target if target else page
                assert there.exists(), f"{page.name} links to {link}"
                assert not anchor or anchor in _anchors(there), f"{page.name} links to {link}"


def _anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub names them in links."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


RUNNING = [page for page in PAGES if any(not file for file, _ in _blocks(page, "python"))]
# Each page begins with nothing but what is imported already.
DRIVER = """
import contextlib, io, json, sys, traceback
printed = []
for code in json.load(sys.stdin):
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(code, "page", "exec"), {"__name__": "__main__"})
    except Exception:
        traceback.print_exc(file=output)
    printed.append(output.getvalue())
print(json.dumps(printed))
"""


def test_the_code_that_a_page_runs_prints_what_the_page_says(published: list[Path], tmp_path: Path) -> None:
    code = ["\n".join(code for file, code in _blocks(page, "python") if not file) for page in RUNNING]
    # In a process of its own: here, pytest would make other messages of the asserts.
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, published))},
        input=json.dumps(code),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = {page.name: "".join(text for _, text in _blocks(page, "text")) for page in RUNNING}
    assert dict(zip(said, json.loads(ran.stdout), strict=True)) == said


BESIDE = {"empathy_kit_ordinal/hurdle.py", "empathy_kit_ordinal/hurdle_head.py"}  # another plugin of the same distribution


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_ends_in_the_plugin_that_is_published(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text("utf-8")
    (name,) = {Path(link).parent.name for link in re.findall(r"\]\(\.\./plugins/([^)]+)\)", text)}
    published = ROOT / "plugins" / name
    shown = {file: block for file, block in _blocks(page, "python") if file}
    assert shown
    for file, block in shown.items():
        assert block == (published / file).read_text("utf-8"), f"{page.name} shows another {file}"
    # What the reader is left with: `plugins new`, the page's files over it, and what the page has them delete.
    short = name.removeprefix("empathy-kit-")
    (kind,) = re.findall(rf"plugins new {short} --kind (\w+)", text)
    for file, block in {**files(short, kind), **shown}.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(block, "utf-8")
    for module in re.findall(r"delete `(\S+\.py)`", text):
        (tmp_path / module).unlink()
    made, points = _wheel(tmp_path, tmp_path / "dist", monkeypatch)
    expected, expected_points = _wheel(published, tmp_path / "published", monkeypatch)
    assert made == {file: code for file, code in expected.items() if file not in BESIDE}
    assert points == {name: module for name, module in expected_points.items() if f"{module.replace('.', '/')}.py" not in BESIDE}
    # Its tests begin with what the module offers.
    (top,) = points.values()
    offer = next(code for file, code in made.items() if file in (f"{top}.py", f"{top}/__init__.py")).decode()
    (test,) = (tmp_path / "tests").iterdir()
    (names,) = re.findall(rf"^from {top} import (.+)$", test.read_text("utf-8"), re.MULTILINE)
    for each in names.split(", "):
        assert re.search(rf"^(def )?{each}\b", offer, re.MULTILINE), f"{test.name} imports {each}"


def _wheel(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], dict[str, str]]:
    """The modules that a distribution's wheel holds, and its entry points."""
    monkeypatch.chdir(folder)
    with zipfile.ZipFile(out / build_wheel(str(out))) as archive:
        modules = {file: archive.read(file) for file in archive.namelist() if ".dist-info/" not in file}
        (points,) = (archive.read(file).decode() for file in archive.namelist() if file.endswith("/entry_points.txt"))
    return modules, dict(line.split(" = ") for line in points.splitlines() if " = " in line)


def test_the_reference_names_every_hook_and_every_field() -> None:
    page = (ROOT / "docs" / "hooks.md").read_text("utf-8")
    headings = set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    hooks = {name for name in vars(hookspecs) if name.startswith("empathy_kit_")}
    assert hooks == {heading for heading in headings if heading.startswith("empathy_kit_")}
    pattern = r"(?:^## |^)`?(empathy_kit_\w+|Task|Texts|Encoded|Injection)`?[:\n](.*?)(?=\n## |\n`[A-Z]|\Z)"
    sections = dict(re.findall(pattern, page, re.DOTALL | re.MULTILINE))
    specs = zip(("losses", "rationales", "heads", "samplers", "trunks"), (Loss, Rationale, Head, Sampler, Trunk), strict=True)
    owners = {f"empathy_kit_{name}": spec for name, spec in specs}
    owners |= {value.__name__: value for value in (Task, Texts, Encoded, Injection)}
    for section, owner in owners.items():
        fields = {field.name for field in dataclasses.fields(owner)}
        fields |= {name for name, value in vars(owner).items() if isinstance(value, property)}
        assert fields == set(re.findall(r"^- `(\w+)`:", sections[section], re.MULTILINE)), section


def test_the_references_examples_keep_the_kits_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "\n".join(code for file, code in _blocks(ROOT / "docs" / "hooks.md", "python") if not file)
    folder = tmp_path / "empathy-kit-reference"
    folder.mkdir()
    (folder / "empathy_kit_reference.py").write_text(module)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "empathy-kit-reference"\nversion = "1"\ndependencies = []\n'
        '[project.entry-points.empathy_kit]\nreference = "empathy_kit_reference"\n'
    )
    _install(folder, tmp_path)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(tmp_path)
    found = load_registry().named("empathy-kit-reference")
    assert {entry.spec.name for entry in found} == {"smooth", "mean", "linear-without-bias", "half", "bag"}
    assert [outcome for outcome in examine(found) if outcome.failure] == []
