"""The cells of one row: posts, labels, ids and quotes, each read by one rule and blamed by file, row and column."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from empathy_kit.data.pairs import unescape
from empathy_kit.data.schema import MISSING, TaskSchema, as_number
from empathy_kit.errors import KitError, shown

MAX_CELL = 100_000
"""The most characters a cell may hold. The longest real reply has a tenth of that; a longer cell has a broken quote."""

MAX_SPANS = 100
"""The most spans a cell may hold. The real data's fullest has six."""

# Words for "nothing here" that other tools write, in lower case. Read as an id, "nan" would be one seeker with many posts.
_NO_TEXT = frozenset({"na", "n/a", "nan", "none", "null", "\\n", "<na>", "#n/a"})
_NO_VALUE = _NO_TEXT | {"-", "?", "[deleted]", "[removed]"}

_SHOWN = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{1,3})?")  # what a message may show: a short number is not a post
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_ROUNDED = re.compile(r"[0-9](?:\.[0-9]+)?[eE]\+[0-9]+")
_SHORT = 100  # characters of an id, far below what a cell may hold
_EXACT = 2**53  # from here on a float skips whole numbers
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Blank to the eye though neither white space nor a control or format character.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f") | {chr(sign) for sign in range(0xFE00, 0xFE10)}
_KINDS = {bool: "a boolean", int: "a number", float: "a number", list: "a list", tuple: "a list", dict: "an object"}


class LabelReader:
    """What a task's cells may hold, looked up by text, by number and as a truth value."""

    def __init__(self, task: TaskSchema) -> None:
        self._texts = {label: level for level, label in enumerate(task.labels)}
        numbers = ((as_number(label), level) for level, label in enumerate(task.labels))
        self._numbers = {number: level for number, level in numbers if number is not None}
        folded = [label.casefold() for label in task.labels]
        self._truths = {word: folded.index(word) for word in ("true", "false") if folded.count(word) == 1}
        self._folded = frozenset(folded)
        self._expected = _listed(task.labels)

    def level(self, value: object) -> int | None:
        """The position of a cell's label; MISSING where the cell is empty, None where it is not a label."""
        if type(value) is str and value in self._texts:  # nearly every cell
            return self._texts[value]
        if is_missing(value):
            return MISSING
        if isinstance(value, bool):
            return self._truths.get(str(value).lower())
        if isinstance(value, int | Decimal):
            return self._numbers.get(Decimal(value))
        if isinstance(value, float):
            value = repr(value)
        if not isinstance(value, str):
            return None
        text = value.strip()
        if not text:
            return MISSING
        level = self._texts.get(text)
        if level is None and not text.isascii():
            level = self._texts.get(unicodedata.normalize("NFC", text))
        if level is None:
            level = self._truths.get(text.casefold())
        if level is None:
            number = as_number(text)  # "1.0" for label "1": pandas writes that where a column has gaps
            level = None if number is None else self._numbers.get(number)
        return level

    def fault(self, value: object) -> str:
        """What is wrong with a cell that is not a label. Where columns are shifted it may be a post, so it is not shown."""
        short = type(value) is float or (type(value) is int and abs(value) < 1000)  # str() of a huge one raises
        text = value.strip() if isinstance(value, str) else str(value) if short else ""
        if _SHOWN.fullmatch(text):
            shown = text
        elif not isinstance(value, str):
            shown = _kind(value)
        elif text.casefold() in self._folded:
            shown = repr(text)
        elif text.casefold() in _NO_VALUE:
            return f"{text!r} found, expected {self._expected}, or an empty cell where the label is missing"
        else:
            shown = _kind(text)
        return f"{shown} found, expected {self._expected}"


def _listed(labels: tuple[str, ...]) -> str:
    """Labels as a message lists them: the first ten, in quotation marks where they are not plain words."""
    plain = all(re.fullmatch(r"[\w.+-]+", label) for label in labels)
    shown = [label if plain else repr(label) for label in labels[:10]]
    if len(labels) > 10:
        return f"{', '.join(shown)} or one of {len(labels) - 10} more"
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


def _kind(value: object) -> str:
    """What a cell is, without showing it."""
    if isinstance(value, str):
        return f"text of {len(value):,} character{'s' * (len(value) != 1)}"
    return _KINDS.get(type(value), f"a {type(value).__name__}")


