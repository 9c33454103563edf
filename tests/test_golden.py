"""Recorded runs: a change that is meant to change no number changes none, to the last bit.

    python tests/test_golden.py [NAME ...]

records all of them anew, or those that are named. That is right only for a run that is added, or where a change is meant to
change numbers, and then the commit says which and why. Bits depend on the processor and on torch's build, which are recorded with
each run, and on the losses' fused kernel. So everywhere losses are compared to a relative 1e-3 and probabilities to 5e-3, and
where all three are those of the recording, everything is compared to the last bit.
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
from empathy_kit.cli.run import run as command
from empathy_kit.config import preset, to_dict
from empathy_kit.core.kernels import find
from empathy_kit.plugins import KINDS, OURS, load_registry
from empathy_kit.processor import maker

RECORDED = Path(__file__).parent / "golden" / "runs.json"
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
    "tiny-over": (
        *("--sampler", "over", "--trunk", "mean", "--loss", "focal", "-o", "loss.power", ".5"),
        *("--rationale", "tag", "-o", "rationale.weight", ".5"),
    ),
    "tiny-under": (
        *("--sampler", "under", "--loss", "weighted", "-o", "loss.power", ".5", "--head", "attention", "--no-rationale"),
        *("-o", "trunk.hidden", "24", "-o", "trunk.layers", "1", "-o", "trunk.dropout", ".1"),
    ),
    "tiny-over-half": (
        *("--sampler", "over", "-o", "sampler.power", ".5", "-o", "sampler.most", "3", "--no-rationale"),
        *("--trunk", "mean", "-o", "trunk.hidden", "24", "-o", "trunk.dropout", ".1"),
    ),
    "minilm-tag": ("--encoder", "minilm", "--rationale", "tag", "--max-tokens", "24", "--epochs", "1", "--freeze-layers", "3"),
}


def read_recorded() -> dict[str, dict[str, Any]]:
    """Of each run the machine that recorded it, and its figures."""
    content: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text("utf-8"))
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
        return read_recorded()[request.param], train(request.param, tiny_roberta, folder)


def test_a_recorded_run_gives_the_same_numbers(run: tuple[dict[str, Any], dict[str, Any]]) -> None:
    expected, found = run
    for epoch, known in zip(found["history"], expected["history"], strict=True):
        for loss in ("train_loss", "validation_loss"):
            assert epoch[loss] == pytest.approx(known[loss], rel=1e-3)
    for row, known in zip(found["probabilities"], expected["probabilities"], strict=True):
        assert row == pytest.approx(known, abs=5e-3)


def test_it_gives_them_to_the_last_bit_where_it_was_recorded(run: tuple[dict[str, Any], dict[str, Any]]) -> None:
    expected, found = run
    there, here = expected["machine"], machine()
    assert there.keys() == here.keys(), "record anew: python tests/test_golden.py"
    if here != there:
        pytest.skip(f"recorded with {there}, and this is {here}: the last bits may differ")
    if isinstance(reason := find(torch.device("cpu")), str):
        pytest.skip(f"recorded with the fused kernel, which is not here: {reason}")
    assert {"machine": here, **found} == expected


def test_the_runs_use_every_built_in_name() -> None:
    """A released name never changes its numbers, so each is in a run, of the tiny encoder: the small one may not be installed."""
    assert list(read_recorded()) == list(RUNS)
    defaults, used = to_dict(preset("small")), set()
    for name, flags in RUNS.items():
        if name.startswith("tiny"):
            given = command.make_context("run", [*COMMON, *flags]).params
            chosen = {**given, "rationale": "none"} if given["no_rationale"] else given
            used |= {(kind, chosen[kind] or defaults[kind]) for kind in KINDS}
    assert used == {(entry.kind, entry.spec.name) for entry in load_registry().provided if entry.distribution == OURS}


if __name__ == "__main__":
    import tempfile

    sys.path.insert(0, str(Path(__file__).parent))
    from conftest import make_tiny_roberta

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["EMPATHY_KIT_CACHE"] = str(Path(temporary) / "cache")
        made = make_tiny_roberta(Path(temporary) / "encoder")
        assert not isinstance(find(torch.device("cpu")), str), "no fused kernel"  # such as where its compiler took too long
        content = read_recorded()
        content |= {name: {"machine": machine(), **train(name, made, Path(temporary))} for name in sys.argv[1:] or RUNS}
    RECORDED.write_text(json.dumps({name: content[name] for name in RUNS}, indent=1) + "\n", "utf-8")
