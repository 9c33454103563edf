"""Mutated tables - CSV, JSON Lines, Parquet - through both of the kit's readers, and through pandas where it can read them."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.torture.commands import expect
from benchmarks.torture.trials import Experiment
from benchmarks.torture.world import World

NAMES = ["pair_id", "seeker_id", "seeker_post", "response_post", "ER", "EX", "IP"]
MARK = "kanarienvogel"  # in every post: no message may hold it
CYRILLIC = "\u0441\u0435\u0433\u043e\u0434\u043d\u044f"
POSTS = ["I feel low", 'no calls,\n"not one"', "x < 3 &amp; y", CYRILLIC, "a\tb", "= 1 + 1", "\U0001f917", "'", "NA", "0"]
TOKENS = [
    b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\\", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b";", b"\t",
    b"NaN", b"null", b"{", b"}", b"[", b"]", b":", b"1e999", b"-0", b"0.0", b"True", b"\\ud800", b"\\u0000", b" ", b"#",
    b"'", b"1_0", b"\xd9\xa1",
]  # fmt: skip


def _table(dice: random.Random) -> list[list[Any]]:
    def post() -> str:
        return f"{dice.choice(POSTS)} {MARK} {dice.choice(POSTS)}"

    levels = [[dice.randrange(3) for _ in range(3)] for _ in range(dice.randrange(1, 6))]
    return [[at, f"s{at % 2}", post(), post(), *row] for at, row in enumerate(levels)]


def _csv(rows: list[list[Any]], dice: random.Random) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=dice.choice(["\n", "\r\n"]), quoting=dice.choice([0, 1])).writerows([NAMES, *rows])
    return out.getvalue().encode()


def _jsonl(rows: list[list[Any]], dice: random.Random) -> bytes:
    plain = dice.random() < 0.5
    return "".join(json.dumps(dict(zip(NAMES, row, strict=True)), ensure_ascii=plain) + "\n" for row in rows).encode()


def _parquet(rows: list[list[Any]], dice: random.Random) -> bytes:
    import pyarrow
    import pyarrow.parquet

    out = io.BytesIO()
    table = pyarrow.table(dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True)))
    pyarrow.parquet.write_table(table, out, compression=dice.choice(["none", "snappy", "zstd"]))
    return out.getvalue()


WRITERS: dict[str, Callable[[list[list[Any]], random.Random], bytes]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def mutated(data: bytes, dice: random.Random, tokens: list[bytes]) -> bytes:
    """Some bytes changed, left out, doubled, exchanged or put in."""
    found = bytearray(data)
    mild = dice.random() < 0.5  # one small change: more than half of these tables can still be read
    for _ in range(1 if mild else dice.choice([1, 2, 5])):
        at, end = sorted(dice.randrange(len(found) + 1) for _ in range(2))
        end = min(end, at + (1 if mild else dice.choice([1, 3, 30, 1000])))
        kind = dice.randrange(6)
        if kind == 0 and found:
            found[min(at, len(found) - 1)] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del found[at:end]
        elif kind == 2:
            found[at:at] = found[at:end]
        elif kind == 3:
            found[at:end] = dice.choice(tokens)
        elif kind == 4:
            found[at:at] = dice.choice(tokens) * dice.choice([1, 1, 2, 50])
        else:
            found[at:end] = found[at:end][::-1]
    return bytes(found)


def _read(world: World, number: int, dice: random.Random) -> str:
    from empathy_kit.data.tables import load_table
    from empathy_kit.errors import KitError

    suffix = dice.choice(list(WRITERS))
    data = mutated(WRITERS[suffix](_table(dice), dice), dice, TOKENS)
    path = world.folder / f"table-{number % 64}{suffix}"
    path.write_bytes(data)
    try:
        corpus = [(pair.seeker, pair.response, pair.levels) for pair in load_table(path).pairs]
    except KitError as error:
        _one_line(str(error))
        corpus = None
    rows = _to_predict(path)
    if corpus is not None and rows is not None:
        posts = [(_plain(seeker), _plain(response)) for seeker, response in rows]
        expect([(one, two) for one, two, _ in corpus] == posts, "the two readers of the kit disagree")
    theirs = _with_pandas(path)
    if corpus is None or theirs is None:
        return f"{suffix[1:]}: {'refused' if corpus is None else 'read, by the kit alone'}"
    if corpus != theirs:
        expect(False, f"pandas reads something else: {_first(corpus, theirs)}")
    return f"{suffix[1:]}: read, as by pandas"


def _to_predict(path: Path) -> list[tuple[str, str]] | None:
    """The rows as `predict` reads them; None where it refuses any."""
    from empathy_kit.errors import KitError
    from empathy_kit.inference.tables import Bad, Columns, PairTable

    try:
        rows = list(PairTable(path, Columns("seeker_post", "response_post", (), True)).rows())
    except KitError as error:
        _one_line(str(error))
        return None
    for row in rows:
        if isinstance(row, Bad):
            _one_line(str(row.error(path.name)))
    good = [(row.seeker, row.response) for row in rows if not isinstance(row, Bad)]
    return good if len(good) == len(rows) else None


def _with_pandas(path: Path) -> list[tuple[str, str, tuple[int, ...]]] | None:
    """The same by pandas; None where it refuses the table, or reads what is no table of pairs."""
    import warnings

    import pandas

    warnings.simplefilter("error")  # "this leads to a loss of data"
    try:
        if path.suffix == ".csv":
            frame = pandas.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
        elif path.suffix == ".jsonl":
            lines = [json.loads(line) for line in path.read_text("utf-8-sig").split("\n") if line.strip()]
            frame = pandas.DataFrame(lines)  # its own parser reads numbers with other rules
        else:
            frame = pandas.read_parquet(path)
        frame = frame.rename(columns=_known)
        levels = [[_level(value) for value in frame[name]] for name in ("ER", "EX", "IP")]
        posts = [[_plain(value) for value in frame[name]] for name in ("seeker_post", "response_post")]
        # Of two columns with one name, pandas gives both, and the lengths differ.
        return [(seeker, response, labels) for seeker, response, labels in zip(*posts, zip(*levels, strict=True), strict=True)]
    except Exception:  # of many kinds: that it cannot read it is all that counts
        return None


def _known(name: object) -> str:
    from empathy_kit.data.schema import fold

    return next((known for known in NAMES if fold(str(name)) == fold(known)), str(name))


def _level(value: object) -> int:
    from empathy_kit.data.cells import LabelReader
    from empathy_kit.data.schema import EPITOME

    found = LabelReader(EPITOME.tasks[0]).level(value)
    if found is None:
        raise ValueError("no label")
    return found


def _plain(text: object) -> str:
    from empathy_kit.data.pairs import unescape

    if not isinstance(text, str):
        raise TypeError("no text")
    return unescape(text)


def _first(ours: list[Any], theirs: list[Any]) -> str:
    if len(ours) != len(theirs):
        return f"{len(theirs)} rows, not {len(ours)}"
    return next(f"row {at + 1}: {theirs[at]!r}, not {ours[at]!r}"[:300] for at in range(len(ours)) if ours[at] != theirs[at])


def _one_line(message: str) -> None:
    expect(message.isprintable(), f"no single printable line: {message!r}")
    expect(MARK not in message, f"a post in a message: {message!r}")


EXPERIMENTS = {
    "tables": Experiment(
        _read,
        10_000,
        "mutated tables: CSV, JSON Lines and Parquet",
        "read as pandas reads them, or refused in one line that holds no post",
        inside=True,
        few=60,
    ),
}
