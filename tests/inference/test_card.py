"""A model card tells what the record holds, and nothing in the record can make it tell something else."""

from __future__ import annotations

import copy
import html
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import card_errors
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from empathy_kit.errors import KitError
from empathy_kit.inference.card import escaped, published, without_paths, write_card
from empathy_kit.runs import record
from empathy_kit.runs.record import Record
from empathy_kit.runs.report import TOO_SURE, estimate, number


@pytest.fixture(scope="module")
def found(marking_run: Path) -> Record:
    return record.read(marking_run)


def rendered(card: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(str(ModelCard(card).text))


def tables(card: str) -> dict[str, list[list[str]]]:
    """Heading of the first column and the second to rows of cells."""
    found: dict[str, list[list[str]]] = {}
    for block in ModelCard(card).text.split("\n\n"):
        if block.strip().startswith("|"):
            rows = [[cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in block.strip().splitlines()]
            found[", ".join(rows[0])] = rows[2:]
    return found


def test_it_shows_the_scores_of_every_task_and_label_with_their_intervals(found: Record) -> None:
    shown = tables(write_card(found, "me/model", licence=None))
    headline, by_label = (
        shown["task, test pairs, accuracy, weighted F1, macro F1"],
        shown["task, label, test pairs, precision, recall, average precision"],
    )
    for at, task in enumerate(found.tasks.tasks):
        scores = found.scores[task.name]
        keys = ("accuracy", "weighted_f1", "macro_f1")
        assert headline[2 * at] == [task.name, str(scores["n"]), *(estimate(scores[key]) for key in keys)]
        assert headline[2 * at + 1][-3:] == [number(scores["majority"][key]) for key in keys]
        for level, label in enumerate(task.labels):
            cells = [estimate(scores[key][level]) for key in ("precision", "recall", "average_precision")]
            assert by_label[3 * at + level] == [task.name, label, str(sum(scores["confusion"][level])), *cells]
    assert found.calibration is not None
    assert shown["task, temperature, ECE without it, ECE with it"] == [
        [name, f"{one['temperature']:.3g}", number(one["ece_before"]), number(one["ece_after"])]
        for name, one in found.calibration.items()
    ]
    assert [row[0] for row in shown["task, token F1, IOU F1"]] == ["ER", "EX", "IP"]
    lowest = "The model's marks count here even where it predicts the lowest label, for which a loaded model returns no evidence."
    assert lowest in write_card(found, "me/model", licence=None)
    assert shown["task, label, pairs, training, validation, test"][2] == ["ER", "2", "20", "14", "3", "3"]


def test_the_card_of_an_int8_export_shows_the_runs_scores_as_the_runs_and_its_own_to_the_hub(found: Record) -> None:
    after = {task: {"accuracy": 0.5, "macro_f1": 0.25, "recall": [0.5, 0.5, 0.5]} for task in found.scores}
    compared = {"precision": "int8", "scores": {"pairs": 60, "before": after, "after": after}}
    for export, told in ((compared, "as `scores.after`."), ({"precision": "int8"}, "were not measured.")):
        card = write_card(found, "me/model", licence=None, export=export)
        assert card_errors(card) == []
        assert "\n\n**These are the scores of the run before its export to int8**, also by label and for evidence. " in card
        assert f" {told}\n\nOn the test part of that split" in card
        assert "(ECE) on the test part, of the run before its export:\n" in card
        results = [(one.dataset_config, one.metric_type, one.metric_value) for one in ModelCard(card).data.eval_results or ()]
        own = [(task, kind, value) for task in found.scores for kind, value in (("accuracy", 0.5), ("f1", 0.25))]
        assert results == (own if "scores" in export else [])
    plain = write_card(found, "me/model", licence=None, export={**compared, "precision": "float32"})
    assert "before its export" not in plain
    assert len(ModelCard(plain).data.eval_results or ()) == 9


def test_it_tells_where_macro_f1s_interval_is_too_sure(found: Record) -> None:
    plain = [[20, 2, 0], [3, 9, 0], [1, 1, 2]]
    often = replace(found, scores={name: {**scores, "confusion": plain} for name, scores in found.scores.items()})
    assert "at most once" not in write_card(often, "me/model", licence=None)
    once = {**often.scores, "EX": {**often.scores["EX"], "confusion": [*plain[:2], [3, 0, 1]]}}
    told = escaped(f"Predicted right at most once: EX 2 (1 of 4). {TOO_SURE}")
    assert f"\n{told}\n" in write_card(replace(found, scores=once), "me/model", licence=None)


def test_it_tells_what_the_model_was_made_of_and_how_to_load_it(found: Record) -> None:
    card = write_card(found, "me/model", licence="mit")
    for text in (found.data["sha256"], found.split["sha256"], found.encoder["sha256"], 'empathy_kit.load("hub:me/model")'):
        assert text in card
    recipe = {row[0]: row[1] for row in tables(card)["setting, value"]}
    expected = {
        **{key: value for key, value in found.config.items() if key not in ("schema", "options")},
        **found.config["options"],
    }
    assert list(recipe) == [f"`{name}`" for name in expected]
    assert recipe["`trunk.hidden`"] == "`16`"
    assert recipe["`tasks`"] == "`none`"
    assert {row[0] for row in tables(card)["software, version"]} == {f"`{name}`" for name in ("empathy-kit", *found.versions)}
    for heading in ("What it is for", "What it is not for", "Data and split", "Scores", "Calibration", "Recipe", "Limits"):
        assert f"\n## {heading}\n" in card
    never = [(task.name, level) for task in found.tasks.tasks for level in found.scores[task.name]["never_predicted"]]
    assert card.count("was never predicted**") == len(never)
    assert "The model needs plugins" not in card


def test_a_label_that_was_never_predicted_is_told_with_how_many_pairs_have_it(found: Record) -> None:
    scores = {
        **found.scores,
        "ER": {**found.scores["ER"], "confusion": [[5, 0, 0], [2, 0, 0], [1, 0, 0]], "never_predicted": [1, 2]},
    }
    card = write_card(replace(found, scores=scores), None, licence=None)
    assert "**ER 1 was never predicted**, though 2 test pairs have it." in card
    assert "**ER 2 was never predicted**, though 1 test pair has it." in card


def test_the_hub_reads_its_scores(found: Record) -> None:
    card = write_card(found, "me/model", licence="cc-by-4.0")
    assert card_errors(card) == []
    data: Any = ModelCard(card).data
    assert (data.license, data.library_name, data.model_name, data.language) == ("cc-by-4.0", "empathy-kit", "model", "en")
    assert [
        (one.dataset_config, one.metric_type, (one.metric_args or {}).get("average"), one.metric_value)
        for one in data.eval_results
    ] == [
        (name, kind, average, round(scores[key]["value"], 4))
        for name, scores in found.scores.items()
        for key, kind, average in (("accuracy", "accuracy", None), ("weighted_f1", "f1", "weighted"), ("macro_f1", "f1", "macro"))
    ]
    assert "license" not in ModelCard(write_card(found, "me/model", licence=None)).data.to_dict()


HOSTILE = [
    "</table><script>alert(1)</script>",
    "[click](https://evil.example) ![x](https://evil.example/x.png) <https://evil.example>",
    "a | b \\| c",
    "x\n\n# Heading\n\n---\nlicense: theirs\n---\n- list",
    "`` ` `code` *bold* _em_ ~~s~~ &lt;b&gt;",
    "{{ 7 * 7 }} {% raw %}",
    "'\": [yaml, {a: b}] #!\u202e\x1b[2J\ud800",
]


@pytest.mark.parametrize("exported", [False, True])
@pytest.mark.parametrize("text", HOSTILE)
def test_what_others_wrote_is_shown_and_not_obeyed(found: Record, text: str, exported: bool) -> None:
    shown = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())

    def with_text(text: str, line: str) -> str:
        told = copy.deepcopy(asdict(found))
        for task in told["config"]["schema"]["tasks"]:
            task["title"], task["labels"][1] = line, line  # a schema is printable
        told["data"]["name"] = told["split"]["kind"] = told["config"]["encoder"] = told["config"]["options"]["trunk.x"] = text
        told["versions"]["torch"] = told["config"]["data"] = text
        told["plugins"]["loss"] = {"name": "ce", "distribution": text, "version": text}
        export = {"what": {text: text}} if exported else None  # which needs no plugins
        return write_card(Record(**told), "me/model", licence=None, export=export)

    card, tame = with_text(text, shown), with_text("tame", "tame")
    page, expected = rendered(card), rendered(tame)
    for tag in ("<h1", "<h2", "<table", "<tr", "<td", "<li", "<p>", "<hr", "<strong", "<em", "<pre"):
        assert page.count(tag) == expected.count(tag), tag
    for tag in ("<a ", "<img", "<script", "\x1b", "\u202e"):
        assert tag not in page
    data, plain = ModelCard(card).data.to_dict(), ModelCard(tame).data.to_dict()
    assert data.keys() == plain.keys()
    assert card_errors(card) == []
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == shown
    assert shown in html.unescape(page)


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": {"ER": {"temperature": 1.0, "ece_before": {}, "ece_after": 0.1}}},
        {"scores": {}},
        {"data": {"name": "sample"}},
        {"split": {"kind": "grouped", "sha256": ""}},
    ],
)
def test_of_a_record_that_lacks_something_no_card_is_made(found: Record, changes: Any) -> None:
    with pytest.raises(KitError) as error:
        write_card(replace(found, **changes), "me/model", licence=None)
    assert str(error.value) == (
        "me/model: no model card can be made of this record: parts are missing, or are not as a run writes them"
    )


