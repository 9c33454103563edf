"""What a stopped run accepts with `--resume-anyway` next to other versions, and what is no difference at all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from resume_world import finish, focal, stop
from safetensors.torch import load_file, save_file

from empathy_kit.core import kernels
from empathy_kit.core.objective import Objective
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry
from empathy_kit.runs import checkpoints, identity
from empathy_kit.runs.machine import way
from empathy_kit.runs.train import run


@pytest.fixture(scope="module")
def halted(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a run that was stopped at two steps."""
    return stop(focal(tiny_roberta), tmp_path_factory.mktemp("halted") / "run", 3, minutes=0)


@pytest.fixture
def partial(halted: Path, tmp_path: Path) -> Path:
    """The same, for a test that continues it."""
    return Path(shutil.copytree(halted, tmp_path / "run.partial"))


def test_another_way_to_compute_the_losses_is_refused_unless_it_is_asked_for_and_then_recorded(
    partial: Path, tiny_roberta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade of torch, which brings another triton."""
    config, out, now = focal(tiny_roberta), partial.with_suffix(""), "fused GPU kernels, triton 9.0"
    then = checkpoints.read(checkpoints.folders(partial)[0]).identity["machine"]["losses"]
    monkeypatch.setattr(Objective, "status", lambda *_: now)
    differing = f"way to compute the losses {way(then)}, not {now}"
    with pytest.raises(KitError) as error:
        finish(config, out)
    assert str(error.value) == (
        f"{partial}: holds a stopped run with {differing}; install what it was begun with, use another --out, or continue it "
        "with --resume-anyway to other numbers"
    )
    going = run(config, load_registry(), out, anyway=True)
    assert next(going).warnings == (f"the run was begun with {differing}; its numbers may differ",)
    next(going)
    going.close()
    opened, *_, finished = finish(config, out)  # it has been continued this way before
    assert opened.warnings == ()
    assert finished.record.machine["losses"] == f"{then}, then {now}"


def test_why_a_kernel_is_missing_is_no_other_way_to_compute_the_losses(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason may name a folder, and each batch job has its own."""
    config, out = focal(tiny_roberta), tmp_path / "run"
    monkeypatch.setattr(kernels, "find", lambda device: "/job-1/kernels cannot be used: Permission denied")
    stop(config, out, 3)
    monkeypatch.setattr(kernels, "find", lambda device: "/job-2/kernels cannot be used: Permission denied")
    opened, *_, finished = finish(config, out)
    assert opened.losses == "closed form in torch, no fused kernel: /job-2/kernels cannot be used: Permission denied"
    assert opened.warnings == ()
    assert finished.record.machine["losses"] == opened.losses.replace("job-2", "job-1")


def test_an_encoder_that_another_release_of_transformers_reads_otherwise_is_accepted_where_it_is_asked_for(
    partial: Path, tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights must be the same; without another release, it is another encoder."""
    encoder, out = Path(shutil.copytree(tiny_roberta, tmp_path / "encoder")), partial.with_suffix("")
    settings = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**settings, "initializer_range": 0.03}))
    known = checkpoints.read(checkpoints.folders(partial)[0]).identity["sha256"]["encoder"][:12]
    with pytest.raises(KitError) as error:
        finish(focal(encoder), out, anyway=True)
    assert re.fullmatch(
        rf"{re.escape(str(partial))}: the encoder is not the stopped run's \(sha256 \w{{12}}... found, expected {known}...\); "
        "use the same encoder, or another --out",
        str(error.value),
    )
    real = identity.library_versions()
    monkeypatch.setattr(identity, "library_versions", lambda: {**real, "transformers": "9.0"})
    tuned, weights = Path(shutil.copytree(encoder, tmp_path / "tuned")), load_file(encoder / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, tuned / "model.safetensors", {"format": "pt"})
    with pytest.raises(KitError, match="the encoder is not the stopped run's"):
        finish(focal(tuned), out, anyway=True)
    opened, *_, finished = finish(focal(encoder), out, anyway=True)
    assert opened.warnings == (
        f"the run was begun with transformers {real['transformers']}, not 9.0; its numbers may differ",
        f"the run was begun with the encoder of sha256 {known}..., not {finished.record.encoder['sha256'][:12]}...; "
        "its numbers may differ",
    )
