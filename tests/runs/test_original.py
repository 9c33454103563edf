"""What a repeat is compared with: a record that lacks a part of it is refused, or a check would be off in silence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from empathy_kit.errors import KitError
from empathy_kit.plugins import KINDS
from empathy_kit.runs.choose import LIBRARIES
from empathy_kit.runs.repeat import UNKNOWN, Original, read_original

PLUGIN = {"name": "ce", "distribution": "empathy-kit", "version": "0.1.0"}
Change = Callable[[dict[str, Any]], object]


def written(folder: Path, change: Change = lambda content: None) -> Path:
    content: dict[str, Any] = {
        "format": 3,
        "config": {},
        **{name: {"sha256": name} for name in ("data", "split", "encoder")},
        "plugins": {kind: dict(PLUGIN) for kind in KINDS},
        "versions": {"python": "3.11.7", **dict.fromkeys(LIBRARIES, "1.0")},
        "machine": {"device": "cpu", "threads": 2},
    }
    change(content)
    path = folder / "run.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def refusal(path: Path, changed: tuple[str, ...] = ()) -> str:
    with pytest.raises(KitError) as error:
        read_original(path, changed)
    problem, _, advice = str(error.value).removeprefix(f"--config {path}: ").partition("; ")
    assert advice == "restore the file as the run wrote it"
    return problem


def test_a_record_has_hashes_plugins_versions_and_the_machine(tmp_path: Path) -> None:
    found = read_original(written(tmp_path))
    assert found == Original(
        {"data": "data", "split": "split", "encoder": "encoder"},
        dict.fromkeys(KINDS, PLUGIN),
        dict.fromkeys(LIBRARIES, "1.0"),
        {"device": "cpu", "threads": 2},
    )
    assert found.threads == 2


@pytest.mark.parametrize("content", ["{}", '{"config": {"epochs": 1}}', '{"data": "sample", "split": "grouped"}'])
def test_settings_that_are_no_record_have_nothing_of_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    assert read_original(path) is UNKNOWN


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        (["loss", "seed"], {"data", "split", "encoder"}),
        (["split_seed"], {"data", "encoder"}),  # another split of the same data
        (["split"], {"data", "encoder"}),
        (["data"], {"encoder"}),
        (["schema"], {"encoder"}),
        (["encoder"], {"data", "split"}),
        (["attention_dropout"], {"data", "split"}),  # which is in the hash of the encoder
    ],
)
def test_a_changed_setting_lifts_the_checks_that_rest_on_it_and_no_other(
    tmp_path: Path, changed: list[str], kept: set[str]
) -> None:
    assert read_original(written(tmp_path), changed).hashes.keys() == kept
    for gone in ("data", "split", "encoder"):
        path = written(tmp_path, lambda content, gone=gone: content[gone].pop("sha256"))  # type: ignore[misc]
        if gone in kept:
            assert refusal(path, tuple(changed)) == f"the sha256 of its {gone} is missing"
        else:
            assert gone not in read_original(path, changed).hashes


LACKING: dict[str, tuple[Change, str]] = {
    "no format": (lambda content: (content.pop("format"), content.pop("versions")), "the part versions is missing"),
    "no plugins": (lambda content: content.pop("plugins"), "the part plugins is missing"),
    "plugins of another kind": (lambda content: content.update(plugins=[PLUGIN]), "the part plugins is missing"),
    "no loss": (lambda content: content["plugins"].pop("loss"), "the plugin of its loss is missing"),
    "no trunk": (lambda content: content["plugins"].pop("trunk"), "the plugin of its trunk is missing"),
    "no version": (lambda content: content["plugins"]["head"].pop("version"), "the version of its head's plugin is missing"),
    "a hash of null": (
        lambda content: content["plugins"]["head"].update(sha256=None),
        "the sha256 of its head's plugin is missing",
    ),
    "no versions": (lambda content: content.pop("versions"), "the part versions is missing"),
    "no torch": (lambda content: content["versions"].pop("torch"), "the version of torch is missing"),
    "no machine": (lambda content: content.pop("machine"), "the part machine is missing"),
    "no threads": (lambda content: content["machine"].pop("threads"), "the number of threads of its machine is missing"),
    "many threads": (
        lambda content: content["machine"].update(threads="many"),
        "the number of threads of its machine is missing",
    ),
    "no thread": (lambda content: content["machine"].update(threads=0), "the number of threads of its machine is missing"),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_record_that_lacks_what_a_repeat_is_compared_with_is_refused(tmp_path: Path, case: str) -> None:
    change, problem = LACKING[case]
    assert refusal(written(tmp_path, change)) == problem
