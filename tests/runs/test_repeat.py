"""A recorded run repeats to the bit, or says what of it has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_world import Said, read_json, words

from empathy_kit import __version__
from empathy_kit.config import RunConfig, configure
from empathy_kit.errors import KitError
from empathy_kit.plugins import Failure, Registry, load_registry
from empathy_kit.runs.choose import compare_providers
from empathy_kit.runs.train import run


def test_the_command_repeats_a_run_from_its_run_json_to_the_bit(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said], post_words: set[str]
) -> None:
    folder = first[0]
    said = command("run", "--config", folder / "run.json", "--out", tmp_path / "again", "--json")
    assert said.code == 0
    before, after = read_json(folder), read_json(tmp_path / "again")
    assert json.loads(said.out) == after  # and nothing else on stdout
    for part in ("config", "plugins", "versions", "data", "split", "truncation", "scores"):
        assert after[part] == before[part]
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (folder / "predictions.csv").read_bytes()
    weights = [path / "model" / "model.safetensors" for path in (folder, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not words(said.out + said.err) & post_words


def test_another_seed_is_another_run(first: tuple[Path, list[Any]], tmp_path: Path) -> None:
    config = configure(RunConfig(), {**read_json(first[0])["config"], "seed": 8})
    list(run(config, load_registry(), tmp_path / "other"))
    assert (tmp_path / "other" / "predictions.csv").read_bytes() != (first[0] / "predictions.csv").read_bytes()
    assert read_json(tmp_path / "other")["split"] == read_json(first[0])["split"]  # the split has a seed of its own


def changed(folder: Path, to: Path, **changes: str) -> Path:
    """The run's record with another provider of its loss."""
    content = read_json(folder)
    content["plugins"]["loss"].update(changes)
    content["config"]["loss"] = content["plugins"]["loss"]["name"]
    to.write_text(json.dumps(content), encoding="utf-8")
    return to


def test_a_repeat_with_another_version_of_a_plugin_warns(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    path = changed(first[0], tmp_path / "run.json", version="0.0.9")
    said = command("run", "--config", path, "--out", tmp_path / "again", "--epochs", "1")
    assert said.code == 0
    name = read_json(first[0])["plugins"]["loss"]["name"]
    assert (
        f"warning: loss {name}: the recorded run had it from empathy-kit 0.0.9; now it is {__version__}, whose numbers may differ"
        in said.err.splitlines()
    )
    assert read_json(tmp_path / "again")["plugins"]["loss"]["version"] == __version__


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "poly9", "distribution": "empathy-kit-poly9", "version": "0.2.0"},
            "loss poly9: the recorded run had it from empathy-kit-poly9 0.2.0, which is missing; expected it to be installed",
        ),
        (
            {"name": "ce", "distribution": "empathy-kit-poly9", "version": "0.2.0"},
            f"loss ce: the recorded run had it from empathy-kit-poly9 0.2.0, but now empathy-kit {__version__} offers that name; "
            "expected empathy-kit-poly9",
        ),
    ],
)
def test_a_repeat_without_the_plugins_provider_is_refused(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said], changes: dict[str, str], message: str
) -> None:
    path = changed(first[0], tmp_path / "run.json", **changes)
    said = command("run", "--config", path, "--out", tmp_path / "again")
    assert (said.code, said.err) == (2, f"Error: {message}\n")
    assert not (tmp_path / "again").exists()


def test_a_recorded_plugin_that_is_broken_now_is_named_with_its_reason() -> None:
    recorded = {"loss": {"name": "poly9", "distribution": "empathy_kit.Poly9", "version": "0.2.0"}}
    broken = Failure("empathy-kit-poly9", "0.3.0", "ImportError: no module named polynomials")
    registry = Registry(load_registry().provided, (Failure("empathy-kit-other", "1.0", "SystemExit: 1"), broken))
    with pytest.raises(KitError) as error:
        compare_providers(recorded, RunConfig(loss="poly9"), registry)
    assert str(error.value) == (
        "loss poly9: the recorded run had it from empathy_kit.Poly9 0.2.0, which is missing; not loaded: "
        "empathy-kit-poly9 0.3.0: ImportError: no module named polynomials"
    )
    assert compare_providers(recorded, RunConfig(loss="ce"), registry) == ()  # --loss ce replaces it


def test_a_repeat_on_other_data_is_refused(first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]) -> None:
    content = read_json(first[0])
    content["data"]["sha256"] = "0" * 64
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    said = command("run", "--config", path, "--out", tmp_path / "again")
    found = read_json(first[0])["data"]["sha256"][:12]
    assert (said.code, said.err) == (
        2,
        f"Error: --config: the data is not that of the recorded run (sha256 {found}... found, expected 000000000000...); "
        "its scores cannot be repeated\n",
    )
    assert not (tmp_path / "again").exists()
