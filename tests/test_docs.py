"""The documentation's commands run as they stand, and its tree is the tree."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from empathy_kit.cli import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _commands(program: str) -> list[str]:
    blocks = [block for page in PAGES for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return sorted({line for line in lines if shlex.split(line)[0] == program})


@pytest.mark.parametrize("command", _commands("empathy-kit"))
def test_every_command_of_the_documentation_works(
    command: str,
    tmp_path: Path,
    tiny_roberta: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    arguments = shlex.split(command)[1:]
    if "reddit" in arguments:
        files = tmp_path / "cache" / "epitome-reddit"
        files.parent.mkdir()
        files.symlink_to(request.getfixturevalue("reddit_folder").resolve())
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "run":  # the encoder stands in for minutes of training; --encoder given last wins
        arguments += ["--encoder", str(tiny_roberta), "--epochs", "1", "--max-tokens", "16", "--threads", "1"]
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


def test_the_annotated_tree_names_every_module() -> None:
    tree = (ROOT / "docs" / "index.md").read_text("utf-8")
    modules = [path for path in (ROOT / "empathy_kit").rglob("*.py") if not path.name.startswith("__")]
    alone = {path.parent.name for path in modules if path.parent.name in ("builtin", "cli", "losses")}
    named = [path.name if path.parent.name not in alone else f"{path.parent.name}/" for path in modules]
    assert [name for name in sorted(set(named)) if name not in tree] == []


def test_the_readmes_scores_stand_in_the_committed_results() -> None:
    results = (ROOT / "benchmarks" / "results" / "reddit-scores.md").read_text("utf-8").splitlines()
    rows = [line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if re.match(r"\|.*\d\.\d{3}", line)]
    assert len(rows) >= 7
    assert [row for row in rows if row not in results] == []


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
