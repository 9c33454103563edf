"""The report: every figure from the runs alone, one page that stands by itself, nothing that it may not say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, f1_score

from empathy_kit import cli, record
from empathy_kit.comparison import FORMAT, read_finished
from empathy_kit.config import COMPARISON, RunConfig, configure, to_dict
from empathy_kit.data.pairs import MECHANISMS
from empathy_kit.pages import gain, gains, mean_cell, notes, summarise, write

PAIRS = 200


def made_up(folder: Path, names: list[str], seeds: int, *, resplit: bool = True) -> Path:
    """A finished comparison of invented answers: what a report needs of runs, without a model."""
    configurations = {name: configure(RunConfig(), {**COMPARISON[name], "data": "sample"}) for name in names}
    plan = {name: to_dict(config) for name, config in configurations.items()}
    folder.mkdir()
    (folder / "comparison.json").write_text(
        json.dumps({"format": FORMAT, "configurations": plan, "seeds": list(range(seeds)), "resplit": resplit})
    )
    for number, (name, config) in enumerate(configurations.items()):
        for seed in range(seeds):
            made_up_run(folder / "runs" / f"{name}-{seed}", config, number, seed, seed if resplit else 0)
    return folder


def made_up_run(folder: Path, config: RunConfig, number: int, seed: int, split: int) -> None:
    pairs, generator = np.random.default_rng(split), np.random.default_rng([number, seed])
    columns: dict[str, list[Any]] = {"id": [f"{split:04x}{at:012x}" for at in range(PAIRS)]}
    for name in MECHANISMS:
        true = pairs.choice(3, size=PAIRS, p=(0.6, 0.3, 0.1))
        logits = generator.gumbel(size=(PAIRS, 3))
        logits[np.arange(PAIRS), true] += 2
        if name == "IP":
            logits[:, 1] = -20  # never predicted
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        columns[f"{name}_true"] = true.tolist()
        columns[f"{name}_predicted"] = shares.argmax(1).tolist()
        columns[f"{name}_swapped"] = np.roll(shares.argmax(1), 1).tolist()
        for level in range(3):
            columns[f"{name}_p{level}"] = [f"{value:.6f}" for value in shares[:, level]]
    counts = {name: [600, 300, 100] for name in MECHANISMS}
    epochs = [{"validation_loss": 1.0, "validation_macro_f1": dict.fromkeys(MECHANISMS, 0.4 + 0.1 * turn)} for turn in range(3)]
    content = record.Record(
        format=record.FORMAT,
        kit="0.1.0",
        oracle=config.rationale == "gold",
        config={**to_dict(config), "seed": seed, "split_seed": split},
        plugins={"loss": {"name": config.loss, "distribution": "empathy-kit", "version": "0.1.0"}},
        versions={"python": "3"},
        machine={"threads": 1},
        data={
            "name": "a <b>& name",
            "pairs": 1000,
            "sha256": "d" * 64,
            "class_counts": counts,
            "duplicates": {"groups": 3, "agreement": dict.fromkeys(MECHANISMS, 0.9)},
        },
        split={"kind": "grouped", "seed": split, "sha256": f"{split}" * 64, "class_counts": {"train": counts}},
        truncation={},
        training={"seconds": 60.0},
        scores={},
        spans=None,
    )
    with record.staged(folder) as staging:
        rows = [list(map(str, row)) for row in zip(*columns.values(), strict=True)]
        record.write(staging, content, epochs, list(columns), rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four configurations, one of them an oracle, three seeds; reported on."""
    made = made_up(tmp_path_factory.mktemp("pages") / "made-up", ["T1", "T3", "T2g", "weighted"], 3)
    write(summarise(read_finished(made)), made)
    return made


def test_every_score_is_the_mean_of_what_the_predictions_say(folder: Path) -> None:
    found = read_finished(folder)
    summary = summarise(found)
    for row in summary.rows[:3]:
        for name in MECHANISMS:
            said = [run.answers[name] for run in found.runs[row.name]]
            accuracy = [accuracy_score(one.true, one.predicted) for one in said]
            f1 = [f1_score(one.true, one.predicted, average="macro", zero_division=0) for one in said]
            assert row.cells[name].runs["accuracy"] == pytest.approx(accuracy)
            assert row.cells[name].scores["macro_f1"].value == pytest.approx(np.mean(f1))
            assert row.cells[name].deviation is not None
            assert row.cells[name].deviation["macro_f1"] == pytest.approx(np.std(f1, ddof=1))
            assert np.sum(row.cells[name].confusion) == 3 * PAIRS


