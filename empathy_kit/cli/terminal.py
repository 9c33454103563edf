"""The terminal: the one place where the command line prints, whatever others wrote and whatever a terminal lacks."""

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

LONGEST = 400  # characters of one word of a message: a path may have as many, a number hardly
STAND_INS = {"█": "#", "…": ".", "±": "+-"}  # for what the kit prints itself; of one width where tables must stay straight


class Unprinted(KitError):  # noqa: N818 - a KitError like any other
    """Standard output cannot be written: its disk is full, or its reader has gone."""


@contextmanager
def opened() -> Iterator[None]:
    """Both streams as whatever prints meanwhile needs them, whether click, rich or this module.

    What their encoding lacks is replaced. A stream that is closed takes everything. Stderr drops what it cannot write: no run
    ends because its progress cannot be shown. Stdout raises `Unprinted`.
    """
    codecs.register_error("empathy_kit", _replaced)
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _Stream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(STAND_INS.get(sign) or sign.encode("unicode_escape").decode() for sign in signs), error.end


class _Stream:
    """A stream that can be written, or says so."""

    def __init__(self, stream: TextIO | None) -> None:
        if stream is None:  # or the next file that is opened would have its number, and hold what others print
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the process ends
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="empathy_kit")
        self._stream, self._required, self._fault = stream, stream is sys.stdout, ""

    def write(self, text: str) -> int:
        with self._said():
            self._stream.write(text)
        return len(text)

    def write_utf8(self, text: str) -> None:
        with self._said():
            self._stream.buffer.write(text.encode())
            self._stream.buffer.flush()

    def flush(self) -> None:
        with self._said():
            self._stream.flush()

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._fault = error.strerror or type(error).__name__
            # What is left of its text goes nowhere, or Python would stumble over it once more as it ends.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
        if self._fault and self._required:  # each time: click tries whether a stream can be written, and takes no notice
            raise Unprinted(f"stdout: cannot be written: {self._fault}")

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # click would write past this to what has the encoding ASCII
            raise AttributeError(name)
        return getattr(self._stream, name)


@contextmanager
def kept(what: str) -> Iterator[None]:
    """For the results of finished work, which is there whether or not they can be printed.

    Raises:
        Unprinted: they cannot; the message tells where the work is.
    """
    try:
        yield
    except Unprinted as error:
        raise Unprinted(f"{error}; {what}") from None


def line(text: str) -> None:
    """Print one line of a result."""
    click.echo(visible(text))


def lines(text: str) -> None:
    """Print text that has lines of its own: a docstring, a traceback."""
    for each in text.split("\n"):
        line(each)


def wrapped(text: str, indent: str) -> None:
    """Print text that is broken between words, so that it fits the terminal and at most 100 columns."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    lines(textwrap.fill(visible(text), width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False))


def content(found: Any) -> None:
    """Print JSON, for a program: one line of ASCII."""
    line(json.dumps(found, allow_nan=False))


def utf8(text: str) -> None:
    """Print lines for a program as they are, in UTF-8 whatever the terminal's encoding."""
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
    """Print what the user can mend: one line on stderr, without most of a value of thousands of digits."""
    remark(re.sub(rf"(\S{{60}})\S{{{LONGEST - 80},}}(\S{{20}})", r"\1...\2", f"Error: {text}"))
