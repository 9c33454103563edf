"""One table of pairs - CSV, JSON Lines or Parquet - read by a schema -> the corpus."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from empathy_kit.data.cells import LabelReader, Row
from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.readers import READERS, read_bytes, table_header
from empathy_kit.data.schema import EPITOME, Schema
from empathy_kit.data.spans import Placer
from empathy_kit.errors import KitError


def load_table(path: Path, schema: Schema = EPITOME, name: str | None = None, *, partial: bool = False) -> Corpus:
    """One table with the columns of both posts and of every task of a schema; ids and spans are optional.

    In a ``partial`` table the column of a task may be missing, but not of all: no pair has a label for it.

    Raises:
        KitError: the file, or the first cell of it that is not as documented.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise KitError(f"{path}: a {path.suffix or 'nameless'} file, expected {', '.join(READERS)} or a folder")
    data = read_bytes(path)
    header = table_header(path.name, schema, partial=partial)
    placer = Placer(schema.names)
    labels = [LabelReader(task) for task in schema.tasks]
    with _no_collection():
        pairs = tuple(_pair(row, schema, labels, placer) for row in read(data, header))
    if not pairs:
        raise KitError(f"{path.name}: no rows, expected at least one pair")
    labelled = [task.column for task in schema.tasks]
    if partial and not set(labelled) & set(header.columns_read):
        raise KitError(
            f"{path}: none of the columns with labels ({', '.join(labelled)}) is in the table, expected at least one; "
            "rename the table's columns, or give its tasks as --schema FILE.toml"
        )
    columns = {task.name: (path.name, task.spans_column) for task in schema.tasks}
    return Corpus(
        name=name or path.stem,
        pairs=pairs,
        sources={path.name: hashlib.sha256(data).hexdigest()},
        span_columns=columns,
        placement=placer.result([task.name for task in schema.tasks if task.spans_column in header.columns_read]),
        schema=schema,
        columns_read=header.columns_read,
        columns_ignored=header.columns_ignored,
    )


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the collector of cycles, of which rows make none: it would walk over all pairs so far, again and again."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _pair(row: Row, schema: Schema, labels: list[LabelReader], placer: Placer) -> Pair:
    response = row.post("response_post")
    levels = tuple(row.label(task.column, reader) for task, reader in zip(schema.tasks, labels, strict=True))
    quotes = [row.quotes(task.spans_column) for task in schema.tasks]
    for task, level, texts in zip(schema.tasks, levels, quotes, strict=True):
        if level == 0:
            row.refuse_quotes(task.spans_column, texts, task.labels[0])
    spans, unplaced = placer.place_all(row.number, response, levels, quotes)
    return Pair(
        row=row.number,
        pair_id=row.identifier("pair_id") or str(row.number),
        seeker_id=row.identifier("seeker_id"),
        seeker=row.post("seeker_post"),
        response=response,
        levels=levels,
        spans=spans,
        unplaced=unplaced,
    )