def test_every_run_and_every_seeds_difference_stand_in_the_report(folder: Path) -> None:
    summary = summarise(read_finished(folder))
    text = (folder / "report.md").read_text()
    rows = {row.name: row for row in summary.rows}
    for found in summary.contrasts:
        first, second = (rows[name].cells[found.mechanism].runs["accuracy"] for name in (found.first, found.second))
        assert found.gains == [round(PAIRS * (after - before)) for before, after in zip(first, second, strict=True)]
        shown = ", ".join(f"{pairs:+d}".replace("+0", "0") for pairs in found.gains)
        assert f"{gain(found)} | {shown} |" in text
    cell = rows["T3"].cells["EX"]
    assert cell.deviation is not None
    both = [f"{cell.scores[metric].value:.3f} ± {cell.deviation[metric]:.3f}".replace("0.", ".") for metric in cell.runs]
    assert " / ".join(both) in text
    assert all(f"{score:.3f}".replace("0.", ".") in text for metric in cell.runs for score in cell.runs[metric])
    for level in range(3):
        line = next(line for line in text.splitlines() if line.startswith(f"| T3 | {level} | ") and line.count(" / ") == 6)
        assert [[int(count) for count in part.split(" / ")] for part in line.strip(" |").split(" | ")[2:]] == [
            rows["T3"].cells[name].confusion[level] for name in MECHANISMS
        ]
    assert "| T1 | .400 .500 .600; .400 .500 .600; .400 .500 .600 |" in text
    assert "| 2 | 100 | 100 | 100 |" in text


def test_an_oracle_is_stamped_and_compared_with_nothing(folder: Path) -> None:
    summary = summarise(read_finished(folder))
    assert [(row.name, row.kind) for row in summary.rows] == [
        ("T1", "run"),
        ("T3", "run"),
        ("weighted", "run"),
        ("T2g", "oracle"),
        ("majority", "yardstick"),
        ("T1-swapped", "yardstick"),
    ]
    assert {(found.first, found.second) for found in summary.contrasts} == {("T1", "T3"), ("T1", "weighted"), ("T3", "weighted")}
    assert "T2g (ORACLE)" in (folder / "report.md").read_text()
    assert 'class="oracle"' in (folder / "report.html").read_text()
    assert any(line.startswith("ORACLE: T2g saw annotated spans") for line in notes(summary))


def test_two_configurations_are_compared_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1", "T3", "weighted"], 3)
    shutil.rmtree(made / "runs" / "T1-0")
    shutil.rmtree(made / "runs" / "T3-2")
    for seed in (1, 2):
        shutil.rmtree(made / "runs" / f"weighted-{seed}")
    summary = summarise(read_finished(made))
    assert {row.name: row.seeds for row in summary.rows} == {
        "T1": [1, 2],
        "T3": [0, 1],
        "weighted": [0],
        "majority": [0, 1, 2],
        "T1-swapped": [1, 2],
    }
    assert {(found.first, found.second): found.seeds for found in summary.contrasts} == {
        ("T1", "T3"): [1],
        ("T3", "weighted"): [0],
    }
    for found in summary.contrasts:
        (row, other) = (next(row for row in summary.rows if row.name == name) for name in (found.first, found.second))
        scores = [each.cells[found.mechanism].runs["accuracy"][each.seeds.index(found.seeds[0])] for each in (row, other)]
        assert found.accuracy.value == pytest.approx(scores[1] - scores[0])
    write(summary, made)
    text = (made / "report.md").read_text()
    assert re.search(r"^\| T1: [^|]+ \(2 of 3 seeds\) \|", text, re.MULTILINE)
    assert "| T1 to T3 (1 of 3 seeds) | ER |" in text
    assert list(notes(summary))[:4] == [
        "One seed of weighted, T1 to T3, T3 to weighted: there is no interval, because nobody can know from it how much another "
        "seed would change.",
        "Not there yet: T1 0, weighted 1, T3 2, weighted 2.",
        "Means are not all over the same seeds and splits; differences are, each over the seeds that both have.",
        "T1 and weighted have no seed in common, and are not compared.",
    ]


