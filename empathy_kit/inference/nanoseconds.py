"""Values of an Arrow column, nanoseconds included: the same whether pandas is installed or not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Nanoseconds:
    """A moment, a time of day or a duration that Python's own values, which end at microseconds, cannot hold."""

    value: int  # as Arrow has it
    text: str

    def __index__(self) -> int:  # by which Arrow takes it back
        return self.value

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Unheld:
    """A value that Python cannot hold, such as a date after the year 9999, or text that is not UTF-8."""

    error: str  # the kind of error that it is


def cells_of(column: Any) -> list[Any]:
    """The values of an Arrow array, with `Unheld` for each that cannot be had."""
    import pyarrow

    try:
        return values(column)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        if len(column) == 1:
            return [Unheld(type(error).__name__)]
    return [cell for at in range(len(column)) for cell in cells_of(column.slice(at, 1))]


def values(column: Any) -> list[Any]:
    """The values of an Arrow array.

    By itself pyarrow returns nanoseconds as pandas' values. Where pandas is missing, it refuses those that microseconds cannot
    hold.
    """
    from pyarrow import types

    kind = column.type
    found: list[Any]
    if "[ns" not in str(kind):
        found = column.to_pylist()
    elif types.is_struct(kind):
        names = [kind.field(at).name for at in range(kind.num_fields)]
        rows = zip(*(values(column.field(at)) for at in range(kind.num_fields)), strict=True)
        valid = column.is_valid().to_pylist()
        found = [dict(zip(names, row, strict=True)) if there else None for row, there in zip(rows, valid, strict=True)]
    elif types.is_map(kind):
        found = [None if each.values is None else [tuple(pair.values()) for pair in values(each.values)] for each in column]
    elif types.is_nested(kind):  # a list
        found = [None if each.values is None else values(each.values) for each in column]
    else:
        found = _times(column)
    return found


def _times(column: Any) -> list[Any]:
    import pyarrow

    kind = column.type
    if pyarrow.types.is_timestamp(kind):
        coarse = pyarrow.timestamp("us", tz=kind.tz)
    else:
        coarse = pyarrow.duration("us") if pyarrow.types.is_duration(kind) else pyarrow.time64("us")
    exact = column.cast(pyarrow.int64()).to_pylist()
    rough = pyarrow.array([None if each is None else each // 1000 for each in exact], type=coarse).to_pylist()
    return [
        whole if each is None or each % 1000 == 0 else Nanoseconds(each, _text(whole, each % 1000))
        for each, whole in zip(exact, rough, strict=True)
    ]


def _text(whole: object, rest: int) -> str:
    """A time as Python writes it, with nine digits after the seconds."""
    return re.sub(r"(:\d\d:\d\d)(\.\d{6})?", lambda found: f"{found[1]}{found[2] or '.000000'}{rest:03d}", str(whole), count=1)
