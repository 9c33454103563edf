"""Where the CPU's kernel comes from, what happens where there is none, and who chooses it."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from exactness import exact, value_and_gradient

from empathy_kit.core import kernels
from empathy_kit.core.losses.focal import FocalLoss, focal
from empathy_kit.core.objective import Objective
from empathy_kit.errors import KitError

CPU = torch.device("cpu")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache without a kernel; what is loaded here is forgotten afterwards."""
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(tmp_path / "cache"))
    kernels.find.cache_clear()
    yield tmp_path
    kernels.find.cache_clear()


def reported(reason: str) -> None:
    """The fallback is visible, and right."""
    assert kernels.status(CPU) == f"closed form in torch, no fused kernel: {reason}"
    logits, target = torch.randn(9, 3), torch.arange(9) % 3
    _, gradient = value_and_gradient(lambda z: focal(z, target, 2.0), logits)
    torch.testing.assert_close(gradient.double(), exact(logits, target, 2.0)[1], rtol=1e-4, atol=1e-6)


def test_without_a_compiler_it_reports_so_and_continues(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.delenv("CC", raising=False)
    reported("no C compiler (cc, gcc or clang)")


def compiler(folder: Path, script: str) -> str:
    """A compiler of our own."""
    path = folder / "our-cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def test_a_compiler_that_cannot_is_named_with_what_it_said(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cc = compiler(fresh, "echo 'focal.c:1: error: too old' >&2; exit 1")
    monkeypatch.setenv("CC", cc)
    reported(f"{cc} cannot compile the kernel: too old")
    assert list((fresh / "cache" / "kernels").iterdir()) == []


def quick(folder: Path, sed: str = "") -> str:
    """The machine's own, told to hurry, and perhaps to read another source."""
    real = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return compiler(folder, f"""sed "{sed}" | exec {real} "$@" -Og -DEMPATHY_KIT_NO_CLONES""")


def test_a_kernel_with_other_numbers_is_not_used(fused: kernels.Kernel, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", quick(fresh, "s/0.693359375f/0.593359375f/"))
    reported("fused CPU kernel, plain: it gives other numbers than the formula")


def test_a_kernel_is_checked_wherever_it_is_first_asked_for(fused: kernels.Kernel) -> None:
    with torch.inference_mode():
        assert kernels.is_right(fused, CPU)
    with torch.no_grad():
        assert kernels.is_right(fused, CPU)


@pytest.mark.parametrize("wrong", ["s/gamma \\* qg \\* ratio/0.0f/", "s/target = -scale \\* so/target = -scale/"])
def test_a_kernel_with_another_gradient_is_not_used(
    fused: kernels.Kernel, fresh: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("CC", quick(fresh, wrong))
    reported("fused CPU kernel, plain: it gives other numbers than the formula")


def test_another_library_is_reported(fused: kernels.Kernel, fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", quick(fresh, "s/empathy_kit_focal_mean/another_function/"))
    reason = kernels.find(CPU)
    assert isinstance(reason, str)
    assert reason.endswith("undefined symbol: empathy_kit_focal_mean")


def test_a_cache_that_cannot_be_written_is_reported(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "file").write_text("no folder")
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(fresh / "file"))
    reported(f"{fresh / 'file' / 'kernels'} cannot be used: Not a directory")


def test_it_is_built_once_and_anew_only_where_it_was_damaged(
    fused: kernels.Kernel, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A truncated library would kill the process that loads it, a changed one could give any number."""
    monkeypatch.setenv("CC", quick(fresh))
    folder = fresh / "cache" / "kernels"
    folder.mkdir(parents=True)
    left = folder / ".focal-0.so.partial-00000000"  # by a process that was killed
    left.mkdir()
    (left / ".lock").touch()
    assert kernels.status(CPU) == "fused CPU kernel, plain"
    (library,) = folder.iterdir()
    assert library.stat().st_mode & 0o077 == 0
    whole, built = library.read_bytes(), library.stat().st_mtime_ns
    for content in (whole, whole[: len(whole) // 2]):
        library.unlink()  # what is loaded is mapped: it is not written over
        library.write_bytes(content)
        library.chmod(0o600)
        os.utime(library, ns=(built, built))
        kernels.find.cache_clear()
        assert kernels.status(CPU) == "fused CPU kernel, plain"
        (library,) = folder.iterdir()
        assert (library.stat().st_mtime_ns == built) == (content == whole)
    library.chmod(library.stat().st_mode | stat.S_IWOTH)
    kernels.find.cache_clear()
    reported(f"{library} can be written by others")


def test_the_machines_own_kernel_says_which_path_it_takes(fused: kernels.Kernel) -> None:
    assert kernels.status(CPU) in {f"fused CPU kernel, {path}" for path in ("AVX-512", "AVX2", "plain")}
    with kernels.fused("off"):
        assert kernels.status(CPU) == "closed form in torch: fused kernels are off"


def test_where_kernels_are_required_a_device_without_any_is_refused(fused: kernels.Kernel) -> None:
    required = Objective({"ER": FocalLoss(2.0)}, fused="on")
    assert required.status(CPU, {"ER": 3}) == fused.name
    with pytest.raises(KitError, match=r"^fused on: no fused kernel for meta: none is written for meta; expected one, or auto$"):
        required.status(torch.device("meta"), {"ER": 3})


def test_what_one_thread_chooses_is_its_own(fused: kernels.Kernel) -> None:
    """Each leaves its choice while the other still is in its own."""
    logits, target = torch.zeros(2, 3), torch.tensor([0, 1])
    meet = threading.Barrier(2, timeout=60)

    def choose(choice: kernels.Choice) -> tuple[kernels.Use, kernels.Choice]:
        with kernels.fused(choice) as use:
            meet.wait()
            focal(logits, target)
            meet.wait()
        focal(logits, target)
        return use, kernels.choice()

    with ThreadPoolExecutor(2) as pool:
        on, off = pool.map(choose, ("on", "off"))
    assert on == (kernels.Use("on", calls=1, fused=1), "auto")
    assert off == (kernels.Use("off", calls=1, fused=0), "auto")


# Ctrl-C is ignored by what a shell has begun in the background, the tests among it, and by what they begin. The package's own
# module, which imports torch, is left out.
COMPILING = """
import signal, sys
from importlib.util import find_spec, module_from_spec
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.modules["empathy_kit.core.kernels"] = module_from_spec(find_spec("empathy_kit.core.kernels"))
from empathy_kit.core.kernels import build
build.built()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_ended_leaves_no_compiler_and_nothing_that_the_next_one_does_not_sweep(
    fused: kernels.Kernel, fresh: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    slow = 'test -n "$TMPDIR" && echo $$ >$TMPDIR/half; sleep 60 & echo $! >>$TMPDIR/half; wait; exit 1'
    monkeypatch.setenv("CC", compiler(fresh, slow))
    folder = fresh / "cache" / "kernels"
    with subprocess.Popen([sys.executable, "-c", COMPILING], stderr=subprocess.DEVNULL) as building:
        latest = time.monotonic() + 60
        while not (begun := [path.read_text().split() for path in folder.glob(".*/half")]) or len(begun[0]) < 2:
            if time.monotonic() > latest:
                building.kill()  # or leaving this block would wait for it
                pytest.fail("the compiler was not begun within a minute")
            time.sleep(0.05)
        building.send_signal(number)
    pids = [int(pid) for pid in begun[0]]
    if number == signal.SIGINT:
        assert [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()] == []
        assert list(folder.iterdir()) == []
    else:  # nobody was left to end it
        os.killpg(pids[0], signal.SIGKILL)
        assert len(list(folder.iterdir())) == 1
    monkeypatch.setenv("CC", quick(fresh))
    assert kernels.status(CPU) == "fused CPU kernel, plain"
    assert [path.suffix for path in folder.iterdir()] == [".so"]
