"""All printing of the command line: safe with untrusted text and with any encoding of the terminal."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import click

from empathy_kit.errors import KitError, visible

LONGEST = 400  # characters of one word in a message: longer than most paths and most numbers
STAND_INS = {"█": "#", "…": ".", "±": "+-"}  # for the kit's own characters; one column wide where they stand in tables


class Unprinted(KitError):  # noqa: N818 - a KitError like any other
    """Standard output cannot be written: the disk is full, or the pipe is closed."""


@contextmanager
def opened() -> Iterator[None]:
    """Wrap stdout and stderr for everything that prints meanwhile: click, rich and this module.

    Characters that the encoding lacks are replaced. Stderr drops what it cannot write, so that no run ends because of its
    progress lines. Stdout raises `Unprinted`, also where it is closed.
    """
    codecs.register_error("empathy_kit", _replaced)
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Stream(sys.stdout, required=True))
    sys.stderr = cast(TextIO, _Stream(sys.stderr, required=False))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _closed() -> TextIO:
    """What stands for a closed stream until the process ends: nothing can be written to it.

    It has a descriptor, or the next file to be opened would get that of the closed stream, and what others print.
    """
    reading = os.open(os.devnull, os.O_RDONLY)
    return cast(TextIO, os.fdopen(reading, "w", encoding="utf-8"))


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(STAND_INS.get(sign) or sign.encode("unicode_escape").decode() for sign in signs), error.end


class _Stream:
    """A stream whose faults are handled as `opened` describes."""

    def __init__(self, stream: TextIO | None, *, required: bool) -> None:
        if stream is None:
            stream = _closed()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="empathy_kit")
        self._stream, self._required, self._fault = stream, required, ""

    def write(self, text: str) -> int:
        with self._handled():
            self._stream.write(text)
        return len(text)

    def write_utf8(self, text: str) -> None:
        with self._handled():
            self._stream.buffer.write(text.encode())
            self._stream.buffer.flush()

    def flush(self) -> None:
        with self._handled():
            self._stream.flush()

    @contextmanager
    def _handled(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._fault = error.strerror or type(error).__name__
            # Discard the buffered text, or Python would fail on it again at exit.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
        if self._fault and self._required:  # every time: click probes whether a stream can be written, and ignores the error
            raise Unprinted(f"stdout: cannot be written: {self._fault}")

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click would bypass this object where the encoding is ASCII
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def kept(what: str) -> Iterator[None]:
    """For printing the results of finished work, which is kept even if they cannot be printed.

    Raises:
        Unprinted: they cannot be printed; the message names where the work is.
    """
    try:
        yield
    except Unprinted as error:
        raise Unprinted(f"{error}; {what}") from None


def line(text: str) -> None:
    """Print one line of a result."""
    click.echo(visible(text))


def lines(text: str) -> None:
    """Print text of several lines: a docstring, a traceback."""
    for each in text.split("\n"):
        line(each)


def wrapped(text: str, indent: str) -> None:
    """Print text that is broken between words, so that it fits the terminal and at most 100 columns."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    lines(textwrap.fill(visible(text), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


def content(found: Any) -> None:
    """Print JSON for another program: one line of ASCII."""
    line(json.dumps(found, allow_nan=False))


def utf8(text: str) -> None:
    """Print lines for another program unchanged, in UTF-8 whatever the terminal's encoding."""
    stream: Any = sys.stdout
    if isinstance(stream, _Stream):
        stream.write_utf8(text)
    else:  # outside `opened`
        stream.buffer.write(text.encode())
        stream.buffer.flush()


def remark(text: str) -> None:
    """Print one line on stderr."""
    click.echo(visible(text), err=True)


def fault(text: str) -> None:
    """Print an error that the user can fix: one line on stderr, with very long values shortened."""
    remark(re.sub(rf"(\S{{60}})\S{{{LONGEST - 80},}}(\S{{20}})", r"\1...\2", f"Error: {text}"))
