"""The C kernel's library: built with the machine's compiler at first use, kept in the cache, and checked before it is loaded."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import resources
from pathlib import Path

from empathy_kit.cache import cache_folder, private_folder
from empathy_kit.files import sync, workspace

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
        private_folder(folder)
        with workspace(folder / f"{name}.so") as work:
            library = work / "focal.so"
            _compile(compiler, source, library)
            library.chmod(0o600)
            sync(library)
            return _ours(library.replace(folder / f"{name}-{_digest(library.read_bytes())}.so"))
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
        try:
            code, errors = _run([*compiler, *FLAGS, *wishes, "-x", "c", "-", "-o", str(into)], source, into.parent)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{compiler[0]}: {type(error).__name__}") from None
        if code == 0:
            return
        said = next((line for line in errors.decode(errors="replace").splitlines() if "error" in line), "it failed")
    raise UnavailableError(f"{compiler[0]} cannot compile the kernel: {said.rpartition('error: ')[2]}")


def _run(command: list[str], source: bytes, work: Path) -> tuple[int, bytes]:
    """A compiler's exit code and errors. It ends with this call, and with it the programs that it has started."""
    process = subprocess.Popen(  # noqa: S603 - the user's own compiler, on our own file
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(work)},  # so that its temporary files, too, are swept where this process is killed
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(source, timeout=600)  # 15 s where nothing else runs
    except BaseException:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, errors
