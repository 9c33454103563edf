"""A run -> a folder that predicts without torch: one ONNX graph, checked against the model, and what it costs in score."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from empathy_kit import __version__, files
from empathy_kit.core.scored import Engine, Scored
from empathy_kit.core.tokens import TokenPair
from empathy_kit.data.pairs import Corpus, Pair
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take, thin_out
from empathy_kit.errors import KitError, NotFinite, written_to
from empathy_kit.inference.graph import EXPORT, FORMAT, GRAPH, TOKENIZER, GraphEngine, feed, needed
from empathy_kit.inference.model import HUB
from empathy_kit.inference.quantise import quantise
from empathy_kit.plugins import OURS, Registry
from empathy_kit.runs import record
from empathy_kit.runs.load import Loaded, load
from empathy_kit.runs.seen import SEEN

if TYPE_CHECKING:
    from empathy_kit.core.predictor import Predictor

MOST_APART = 1e-4
"""The largest difference of any probability from the model's own, in float32."""

MOST_LOGITS_APART = 1e-3
"""The same of logits, up to what a softmax leaves of them: of the probabilities' logarithms."""

MOST_CHANGED = 0.1
"""The share of levels that int8 may change on the pairs that are compared, where no scores are."""

MOST_LOST = {"accuracy": 0.005, "macro_f1": 0.01}
"""What int8 may cost on the test part, in any task."""

SMALLEST = 1e-30  # probabilities below are those of no float32 softmax, but a head may give 0
PROBES, SHOWN = 64, 256  # pairs that the graph is compared on, and that the states' ranges are taken from

ATTEMPTS: dict[str, Callable[[str], bool]] = {
    "all products of states and weights": lambda _: False,
    "all but the first layer's": lambda name: ".layer.0." in name,
    "all but each layer's last": lambda name: ".output.dense." in name and ".attention." not in name,
    "all but the first layer's and each layer's last": lambda name: (
        ".layer.0." in name or (".output.dense." in name and ".attention." not in name)
    ),
}
"""What is computed in int8, and which weights are left in float32: the first whose scores hold is taken."""


@dataclass(frozen=True)
class Exported:
    """An exported model."""

    folder: Path
    description: dict[str, Any]  # as export.json has it
    warnings: tuple[str, ...]


def export(run: Path | str, out: Path, registry: Registry, *, int8: bool = False, scores: bool = True) -> Exported:
    """Write a run's model as an ONNX graph with its tokenizer, schema, calibration and record, and check it.

    The graph's probabilities are compared with the model's. Where the run's data can be read, the scores on its test part are
    too, before and after.

    Args:
        run: a finished run with its model: its folder, or ``hub:user/name`` with or without ``@revision``.
        out: the folder, which must not exist.
        registry: where the run's plugins are.
        int8: compute in int8 whatever the scores allow.
        scores: compare scores; without, no data is read, and the sample's posts show int8 the states' ranges.

    Raises:
        KitError: an ORACLE, a model that has no graph, a graph that computes something else, int8 that loses too much, a run
            that cannot be loaded or downloaded, or a folder that cannot be written or is in the run's own.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        needed(module, extra="onnx", purpose="export models")
    with written_to("--out", out, exists="use another --out"):
        files.refuse_existing(out)
    named, published = str(run), str(run).startswith(HUB)
    if published:
        from empathy_kit.inference.hub import fetch

        run = fetch(named.removeprefix(HUB))
    run = Path(run)
    if (run / EXPORT).is_file():
        raise KitError(f"{named}: an exported model already; give the run that it was made from")
    record.refuse_inside("--out", out, run)
    loaded = load(run, registry, device="cpu")
    if loaded.record.oracle:
        raise KitError(f"{run}: an ORACLE, which reads annotated spans; whoever uses a model has none, so it is not exported")
    model = _plain(loaded)
    if not scores:
        parts, told = None, "scores are not compared, as asked"
    elif published and loaded.record.config["data"] != "sample":  # a stranger's record is not asked what to read or to fetch
        parts, told = None, "scores are not compared: the data of a run from the hub are not here"
    else:
        parts, told = _parts(loaded)
    notes = [*loaded.warnings, *([told] if told else [])]
    shown = take(parts.corpus, parts.shown) if parts else load_corpus("sample").pairs
    probes = list(loaded.tokenization.encode(random.Random(0).sample(shown, min(PROBES, len(shown)))))
    with written_to("--out", out, exists="use another --out"), files.staged_folder(out) as folder:
        _write_graph(run, loaded, folder / GRAPH)
        tasks = loaded.record.tasks.names
        engine = GraphEngine(folder / GRAPH, tasks, pad_id=loaded.tokenization.pad_id)
        true = list(model.predict(probes))
        try:
            said = list(engine.predict(probes))
        except NotFinite as error:
            raise KitError(f"{run}: its graph gives other probabilities ({error.what}){_blame(loaded)}") from None
        except Exception as error:  # onnxruntime's own: an operator that it, or the exporter, has wrong
            raise KitError(f"{run}: onnxruntime cannot run its graph: {_line(error)}{_blame(loaded)}") from error
        apart, logits_apart = largest_difference(true, said), largest_log_difference(true, said)
        for what, value, most in (("probabilities", apart, MOST_APART), ("logits", logits_apart, MOST_LOGITS_APART)):
            if not value <= most:
                raise KitError(f"{run}: its graph gives other {what} ({value:.1e} apart, expected {most:.0e}){_blame(loaded)}")
        found: dict[str, Any] = {"precision": "float32", "apart": apart, "logits_apart": logits_apart}
        before = scored(model, parts) if parts else None
        after = scored(engine, parts) if parts else None
        if int8:
            feeds = [feed(batch, loaded.tokenization.pad_id) for batch in _batches(loaded, shown)]
            found, after = _in_int8(run, folder, loaded, feeds, probes, true, parts, before)
        if before and after:
            found["scores"] = {"pairs": len(parts.test) if parts else 0, "before": before, "after": after}
        description = {**_description(loaded), **found}
        _write_rest(run, folder, description)
        record.seal(folder)
    return Exported(out, description, tuple(notes))


@dataclass(frozen=True)
class Parts:
    """The run's own data, split as it was."""

    corpus: Corpus
    shown: list[int]  # of the training part
    test: list[TokenPair]
    levels: dict[str, Any]  # task to (N,) int64, -1 where missing


