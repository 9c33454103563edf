"""Tables in, tables out, every row exactly once: the next call continues from the finished parts of a killed job."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from empathy_kit import __version__, files
from empathy_kit.core.scored import WINDOW
from empathy_kit.errors import KitError, NotFinite, shown, written_to
from empathy_kit.inference.model import EmpathyModel
from empathy_kit.inference.outputs import ROW, Output, csv_lines, refuse_skipped, skipped_of
from empathy_kit.inference.parts import DONE, JOB, JOINED, held, parts_of, remove_parts
from empathy_kit.inference.prediction import columns, row
from empathy_kit.inference.tables import FORMATS, Bad, Columns, Input, PairTable

PART = WINDOW  # rows per part: no batch crosses its end, so that a part is the same whenever it is made
NEVER = "predictions never overwrite a file, use another --out"
SKIPPED = "skipped.csv"  # the list of skipped rows, in the folder of the parts until the output is whole
STREAM = 64  # pairs that are read from standard input before they are answered


@dataclass(frozen=True)
class Progress:
    """The progress of a job."""

    rows: int  # of the input, including bad ones
    bad: int
    fraction: float  # of the input's bytes
    reused: int  # rows in parts of an earlier call
    swallowed: int = 0  # lines after the first of bad rows, whose quote is not closed
    warning: str | None = None  # on placeholders, also in the rows of an earlier call: every call reads the whole input


@dataclass(frozen=True)
class Job:
    """A table to predict, and the output."""

    source: Path
    out: Path
    columns: Columns
    evidence: bool = False
    skip_errors: bool = False

    @property
    def parts(self) -> Path:
        """The folder of the finished parts."""
        return parts_of(self.out)

    @property
    def suffix(self) -> str:
        """The output's format."""
        return self.out.suffix.lower()

    @property
    def skipped(self) -> Path:
        """The file that lists the rows that could not be predicted."""
        return skipped_of(self.out)


@dataclass(frozen=True)
class Part:
    """Some rows of the input, predicted."""

    number: int  # from 0
    first: int  # the first row's number, from 1
    rows: int
    bad: tuple[tuple[int, str, str], ...]  # row, column, reason
    sha256: str  # of its file


@dataclass(frozen=True)
class Request:
    """A part that still has to be made."""

    number: int
    rows: tuple[Input | Bad, ...]
    output: Output


Write = Callable[[Iterator[Request]], Iterator[Part]]


def check_output(out: Path, *, skip_errors: bool = False) -> None:
    """Check, before a model is loaded, that an output can be written, and the list of skipped rows with it.

    Raises:
        KitError: the format is unknown, one of the files exists, or the place cannot be looked at.
    """
    if out.suffix.lower() not in FORMATS:
        raise KitError(f"--out {out}: a {out.suffix or 'nameless'} file, expected {', '.join(FORMATS)}")
    with written_to("--out", out, exists=NEVER):  # its folder may be closed to this user, or its name too long
        if (out.exists() or out.is_symlink()) and not (parts_of(out) / DONE).is_file():
            remove_parts(out, only_empty=True)
            raise KitError(f"--out {out}: already exists; {NEVER}")
        begun = any((parts_of(out) / name).is_file() for name in (JOB, DONE))  # then the list may be this job's own
        if skip_errors and not begun:
            refuse_skipped(out)


def predict_table(job: Job, model: EmpathyModel, write: Write | None = None) -> Iterator[Progress]:
    """Predict a table into a file that appears whole or not at all, and yield after each part.

    A job that is stopped in any way leaves its finished parts next to the output, and the same call continues from them. Its
    output equals that of an uninterrupted job. Parts of another input, model or setting are refused, and never mixed in.

    Args:
        job: the table and the output.
        model: the model.
        write: writes the missing parts, in order; None uses `write_part` in this process.

    Raises:
        KitError: an input, row or column is not as expected, the output exists or cannot be written, another job is
            writing it, or its parts are another job's.
    """
    check_output(job.out, skip_errors=job.skip_errors)
    table = PairTable(job.source, job.columns)
    kept = "; finished parts are kept, repeat the command to continue"
    with written_to("--out", job.out, exists=NEVER, kept=kept), held(job.out):
        identity = _identity(job, table, model)
        if _finished(job, identity):
            return
        _claim(job, identity)
        files.sweep(job.parts)  # once: for each part, the folder would be listed anew
        tally = _Tally()
        write = write or (lambda missing: (write_part(job, each, model) for each in missing))
        yield from _predict_parts(job, table, model, write, tally)
        _join(job, identity, _output(job.suffix, table, model, evidence=job.evidence), tally)


