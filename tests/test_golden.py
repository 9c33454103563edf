"""Recorded runs: a change that is meant to change no number changes none, to the last bit.

    python tests/test_golden.py

records them anew. That is right only where a change is meant to change numbers, and then the commit says which and why.
Bits depend on the processor and on torch's build. So everywhere losses are compared to a relative 1e-3 and probabilities to 5e-3,
and where both are those of the recording, everything is compared to the last bit.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from empathy_kit.cli import cli
from empathy_kit.processor import maker

FOLDER = Path(__file__).parent / "golden"
RECORDED = FOLDER / "runs.json"
COMMON = ("--split", "paper", "--epochs", "2", "--threads", "1")
RUNS: dict[str, tuple[str, ...]] = {
    "tiny-ce": ("--loss", "ce", "--no-rationale"),
    "tiny-focal-predicted": (
        *("--loss", "focal", "-o", "loss.gamma", "1.5", "-o", "loss.ER.gamma", "3"),
        *("--rationale", "predicted", "--head", "attention", "--freeze-layers", "1"),
    ),
    "tiny-weighted-gold": (
        *("--loss", "weighted", "--rationale", "gold", "--precision", "bf16", "--average", "none"),
        *("--select", "loss", "--schedule", "constant", "--clip", "none"),
    ),
    "tiny-train-only": ("--rationale", "train-only", "--posts", "response", "--truncate", "head", "--fused", "off"),
    "minilm-focal": ("--encoder", "minilm", "--loss", "focal", "--max-tokens", "24", "--epochs", "1"),
    "minilm-tag": ("--encoder", "minilm", "--rationale", "tag", "--max-tokens", "24", "--epochs", "1", "--freeze-layers", "3"),
}


def read_recorded() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORDED.read_text("utf-8"))
    return content


def machine() -> dict[str, str]:
    """What the bits depend on: what a run's record has of it, and all instructions that a library may ask for."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    flags = sorted({flag for line in lines if line.startswith("flags") for flag in line.split()})
    return {
        "torch": torch.__version__,
        "maker": maker(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "instructions": hashlib.sha256(" ".join(flags).encode()).hexdigest()[:16],
    }


def figures(run: Path) -> dict[str, Any]:
    """Losses and scores of every epoch, probabilities of the test part, and a digest of the weights."""
    history = [json.loads(line) for line in (run / "history.jsonl").read_text("utf-8").splitlines()]
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row.get("part", "test") == "test"]
    weights = load_file(run / "model" / "model.safetensors")
    digests = sorted(
        hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in weights.items() if not name.startswith("losses.")
    )
    names = ("train_loss", "validation_loss", "validation_macro_f1", "validation_accuracy", "best")
    return {
        "history": [{name: epoch[name] for name in names} for epoch in history],
        "probabilities": [[float(value) for name, value in row.items() if name[-3:] in ("_p0", "_p1", "_p2")] for row in rows],
        "weights": hashlib.sha256("".join(digests).encode()).hexdigest(),
    }


def train(name: str, encoder: Path, folder: Path) -> dict[str, Any]:
    """One of the runs, as the command line has it, in this process: whatever another test has left behind must not reach it."""
    tiny = ("--encoder", str(encoder), "--max-tokens", "16")
    flags = (*COMMON, *(tiny if name.startswith("tiny") else ()), *RUNS[name])
    threads = torch.get_num_threads()
    try:
        ran = CliRunner().invoke(cli, ["run", *flags, "--out", str(folder / name)])
    finally:
        torch.set_num_threads(threads)
    assert ran.exit_code == 0, ran.output
    return figures(folder / name)


@pytest.fixture(scope="module", params=RUNS)
def run(
    request: pytest.FixtureRequest,
    tiny_roberta: Path,
    tmp_path_factory: pytest.TempPathFactory,
    new_cache: Callable[[Path], Path],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of a run as they were recorded, and as they are now."""
    if request.param.startswith("minilm"):
        request.getfixturevalue("minilm")
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPATHY_KIT_CACHE", str(new_cache(folder / "cache")))
        return read_recorded()["runs"][request.param], train(request.param, tiny_roberta, folder)


def test_a_recorded_run_gives_the_same_numbers(run: tuple[dict[str, Any], dict[str, Any]]) -> None:
    expected, found = run
    for epoch, known in zip(found["history"], expected["history"], strict=True):
        for loss in ("train_loss", "validation_loss"):
            assert epoch[loss] == pytest.approx(known[loss], rel=1e-3)
    for row, known in zip(found["probabilities"], expected["probabilities"], strict=True):
        assert row == pytest.approx(known, abs=5e-3)


def test_it_gives_them_to_the_last_bit_where_it_was_recorded(run: tuple[dict[str, Any], dict[str, Any]]) -> None:
    there, here = read_recorded()["machine"], machine()
    assert there.keys() == here.keys(), "record anew: python tests/test_golden.py"
    if here != there:
        pytest.skip(f"recorded with {there}, and this is {here}: the last bits may differ")
    expected, found = run
    assert found == expected


if __name__ == "__main__":
    import tempfile

    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import make_tiny_roberta

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["EMPATHY_KIT_CACHE"] = str(Path(temporary) / "cache")
        made = make_tiny_roberta(Path(temporary) / "encoder")
        content = {"machine": machine(), "runs": {name: train(name, made, Path(temporary)) for name in RUNS}}
    FOLDER.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