@dataclass(frozen=True)
class Row:
    """One row of a table; raises with file, row and column where a cell is not what it should be."""

    file: str
    number: int  # from 1; the header is not counted
    cells: Mapping[str, Any] = field(repr=False)

    def error(self, column: str, problem: str) -> KitError:
        """A fault of one cell, in one line."""
        return KitError(f"{self.file}, row {self.number}, column {column!r}: {problem}")

    def text(self, column: str) -> str:
        """A cell's text, unchanged; empty where it is missing."""
        value = self.cells.get(column)
        return "" if is_missing(value) else self._checked(column, value)

    def _checked(self, column: str, value: object) -> str:
        fault = not_text(value)
        if fault:
            raise self.error(column, fault)
        return str(value)

    def post(self, column: str) -> str:
        """A post: text that a reader can see, entities resolved."""
        given = self.cells.get(column)
        if type(given) is str and given.isascii() and " " < given[:1] <= "~" and "&" not in given and not_text(given) is None:
            return given  # nearly all: what follows would change nothing
        value = "" if is_missing(given) else given
        fault = not_post(value)
        if fault:
            raise self.error(column, fault)
        return unescape(str(value))

    def label(self, column: str, labels: LabelReader) -> int:
        """A label's position, or MISSING."""
        value = self.cells.get(column)
        level = labels.level(value)
        if level is None:
            raise self.error(column, labels.fault(value))
        return level

    def identifier(self, column: str) -> str:
        """An id: text, or a whole number however it is written (12, 12.0 and "12.0" are one); empty where it is missing."""
        value = self.cells.get(column)
        if type(value) is str and value.isalnum() and value.isascii() and len(value) <= _SHORT and value.lower() not in _NO_VALUE:
            return value  # nearly all: what follows would change nothing
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and not is_missing(value):
            # A whole number may be too large for isfinite; JSON has given it up to the digits that str() can write.
            if not isinstance(value, int) and (not math.isfinite(value) or value != int(value)):
                raise self.error(column, "a number with a fraction found, expected text or a whole number")
            if isinstance(value, float) and abs(value) >= _EXACT:
                raise self.error(column, "a rounded number found, expected all digits; save the column as text")
            return str(int(value))
        text = self.text(column).strip()
        if not text:
            return ""
        if text.casefold() in _NO_VALUE:
            raise self.error(column, f"{text!r} found, expected an id, or an empty cell where it is missing")
        if _ROUNDED.fullmatch(text):
            raise self.error(column, "a rounded number found, expected all digits; save the column as text")
        whole = _WHOLE.fullmatch(text)
        return whole[1] if whole else text

    def quotes(self, column: str) -> list[str]:
        """Annotated spans: a list of text, also one that was saved as text, or text with ``|`` between the spans."""
        value = self.cells.get(column)
        if value is None or value == "":  # most cells
            return []
        if isinstance(value, list | tuple):
            quotes = list(value)
        else:
            text = self.text(column)
            if text.strip().casefold() in _NO_TEXT:
                raise self.error(column, f"{text.strip()!r} found, expected quotes, or an empty cell for none")
            listed = _read_list(text)
            if listed is None and _in_another_form(text.strip()):
                raise self.error(column, "a list in another form found, expected a JSON list, or text with | between the quotes")
            quotes = text.split("|") if listed is None else listed
        if len(quotes) > MAX_SPANS:
            raise self.error(column, f"{len(quotes):,} spans found, expected at most {MAX_SPANS}")
        if not all(isinstance(quote, str) for quote in quotes):
            raise self.error(column, "a list of other things found, expected a list of text")
        return [self._checked(column, quote) for quote in quotes]

    def refuse_quotes(self, column: str, quotes: list[str], label: str) -> None:
        """Refuse evidence for a task's lowest label, which has none."""
        if any(quote.strip() for quote in quotes):
            raise self.error(column, f"a span found, expected none where the label is {shown(label)}, the lowest")


def not_text(value: object) -> str | None:
    """Why a cell is no text that the kit reads; None where it is."""
    if not isinstance(value, str):
        return f"{_kind(value)} found, expected text"
    if len(value) > MAX_CELL:
        return f"{len(value):,} characters found, expected at most {MAX_CELL:,}"
    if "\0" in value:
        return "a NUL byte found, expected text"
    if not value.isascii() and _SURROGATE.search(value):  # JSON can spell one, and no tokenizer takes it
        return "half a surrogate pair found, expected text"
    return None


def not_post(value: object) -> str | None:
    """Why a cell is no post, which is text that holds something a reader can see, entities resolved; None where it is."""
    fault = not_text(value)
    if fault:
        return fault
    post = unescape(str(value))
    text = post.strip()
    if not text:
        return "empty, expected a post"
    if " " < text[0] <= "~":  # nearly all
        return None
    return "only invisible characters found, expected a post" if all(_invisible(sign) for sign in post) else None


def is_missing(value: object) -> bool:
    """Whether it stands for a missing value: None, NaN, and pandas' NA and NaT."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in ("NAType", "NaTType")


def _invisible(sign: str) -> bool:
    return sign.isspace() or sign in _BLANK or unicodedata.category(sign) in ("Cc", "Cf")


_LITERAL = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_BETWEEN = re.compile(r"\s*,?\s*")
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U(000[0-9a-fA-F]{5}|0010[0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def _read_list(text: str) -> list[str] | None:
    """The texts of a list that pandas, numpy or json wrote into a cell; None where the cell is not such a list.

    numpy puts no comma between them, so Python itself would read one long text there.
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list):
        return found if all(isinstance(part, str) for part in found) else None
    texts: list[str] = []
    at, end = _BETWEEN.match(text, 1).end(), len(text) - 1  # type: ignore[union-attr]  # it matches nothing, too
    while at < end:
        literal = _LITERAL.match(text, at)
        if literal is None or literal.end() > end:
            return None
        texts.append(_ESCAPE.sub(_unescaped, literal[1] if literal[1] is not None else literal[2]))
        at = _BETWEEN.match(text, literal.end()).end()  # type: ignore[union-attr]
    return texts


def _in_another_form(text: str) -> bool:
    """Whether text is a list that `_read_list` cannot read, or as Python writes a tuple or a set.

    As one quote it would be placed over everything between its parts.
    """
    if text.startswith("["):
        return text[1:].lstrip().startswith(("'", '"'))
    inside = text[1:-1].strip()
    ends = inside.removesuffix(",").rstrip()[-1:]
    # A comma after a quotation mark: ("like this") is a person's text.
    return text[:1] + text[-1:] in ("()", "{}") and {inside[:1], ends} <= {"'", '"'} and bool(re.search(r"""['"]\s*,""", inside))


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    return chr(int(code, 16)) if code else _ESCAPED.get(escape[4], escape[4])