def _parts(loaded: Loaded) -> tuple[Parts | None, str]:
    """The run's data; or None, and why its scores cannot be compared."""
    config, told = loaded.record.config, loaded.record
    try:
        corpus = load_corpus(config["data"], told.schema)
        split = make_split(corpus, config["split"], config["split_seed"], told.tasks)
        split = thin_out(corpus, split, config["train_share"], told.tasks)
    except KitError as error:
        return None, f"scores are not compared: the run's data cannot be read ({error})"
    if corpus.sha256() != told.data["sha256"] or split.sha256() != told.split["sha256"]:
        return None, f"scores are not compared: --data {config['data']} or its split is not the run's any more"
    test = take(corpus, split.test)
    levels = {name: np.array([pair.levels[corpus.schema.index(name)] for pair in test]) for name in told.tasks.names}
    shown = random.Random(0).sample(split.train, min(SHOWN, len(split.train)))
    return Parts(corpus, shown, list(loaded.tokenization.encode(test)), levels), ""


def _batches(loaded: Loaded, pairs: Sequence[Pair]) -> Iterator[list[TokenPair]]:
    posts = sorted(loaded.tokenization.encode(pairs[:SHOWN]), key=lambda pair: pair.tokens)
    return (posts[at : at + 16] for at in range(0, len(posts), 16))


def scored(engine: Engine, parts: Parts) -> dict[str, dict[str, Any]]:
    """Accuracy, macro F1 and each level's recall per task, on the test part."""
    from empathy_kit.core.metrics import confusion_matrix, from_confusion

    said = list(engine.predict(parts.test))
    found = {}
    for name, levels in parts.levels.items():
        known = np.flatnonzero(levels >= 0)
        if not len(known):
            continue
        predicted = np.array([said[at].probabilities[name].argmax() for at in known])
        classes = len(said[0].probabilities[name])
        values = from_confusion(confusion_matrix(levels[known], predicted, classes).astype(np.float64))
        found[name] = {
            "accuracy": float(values["accuracy"]),
            "macro_f1": float(values["macro_f1"]),
            "recall": [float(each) for each in values["recall"]],
        }
    return found


def largest_difference(one: Iterable[Scored], other: Iterable[Scored]) -> float:
    """Of any probability, evidence included; NaN counts as infinite."""
    apart = [0.0]
    for ours, theirs in zip(one, other, strict=True):
        apart += [float(np.abs(ours.probabilities[name] - values).max()) for name, values in theirs.probabilities.items()]
        if ours.evidence is not None and theirs.evidence is not None:
            apart.append(float(np.abs(ours.evidence - theirs.evidence).max()))
    return float(np.nan_to_num(np.array(apart), nan=np.inf).max())


def largest_log_difference(one: Iterable[Scored], other: Iterable[Scored]) -> float:
    """Of any probability's logarithm, which shows what is wrong with logits where the softmax is saturated."""
    apart = [0.0]
    for ours, theirs in zip(one, other, strict=True):
        for name, values in theirs.probabilities.items():
            logs = (np.log(np.maximum(each, SMALLEST)) for each in (ours.probabilities[name], values))
            apart.append(float(np.abs(next(logs) - next(logs)).max()))
    return float(np.nan_to_num(np.array(apart), nan=np.inf).max())


