"""The report's pages: every figure from the runs alone, a page that stands by itself, nothing that it may not say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_up import ODD, made_up, rewrite_record

from empathy_kit import cli
from empathy_kit.comparison.finished import read_finished
from empathy_kit.comparison.pages import as_markdown, notes, summarise, write
from empathy_kit.comparison.pages.figures import figures
from empathy_kit.comparison.pages.summary import Summary
from empathy_kit.comparison.pages.words import AGREEMENT, code, gain, gains, label_of, markdown, mean_cell, score_cell
from empathy_kit.data.schema import EPITOME, Schema, TaskSchema
from empathy_kit.errors import KitError

ONE = Schema((TaskSchema("pace", "pace", "pace", ("slow", "steady", "fast")),))
MANY = Schema(tuple(TaskSchema(f"task-{at}", f"task {at}", f"task-{at}", tuple("abcdef"[: 2 + at % 4])) for at in range(7)))
WORLDS = {"three of three": EPITOME, "two of two and four": ODD, "one": ONE, "many": MANY}
MISSING = {"two of two and four": 0.2}


@pytest.fixture(scope="module", params=WORLDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four configurations, one of them an oracle and one of the first task alone, three seeds; reported on."""
    schema = WORLDS[request.param]
    alone = {"alone": {"tasks": schema.names[:1]}}
    names, missing = ["T1", "T3", "T2g", "alone"], MISSING.get(request.param, 0.0)
    made = made_up(tmp_path_factory.mktemp("pages") / "made-up", names, 3, schema=schema, missing=missing, changes=alone)
    write(summarise(read_finished(made)), made)
    return made


@pytest.fixture(scope="module")
def summary(folder: Path) -> Summary:
    return summarise(read_finished(folder))


