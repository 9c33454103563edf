"""`empathy-kit data`: what cannot be used is listed by row, never shown; what cannot be read is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_reply import Reply
from invented import one_task, two_tasks, write_one_task, write_table, write_two_tasks


def test_data_check_of_the_sample_finds_nothing_wrong(kit: Reply) -> None:
    code, out, err = kit("data", "check")
    assert (code, err) == (0, "")
    assert out.startswith("data sample: 300 pairs, ")
    assert " 0 not found\n" in out


def test_data_check_counts_labels_and_columns_and_lists_placeholders(kit: Reply, tmp_path: Path) -> None:
    data, schema = write_two_tasks(tmp_path)
    rows = two_tasks()
    rows[2]["seeker_post"] = rows[6]["seeker_post"] = "[removed]"
    unlabelled = next(row for row in rows if row["warmth"] is None)
    unlabelled["warmth_spans"] = ["anything"]
    write_table(data, [{**row, "notes": "x"} for row in rows])
    code, out, err = kit("data", "check", "--data", data.name, "--schema", schema.name)
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [
        "labelled pairs: warmth 96, advice 96; the others count in no loss and no score of that task",
        "spans: 39 annotated; 39 found exactly, 0 up to white space and case, 0 word by word, 0 not found",
        "spans where the label is missing, not used: 1",
        "optional columns read: pair_id, seeker_id, warmth_spans; 1 other column ignored",
        "placeholders such as [removed] in place of a post: seeker_post rows 3, 7",
    ]


def test_data_split_takes_a_schema_and_checks_the_tasks_that_are_named(kit: Reply, tmp_path: Path) -> None:
    rows = [{**row, "advice given": "a hint" if at < 2 else None} for at, row in enumerate(two_tasks())]
    data, schema = write_two_tasks(tmp_path)
    write_table(data, rows)
    table = ("--data", data.name, "--schema", schema.name)
    assert kit("data", "split", *table) == (
        2,
        "",
        "Error: --split grouped of two-tasks: the train part has no pair with advice label 'none at all' (the data has 0), "
        "expected at least one in each part; more are needed, or --tasks without advice\n",
    )
    code, out, err = kit("data", "split", *table, "--tasks", "warmth", "--json")
    assert (code, err) == (0, "")
    assert sum(sum(part["warmth"]) for part in json.loads(out)["class_counts"].values()) == 96
    assert kit("data", "split", *table, "--tasks", "ER")[2] == "Error: --tasks: 'ER' is unknown; there are warmth, advice\n"


def test_one_seeker_with_many_pairs_is_warned_of(kit: Reply, tmp_path: Path) -> None:
    data, schema = write_one_task(tmp_path)
    write_table(data, [{**row, "seeker_id": "s" if at < 15 else f"s{at}"} for at, row in enumerate(one_task())])
    code, out, err = kit("data", "split", "--data", data.name, "--schema", schema.name, "--json")
    assert (code, json.loads(out)["kind"]) == (0, "grouped")
    assert err == (
        "warning: 15 of 90 pairs share a seeker id or seeker post and stay in one part; is every seeker_id one person's?\n"
    )


def test_a_schema_belongs_to_a_table(kit: Reply, tmp_path: Path) -> None:
    data, schema = write_one_task(tmp_path)
    for command in ("check", "describe", "split"):
        assert kit("data", command, "--schema", schema.name)[::2] == (
            2,
            "Error: --schema: --data sample has EPITOME's tasks ER, EX, IP, expected a table of other tasks; "
            "leave --schema out, or give a .csv, .jsonl or .parquet file as --data\n",
        )
        assert kit("data", command, "--data", data.name, "--schema", "gone.toml")[2] == (
            "Error: --schema gone.toml: cannot be read: No such file or directory\n"
        )


def table(folder: Path, name: str, *rows: dict[str, object]) -> str:
    empty = {"seeker_post": "a seeker's post", "response_post": "a response", "ER": 0, "EX": 0, "IP": 0}
    (folder / name).write_text("".join(json.dumps({**empty, **row}) + "\n" for row in rows), encoding="utf-8")
    return name


def test_data_check_lists_lost_spans_by_row_and_never_their_words(kit: Reply, tmp_path: Path) -> None:
    name = table(tmp_path, "mine.jsonl", {}, {"ER": 1, "ER_spans": ["nowhere to be found"]}, {"IP": 2, "IP_spans": ["nor here"]})
    code, out, err = kit("data", "check", "--data", name)
    assert code == 2
    assert "spans not found, not used: ER row 2; IP row 3\n" in out
    assert err == (
        "mine.jsonl, row 2, column 'ER_spans': the span is not in its response; use words of the response\n"
        "mine.jsonl, row 3, column 'IP_spans': the span is not in its response; use words of the response\n"
        "Error: mine: 2 spans are not in their responses (listed above)\n"
    )
    assert "nowhere" not in out + err


def test_data_check_names_every_row_without_a_span_and_describe_the_first(kit: Reply, tiny_roberta: Path, tmp_path: Path) -> None:
    name = table(tmp_path, "mine.jsonl", {"ER": 1, "ER_spans": ["response"]}, *[{"ER": 1, "ER_spans": []}] * 9)
    start = "labels above the lowest without a span, left out of the span loss: ER rows 2, 3, 4, 5, 6"
    assert f"{start}, 7, 8, 9, 10\n" in kit("data", "check", "--data", name)[1]
    offline = ("data", "describe", "--data", name, "--encoder", str(tiny_roberta))
    assert f"{start} and 4 more\n" in kit(*offline)[1]
    assert json.loads(kit(*offline, "--json")[1])["spans"]["bare"] == {"ER": {"count": 9, "rows": list(range(2, 11))}}


@pytest.mark.parametrize("command", ["check", "describe", "split"])
def test_a_broken_table_is_one_line_with_file_row_and_column(command: str, kit: Reply, tmp_path: Path) -> None:
    name = table(tmp_path, "mine.jsonl", {}, {"EX": 3})
    assert kit("data", command, "--data", name) == (
        2,
        "",
        "Error: mine.jsonl, row 2, column 'EX': 3 found, expected 0, 1 or 2\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]


def test_data_split_prints_sizes_levels_and_leakage(kit: Reply) -> None:
    code, out, err = kit("data", "split", "--split-seed", "1", "--json")
    content = json.loads(out)
    assert (code, err, content["kind"], content["seed"]) == (0, "", "grouped", 1)
    assert sum(content["pairs"].values()) == 300
    assert content["leakage"]["test"] == {"pairs": 0, "seekers": 0, "responses": 0}
    shown = kit("data", "split", "--split-seed", "1")[1]
    assert "split grouped, seed 1: " in shown
    assert "also in train, of " in shown
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert [row[0] for row in rows] == ["ER", "", "", "EX", "", "", "IP", "", ""]
    counts = content["class_counts"]
    parts = ("train", "validation", "test")
    assert [[int(cell) for cell in row[2:]] for row in rows] == [
        [counts[part][name][level] for part in parts] for name in ("ER", "EX", "IP") for level in range(3)
    ]


def test_data_split_refuses_what_it_does_not_know(kit: Reply) -> None:
    assert kit("data", "split", "--split", "x")[::2] == (2, "Error: --split x: expected one of grouped, paper\n")
    assert kit("data", "split", "--split-seed", "-1")[2] == "Error: --split-seed -1: out of range, expected 0 to 4294967295\n"


def test_a_table_whose_name_looks_like_markup_is_shown_as_it_is(kit: Reply, tmp_path: Path) -> None:
    levels = [
        {"ER": level, "EX": level, "IP": level, "seeker_post": f"post {n}-{level}"} for n in range(20) for level in range(3)
    ]
    name = table(tmp_path, "[bold] a $x_$ :warning:.jsonl", *levels)
    code, out, err = kit("data", "split", "--data", name)
    assert (code, err) == (0, "")
    assert "Labelled pairs of each part" in out


def test_data_describe_counts_with_the_encoders_own_tokens(kit: Reply, tiny_roberta: Path, tmp_path: Path) -> None:
    arguments = ("data", "describe", "--encoder", str(tiny_roberta), "--max-tokens", "32")
    code, out, err = kit(*arguments, "--picture", "levels.svg")
    assert (code, err) == (0, "")
    assert "sample: pairs of each label" in out
    assert "truncation to 32 tokens (head): cuts " in out
    assert "truncation to 32 tokens (head-tail): cuts " in out
    assert (tmp_path / "levels.svg").read_text(encoding="utf-8").startswith("<?xml")
    found = json.loads(kit(*arguments, "--json")[1])
    assert {name: sum(counts) for name, counts in found["class_counts"].items()} == {"ER": 300, "EX": 300, "IP": 300}
    assert set(found["truncation"]) == {"head", "head-tail"}
    assert found["truncation"]["head"]["seekers"] > 0
    whole = json.loads(kit("data", "describe", "--encoder", str(tiny_roberta), "--max-tokens", "128", "--json")[1])
    assert whole["truncation"]["head"]["seekers"] < found["truncation"]["head"]["seekers"]


def test_an_encoder_that_is_not_there_stops_data_describe_too(kit: Reply, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = kit("data", "describe", "--encoder", "empty", "--picture", "levels.svg")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("Error: --encoder empty: ")
    assert err.endswith("expected config.json, model.safetensors and tokenizer.json in this folder\n")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