def test_runs_that_are_missing_for_all_leave_means_that_can_be_compared(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1", "T3"], 3)
    for name in ("T1", "T3"):
        shutil.rmtree(made / "runs" / f"{name}-1")
    summary = summarise(read_finished(made))
    assert {tuple(row.seeds) for row in summary.rows} == {(0, 2)}
    assert [found.seeds for found in summary.contrasts] == [[0, 2]] * 3
    told = list(notes(summary))
    assert "Not there yet: T1 1, T3 1." in told
    assert not any("Means are not all" in line or "One seed" in line for line in told)


def test_configurations_without_a_common_seed_are_not_compared_and_the_page_says_so(tmp_path: Path) -> None:
    made = made_up(tmp_path / "made-up", ["T1", "T3"], 2)
    shutil.rmtree(made / "runs" / "T1-0")
    shutil.rmtree(made / "runs" / "T3-1")
    summary = summarise(read_finished(made))
    assert summary.contrasts == []
    assert summary.apart == [("T1", "T3")]
    write(summary, made)
    for file in ("report.html", "report.md"):
        text = (made / file).read_text()
        assert "No two configurations have a seed in common: nothing to compare." in text
    assert "Holm over these 0" not in text


def test_a_level_that_was_never_predicted_is_told_with_how_often(folder: Path) -> None:
    assert "T1 never predicted level 1 of IP in 3 of 3 runs." in list(notes(summarise(read_finished(folder))))
    assert "never in 3 of 3" in (folder / "report.html").read_text()


def test_differences_are_told_as_pairs_and_without_adjectives(folder: Path) -> None:
    summary = summarise(read_finished(folder))
    first = summary.contrasts[0]
    assert re.fullmatch(r"[+-]\d+\.\d of 200 \[[+-]\d+\.\d, [+-]\d+\.\d\]", gain(first))
    for file in ("report.html", "report.md"):
        text = (folder / file).read_text().lower()
        assert not re.search(r"\b(significant|better|worse|improve|outperform|best|dramatic)", text)


def test_one_seed_has_no_intervals_and_says_so(tmp_path: Path) -> None:
    made = made_up(tmp_path / "one", ["T1", "T3"], 1)
    summary = summarise(read_finished(made))
    write(summary, made)
    assert any(line.startswith("One seed: there is no interval") for line in notes(summary))
    assert re.fullmatch(r"[+-]\d+\.\d of 200", gain(summary.contrasts[0]))
    assert "| not known |" in (made / "report.md").read_text()


def test_one_configuration_is_reported_alone(tmp_path: Path) -> None:
    made = made_up(tmp_path / "one", ["T2g"], 2)
    summary = summarise(read_finished(made))
    write(summary, made)
    assert summary.contrasts == []
    assert "nothing to compare" in (made / "report.html").read_text()


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


def test_the_page_stands_alone_and_can_be_read_by_ear_and_keyboard(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
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
    assert "prefers-color-scheme" in text or "color-scheme: light dark" in text
    assert "@media print" in text
    assert "details::details-content { content-visibility: visible; }" in text  # folded parts are printed
    assert page.rows
    assert all(len(set(cells)) == 1 for cells in page.rows), "a row has more or fewer cells than its table's header"


def test_the_markdown_is_tables_that_hold_together_and_says_what_the_page_says(folder: Path) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", (folder / "report.md").read_text(), re.MULTILINE)
    assert len(tables) >= 10
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table.splitlines()[0]
    page = (folder / "report.html").read_text()
    summary = summarise(read_finished(folder))
    for found in summary.contrasts:
        assert f"<td>{gain(found)}</td><td>{gains(found)}</td>" in page
    for row in summary.ranked():
        for name in MECHANISMS:
            assert f"<td>{mean_cell(row.cells[name])}</td>" in page


def test_a_name_cannot_break_the_page(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt;&amp; name" in text
    assert "a <b>" not in text


def test_the_same_runs_give_the_same_page(folder: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(folder, tmp_path / "again"))
    for file in ("report.html", "report.md"):
        (again / file).unlink()
    write(summarise(read_finished(again)), again)
    for file in ("report.html", "report.md"):
        assert (again / file).read_bytes() == (folder / file).read_bytes()


def test_the_page_opens_in_a_browser_and_asks_for_nothing(folder: Path, tmp_path: Path) -> None:
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    log, picture = tmp_path / "net.json", tmp_path / "page.png"
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    flags = [*quiet, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,2400", f"--screenshot={picture}"]
    subprocess.run(
        [browser, *flags, f"--log-net-log={log}", (folder / "report.html").resolve().as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert picture.stat().st_size > 20_000
    asked = set(re.findall(r'"url":"((?:https?|file)://[^"]+)"', log.read_text(encoding="utf-8")))
    ours = {url for url in asked if "google" not in url and "gvt1" not in url}  # the browser's own errands
    assert ours <= {(folder / "report.html").resolve().as_uri()}


def test_figures_come_from_finished_runs_without_torch_in_two_seconds(tmp_path: Path) -> None:
    made = made_up(tmp_path / "twenty", ["T1", "T2", "T3", "T4"], 5)
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from empathy_kit.cli import cli\n"
        f"cli(['compare', '--figures-from', {str(made)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'sklearn'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy)); print('seconds', time.process_time())"
    )
    spent = []
    for _ in range(2):  # the first may have to compile the modules
        ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=one_thread())
        assert "heavy []" in ran.stdout
        spent.append(float(ran.stdout.split()[-1]))
    assert (made / "report.html").exists()
    assert min(spent) < 4, "twice what it should need, of the processor's time: the machine may be busy"


def one_thread() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@pytest.mark.parametrize("more", [["T1"], ["--epochs", "2"], ["--file", "x.toml"]])
def test_rebuilding_takes_no_settings(folder: Path, more: list[str]) -> None:
    result = CliRunner().invoke(cli.cli, ["compare", "--figures-from", str(folder), *more])
    assert "--figures-from: reads finished runs, expected no configurations or settings beside it" in str(result.exception)


def test_as_json_every_figure_is_there(folder: Path) -> None:
    result = CliRunner().invoke(cli.cli, ["compare", "--figures-from", str(folder), "--json"], catch_exceptions=False)
    content = json.loads(result.stdout)
    assert [row["name"] for row in content["rows"]][:2] == ["T1", "T3"]
    assert content["rows"][0]["cells"]["ER"]["scores"]["accuracy"].keys() == {
        "value",
        "low",
        "high",
        "error",
        "freedom",
        "design",
    }
    assert content["contrasts"][0]["test"].keys() == {"gained", "lost", "mcnemar", "exact"}


def test_a_folder_that_cannot_be_written_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    before = (folder / "report.html").read_bytes()
    monkeypatch.setattr(Path, "write_text", full)
    result = CliRunner().invoke(cli.cli, ["compare", "--figures-from", str(folder)])
    assert str(result.exception) == f"{folder / 'report.html'}: cannot be written: No space left on device"
    assert (folder / "report.html").read_bytes() == before


def test_compare_runs_reports_and_goes_on(tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    size = ["--epochs", "1", "--max-tokens", "16", "--hidden", "16", "--layers", "1"]
    quick = ["compare", "T1", "response", "--seeds", "1", "--encoder", str(tiny_roberta), *size, "--threads", "1", "--jobs", "2"]
    started = time.monotonic()
    result = CliRunner().invoke(cli.cli, quick, catch_exceptions=False)
    first = time.monotonic() - started
    assert result.exit_code == 0
    assert "T1, seed 0: done" in result.stderr
    assert "report: comparisons/sample-grouped/report.html" in result.stdout
    for name in ("majority", "tfidf", "tfidf-balanced", "T1-swapped"):
        assert name in result.stdout
    started = time.monotonic()
    result = CliRunner().invoke(cli.cli, [*quick, "--json"], catch_exceptions=False)
    assert time.monotonic() - started < first
    assert "T1, seed 0: found finished" in result.stderr
    assert json.loads(result.stdout)["seeds"] == [0]
