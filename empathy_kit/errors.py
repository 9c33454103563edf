"""The exception that means "the user can fix this", how what others wrote stands in its messages, and Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_JOINERS = "\u200c\u200d"  # not printable to Python, and part of words in Persian and Hindi
_LONGEST = 60


class KitError(Exception):
    """A fault that the user can fix, in one line: what is wrong, what was expected, what exists.

    The command line prints it without a traceback and ends with exit code 2. Any other exception is a bug of the kit
    and keeps its traceback. A message never holds post text.
    """


class NotFinite(KitError):  # noqa: N818
    """Probabilities that are no numbers. What is made of them looks sure: the likeliest of NaN is the first label."""

    def __init__(self, task: str, wrong: int, pairs: int, first: int, to_do: str) -> None:
        """Say of how many pairs they are; ``first`` is the position of the first one among them."""
        super().__init__(task, wrong, pairs, first, to_do)
        self.what = f"{task}: the probabilities of {wrong:,} of {pairs:,} pairs are no finite numbers"
        self.first, self.to_do = first, to_do

    def __str__(self) -> str:
        return f"{self.what}; {self.to_do}"


def is_ctrl_c(error: BaseException) -> bool:
    """Whether it is a Ctrl-C, or the RuntimeError that Python before 3.12 makes of one that comes while a class is built."""
    return isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt)


def visible(text: str) -> str:
    r"""Text that others wrote, for a terminal or a page: on one line, with escapes for what would not be seen but obeyed.

    Control characters, line ends, bidirectional overrides and broken Unicode are escaped: ``\x1b[2J``, ``\u202e``.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in _JOINERS else sign.encode("unicode_escape").decode() for sign in text)


def shown(value: object) -> str:
    """A value that others wrote, for a message: quoted, short, and as `visible` makes it."""
    text = visible(repr(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


@contextmanager
def written_to(option: str, path: object, *, exists: str, kept: str = "") -> Iterator[None]:
    """Turn what the file system refuses into one line.

    Args:
        option: the flag that names the path.
        path: the file or folder that is written.
        exists: what to do where it exists.
        kept: what is not lost where it cannot be written.

    Raises:
        KitError: it exists, or cannot be written.
    """
    try:
        yield
    except FileExistsError:
        raise KitError(f"{option} {path}: already exists; {exists}") from None
    except OSError as error:
        raise KitError(f"{option} {path}: cannot be written: {error.strerror or error}{kept}") from None
