"""Every measured number of README and docs is in a block that docs/figures.py writes from a committed result."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click import ClickException
from click.testing import CliRunner

from empathy_kit.comparison.pages import as_markdown
from empathy_kit.config import preset

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def figures() -> Iterator[ModuleType]:
    """docs/figures.py, as if it were run."""
    sys.path.insert(0, str(ROOT / "docs"))
    import figures

    yield figures
    sys.path.remove(str(ROOT / "docs"))


def test_every_page_and_picture_is_what_the_results_give(figures: ModuleType) -> None:
    assert list(figures.stale()) == []


def test_every_block_is_on_a_page(figures: ModuleType) -> None:
    used = {name for page in figures.PAGES for name, _ in figures.BLOCK.findall(page.read_text("utf-8"))}
    assert used == set(figures.BLOCKS)


def test_the_best_preset_is_what_validation_parts_chose_with_the_larger_encoder(figures: ModuleType) -> None:
    from blocks import recipe

    assert preset("best") == recipe.best_recipe()


def test_remedies_are_compared_with_the_options_that_validation_chose(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blocks import recipe

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    assert recipe.tuned_places() == importlib.import_module("questions").CHOSEN


def test_a_number_that_was_changed_by_hand_is_found(figures: ModuleType) -> None:
    page = (ROOT / "docs" / "comparison.md").read_text("utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| T1: ce |"))
    assert figures.written(page.replace(row, row.replace(".7", ".9", 1), 1), "docs/comparison.md") == page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- figures: best-loss -->\n<!-- end -->\n", r"page.md: figures best-loss: no such block, expected one of .*tuning"),
        ("<!-- figures: time -->\n", "page.md: a block of figures has no <!-- end -->"),
        ("<!-- figures: time -->\n<!-- figures: sharing -->\n<!-- end -->\n", "page.md: a block of figures has no <!-- end -->"),
    ],
    ids=["unknown", "open", "open, and another one after it"],
)
def test_a_block_that_cannot_be_written_is_named(figures: ModuleType, text: str, message: str) -> None:
    with pytest.raises(ClickException) as error:
        figures.written(text, "page.md")
    assert re.fullmatch(message, error.value.message)


def test_check_fails_where_a_page_differs_and_without_it_the_page_is_written(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = (ROOT / "README.md").read_text("utf-8")
    page = tmp_path / "README.md"
    page.write_text(right.replace("**Rare levels**", "**Common levels**"), "utf-8")
    for name, value in {"ROOT": tmp_path, "PAGES": [page], "PICTURES": ()}.items():
        monkeypatch.setattr(figures, name, value)
    checked = CliRunner().invoke(figures.main, ["--check"])
    assert (checked.exit_code, checked.output) == (1, "Error: README.md: not what the results give; run python docs/figures.py\n")
    assert CliRunner().invoke(figures.main).output == "written: README.md\n"
    assert page.read_text("utf-8") == right
    assert CliRunner().invoke(figures.main, ["--check"]).exit_code == 0


# What looks measured outside a block, and why it may stand there.
WORDS = "half|one|two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|forty|fifty|sixty|ninety|hundred"
MEASURED = re.compile(
    rf"""
      [\d.,]+\ ?%                                             # a share
    | \b[\d.,]+\ (?:s|ms|µs|seconds?|minutes?|hours?)\b       # a time
    | \b[\d.,]+\ (?:pairs|rows|tokens)/s\b                    # a speed
    | \b\d[\d.,]*(?<!\.)\ ?(?:x|times)\b                      # a ratio
    | (?<![\w.])\.\d+\b | \b0\.\d+\b                          # a score or a share
    | [+-]\d+(?:\.\d+)?\ (?:pairs|points)\b | \b[\d.,]+\ points\b
    | \b\d+\ of\ (?:the\ )?\d+\b                              # a count
    | \b(?i:{WORDS})\ (?:an?\ )?(?:(?:milli)?seconds?|minutes?|hours?|points?|percent|times)\b
    | \b(?i:half|twice|thrice|a\ third|a\ tenth)\ (?:as\ (?:fast|slow|long|many|much)|the\ (?:time|speed|memory))\b
    """,
    re.VERBOSE,
)
INTERVALS = "95 %"  # how sure every interval is
SETTINGS = {
    "docs/data.md": ["15 %"],  # of the pairs in one group: where `split` warns
    "docs/export.md": ["half a point", "one point"],  # what int8 may lose at most
    "docs/inference.md": ["three times"],  # a part is tried on a cluster, which a test counts
    "docs/reliability.md": ["half a minute", "five seconds"],  # the bounds of the tests that the page names
    # For a request to arrive, the default of --longest-wait, and the parts of how long a stop may take.
    "docs/service.md": ["10 seconds", "half a second", "twenty seconds", "forty seconds", "thirty seconds"],
    "docs/scale.md": ["two minutes", "half a minute", "five minutes"],  # sbatch's --signal; torchrun's and the kit's patience
    "docs/hooks.md": ["5 %", "0.1 %"],  # tolerances of the promises, which the checks hold
    # The default of --checkpoint-minutes, what the ends of epochs may take, and the bound of a comparison's end in its test.
    "docs/resume.md": ["5 minutes", "five minutes", "1 %", "five seconds"],
    "docs/comparison.md": ["four times"],  # of five: the power of a design
    "plugins/empathy-kit-biencoder/README.md": [".794", ".745", ".926", ".726", ".840", ".626"],  # their paper's, and called so
}
OF_OTHER_TESTS = {"docs/comparison.md": ["How to read it"]}  # what the report does, which tests/comparison holds


def prose(page: Path) -> str:
    """What a page holds outside of blocks, code and links, and outside of the sections that other tests hold."""
    text = page.read_text("utf-8")
    name = str(page.relative_to(ROOT))
    for heading in OF_OTHER_TESTS.get(name, []):
        text = re.sub(rf"^## {heading}\n.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)
    for left_out in (
        r"<!-- figures: .*?<!-- end -->",
        r"```.*?```",
        r"`[^`\n]*`",
        r"\]\([^)]*\)",
        r"arXiv \d+\.\d+",
        r"arxiv\.org/\S+",
        r"(?m)^## \d[^\n]*",  # a version
    ):
        text = re.sub(left_out, " ", text, flags=re.DOTALL)
    return text


def test_no_page_has_a_measured_number_outside_a_block(figures: ModuleType) -> None:
    loose = {}
    for page in [*figures.PAGES, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]:
        name = str(page.relative_to(ROOT))
        found = [
            each.strip() for each in MEASURED.findall(prose(page)) if each.strip() not in (INTERVALS, *SETTINGS.get(name, []))
        ]
        if found:
            loose[name] = found
    assert loose == {}


@pytest.mark.parametrize(
    "sentence",
    [
        "takes 14 to 18 minutes",
        "took 311 s, at 37 pairs/s",
        "**1.53 times** faster",
        "in 83 % of cases",
        "has .810 and .767",
        "0.797 / 0.787",
        "recalls 32 of the 75",
        "2.8 points above",
        "at most +4.3 pairs",
        "19 µs there",
        "takes half a minute",
        "Three times faster",
        "half the memory",
    ],
)
def test_what_looks_measured(sentence: str) -> None:
    assert MEASURED.search(sentence)


@pytest.mark.parametrize("sentence", ["EMNLP 2020", "3,084 pairs", "70/15/15", "1e4", "T1 to T4", "Python 3.11", "0.x and 1.x"])
def test_what_does_not_look_measured(sentence: str) -> None:
    assert not MEASURED.search(sentence)


COMPARISONS = sorted(path.parent for path in (ROOT / "benchmarks" / "results").glob("*/comparison.json"))


@pytest.mark.parametrize("committed", COMPARISONS, ids=lambda folder: folder.name)
def test_a_comparisons_report_can_be_rebuilt_from_its_runs(figures: ModuleType, committed: Path) -> None:
    from blocks import reading  # what the pages have read already

    assert as_markdown(reading.comparison(committed.name).summary) == (committed / "report.md").read_text("utf-8")


def test_the_sentences_cope_with_runs_that_are_missing(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blocks import reading

    for name, kept in {"reddit-grouped": {"T1-0", "T1-1", "T3-1"}, "reddit-paper": {"T2-0"}}.items():
        copy = shutil.copytree(ROOT / "benchmarks" / "results" / name, tmp_path / name)
        for run in (copy / "runs").iterdir():
            if run.name not in kept:
                shutil.rmtree(run)
    for file in (ROOT / "benchmarks" / "results").glob("*.*"):
        shutil.copy(file, tmp_path)
    shutil.copytree(ROOT / "benchmarks" / "results" / "torture", tmp_path / "torture")
    monkeypatch.setattr(reading, "RESULTS", tmp_path)
    reading.comparison.cache_clear()
    try:
        made = {name: make() for name, make in figures.BLOCKS.items()}
        assert "means of two of five seeds" in made["readme-picture"]
        assert "T2" not in made["grouped-findings"]
        assert "Against simpler models" in made["grouped-findings"]
        one_run = "How much does one run show?"  # of T1 and T3, which are not there
        assert one_run not in made["paper-findings"]
        assert one_run in dict(figures.BLOCK.findall((ROOT / "docs" / "comparison.md").read_text("utf-8")))["paper-findings"]
        drawn = {each.name: each.draw(dark=True)[:4] for each in figures.PICTURES if each.described()}
        assert drawn == dict.fromkeys(("scores", "claim-focal", "claim-experts"), "<svg")  # no run but of T1, T3
    finally:
        reading.comparison.cache_clear()


@pytest.mark.parametrize(
    ("block", "file"),
    [
        ("audit", "audit.json"),
        ("experts", "experts.json"),
        ("false-alarms", "false-alarms.json"),
        ("inference-int8", "int8.json"),
        ("reliability", "kill-run.json"),
        ("reliability-machines", "kill-run.json"),
        ("checkpoints", "checkpoints.json"),
        ("sizes", "size.json"),
    ],
)
def test_a_benchmark_whose_result_is_missing_is_an_error_that_names_the_file(
    figures: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: str, file: str
) -> None:
    from blocks import reading

    monkeypatch.setattr(reading, "RESULTS", tmp_path)
    reading.measured.cache_clear()
    with pytest.raises(FileNotFoundError, match=file):
        figures.BLOCKS[block]()