class Page(HTMLParser):
    """What a page refers to, and what its parts are called."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.nameless: list[str] = []
        self.rows: list[list[int]] = []  # a table's cells, row by row

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "table":
            self.rows.append([])
        elif tag == "tr":
            self.rows[-1].append(0)
        elif tag in ("th", "td"):
            self.rows[-1][-1] += 1
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            value = given.get(name)
            if value and not value.startswith("#"):
                self.outside.append(value)
        if "id" in given:
            self.ids.append(str(given["id"]))
        if tag == "svg" and not given.get("aria-label"):
            self.nameless.append(tag)


def page_of(folder: Path) -> Page:
    page = Page()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    return page


def test_the_page_stands_alone_and_can_be_read_by_ear_and_keyboard(folder: Path) -> None:
    text, page = (folder / "report.html").read_text(encoding="utf-8"), page_of(folder)
    assert page.outside == []
    assert "script" not in page.tags
    assert "@import" not in text
    assert "url(http" not in text
    assert page.nameless == []
    assert page.tags.count("h1") == page.tags.count("main") == 1
    assert '<html lang="en">' in text
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)), "an id is there twice, so that one picture would draw with another's shapes"
    assert text.count("<th ") == text.count("<th scope=")
    assert "color-scheme: light dark" in text
    assert "@media print" in text
    assert "details::details-content { content-visibility: visible; }" in text  # folded parts are printed
    assert page.rows
    assert all(len(set(cells)) == 1 for cells in page.rows), "a row has more or fewer cells than its table's header"


def test_the_markdown_is_tables_that_hold_together_and_says_what_the_page_says(folder: Path, summary: Summary) -> None:
    text, page = (folder / "report.md").read_text(encoding="utf-8"), (folder / "report.html").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) >= 10
    for table in tables:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table.splitlines()[0]
    for found in summary.contrasts:
        assert f"<td>{gain(found)}</td><td>{gains(found)}</td>" in page
        assert f"| {gain(found)} | {gains(found)} |" in text
    for row in summary.rows:
        cells = [score_cell(row, name, "kappa") for name in summary.names]
        assert "".join(f"<td>{cell}</td>" for cell in cells) in page
        assert f"| {' | '.join(cells)} |" in text
    for row in summary.ranked():
        assert f"| {row.label} | mean | {' | '.join(mean_cell(row, name) for name in summary.names)} |" in text
        for name, cell in row.cells.items():
            assert f"<td>{mean_cell(row, name)}</td>" in page
            task = next(task for task in summary.tasks if task.name == name)
            for label, line in zip(task.labels, cell.confusion, strict=True):
                assert f"| {row.label} | {markdown(label)} | {' | '.join(map(str, line))} |" in text


def test_a_task_that_a_configuration_lacks_is_a_dash(folder: Path, summary: Summary) -> None:
    row = next(row for row in summary.rows if row.name == "alone")
    cells = [score_cell(row, name, "accuracy") for name in summary.names]
    assert cells[1:] == ["-"] * (len(summary.tasks) - 1)
    assert f"| alone: {row.title.replace('_', chr(92) + '_')} | {' | '.join(cells)} |" in (folder / "report.md").read_text(
        "utf-8"
    )


def test_the_data_is_told_label_by_label_with_what_is_missing(folder: Path, summary: Summary) -> None:
    text = (folder / "report.md").read_text(encoding="utf-8")
    for task in summary.tasks:
        counts = summary.class_counts[task.name]
        for label, count in zip(task.labels, counts, strict=True):
            assert f"| {markdown(task.name)} | {markdown(label)} | {count} |" in text
        assert (f"| {markdown(task.name)} | (missing) | {1000 - sum(counts)} |" in text) == (sum(counts) < 1000)
    for file in ("report.html", "report.md"):  # no page names other tasks
        text = (folder / file).read_text(encoding="utf-8")
        assert ("ER" in text.split()) <= ("ER" in summary.names)
        assert "mechanism" not in text


def test_nothing_that_others_wrote_can_break_a_page(folder: Path, summary: Summary) -> None:
    page, text = ((folder / file).read_text(encoding="utf-8") for file in ("report.html", "report.md"))
    assert "a &lt;b&gt;&amp; name" in page
    assert "a \\<b\\>\\& name" in text
    for raw in ("<b>", "<i>"):
        assert raw not in page
        assert not re.search(rf"(?<!\\){raw}", text)
    if "warmth" in summary.names:
        assert "$y$es | `or` &lt;i&gt;so&lt;/i&gt;" in page
        assert "\\$y\\$es \\| \\`or\\` \\<i\\>so\\</i\\>" in text


def test_an_oracle_is_stamped_wherever_it_stands(folder: Path) -> None:
    page, text = ((folder / file).read_text(encoding="utf-8") for file in ("report.html", "report.md"))
    for line in text.splitlines():
        if line.startswith("| T2g"):
            assert line.count("(ORACLE)") == 1 or re.match(r"\| T2g \| [^A-Za-z]+$", line)  # settings, curves and calibration
    heads = re.findall(r'<tr class="oracle[^"]*"><th scope="row">(.*?)</th>', page)
    assert heads
    assert all(head.count("(ORACLE)") == 1 for head in heads)


def test_differences_are_told_as_pairs_and_without_adjectives(folder: Path, summary: Summary) -> None:
    assert re.fullmatch(r"[+-]\d+\.\d of \d+ \[[+-]\d+\.\d, [+-]\d+\.\d\] [sp]", gain(summary.contrasts[0]))
    for file in ("report.html", "report.md"):
        text = (folder / file).read_text(encoding="utf-8").lower()
        text = text.replace(AGREEMENT.lower(), "")  # "the best possible score" is no configuration's
        assert not re.search(r"\b(significant|better|worse|improve|outperform|best|dramatic|ceiling)", text)


@pytest.mark.parametrize("folder", ["two of two and four"], indirect=True)
def test_the_same_runs_give_the_same_page(folder: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    for file in ("report.html", "report.md"):
        (again / file).unlink()
    write(summarise(read_finished(again)), again)
    for file in ("report.html", "report.md"):
        assert (again / file).read_bytes() == (folder / file).read_bytes()


def test_one_seed_has_no_intervals_and_says_so(tmp_path: Path) -> None:
    made = made_up(tmp_path / "one", ["T1", "T3"], 1)
    summary = summarise(read_finished(made))
    assert any(line.startswith("One seed: there is no interval") for line in notes(summary))
    assert re.fullmatch(r"[+-]\d+\.\d of 200", gain(summary.contrasts[0]))
    assert "| not known |" in as_markdown(summary)


def test_a_picture_of_many_configurations_leaves_room_for_its_panels(tmp_path: Path) -> None:
    """Where a legend leaves none, matplotlib warns, which fails a test."""
    made = made_up(tmp_path / "many", [f"configuration-{at:02}" for at in range(26)], 1)
    assert "configuration-25, ECE" in figures(summarise(read_finished(made)))["calibration"]


def test_where_nothing_is_compared_the_page_says_so(tmp_path: Path) -> None:
    made = made_up(tmp_path / "one", ["T1", "T2g"], 2)
    write(summarise(read_finished(made)), made)
    for file in ("report.html", "report.md"):
        text = (made / file).read_text(encoding="utf-8")
        assert "Every configuration but one is an ORACLE: nothing to compare." in text
        assert "Holm" not in text


def test_the_papers_figures_stand_beside_its_own_tasks_alone(tmp_path: Path) -> None:
    for schema, there in ((EPITOME, True), (ODD, False)):
        made = made_up(tmp_path / str(there), ["T1"], 1, schema=schema)
        assert ("in the paper" in as_markdown(summarise(read_finished(made)))) == there


def test_text_that_others_wrote_is_shown_by_markdown_as_it_is() -> None:
    assert markdown("a|b `c` <i> $x_1$ [l](u) *") == r"a\|b \`c\` \<i\> \$x\_1\$ \[l\](u) \*"
    assert markdown("https://a.b, www.c.d, e@f.g: 1.5") == r"https\://a.b, www\.c.d, e\@f.g: 1.5"
    assert code('{"a": 1}') == '`{"a": 1}`'
    assert code("a `` b") == "``` a `` b ```"
    assert [label_of(task, 1) for task in (*EPITOME.tasks[:1], *ODD.tasks[1:])] == ["ER 1", 'advice_given "a hint"']


def test_the_page_opens_in_a_browser_and_asks_for_nothing(folder: Path, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    report, control, elsewhere = folder / "report.html", tmp_path / "control.html", "http://127.0.0.1:65535/x"
    control.write_text(f'<img src="{elsewhere}">', "utf-8")
    asked: list[str] = []
    with (
        sync_api.sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"]) as window,
    ):
        page = window.new_page(viewport={"width": 1100, "height": 2400})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.resolve().as_uri())
        assert len(page.screenshot()) > 20_000
        assert set(asked) <= {report.resolve().as_uri()}
        page.goto(control.as_uri())
    assert elsewhere in asked  # what a page asks for is seen


def test_the_report_comes_from_finished_runs_without_torch(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made", ["T1", "T3"], 2)
    script = (
        "import sys\n"
        "from empathy_kit.cli import cli\n"
        f"cli(['compare', '--figures-from', {str(made)!r}], standalone_mode=False)\n"
        "print('heavy', sorted({'torch', 'transformers', 'sklearn', 'scipy.stats', 'pandas'} & set(sys.modules)))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert ran.stdout.splitlines()[-1] == "heavy []"
    assert (made / "report.html").exists()


@pytest.mark.parametrize(
    "more",
    [
        ["T1"],
        ["--out", "elsewhere"],
        ["--epochs", "2"],
        ["--preset", "paper"],
        ["--seeds", "5"],
        ["--resplit"],
        ["--jobs", "1"],
        ["--keep-models"],
        ["--on", "ray"],
        ["--workers", "2"],
        ["--file", "x.toml"],
        ["-o", "trunk.hidden", "8"],
        ["--plugin", "x.py"],
    ],
)
def test_rebuilding_takes_nothing_that_would_have_no_effect(tmp_path: Path, more: list[str]) -> None:
    made = made_up(tmp_path / "made", ["T1"], 1)
    result = CliRunner().invoke(cli.cli, ["compare", *more, "--figures-from", str(made)])
    assert isinstance(result.exception, KitError)
    told = "both given, and nothing is run with --figures-from; use only one of them"
    assert str(result.exception) == f"--figures-from and {more[0]}: {told}"
    assert not (made / "report.md").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    made = made_up(tmp_path / "made", ["T1"], 1)
    monkeypatch.setattr("empathy_kit.comparison.pages.write_whole", full)
    result = CliRunner().invoke(cli.cli, ["compare", "--figures-from", str(made)])
    assert str(result.exception) == f"{made / 'report.html'}: cannot be written: No space left on device"


def test_what_moves_a_cursor_or_makes_a_heading_stands_in_a_page_as_text(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1"], 1)
    evil = "x\n# heading\n\x1b[2J\u202e | <b>"
    rewrite_record(
        made / "runs" / "T1-0",
        lambda content: (
            content["data"].update(name=evil),
            content["plugins"].update(head={"name": "linear", "distribution": evil, "version": evil}),
            content["versions"].update(python=evil),
        ),
    )
    write(summarise(read_finished(made)), made)
    page, text = ((made / file).read_text(encoding="utf-8") for file in ("report.html", "report.md"))
    assert r"<h1>Comparison on x\n# heading\n\x1b[2J\u202e | &lt;b&gt;</h1>" in page
    assert "\n# Comparison on x" in f"\n{text}"
    for each in (page, text):
        assert "\n# heading" not in each
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", each)