@dataclass
class _Tally:
    """Parts and rows so far."""

    parts: int = 0
    rows: int = 0
    bad: int = 0
    reused: int = 0

    def add(self, part: Part, *, reused: bool = False) -> None:
        """Count a part."""
        self.parts += 1
        self.rows += part.rows
        self.bad += len(part.bad)
        self.reused += part.rows * reused


def _predict_parts(job: Job, table: PairTable, model: EmpathyModel, write: Write, tally: _Tally) -> Iterator[Progress]:
    for part in write(_missing(job, table, model, tally)):
        tally.add(part)
        yield Progress(tally.rows, tally.bad, table.fraction, tally.reused, table.swallowed, table.placeholders.warning)
    if not tally.rows:
        raise _no_rows(table)
    yield Progress(tally.rows, tally.bad, 1.0, tally.reused, table.swallowed, table.placeholders.warning)


def _no_rows(table: PairTable) -> KitError:
    return KitError(f"{table.name}: no rows, expected at least one pair")


def _missing(job: Job, table: PairTable, model: EmpathyModel, tally: _Tally) -> Iterator[Request]:
    """The parts still to be made. The whole input is read, so that faults in rows of finished parts are found too."""
    rows = table.rows()
    for number in itertools.count():
        chunk = tuple(itertools.islice(rows, PART))
        table.refuse_changed()  # before a part is made of them, which a later call would believe to be of the hash
        if not chunk:
            return
        _refuse_bad(job, table, chunk)
        if (part := read_part(job, number)) is not None and part.rows == len(chunk):
            tally.add(part, reused=True)
        else:
            yield Request(number, chunk, _output(job.suffix, table, model, evidence=job.evidence))


def write_part(job: Job, request: Request, model: EmpathyModel) -> Part:
    """Predict one part's rows and write them; its entry is written last."""
    path, entry_path = part_path(job, request.number), _entry_path(job, request.number)
    with files.workspace(path, sweeps=False) as work:  # other writers here delete what no process holds
        written, noted = work / path.name, work / entry_path.name
        good = [each for each in request.rows if isinstance(each, Input)]
        request.output.write_part(written, list(predicted(good, model, evidence=job.evidence)))
        bad = tuple((each.number, each.column, each.reason) for each in request.rows if isinstance(each, Bad))
        entry = Part(request.number, request.rows[0].number, len(request.rows), bad, files.sha256(written))
        noted.write_text(json.dumps(asdict(entry)), encoding="utf-8")
        for made, place in ((written, path), (noted, entry_path)):
            files.sync(made)
            made.replace(place)
    return entry


def _refuse_bad(job: Job, table: PairTable, rows: Iterable[Input | Bad]) -> None:
    bad = None if job.skip_errors else next((each for each in rows if isinstance(each, Bad)), None)
    if bad is not None:
        raise bad.refusal(table.name)


