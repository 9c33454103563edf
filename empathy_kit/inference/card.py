"""A run's record -> the model card of its published model: Markdown for people, metadata for the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any, NamedTuple

from empathy_kit.data.schema import TaskSchema
from empathy_kit.encoders import MPNET_HUB
from empathy_kit.errors import KitError
from empathy_kit.inference.elsewhere import SCORES, Elsewhere
from empathy_kit.plugins import HANDED_OVER
from empathy_kit.runs.machine import way
from empathy_kit.runs.record import MALFORMED, Record
from empathy_kit.runs.report import HEADLINE, estimate, number, too_sure

OWN = "empathy-kit"
HUB_NAMES = {"minilm": "sentence-transformers/all-MiniLM-L6-v2", "mpnet": MPNET_HUB}  # of the kit's short encoder names
METRICS = {"accuracy": ("accuracy", {}), "weighted_f1": ("f1", {"average": "weighted"}), "macro_f1": ("f1", {"average": "macro"})}
NAMELESS = "A model of empathy-kit"  # one that is not on the hub


class Markdown(str):
    """Text that is Markdown already; all other text in a card is escaped."""

    __slots__ = ()


class LevelRow(NamedTuple):
    """The scores of one label of a task, as table cells."""

    label: str
    pairs: int
    cells: list[Markdown]  # precision, recall, average precision
    never: bool  # the test part has it, but the model never predicted it


def write_card(
    record: Record,
    name: str | None,
    *,
    licence: str | None,
    export: Mapping[str, Any] | None = None,
    seen: bool = False,
    elsewhere: Sequence[Elsewhere] = (),
) -> str:
    """The text of ``README.md``.

    Args:
        record: the run's.
        name: where the model is, or will be: ``user/name``; with None the card does not tell how to load it.
        licence: an identifier such as "mit"; with None the card names no license.
        export: what `of_export` returns; None for a run.
        seen: whether the hashes of the training posts are published.
        elsewhere: the model's scores on other data.

    Raises:
        KitError: the record lacks something, or the hub client cannot read the metadata back.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from jinja2 import UndefinedError

    called = name or NAMELESS
    try:
        results = [*_results(record, export or {}), *(result for other in elsewhere for result in _others(record, other))]
        body = _body(record, name, export or {}, seen, elsewhere)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, UndefinedError):  # others may have made the record
        raise KitError(f"{called}: no model card can be made of this record: {MALFORMED}") from None
    data = ModelCardData(
        language="en" if record.data["name"] in ("sample", "reddit") else None,
        license=licence,
        library_name=OWN,
        pipeline_tag="text-classification",
        tags=["empathy", "peer-support", "text-classification"],
        base_model=_base_model(record),
        metrics=["accuracy", "f1"],
        model_name=called.rpartition("/")[2] if results else None,  # the hub's format has it with scores alone
        eval_results=results or None,
    )
    text = f"---\n{data.to_yaml()}\n---\n\n{body}"
    try:  # the check that the client offers without a network: read the card back and parse its model-index
        found = ModelCard(text).data
    except ValueError as error:
        raise KitError(f"{called}: no model card can be made of this record: {str(error).splitlines()[0]}") from None
    if found.get("eval_results", []) != results:
        raise KitError(f"{called}: no model card can be made of this record: its scores are not read back as they were written")
    return text


def _base_model(record: Record) -> str | None:
    given = record.config["encoder"]
    if given not in HUB_NAMES and "revision" not in record.encoder:  # a folder, whose name may be a stranger's repository
        return None
    name = HUB_NAMES.get(given, given)
    return name if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name, re.ASCII) else None