def _in_int8(
    run: Path,
    folder: Path,
    loaded: Loaded,
    feeds: list[dict[str, Any]],
    probes: list[TokenPair],
    true: list[Scored],
    parts: Parts | None,
    before: dict[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Replace the graph by one in int8 whose scores hold, and tell how far it is from the model."""
    source, small = folder / "float32.onnx", folder / GRAPH
    small.rename(source)
    refused = []
    for what, leave in ATTEMPTS.items():
        products = quantise(source, small, feeds, leave=leave)
        if not products:
            break
        engine = GraphEngine(small, loaded.record.tasks.names, pad_id=loaded.tokenization.pad_id)
        try:
            after = scored(engine, parts) if parts else None
            said = list(engine.predict(probes))
        except NotFinite as error:
            refused.append(f"{what}: {error.what}")
            continue
        lost = losses(before, after) if before and after else _changed(true, said)
        if not lost:
            source.unlink()
            apart = {"apart": largest_difference(true, said), "logits_apart": largest_log_difference(true, said)}
            return {"precision": "int8", "in_int8": what, "products": products, **apart}, after
        refused.append(f"{what}: {', '.join(lost)}")
    if not refused:
        raise KitError(f"{run}: nothing of this model can be computed in int8; leave --int8 out")
    where = "on the test part, in points" if before else "on the pairs that were compared"
    raise KitError(f"{run}: int8 costs too much {where}: {'; '.join(refused)}; leave --int8 out")


def _changed(true: Sequence[Scored], said: Sequence[Scored]) -> list[str]:
    """How many levels are others, where they are too many."""
    levels = [
        (shares.argmax(), other.probabilities[name].argmax())
        for one, other in zip(true, said, strict=True)
        for name, shares in one.probabilities.items()
    ]
    changed = sum(bool(one != other) for one, other in levels)
    return [f"{changed} of {len(levels)} levels change"] if changed > MOST_CHANGED * len(levels) else []


def losses(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What was lost beyond `MOST_LOST`, one text each."""
    names = {"accuracy": "accuracy", "macro_f1": "macro F1"}
    return [
        f"{task} {names[score]} {100 * (after[task][score] - values[score]):+.2f}"
        for task, values in before.items()
        for score, most in MOST_LOST.items()
        if values[score] - after[task][score] > most + 1e-12
    ]


def _plain(loaded: Loaded) -> Predictor:
    """The model as the graph computes it: in float32, whatever the run trained in."""
    from empathy_kit.core.predictor import Predictor

    return Predictor(loaded.predictor.model, pad_id=loaded.tokenization.pad_id, device="cpu")


def _write_graph(run: Path, loaded: Loaded, path: Path) -> None:
    from empathy_kit.core.portable import to_onnx

    pairs = [TokenPair(loaded.tokenization.empty, loaded.tokenization.empty)]
    spans = next(iter(_plain(loaded).predict(pairs))).evidence is not None
    try:
        to_onnx(loaded.predictor.model, path, spans=spans)
    except Exception as error:  # the exporter meets other people's code
        raise KitError(
            f"{run}: its model cannot be written as ONNX: {_line(error.__cause__ or error)}{_blame(loaded)}"
        ) from error


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"


def _blame(loaded: Loaded) -> str:
    """Whose code takes part, but for the kit's own."""
    others = [
        f"{kind} {each['name']} is from {each['distribution']} {each['version']}"
        for kind, each in loaded.record.plugins.items()
        if kind in ("rationale", "trunk", "head") and each["distribution"] != OURS
    ]
    return f" ({', '.join(others)})" if others else ""


def _description(loaded: Loaded) -> dict[str, Any]:
    onnxruntime = needed("onnxruntime")

    config = loaded.record.config
    return {
        "format": FORMAT,
        "kit": __version__,
        "title": loaded.record.title,
        "schema": loaded.record.tasks.to_dict(),
        "max_tokens": config["max_tokens"],
        "truncate": config["truncate"],
        "posts": config["posts"],
        "pad_id": loaded.tokenization.pad_id,
        "onnxruntime": onnxruntime.__version__,
        "record": asdict(loaded.record),
    }


def _write_rest(run: Path, folder: Path, description: dict[str, Any]) -> None:
    from empathy_kit.core.encoder import load_tokenizer

    model = run / record.MODEL
    (folder / TOKENIZER).write_text(load_tokenizer(str(model), local=True).backend_tokenizer.to_str(), encoding="utf-8")
    for name in (record.CALIBRATION, SEEN):
        if (model / name).is_file():
            shutil.copyfile(model / name, folder / name)
    (folder / EXPORT).write_text(record.to_json(description), encoding="utf-8")
