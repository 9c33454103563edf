"""A recorded run repeats to the bit, or says what of it has changed."""

from __future__ import annotations

import importlib.metadata
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_world import Said, configuration, read_json, warnings, words
from safetensors.torch import load_file, save_file
from torch import Tensor

from empathy_kit import Encoded, Head, Task, __version__
from empathy_kit.config import RunConfig, configure
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.fingerprint import fingerprint
from empathy_kit.core.heads import LinearHead
from empathy_kit.errors import KitError
from empathy_kit.plugins import Failure, Provided, Registry, load_registry
from empathy_kit.runs.choose import compare_providers, provenance
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


def test_the_first_weights_come_from_the_seed_and_from_nothing_before_the_run(tiny_roberta: Path, tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)  # whatever state the process is in
        config = configuration(tiny_roberta, seed=seed, lr=0, encoder_lr=0)
        list(run(config, load_registry(), tmp_path / str(number)))
        found.append(load_file(tmp_path / str(number) / "model" / "model.safetensors")["heads.ER.linear.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


class Noisy(LinearHead):
    """A head that draws from numpy and from Python where others use torch."""

    def forward(self, encoded: Encoded) -> Tensor:
        return super().forward(encoded) * (1 + 0.1 * np.random.random() + 0.1 * random.random() if self.training else 1)


def test_what_a_plugin_draws_from_numpy_and_python_comes_from_the_seed_too(tiny_roberta: Path, tmp_path: Path) -> None:
    def build(task: Task, width: int) -> Noisy:
        return Noisy(width, task.num_classes)

    registry = Registry((*load_registry().provided, Provided("head", Head("noisy", build), "mine", "1")))
    found = []
    for number in range(2):
        np.random.seed(number)
        random.seed(number)
        list(run(configuration(tiny_roberta, head="noisy"), registry, tmp_path / str(number)))
        found.append((tmp_path / str(number) / "model" / "model.safetensors").read_bytes())
    assert found[1] == found[0]


def test_the_commit_of_an_encoder_from_the_hub_is_recorded(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, hub = "0123456789abcdef0123456789abcdef01234567", tmp_path / "models--somebody--tiny"
    shutil.copytree(tiny_roberta, hub / "snapshots" / commit)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    config = replace(configuration(tiny_roberta), encoder="somebody/tiny")
    list(run(config, load_registry(), tmp_path / "run"))
    encoder = read_json(tmp_path / "run")["encoder"]
    assert encoder == {"name": "somebody/tiny", "sha256": encoder["sha256"], "revision": commit}


def changed(folder: Path, to: Path, **changes: str) -> Path:
    """The run's record with another provider of its loss."""
    content = read_json(folder)
    content["plugins"]["loss"].update(changes)
    content["config"]["loss"] = content["plugins"]["loss"]["name"]
    to.write_text(json.dumps(content), encoding="utf-8")
    return to


def test_a_repeat_with_other_versions_of_a_plugin_or_of_the_libraries_warns(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    path = changed(first[0], tmp_path / "run.json", version="0.0.9")
    content = json.loads(path.read_text(encoding="utf-8"))
    content["versions"] = {**content["versions"], "python": "3.10.0", "torch": "1.0.0"}
    path.write_text(json.dumps(content), encoding="utf-8")
    said = command("run", "--config", path, "--out", tmp_path / "again", "--epochs", "1")
    assert said.code == 0
    name = content["plugins"]["loss"]["name"]
    assert sorted(warnings(said)) == [
        f"loss {name}: the recorded run had it from empathy-kit 0.0.9; now it is {__version__}, whose numbers may differ",
        f"the recorded run had torch 1.0.0; now it is {importlib.metadata.version('torch')}, whose numbers may differ",
    ]
    assert read_json(tmp_path / "again")["plugins"]["loss"]["version"] == __version__


def test_an_option_that_another_version_renamed_is_told_with_both_versions(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    path = changed(first[0], tmp_path / "run.json", version="0.0.9")
    path.write_text(path.read_text().replace('"loss.ER.gamma"', '"loss.ER.focus"'), encoding="utf-8")
    said = command("run", "--config", path, "--out", tmp_path / "again")
    assert (said.code, said.err) == (
        2,
        "Error: loss focal: unknown option 'focus'; its options: gamma: float = 2.0, power: float = 0.0; "
        f"loss focal: the recorded run had it from empathy-kit 0.0.9; now it is {__version__}, whose numbers may differ\n",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "poly9", "distribution": "empathy-kit-poly9", "version": "0.2.0"},
            "loss poly9: the recorded run had it from empathy-kit-poly9 0.2.0, which is missing; install it",
        ),
        (
            {"name": "mine", "distribution": "python", "version": "unknown"},
            "loss mine: the recorded run had it from python unknown, which is missing; its author's program handed it over; "
            "use the run from there",
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


def repeated(first: Path, to: Path, part: str, *flags: object, command: Callable[..., Said], **versions: str) -> Said:
    """The run repeated from a record that has another hash of a part, and perhaps versions."""
    content = read_json(first)
    content[part]["sha256"] = "0" * 64
    content["versions"] |= versions
    path = to / "run.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return command("run", "--config", path, *flags, "--epochs", 1, "--out", to / "again")


@pytest.mark.parametrize(
    ("part", "what", "flags"), [("data", "--data sample", ("--split-seed", 1)), ("split", "--split grouped", ("--seed", 9))]
)
def test_a_repeat_on_other_data_or_another_split_is_refused(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said], part: str, what: str, flags: tuple[object, ...]
) -> None:
    """Whatever else is changed that it does not follow from."""
    said = repeated(first[0], tmp_path, part, *flags, command=command)
    found = read_json(first[0])[part]["sha256"][:12]
    assert (said.code, said.err) == (
        2,
        f"Error: {what}: is not that of the recorded run (sha256 {found}... found, expected 000000000000...); "
        "restore it, or their scores cannot be compared\n",
    )
    assert not (tmp_path / "again").exists()


def test_a_repeat_on_other_data_that_was_asked_for_by_name_is_not(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    assert repeated(first[0], tmp_path, "data", "--data", "sample", command=command).code == 0


def test_a_repeat_with_another_encoder_in_the_same_folder_is_refused(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    said = repeated(first[0], tmp_path, "encoder", command=command)
    found = read_json(first[0])["encoder"]["sha256"][:12]
    assert (said.code, said.err) == (
        2,
        f"Error: --encoder {read_json(first[0])['config']['encoder']}: is not that of the recorded run "
        f"(sha256 {found}... found, expected 000000000000...); restore it, or their scores cannot be compared\n",
    )
    assert not (tmp_path / "again").exists()


def test_an_encoder_that_another_release_of_transformers_reads_otherwise_is_told_with_that_release(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    said = repeated(first[0], tmp_path, "encoder", command=command, transformers="4.0")
    assert said.code == 2
    advice = "restore it or install transformers 4.0, whose defaults are in the hash, or their scores cannot be compared\n"
    assert said.err.endswith(f"expected 000000000000...); {advice}")


def test_an_encoder_is_known_by_what_it_is_and_not_by_where_it_lies(tiny_roberta: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_roberta, tmp_path / "elsewhere"))
    known = fingerprint(*load_encoder(str(tiny_roberta), local=True))
    assert fingerprint(*load_encoder(str(copy), local=True)) == known
    weights = load_file(copy / "model.safetensors")
    name = next(name for name in weights if "layer.1" in name)
    weights[name].view(-1)[0] += 1e-4
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(*load_encoder(str(copy), local=True)) != known
    assert fingerprint(*load_encoder(str(tiny_roberta), local=True, attention_dropout=0.2)) != known


def test_a_plugin_whose_files_changed_in_place_warns(tmp_path: Path, tiny_roberta: Path, command: Callable[..., Said]) -> None:
    """As in an editable installation: the version is the same, the code is not."""
    file = tmp_path / "own.py"
    file.write_text(LOSS)
    registry = load_registry([file])
    entry = registry.get("loss", "own")
    recorded = {"loss": {**provenance(entry), "sha256": "0" * 64}}
    (warning,) = compare_providers(recorded, RunConfig(loss="own"), registry)
    assert warning.endswith("; its files have changed since, and its numbers may differ")
    assert compare_providers({"loss": provenance(entry)}, RunConfig(loss="own"), registry) == ()


LOSS = """\
from empathy_kit import Loss, hookimpl


def own(task):
    \"\"\"Plain.\"\"\"
    from empathy_kit.losses import FocalLoss

    return FocalLoss(0.0)


@hookimpl
def empathy_kit_losses():
    yield Loss("own", own)
"""
