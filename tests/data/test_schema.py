"""Which tasks there are comes from a TOML file, and one line names whatever is wrong with it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from invented import ONE_TASK, TWO_TASKS

from empathy_kit.data.schema import EPITOME, Schema, TaskSchema, read_schema
from empathy_kit.errors import KitError


def read(folder: Path, content: str | bytes) -> Schema:
    path = folder / "tasks.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_schema(path)


def fault(folder: Path, content: str | bytes) -> str:
    with pytest.raises(KitError) as error:
        read(folder, content)
    message = str(error.value)
    assert message.isprintable()
    return message.removeprefix(f"--schema {folder / 'tasks.toml'}")


def tasks(*lines: str) -> str:
    return "".join(f"[[tasks]]\n{line}\n" for line in lines)


def test_a_file_of_tasks_is_read_with_title_and_column_as_the_name_where_they_are_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, TWO_TASKS) == Schema(
        (
            TaskSchema("warmth", "warmth", "warmth", ("no", "yes")),
            TaskSchema("advice", "how much advice", "advice given", ("none at all", "a hint", "a suggestion", "a clear plan")),
        )
    )
    assert [task.spans_column for task in read(tmp_path, TWO_TASKS).tasks] == ["warmth_spans", "advice given_spans"]
    assert read(tmp_path, ONE_TASK).names == ("pace",)
    assert read(tmp_path, b"\xef\xbb\xbf" + ONE_TASK.encode()) == read(tmp_path, ONE_TASK.replace("\n", "\r\n"))


def test_the_documentations_example_is_a_schema(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert [(task.name, len(task.labels)) for task in read(tmp_path, example).tasks] == [("warmth", 2), ("advice", 4)]


def test_labels_may_be_any_text_whole_numbers_or_booleans(tmp_path: Path) -> None:
    labels = ("kaum", "ein wenig, vielleicht", "נכון", "می‌شود", "🤗", "None", "x" * 200)
    assert read(tmp_path, tasks(f'name = "a"\nlabels = {json.dumps(labels, ensure_ascii=False)}')).tasks[0].labels == labels
    assert read(tmp_path, tasks('name = "a"\nlabels = [0, 1, -2]')).tasks[0].labels == ("0", "1", "-2")
    assert read(tmp_path, tasks('name = "a"\nlabels = [false, true]')).tasks[0].labels == ("false", "true")
    many = tuple(str(number) for number in range(1000))
    assert read(tmp_path, tasks(f'name = "a"\nlabels = {json.dumps(many)}')).tasks[0].labels == many


def test_a_schema_survives_json(tmp_path: Path) -> None:
    for schema in (EPITOME, read(tmp_path, TWO_TASKS)):
        assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


def test_tasks_are_selected_by_name_and_keep_their_order() -> None:
    assert EPITOME.select(None) is EPITOME
    assert EPITOME.select(("IP", "ER")).names == ("ER", "IP")
    for names, message in {
        ("ER", "er"): "--tasks: 'er' is unknown; there are ER, EX, IP",
        ("ER", "ER"): "--tasks: ER is given twice, expected each task once",
        (): "--tasks: no task is given; there are ER, EX, IP",
    }.items():
        with pytest.raises(KitError) as error:
            EPITOME.select(names)
        assert str(error.value) == message


A = 'name = "a"\nlabels = ["no", "yes"]'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": no task found, expected at least one table [[tasks]] with name and labels"),
        ("tasks = []", ": no task found, expected at least one table [[tasks]] with name and labels"),
        ("[tasks]\nname = 'a'", ": no task found, expected at least one table [[tasks]] with name and labels"),
        ("title = 'x'\n" + tasks(A), ": 'title' is unknown, expected tables [[tasks]] only"),
        ("tasks = [1]", ", task 1: a number found, expected a table with name and labels"),
        (tasks(A, "labels = ['x', 'y']"), ", task 2: name is missing, expected name and labels"),
        (tasks("name = 'a'"), ", task 1 (a): labels are missing, expected a list of two or more, lowest first"),
        (tasks(A + "\nweight = 2"), ", task 1: 'weight' is unknown, expected name, title, column, labels"),
        (tasks(A, A), ": task a stands twice, expected each name once"),
        (tasks(A + "\ntitle = ''"), ", task 1 (a): title is '', expected printable text of at most 200 characters"),
        (tasks(A + "\ntitle = \"\\u001b[2J\""),
         ", task 1 (a): title is '\\x1b[2J', expected printable text of at most 200 characters"),
        (tasks(A + "\ncolumn = 3"), ", task 1 (a): column is 3, expected printable text of at most 200 characters"),
    ],
)  # fmt: skip
def test_a_schema_is_a_list_of_tasks_with_name_and_labels(tmp_path: Path, content: str, message: str) -> None:
    assert fault(tmp_path, content) == message


@pytest.mark.parametrize("name", ["''", "'two words'", "'1a'", "'a.b'", "'é'", "['a']", "true", f"'{'a' * 65}'"])
def test_a_name_is_a_letter_then_letters_digits_hyphens_or_underscores(tmp_path: Path, name: str) -> None:
    shown = repr(tomllib.loads(f"x = {name}")["x"])
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    assert fault(tmp_path, tasks(f"name = {name}\nlabels = ['x', 'y']")) == (
        f", task 1: name is {shown}, expected a letter, then letters (a to z), digits, hyphens or underscores, at most 64 in all"
    )


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("[]", "labels: 0 found, expected a list of two or more, lowest first"),
        ("['yes']", "labels: 1 found, expected a list of two or more, lowest first"),
        ("'no, yes'", "labels: text found, expected a list of two or more, lowest first"),
        ("3", "labels: a number found, expected a list of two or more, lowest first"),
        (str(list(range(1001))), "labels: 1001 found, expected at most 1000"),
        ("['no', 'yes', ' no']", "label 'no' stands twice, expected each label once"),
        ("[1, '1']", "label '1' stands twice, expected each label once"),
        ("['0', '0.0']", "label '0.0' stands twice, as '0' too, expected each label once"),
        ("['no', '']", "a label is '', expected text or whole numbers of at most 200 characters"),
        ("['no', 0.5]", "a label is 0.5, expected text or whole numbers of at most 200 characters"),
        ("['no', ['yes']]", "a label is ['yes'], expected text or whole numbers of at most 200 characters"),
        ("['no', 'a\\tb']", "a label is 'a\\\\tb', expected text or whole numbers of at most 200 characters"),
    ],
)
def test_labels_are_two_or_more_different_texts(tmp_path: Path, labels: str, message: str) -> None:
    labels = labels.replace("'a\\tb'", '"a\\tb"')
    assert fault(tmp_path, tasks(f"name = 'a'\nlabels = {labels}")) == f", task 1 (a): {message}".replace("\\\\", "\\")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (("seeker_id", None), "name 'seeker_id' of task seeker_id is taken by a column of the kit (seeker_id), expected another"),
        (("Pair-ID", None), "name 'Pair-ID' of task Pair-ID is taken by a column of the kit (pair_id), expected another"),
        (("a", "seeker post"), "column 'seeker post' of task a is taken by a column of the kit (seeker_post), expected another"),
        (("a", "--"), "column '--' of task a has no letter or digit, expected one"),
        (("b", "A"), "column 'A' of task b is taken by column 'a' of task a, expected another"),
        (("b", "a_spans"), "column 'a_spans' of task b is taken by spans column 'a_spans' of task a, expected another"),
        (("A", "c"), "name 'A' of task A is taken by column 'a' of task a, expected another"),
    ],
)
def test_no_task_takes_a_column_of_the_kit_or_of_another_task(
    tmp_path: Path, content: tuple[str, str | None], message: str
) -> None:
    name, column = content
    given = f"name = {name!r}\nlabels = ['x', 'y']" + (f"\ncolumn = {column!r}" if column else "")
    assert fault(tmp_path, tasks(*([] if name == "a" else [A]), given)) == f": {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[tasks]", ": not valid TOML: "),
        ("x = " + "[" * 5000, ": not valid TOML: "),
        ("x = " + "1" * 5000, ": not valid TOML: ValueError"),
        (b"\xff\xfe[\0", ": not UTF-8; save it again as UTF-8"),
        (b"#" * 1_000_001, ": more than 1,000,000 bytes found, expected a short TOML file of tables [[tasks]]"),
    ],
)
def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    assert fault(tmp_path, content).startswith(message)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("gone.toml", "No such file or directory"), (".", "Is a directory"), ("a\0b", "embedded null byte")],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KitError) as error:
        read_schema(Path(name))
    assert str(error.value) == f"--schema {name}: cannot be read: {problem}"