def read_part(job: Job, number: int) -> Part | None:
    """A part that exists and is complete, or None."""
    try:
        content = json.loads(_entry_path(job, number).read_text(encoding="utf-8"))
        entry = Part(**{**content, "bad": tuple(tuple(each) for each in content["bad"])})
        return entry if entry.sha256 == files.sha256(part_path(job, number)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # damaged: it is made again from the input


def part_path(job: Job, number: int) -> Path:
    """The file of a part's rows."""
    return job.parts / f"{number:08d}{job.suffix}"


def predicted(rows: Sequence[Input], model: EmpathyModel, *, evidence: bool) -> Iterator[list[Any]]:
    """Rows of the output: the input's row number, its kept columns, and the prediction.

    Raises:
        KitError: the model fails on a row. It is no bad row, so that it ends the job however bad rows are treated.
    """
    said = model.stream([(each.seeker, each.response) for each in rows])
    made = 0
    try:
        for each, prediction in zip(rows, said, strict=True):
            yield [each.number, *each.kept, *row(prediction, each.response, evidence=evidence)]
            made += 1
    except NotFinite as error:  # all pairs before those that it was read ahead with are made
        raise KitError(f"{error.what}, the first in row {rows[made + error.first].number}; {error.to_do}") from None


def predict_stream(table: PairTable, model: EmpathyModel, *, evidence: bool, bad: Callable[[Bad], None]) -> Iterator[str]:
    """JSON Lines in, JSON Lines out, a few at a time.

    Args:
        table: the rows.
        model: the model.
        evidence: also return the evidence.
        bad: called with each row that cannot be predicted, after the rows before it.

    Raises:
        KitError: there is no row, or no row has the needed columns.
    """
    rows, count = table.rows(), 0
    while chunk := list(itertools.islice(rows, STREAM)):
        count += len(chunk)
        for is_good, group in itertools.groupby(chunk, lambda each: isinstance(each, Input)):
            if is_good:
                good = [each for each in group if isinstance(each, Input)]
                yield _output(".jsonl", table, model, evidence=evidence).text(list(predicted(good, model, evidence=evidence)))
                continue
            for each in group:
                if isinstance(each, Bad):
                    bad(each)
    if not count:
        raise _no_rows(table)


def _identity(job: Job, table: PairTable, model: EmpathyModel) -> dict[str, Any]:
    """Everything that a part depends on."""
    return {
        "kit": __version__,
        "input": table.sha256(),
        "format": job.source.suffix.lower(),
        "output": job.suffix,
        "columns": json.loads(json.dumps(asdict(job.columns))),
        "evidence": job.evidence,
        **model.identity,
        "part": PART,
    }


def _claim(job: Job, identity: dict[str, Any]) -> None:
    path = job.parts / JOB
    if not path.exists() or not any(job.parts.glob(f"*{job.suffix}")):  # there is no part that could be mixed in
        files.write_whole(path, json.dumps(identity, indent=2))
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        different = [name for name in identity if found.get(name) != identity[name]]
    except (OSError, ValueError, AttributeError):
        different = ["everything"]
    if different:
        raise KitError(
            f"{job.parts}: holds parts of another job (different: {', '.join(different)}); "
            "repeat that job's command, delete the folder, or use another --out"
        )


def _finished(job: Job, identity: dict[str, Any]) -> bool:
    """Whether a job that was killed at its very end has completed the output; its leftovers are then removed."""
    if not (job.out.exists() or job.out.is_symlink()):
        return False
    try:
        done = json.loads((job.parts / DONE).read_text(encoding="utf-8"))
        whole = done["job"] == identity and done["sha256"] == files.sha256(job.out)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise KitError(f"--out {job.out}: already exists; {NEVER}")
    remove_parts(job.out)
    return True


def _join(job: Job, identity: dict[str, Any], output: Output, made: _Tally) -> None:
    """Join all parts, or none: a part that was made and has gone since is not the end of the table."""
    paths, rows = [], 0
    listed = job.parts / SKIPPED
    with files.staged_file(listed) if job.skip_errors else nullcontext() as skipped:
        if skipped is not None:
            skipped.write(csv_lines([("row", "column", "reason")]).encode())
        for number in range(made.parts):
            part = read_part(job, number)
            if part is None:
                raise _gone(job, f"part {number} is missing or was changed")
            rows += part.rows
            paths.append(part_path(job, number))
            if skipped is not None:
                skipped.write(csv_lines(part.bad).encode())
        if rows != made.rows:
            raise _gone(job, f"{rows:,} rows found, expected {made.rows:,}")
    joined = job.parts / JOINED
    output.join(paths, joined)
    files.sync(joined)
    files.write_whole(job.parts / DONE, json.dumps({"job": identity, "sha256": files.sha256(joined)}))
    files.refuse_existing(job.out)
    if job.skip_errors:
        refuse_skipped(job.out, unless_equal=listed)  # to it, because the job was killed at this place
        listed.replace(job.skipped)
    joined.rename(job.out)
    files.sync(job.out.absolute().parent, inside=False)
    remove_parts(job.out)


def _gone(job: Job, what: str) -> KitError:
    return KitError(f"{job.parts}: {what} since it was predicted; the other parts are kept, repeat the command to continue")


def _output(suffix: str, table: PairTable, model: EmpathyModel, *, evidence: bool) -> Output:
    added = [ROW, *columns(model.schema, evidence=evidence)]
    twice = next((name for name in table.kept if name in added), None)
    if twice is not None:
        raise KitError(f"{table.name}: column {shown(twice)} is kept and predicted; rename it, or do not keep it")
    return Output(suffix, model.schema, table.kept, table.types, evidence=evidence)


def _entry_path(job: Job, number: int) -> Path:
    return job.parts / f"{number:08d}.json"