def _results(record: Record, export: Mapping[str, Any]) -> list[Any]:
    """The headline scores in the hub's ``model-index`` format; the task is the dataset's configuration.

    The record's scores are not those of an export in int8, which has its own, without intervals, where it could compare them.
    """
    hashes = {"sha256": record.data["sha256"], "split": plain(record.split["kind"]), "split_sha256": record.split["sha256"]}
    of = {"dataset_name": plain(record.data["name"]), "dataset_split": "test", "dataset_args": hashes}
    if _is_int8(export):
        own = export["scores"]["after"] if "scores" in export else {}
        scores = {task: {key: {"value": value} for key, value in found.items()} for task, found in own.items()}
    else:
        scores = record.scores
    tasks = [task for task in record.tasks.tasks if task.name in scores]
    return [_result(task, scores[task.name], key, **of) for task in tasks for key in METRICS if key in scores[task.name]]


def _is_int8(export: Mapping[str, Any]) -> bool:
    return bool(export.get("precision") == "int8")


def _others(record: Record, other: Elsewhere) -> list[Any]:
    """The same of other data."""
    of = {"dataset_name": plain(other.data), "dataset_args": {"sha256": other.sha256, "pairs": other.scored}}
    tasks = [task for task in record.tasks.tasks if task.name in other.tasks]
    return [_result(task, other.tasks[task.name], key, **of) for task in tasks for key in METRICS]


def _result(task: TaskSchema, scores: Mapping[str, Any], key: str, **of: Any) -> Any:
    """One headline score of one task in the hub's format."""
    from huggingface_hub import EvalResult

    kind, settings = METRICS[key]
    name = of["dataset_name"]
    interval = [round(scores[key][bound], 4) for bound in ("low", "high") if bound in scores[key]]
    return EvalResult(
        task_type="text-classification",
        task_name=plain(task.title),
        dataset_type=re.sub(r"[^\w.-]+", "-", name) or "table",
        dataset_config=plain(task.name),
        metric_type=kind,
        metric_name=f"{dict(HEADLINE)[key]}, {plain(task.name)}",
        metric_value=round(scores[key]["value"], 4),
        metric_args={**settings, **({"interval_95": interval} if interval else {})},
        **of,
    )


def _body(record: Record, name: str | None, export: Mapping[str, Any], seen: bool, elsewhere: Sequence[Elsewhere]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=False,  # noqa: S701 - Markdown, not HTML: `finalize` escapes whatever is shown
        finalize=lambda value: value if isinstance(value, Markdown | int | float) else escaped(value),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cells"] = _cells
    template = resources.files("empathy_kit.inference").joinpath("card.md.j2").read_text(encoding="utf-8")
    settings = {key: value for key, value in record.config.items() if key not in ("schema", "options")}
    page = environment.from_string(template).render(
        record=record,
        seen=seen,
        title=Markdown(name or NAMELESS),
        name=name and Markdown(name),
        tasks=record.tasks.tasks,
        headline=[title for _, title in HEADLINE],
        scores={task: _estimates(found, METRICS) for task, found in record.scores.items()},
        majority={
            task: [Markdown(number(found["majority"][key])) for key, _ in HEADLINE] for task, found in record.scores.items()
        },
        elsewhere=[
            (other, [(task, found["n"], _estimates(found, SCORES)) for task, found in other.tasks.items()]) for other in elsewhere
        ],
        too_sure=too_sure((task.name, task.labels, record.scores[task.name]["confusion"]) for task in record.tasks.tasks),
        levels={task.name: _level_rows(record, task.name, task.labels) for task in record.tasks.tasks},
        spans={
            task: _estimates(found, ("token_f1", "iou_f1")) for task, found in (record.spans or {}).items() if found is not None
        },
        calibration={
            task: [
                Markdown(f"{found['temperature']:.3g}"),
                *(Markdown(number(found[key])) for key in ("ece_before", "ece_after")),
            ]
            for task, found in (record.calibration or {}).items()
        },
        recipe=[(code(key), code(_setting(value))) for key, value in {**settings, **record.config["options"]}.items()],
        versions=[(code(key), code(value)) for key, value in {OWN: record.kit, **record.versions}.items()],
        plugins=[] if export else _plugins(record),  # a graph needs none
        export=[(code(key), code(value)) for key, value in _leaves(export)],
        int8=_is_int8(export),
        compared="scores" in export,
    )
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" +\n", "\n", page))