def test_a_run_from_before_calibration_has_a_card_without_it(found: Record) -> None:
    assert "\n## Calibration\n" in write_card(found, "me/model", licence=None)
    old = replace(found, calibration=None, model=None)
    card = write_card(old, "me/model", licence=None)
    assert card_errors(card) == []
    assert "\n## Calibration\n" not in card


def test_a_label_that_no_test_pair_has_is_a_dash_in_the_card(found: Record) -> None:
    scores = {task: {**each, "average_precision": [None] * 3} for task, each in found.scores.items()}
    card = write_card(replace(found, scores=scores), "me/model", licence=None)
    assert {row[-1] for row in tables(card)["task, label, test pairs, precision, recall, average precision"]} == {"-"}


def test_an_encoder_by_a_short_name_is_named_as_on_the_hub(found: Record) -> None:
    minilm = replace(found, config={**found.config, "encoder": "minilm"})
    data = ModelCard(write_card(minilm, "me/model", licence=None)).data.to_dict()
    assert data["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_a_model_of_a_plugin_names_what_to_install(found: Record) -> None:
    plugins = {**found.plugins, "loss": {"name": "poly1", "distribution": "empathy-kit-poly1", "version": "1.2"}}
    card = write_card(Record(**{**asdict(found), "plugins": plugins}), "me/model", licence=None)
    assert "The model needs plugins: `empathy-kit-poly1==1.2`, installed with pip.\n" in card
    plugins["head"] = {"name": "mine", "distribution": "./mine.py", "version": "sha256:0123"}
    plugins["trunk"] = {"name": "own", "distribution": "python", "version": ""}
    card = write_card(Record(**{**asdict(found), "plugins": plugins}), "me/model", licence=None)
    told = (
        "`empathy-kit-poly1==1.2`, installed with pip; the file `mine.py` (`sha256:0123`), given as `--plugin`; "
        "trunk `own`, which its author's program handed over."
    )
    assert f"The model needs plugins: {told}\n" in card


def test_an_exports_card_names_its_own_record_and_needs_no_plugins(found: Record) -> None:
    plugins = {**found.plugins, "loss": {"name": "poly1", "distribution": "empathy-kit-poly1", "version": "1.2"}}
    card = write_card(replace(found, plugins=plugins), "me/model", licence=None, export={"precision": "int8"})
    assert " This page is made from the record of the training run, which `export.json` holds.\n" in card
    assert "run.json" not in card
    assert "The model needs plugins" not in card
    assert "record of the training run, `run.json`.\n" in write_card(found, "me/model", licence=None)


def test_the_card_of_a_model_that_is_nowhere_does_not_tell_how_to_load_it(found: Record) -> None:
    card = write_card(found, None, licence=None)
    assert card_errors(card) == []
    assert "\n# A model of empathy-kit\n" in card
    assert "\n\n## Data and split\n" in card
    assert "How to load it" not in card


def test_the_base_model_is_that_of_the_hub_and_no_folder_of_the_same_form(found: Record) -> None:
    config = {**found.config, "encoder": "encoders/roberta"}
    for more, expected in (({}, None), ({"revision": "c" * 40}, "encoders/roberta")):
        told = replace(found, config=config, encoder={**found.encoder, **more})
        assert ModelCard(write_card(told, "me/model", licence=None)).data.to_dict().get("base_model") == expected


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/data/forum/pairs.csv", "pairs.csv"),
        ("~/models/x/", "x"),
        ("C:\\Users\\ann\\pairs.csv", "pairs.csv"),
        ("\\\\server\\ann\\pairs.csv", "pairs.csv"),
        ("../ann/pairs.csv", "pairs.csv"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("minilm", "minilm"),
        (".832", ".832"),
    ],
)
def test_a_path_is_cut_to_what_it_names(path: str, kept: str, found: Record) -> None:
    assert without_paths({"a": [path, {"b": path}, 1, None]}) == {"a": [kept, {"b": kept}, 1, None]}
    reason = f"closed form in torch, no fused kernel: {path} cannot be used: Permission denied"
    machine = {"losses": f"fused CPU kernel, then {reason}; EX by their own code", "threads": 1}
    assert without_paths({"machine": machine})["machine"] == {
        "losses": "fused CPU kernel, then closed form in torch; EX by their own code",
        "threads": 1,
    }
    config = {**found.config, "data": path, "encoder": path}
    assert published(Record(**{**asdict(found), "config": config})).config["encoder"] == kept
