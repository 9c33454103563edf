"""The C kernel of focal loss: built with the machine's compiler at its first use, checked, and given up where anything is odd."""

from __future__ import annotations

import ctypes
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
SIMD = ("-fopenmp-simd",)  # vectors without threads, where a compiler has no OpenMP library
NOTHING = torch.empty(0)  # is kept for the backward pass


@dataclass(frozen=True)
class Library:
    """The compiled kernel. It takes contiguous float32 logits, and shares out many rows among torch's threads."""

    run_forward: Any
    run_backward: Any
    run_mean: Any
    name: str
    heads: bool = False

    def takes(self, logits: Tensor) -> bool:
        """Float32 alone: the other types are computed by torch, in float32."""
        return logits.dtype == torch.float32

    def forward(self, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int) -> tuple[Tensor, Tensor]:
        """Losses (N,). One head: gamma and weight are (C,).

        Raises:
            ValueError: a target that is no class, a negative gamma or weight.
        """
        n, classes = logits.shape
        loss = logits.new_empty(n)
        bad = self.run_forward(
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
            raise ValueError(out_of_range(target, classes) if bad == 1 else negative(gamma, weight))
        return loss, NOTHING

    def ahead(self) -> Library:
        """Itself: here the gradient is made in the backward pass."""
        return self

    def backward(
        self,
        up: Tensor,
        logits: Tensor,
        target: Tensor,
        gamma: Tensor,
        weight: Tensor,
        kept: Tensor,  # noqa: ARG002 - nothing
        mode: int,
    ) -> Tensor:
        """The logits' gradient (N, C)."""
        n, classes = logits.shape
        shared = n > 0 and up.stride(0) == 0  # as a mean's is
        up = up if shared else up.contiguous()
        gradient = torch.empty_like(logits)
        self.run_backward(
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

    def mean(
        self, logits: Tensor, target: Tensor, gamma: Tensor, weight: Tensor, mode: int, *, gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The mean of the losses, and its gradient (N, C) in the same reading of the logits where it is wanted.

        Raises:
            ValueError: as `forward`.
        """
        if not gradient:
            return self.forward(logits, target, gamma, weight, mode)[0].mean(), None
        n, classes = logits.shape
        mean, slope = logits.new_empty(()), torch.empty_like(logits)
        bad = self.run_mean(
            logits.data_ptr(),
            target.data_ptr(),
            n,
            classes,
            gamma.data_ptr(),
            weight.data_ptr(),
            mean.data_ptr(),
            slope.data_ptr(),
            mode,
            torch.get_num_threads(),
        )
        if bad:
            raise ValueError(out_of_range(target, classes) if bad == 1 else negative(gamma, weight))
        return mean, slope


def load() -> Library | str:
    """The kernel, or why there is none."""
    try:
        library = ctypes.CDLL(str(_built()))
    except (_UnavailableError, OSError) as error:
        return str(error).splitlines()[0]
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    forward, backward, mean, path = (
        library.empathy_kit_focal_forward,
        library.empathy_kit_focal_backward,
        library.empathy_kit_focal_mean,
        library.empathy_kit_focal_path,
    )
    forward.argtypes = [pointer, pointer, number, number, pointer, pointer, pointer, ctypes.c_int, ctypes.c_int]
    backward.argtypes = [pointer, pointer, number, number, *[pointer] * 3, ctypes.c_int, pointer, ctypes.c_int, ctypes.c_int]
    mean.argtypes = [pointer, pointer, number, number, *[pointer] * 4, ctypes.c_int, ctypes.c_int]
    forward.restype = backward.restype = mean.restype = number
    path.restype = ctypes.c_char_p
    return Library(forward, backward, mean, f"fused CPU kernel, {path().decode()}")


def out_of_range(target: Tensor, classes: int) -> str:
    """What to say of targets that are no class."""
    row = int(((target < 0) | (target >= classes)).nonzero()[0])
    return f"target {int(target[row])} in row {row}: expected 0 to {classes - 1}"


def negative(gamma: Tensor, weight: Tensor) -> str:
    """What to say of a gamma or weight that is below 0, or no number."""
    name, values = ("gamma", gamma) if not bool((gamma >= 0).all()) else ("weight", weight)
    return f"{name} is {values.tolist()}, expected 0 or more for every class"


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
        for wishes in (WISHES, WISHES[:1], (*SIMD, *WISHES[1:]), SIMD, (), ("-DEMPATHY_KIT_NO_CLONES",)):
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
