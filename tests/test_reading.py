"""What is read is a file: a pipe, a device and a folder are refused at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from empathy_kit.reading import read_regular


def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(os.devnull)
    for name, reason in (("pipe", "not a regular file"), ("link", "not a regular file"), ("", "Is a directory")):
        with pytest.raises(OSError, match=reason) as error:
            read_regular(tmp_path / name)
        assert (error.value.strerror, error.value.filename) == (reason, str(tmp_path / name))
    (tmp_path / "file").write_text("a hug")
    (tmp_path / "other").symlink_to("file")
    assert read_regular(tmp_path / "other") == b"a hug"
