"""Open a file that a user names or that others have made: a folder, a pipe or a device is none."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # or a pipe would wait for a writer


def open_regular(path: Path) -> BufferedReader:
    """Open a file to read its bytes; a folder, a pipe or a device, which may have no end, is refused.

    Raises:
        OSError: it cannot be opened, or it is not a regular file.
    """
    descriptor = os.open(path, _FLAGS)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path) -> bytes:
    """The bytes of a file, as `open_regular` opens it.

    Raises:
        OSError: it cannot be read, or it is not a regular file.
    """
    with open_regular(path) as stream:
        return stream.read()
