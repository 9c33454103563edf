"""What computes a run is recorded, and a repeat on another machine reports what of it differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_run import scored
from run_world import Said, flags, read_json, warnings

from empathy_kit.runs.differences import differing_origins
from empathy_kit.runs.machine import compare_machines, machine_of, way


@pytest.fixture
def same_threads() -> Iterator[None]:
    """Torch has one number of threads per process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_repeat_takes_the_recorded_threads_where_the_settings_have_none(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said], same_threads: None
) -> None:
    path = recorded(first[0], tmp_path / "run.json", {"threads": None}, {"threads": 3})
    said = command("run", "--config", path, "--out", tmp_path / "again", "--epochs", 1)
    assert (said.code, warnings(said)) == (0, [])
    assert read_json(tmp_path / "again")["machine"]["threads"] == 3
    said = command("run", "--config", path, "--out", tmp_path / "other", "--epochs", 1, "--threads", 1)
    assert warnings(said) == ["number of threads: 3 in the recorded run, 1 now; the numbers may differ"]


def test_a_repeat_on_another_machine_warns_of_each_part_that_is_known_to_differ(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    now = read_json(first[0])["machine"]
    then = {"system": "Windows", "processor": "arm", "maker": "Babbage", "device": "cuda", "losses": "Triton", "processes": 2}
    path = recorded(first[0], tmp_path / "run.json", {}, {**then, "cpu_capability": "none", "variables": {"MKL_CBWR": "AVX2"}})
    assert warnings(command("run", "--config", path, "--out", tmp_path / "again", "--epochs", 1)) == [
        f"{part} in the recorded run, {value} now; the numbers may differ"
        for part, value in {
            "operating system: Windows": now["system"],
            "processor: arm": now["processor"],
            "maker of the processor: Babbage": now["maker"],
            "CPU capability: none": now["cpu_capability"],
            "device: cuda": "cpu",
            "way to compute the losses: Triton": way(now["losses"]),
            "number of processes: 2": 1,
            "environment variables: MKL_CBWR=AVX2": "none",
        }.items()
    ]


def test_what_an_earlier_version_did_not_record_of_its_machine_is_not_compared(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    path = recorded(first[0], tmp_path / "run.json", {}, {})
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["machine"]["cpu_capability"], content["machine"]["variables"], content["machine"]["maker"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert warnings(command("run", "--config", path, "--out", tmp_path / "again", "--epochs", 1)) == []


def test_training_in_a_precision_without_instructions_for_it_warns(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empathy_kit.core.precision.is_emulated", lambda _, chosen: chosen == "bf16")
    said = command("run", *flags(tiny_roberta), "--precision", "bf16", "--out", tmp_path / "run")
    assert said.code == 0
    assert warnings(said) == ["precision bf16: this processor has no instructions for it; precision no is faster here"]


def test_variables_that_change_how_libraries_round_are_recorded_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    onednn = [f"{prefix}_{name}" for prefix in ("DNNL", "ONEDNN") for name in ("DEFAULT_FPMATH_MODE", "MAX_CPU_ISA")]
    expected = ("NVIDIA_TF32_OVERRIDE", *onednn)  # oneDNN reads its variables with either prefix
    for name in (*expected, "ACCELERATE_MIXED_PRECISION", "DNNL_VERBOSE"):
        monkeypatch.setenv(name, "1")
    machine = machine_of("cpu", "torch", 1, None)
    assert machine["variables"] == dict.fromkeys(expected, "1")
    assert machine["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


def test_why_a_kernel_is_missing_is_recorded_and_not_compared() -> None:
    def compared(then: str, now: str) -> tuple[str, ...]:
        one, other = {"losses": then}, {"losses": now}
        assert bool(differing_origins(scored(machine=one), scored(machine=other))) == bool(compare_machines(one, other))
        return compare_machines(one, other)

    missing = "closed form in torch, no fused kernel: /job-1 cannot be used; pip install 'empathy-kit[gpu]'"
    off, own = "closed form in torch: fused kernels are off", "; EX, IP by their own code"
    assert machine_of("cpu", missing, 1, None)["losses"] == missing
    assert compared(off, missing) == compared(off + own, missing + own) == ()
    assert compared("their own code", missing + own) == (
        "way to compute the losses: their own code in the recorded run, closed form in torch; EX, IP by their own code now; "
        "the numbers may differ",
    )
    assert compared(missing, missing + own)
    assert compared("fused CPU kernel, AVX2", "fused CPU kernel, AVX-512")
    assert compared("fused GPU kernels, triton 3.5.0", "fused GPU kernels, triton 3.9.0")
    assert compared(missing, f"{missing}, then fused CPU kernel, AVX2")


def recorded(folder: Path, to: Path, settings: dict[str, Any], machine: dict[str, Any]) -> Path:
    """The run's record with other settings and another machine."""
    content = read_json(folder)
    content["config"].update(settings)
    content["machine"].update(machine)
    to.write_text(json.dumps(content), encoding="utf-8")
    return to
