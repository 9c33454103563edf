"""The three EPITOME files of Sharma et al. (EMNLP 2020, arXiv 2009.08441): one annotation file per mechanism -> pairs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from empathy_kit.data.cells import LabelReader, Row
from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.readers import Header, read_bytes, read_csv
from empathy_kit.data.schema import EPITOME
from empathy_kit.data.spans import Placer
from empathy_kit.errors import KitError, shown

FILES = {
    "ER": "emotional-reactions-reddit.csv",
    "EX": "explorations-reddit.csv",
    "IP": "interpretations-reddit.csv",
}
_REDDIT = "-reddit.csv"
_LABELS = tuple(LabelReader(task) for task in EPITOME.tasks)
COLUMNS = ("sp_id", "rp_id", "seeker_post", "response_post", "level", "rationales")


def load_epitome(folder: Path, name: str = "epitome") -> Corpus:
    """Pairs from a folder with the three files, aligned row by row.

    The files are never joined: ``(sp_id, rp_id)`` is not unique, and a join on it multiplies the repeated pairs. The texts
    are those of the explorations file, because the emotional-reactions file's have words cut out of them.

    Raises:
        KitError: a file is missing or malformed, or the rows of the files do not correspond.
    """
    sources: dict[str, str] = {}
    tables: list[list[Row]] = []
    files = _files(folder)
    for file in files.values():
        data = read_bytes(folder / file)
        sources[file] = hashlib.sha256(data).hexdigest()
        tables.append(list(read_csv(data, Header(file, COLUMNS))))
    counts = {len(table) for table in tables}
    if len(counts) > 1:
        found = ", ".join(f"{file} {len(table)}" for file, table in zip(files.values(), tables, strict=True))
        raise KitError(f"{folder}: the files differ in their number of rows ({found}), expected the same pairs in each")
    if counts == {0}:
        raise KitError(f"{folder}: no rows in {', '.join(files.values())}, expected at least one pair")
    placer = Placer(EPITOME.names)
    pairs = tuple(_pair(rows, placer) for rows in zip(*tables, strict=True))
    columns = {mechanism: (file, "rationales") for mechanism, file in files.items()}
    return Corpus(name, pairs, sources, columns, placer.result())


def _files(folder: Path) -> dict[str, str]:
    """The three files' names: those of the Reddit part, or the same with another word at the end, as of TalkLife's part.

    Raises:
        KitError: there are other names, or several that would do.
    """
    found: dict[str, dict[str, str]] = {}  # by the end of their names
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise KitError(f"{folder}: cannot be read: {error.strerror}") from None
    for name in names:
        for mechanism, usual in FILES.items():
            start = usual.removesuffix(_REDDIT)
            if name.lower().replace("_", "-").startswith(start) and name.lower().endswith(".csv"):
                found.setdefault(name.lower().replace("_", "-").removeprefix(start), {})[mechanism] = name
    whole = {end: names for end, names in found.items() if len(names) == len(FILES)}
    if _REDDIT not in whole and len(whole) != 1:
        there = ", ".join(shown(name) for several in found.values() for name in several.values())
        raise KitError(
            f"{folder}: expected {', '.join(FILES.values())}, or the three with one other word in place of reddit; "
            f"there are {there or 'none of them'}"
        )
    chosen = whole.get(_REDDIT) or next(iter(whole.values()))
    return {mechanism: chosen[mechanism] for mechanism in FILES}


def _pair(rows: tuple[Row, ...], placer: Placer) -> Pair:
    text = rows[EPITOME.index("EX")]
    for row in rows:
        for column in ("sp_id", "rp_id"):
            if row.identifier(column) != text.identifier(column):
                raise row.error(column, f"another id than in row {text.number} of {text.file}, expected the same pair")
    seeker, response = text.post("seeker_post"), text.post("response_post")
    interpretations = rows[EPITOME.index("IP")]
    for column, post in (("seeker_post", seeker), ("response_post", response)):
        if interpretations.post(column).lower().split() != post.lower().split():
            raise interpretations.error(column, f"another text than in row {text.number} of {text.file}, expected the same")
    levels = tuple(row.label("level", labels) for row, labels in zip(rows, _LABELS, strict=True))
    quotes = [row.quotes("rationales") for row in rows]
    for row, task, level, texts in zip(rows, EPITOME.tasks, levels, quotes, strict=True):
        if level == 0:
            row.refuse_quotes("rationales", texts, task.labels[0])
    spans, unplaced = placer.place_all(text.number, response, levels, quotes)
    return Pair(
        row=text.number,
        pair_id=f"{text.identifier('sp_id')}_{text.identifier('rp_id')}",
        seeker_id=text.identifier("sp_id"),
        seeker=seeker,
        response=response,
        levels=levels,
        spans=spans,
        unplaced=unplaced,
    )
