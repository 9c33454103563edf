"""The C kernel of focal loss: built with the machine's compiler at its first use, checked, and given up where anything is odd."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from empathy_kit.cache import cache_folder

# Not -ffast-math: it takes apart what the source is careful about, and rows come out several times too large.
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
# Wished for, and left out one by one where a compiler does not know them.
WISHES = ("-fopenmp", "-mprefer-vector-width=512")
MODES = {0.0: 0, 1.0: 1, 2.0: 2}
ANY = 3  # gamma


@dataclass(frozen=True)
class Kernel:
    """The loaded library."""

    forward: Any
    backward: Any
    path: str  # the vector extension that it uses here


@functools.cache
def load() -> Kernel | str:
    """The kernel, or why there is none. Asked once a process."""
    try:
        library = ctypes.CDLL(str(_built()))
    except (_UnavailableError, OSError) as error:
        return str(error).splitlines()[0]
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    forward, backward, path = (
        library.empathy_kit_focal_forward,
        library.empathy_kit_focal_backward,
        library.empathy_kit_focal_path,
    )
    forward.argtypes = [pointer, pointer, number, number, pointer, pointer, pointer, ctypes.c_int, ctypes.c_int]
    backward.argtypes = [pointer, pointer, number, number, *[pointer] * 3, ctypes.c_int, pointer, ctypes.c_int, ctypes.c_int]
    forward.restype = backward.restype = number
    path.restype = ctypes.c_char_p
    kernel = Kernel(forward, backward, path().decode())
    return kernel if _is_right(kernel) else "the kernel that was built gives other numbers than the formula"


def status() -> str:
    """Which way focal loss and cross-entropy take on this machine's CPU, and why."""
    found = load()
    if isinstance(found, Kernel):
        return f"fused CPU kernel, {found.path}"
    return f"closed form in torch, no fused CPU kernel: {found}"


def run_forward(kernel: Kernel, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> Tensor:
    """Losses (N,) of contiguous float32 logits (N, C), int64 targets (N,), gamma and weight (C,).

    Raises:
        ValueError: a target that is no class.
    """
    n, classes = logits.shape
    loss = torch.empty(n)
    bad = kernel.forward(
        logits.data_ptr(),
        target.data_ptr(),
        n,
        classes,
        gamma.data_ptr(),
        weight.data_ptr(),
        loss.data_ptr(),
        mode,
        torch.get_num_threads(),
    )
    if bad:
        raise ValueError(out_of_range(target, classes))
    return loss


def run_backward(kernel: Kernel, up: Tensor, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> Tensor:
    """The logits' gradient (N, C), from that of the losses (N,), which may be one number for all."""
    n, classes = logits.shape
    shared = n > 0 and up.stride(0) == 0  # as a mean's is
    up = up if shared else up.contiguous()
    gradient = torch.empty_like(logits)
    kernel.backward(
        logits.data_ptr(),
        target.data_ptr(),
        n,
        classes,
        gamma.data_ptr(),
        weight.data_ptr(),
        up.data_ptr(),
        shared,
        gradient.data_ptr(),
        mode,
        torch.get_num_threads(),
    )
    return gradient


def out_of_range(target: Tensor, classes: int) -> str:
    """What to say of targets that are no class."""
    row = int(((target < 0) | (target >= classes)).nonzero()[0])
    return f"target {int(target[row])} in row {row}: expected 0 to {classes - 1}"


class _UnavailableError(Exception):
    """There is no kernel, and this is why."""


def _built() -> Path:
    """The library's file; compiled where it is not there."""
    if sys.platform == "win32":
        raise _UnavailableError("Windows is not supported")
    if sys.byteorder != "little":
        raise _UnavailableError("this machine is not little-endian")
    source = (resources.files(__package__) / "focal.c").read_bytes()
    compiler = _compiler()
    key = hashlib.sha256(source + repr((FLAGS, WISHES, compiler, platform.machine(), platform.system())).encode()).hexdigest()
    path = cache_folder() / "kernels" / f"focal-{key[:24]}.so"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            staging = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
            _compile(compiler, source, staging)
            staging.replace(path)  # whole or not at all: loading half a library kills the process
        except OSError as error:
            raise _UnavailableError(f"{path.parent} cannot be written: {error.strerror}") from None
    found = path.stat()
    # What is loaded runs: never what somebody else may have put there.
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & 0o022:
        raise _UnavailableError(f"{path} can be written by others")
    return path


def _compiler() -> tuple[str, ...]:
    given = shlex.split(os.environ.get("CC", ""))
    if given and shutil.which(given[0]):
        return tuple(given)
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found is None:
        raise _UnavailableError("no C compiler (cc, gcc or clang)")
    return (found,)


def _compile(compiler: tuple[str, ...], source: bytes, into: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "focal.c"
        file.write_bytes(source)
        said = ""
        for wishes in (WISHES, WISHES[:1], WISHES[1:], (), ("-DEMPATHY_KIT_NO_CLONES",)):
            command = [*compiler, *FLAGS, *wishes, str(file), "-o", str(into)]
            try:
                ran = subprocess.run(  # noqa: S603 - the user's own compiler, on our own file
                    command, capture_output=True, text=True, timeout=120, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise _UnavailableError(f"{compiler[0]}: {type(error).__name__}") from None
            if ran.returncode == 0:
                into.chmod(0o600)
                return
            said = next((line for line in ran.stderr.splitlines() if "error" in line), "it failed")
        into.unlink(missing_ok=True)
        raise _UnavailableError(f"{compiler[0]} cannot compile the kernel: {said.rpartition('error: ')[2]}")


def _is_right(kernel: Kernel) -> bool:
    """Whether it agrees with the formula on a few rows, the ends among them: a compiler may be wrong too."""
    for classes in (3, 5):
        logits = torch.linspace(-9, 9, 40 * classes).mul(1.7).sin().mul(12).reshape(40, classes)
        logits[0, 0], logits[1, 1] = 1e4, -1e4
        target = torch.arange(40) % classes
        for power in (0.0, 0.5, 2.0):
            gamma, weight = torch.full((classes,), power), torch.linspace(0.5, 2, classes)
            mode = MODES.get(power, ANY)
            p = logits.double().log_softmax(1)[torch.arange(40), target]
            others = logits.double().clone()
            others[torch.arange(40), target] = -torch.inf
            q = (others.logsumexp(1) - logits.double().logsumexp(1)).exp()
            expected = weight.double()[target] * (q**power if power else 1.0) * -p
            found = run_forward(kernel, logits, target, gamma, weight, mode).double()
            if not torch.allclose(found, expected, rtol=1e-5, atol=1e-30):
                return False
            gradient = run_backward(kernel, torch.ones(40), logits, target, gamma, weight, mode)
            if not gradient.isfinite().all() or gradient.sum(1).abs().max() > 1e-4:
                return False
    return True
