"""The C kernel's library: built with the machine's compiler at first use, kept in the cache, and checked before it is loaded."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

from empathy_kit.cache import cache_folder, sweep
from empathy_kit.files import staging_name, sync

# Not -ffast-math: it takes apart what the source is careful about, and rows come out several times too large.
FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
# Wished for, and left out one by one where a compiler does not know them.
WISHES = ("-fopenmp", "-mprefer-vector-width=512")
SIMD = ("-fopenmp-simd",)  # vectors without threads, where a compiler has no OpenMP library


class UnavailableError(Exception):
    """Why no kernel can be used."""


def built() -> Path:
    """The library's file; compiled where it is missing or damaged.

    Its name holds the digest of what it was made from, and that of its bytes: loading a part of a library kills the process.

    Raises:
        UnavailableError: no kernel can be built.
    """
    if sys.platform == "win32":
        raise UnavailableError("Windows is not supported")
    if sys.byteorder != "little":
        raise UnavailableError("this machine is not little-endian")
    source = (resources.files(__package__) / "focal.c").read_bytes()
    compiler = _compiler()
    made_from = source + repr((FLAGS, WISHES, compiler, platform.machine(), platform.system())).encode()
    name = f"focal-{_digest(made_from)}"
    folder = cache_folder() / "kernels"
    try:
        for path in folder.glob(f"{name}-*.so"):
            if path.name == f"{name}-{_digest(path.read_bytes())}.so":
                return _ours(path)
            path.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(folder)
        staging = staging_name(folder / f"{name}.so")
        try:
            _compile(compiler, source, staging)
            staging.chmod(0o600)
            sync(staging)
            return _ours(staging.replace(folder / f"{name}-{_digest(staging.read_bytes())}.so"))
        finally:
            staging.unlink(missing_ok=True)
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be used: {error.strerror}") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]


def _ours(path: Path) -> Path:
    """What is loaded runs: never what somebody else may have put there."""
    found = path.stat()
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & 0o022:
        raise UnavailableError(f"{path} can be written by others")
    return path


def _compiler() -> tuple[str, ...]:
    given = shlex.split(os.environ.get("CC", ""))
    if given and shutil.which(given[0]):
        return tuple(given)
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found is None:
        raise UnavailableError("no C compiler (cc, gcc or clang)")
    return (found,)


def _compile(compiler: tuple[str, ...], source: bytes, into: Path) -> None:
    said = ""
    for wishes in (WISHES, WISHES[:1], (*SIMD, *WISHES[1:]), SIMD, (), ("-DEMPATHY_KIT_NO_CLONES",)):
        # Through a pipe: a process that is killed leaves no source behind.
        command = [*compiler, *FLAGS, *wishes, "-x", "c", "-", "-o", str(into)]
        try:
            ran = subprocess.run(  # noqa: S603 - the user's own compiler, on our own file
                command, input=source, capture_output=True, timeout=120, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{compiler[0]}: {type(error).__name__}") from None
        if ran.returncode == 0:
            return
        said = next((line for line in ran.stderr.decode(errors="replace").splitlines() if "error" in line), "it failed")
    raise UnavailableError(f"{compiler[0]} cannot compile the kernel: {said.rpartition('error: ')[2]}")