def _estimates(found: Mapping[str, Any], keys: Iterable[str]) -> list[Markdown]:
    return [Markdown(estimate(found[key])) for key in keys]


def _cells(values: Iterable[object]) -> Markdown:
    return Markdown(" | ".join(value if isinstance(value, Markdown) else escaped(value) for value in values))


def _level_rows(record: Record, task: str, labels: tuple[str, ...]) -> list[LevelRow]:
    scores = record.scores[task]
    return [
        LevelRow(
            label,
            sum(scores["confusion"][at]),
            [
                Markdown("-" if found is None else estimate(found))
                for found in (scores[key][at] for key in ("precision", "recall", "average_precision"))
            ],
            at in scores["never_predicted"],
        )
        for at, label in enumerate(labels)
    ]


def _plugins(record: Record) -> list[Markdown]:
    """What the model needs in addition to the kit, and how to give it: distributions in pip's format, files, a program's own."""
    found = set()
    for kind, used in record.plugins.items():
        distribution, version = used["distribution"], used["version"]
        if distribution.endswith(".py"):
            found.add(Markdown(f"the file {code(distribution.removeprefix('./'))} ({code(version)}), given as `--plugin`"))
        elif distribution == HANDED_OVER:
            found.add(Markdown(f"{kind} {code(used['name'])}, which its author's program handed over"))
        elif distribution != OWN:
            found.add(Markdown(f"{code(f'{distribution}=={version}')}, installed with pip"))
    return sorted(found)


def of_export(description: Mapping[str, Any]) -> dict[str, Any]:
    """What a card shows of ``export.json``: what was checked, and with what. Record and schema have parts of their own."""
    left = ("format", "hub", "record", "schema")
    found: dict[str, Any] = without_paths({name: value for name, value in description.items() if name not in left})
    return found


def _setting(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _leaves(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Every value of nested JSON with its path: ``scores.ER.accuracy``."""
    if isinstance(value, Mapping):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{name}.{key}" if name else str(key))]
    return [(name, _setting(value))]


def plain(value: object) -> str:
    """Untrusted text on one line, without control characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in str(value)).split())


def escaped(value: object) -> Markdown:
    """Untrusted text escaped for Markdown: no link, image, heading, table cell or HTML in it takes effect."""
    return Markdown(re.sub(r"([!-+./:-@\[-`{-~])", r"\\\1", plain(value)))


def code(value: object) -> Markdown:
    """Untrusted text as Markdown code in a table cell, between more backticks than it has in a row."""
    text = plain(value) or "-"
    if "|" in text:  # it ends the cell even in code, and renderers differ on a backslash before it
        return escaped(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if len(fence) > 1 else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


_PATH = re.compile(r"/|~|\\\\|[A-Za-z]:[/\\]|\.\.?[/\\]")
_FAR_PATH = re.compile(r"[/~].*[/\\][^/\\]|\\\\[^\\]|[A-Za-z]:[/\\]", re.DOTALL)  # an option such as "/" or "/s" is no path


def without_paths(value: Any, path: re.Pattern[str] = _PATH) -> Any:
    """A record as JSON, with every absolute path cut to its last part: folders often contain their owner's name.

    Labels stay as they are, whatever they look like. How the losses were computed is told without the reason why no kernel was
    used, which may name a folder or a compiler.
    """
    if isinstance(value, dict):
        return {key: _told(key, inner, path) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(inner, path) for inner in value]
    if isinstance(value, str) and path.match(value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value


def _told(key: str, value: Any, path: re.Pattern[str]) -> Any:
    if key == "schema":
        return value
    if key == "losses" and isinstance(value, str):
        return way(value)
    return without_paths(value, _FAR_PATH if key == "options" else path)


def published(record: Record) -> Record:
    """The record without details of the machine that made it."""
    return Record(**without_paths(asdict(record)))
