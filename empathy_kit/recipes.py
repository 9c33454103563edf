"""One run, from data to record: the only place where everything meets. It reads like the method section of the paper."""

from __future__ import annotations

import importlib.metadata
import platform
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from empathy_kit import __version__, record
from empathy_kit.cache import cache_folder
from empathy_kit.config import RunConfig, routes, to_dict
from empathy_kit.contracts import Rationale, Task
from empathy_kit.data.pairs import LEVELS, MECHANISMS, Corpus, class_counts, duplicates
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import PARTS, Split, leakage, make_split, take
from empathy_kit.encoders import encoder_source
from empathy_kit.errors import KitError
from empathy_kit.options import resolve
from empathy_kit.plugins import KINDS, OURS, Provided, Registry, one_line, same_distribution

if TYPE_CHECKING:
    from empathy_kit.core.batch import Tokenization, TokenPair, Truncation
    from empathy_kit.core.engine import Criterion, Engine, Epoch, Predictions, Recipe, Step
    from empathy_kit.core.model import Model

LIBRARIES = ("torch", "transformers", "tokenizers", "accelerate", "numpy")


@dataclass(frozen=True)
class Opened:
    """The data is read, split and tokenised; training comes next."""

    config: RunConfig
    data: dict[str, Any]  # as in the record
    split: dict[str, Any]  # as in the record
    truncation: Truncation
    oracle: bool
    device: str
    losses: str  # which way the kit's own are computed
    warnings: tuple[str, ...] = ()  # what the user may not expect of this run
    states: Path | None = None  # where the frozen layers' states of all posts lie


@dataclass(frozen=True)
class Finished:
    """The run directory is written."""

    record: record.Record
    folder: Path


@dataclass(frozen=True)
class Plugins:
    """The three plugins of a run, and their options with the defaults written out."""

    loss: Provided
    rationale: Provided
    head: Provided
    options: dict[str, Any]  # {"loss": {"ER": {...}, ...}, "head": {"ER": {...}, ...}, "rationale": {...}}

    @property
    def oracle(self) -> bool:
        """Whether gold spans are seen at inference."""
        return cast(Rationale, self.rationale.spec).gold == "always"


def choose_plugins(config: RunConfig, registry: Registry) -> Plugins:
    """The plugins that a configuration names, with every option checked before anything heavy is loaded.

    Raises:
        KitError: an unknown name, route, option or value.
    """
    chosen = {kind: registry.get(kind, getattr(config, kind)) for kind in KINDS}
    given = _route(config.options)
    options: dict[str, Any] = {}
    for kind in ("loss", "head"):
        entry = chosen[kind]
        options[kind] = {
            name: resolve(
                f"{kind} {entry.spec.name}", entry.spec.build, {**given.get((kind, None), {}), **given.get((kind, name), {})}
            )
            for name in MECHANISMS
        }
    injector = chosen["rationale"]
    own = dict(given.get(("rationale", None), {}))
    weight = resolve("rationale", _rationale_weight, {"weight": own.pop("weight")} if "weight" in own else {})
    if weight["weight"] < 0:
        raise KitError(f"rationale: option 'weight' is {weight['weight']}; expected 0 or more")
    options["rationale"] = {**resolve(f"rationale {injector.spec.name}", injector.spec.build, own), **weight}
    return Plugins(chosen["loss"], chosen["rationale"], chosen["head"], options)


def compare_providers(recorded: Mapping[str, Mapping[str, str]], config: RunConfig, registry: Registry) -> tuple[str, ...]:
    """What of a recorded run's plugins is installed in another version now.

    Args:
        recorded: a kind to the plugin's name, distribution and version, as in run.json.
        config: what is to be run; a plugin that it replaces is not compared.
        registry: what is installed.

    Raises:
        KitError: a plugin that is not there, or comes from another distribution.
    """
    warnings = []
    for kind in KINDS:
        then = recorded.get(kind)
        if then is None or then["name"] != getattr(config, kind):
            continue
        was = f"{kind} {then['name']}: the recorded run had it from {then['distribution']} {then['version']}"
        now = next((entry for entry in registry.of(kind) if entry.spec.name == then["name"]), None)
        if now is None:
            failures = [failure for failure in registry.failures if same_distribution(failure.distribution, then["distribution"])]
            why = "; ".join(f"not loaded: {failure}" for failure in failures) or "expected it to be installed"
            raise KitError(f"{was}, which is not there; {why}")
        if not same_distribution(now.distribution, then["distribution"]):
            raise KitError(f"{was}, but now {now.distribution} {now.version} offers that name; expected {then['distribution']}")
        if now.version != then["version"]:
            warnings.append(f"{was}; now it is {now.version}, whose numbers may differ")
    return tuple(warnings)


def _rationale_weight(*, weight: float = 1.0) -> float:
    """The kit's own option of every injector: how much the span loss counts."""
    return weight


def _route(given: Mapping[str, Any]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """``loss.gamma`` and ``loss.ER.gamma`` -> whose option it is."""
    routed: dict[tuple[str, str | None], dict[str, Any]] = {}
    for route, value in given.items():
        match route.split("."):
            case [("loss" | "head" | "rationale") as kind, name]:
                routed.setdefault((kind, None), {})[name] = value
            case [("loss" | "head") as kind, mechanism, name] if mechanism in MECHANISMS:
                routed.setdefault((kind, mechanism), {})[name] = value
            case _:
                raise KitError(
                    f"-o {route}: unknown, expected loss.OPTION, head.OPTION, rationale.OPTION or loss.ER.OPTION "
                    f"(also head, and {', '.join(MECHANISMS)})"
                )
    return routed


def _build(entry: Provided, *arguments: Any, **options: Any) -> Any:
    """Call a builder. What it raises, but for a fault of the user's, becomes a line that names its provider."""
    try:
        return entry.spec.build(*arguments, **options)
    except KitError:
        raise
    except Exception as error:  # other people's code
        raise KitError(
            f"{entry.kind} {entry.spec.name} of {entry.distribution} {entry.version} cannot be built: {type(error).__name__}: "
            f"{one_line(error)}; `empathy-kit plugins check {entry.spec.name}` shows where"
        ) from error


@contextmanager
def _blaming(plugins: Plugins) -> Iterator[None]:
    """Name the third parties whose code took part in whatever goes wrong."""
    used = [entry for entry in (plugins.loss, plugins.rationale, plugins.head) if entry.distribution != OURS]
    names = ", ".join(f"{entry.kind} {entry.spec.name} is from {entry.distribution} {entry.version}" for entry in used)
    try:
        yield
    except KitError as error:
        if not names:
            raise
        raise KitError(f"{error} ({names})") from None
    except Exception as error:
        if names:
            error.add_note(names)
        raise


def build_tasks(corpus: Corpus, split: Split) -> list[Task]:
    """What builders may know of the mechanisms: counts from the training part alone."""
    counts = class_counts(take(corpus, split.train))
    return [Task(name, LEVELS, counts[name]) for name in MECHANISMS]


def build_model(config: RunConfig, plugins: Plugins, tasks: Sequence[Task], encoder: Any) -> Model:
    """The trunk with its injector, and a head a mechanism."""
    from empathy_kit.core.model import Model
    from empathy_kit.core.trunk import Trunk

    options = {name: value for name, value in plugins.options["rationale"].items() if name != "weight"}
    trunk = Trunk(
        encoder,
        _build(plugins.rationale, tasks, encoder.config.hidden_size, **options),
        hidden=config.hidden,
        layers=config.layers,
        dropout=config.dropout,
        freeze_layers=config.freeze_layers,
    )
    heads = {task.name: _build(plugins.head, task, config.hidden, **plugins.options["head"][task.name]) for task in tasks}
    return Model(trunk, heads)


def build_criteria(plugins: Plugins, tasks: Sequence[Task], model: Model) -> dict[str, Criterion]:
    """A loss a mechanism: the head's own criterion where it has one, else the run's loss."""
    criteria: dict[str, Criterion] = {}
    for task in tasks:
        own = getattr(model.heads[task.name], "criterion", None)
        criteria[task.name] = own or _build(plugins.loss, task, **plugins.options["loss"][task.name])
    return criteria


def build_engine(config: RunConfig, plugins: Plugins, tasks: Sequence[Task], model: Model, tokenization: Tokenization) -> Engine:
    """The model with its losses on the run's device; it hands gold spans over only where the injector's spec allows it."""
    from empathy_kit.core.engine import Engine

    return Engine(
        model,
        build_criteria(plugins, tasks, model),
        pad_id=tokenization.pad_id,
        gold=cast(Rationale, plugins.rationale.spec).gold,
        cpu=config.device == "cpu",
        precision=config.precision,
        fused=config.fused,
    )


def build_recipe(config: RunConfig, plugins: Plugins) -> Recipe:
    """The engine's part of the configuration."""
    from empathy_kit.core.engine import Recipe

    return Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        encoder_lr=config.encoder_lr,
        lr=config.lr,
        warmup=config.warmup,
        schedule=config.schedule,
        clip=config.clip,
        average=config.average,
        select=config.select,
        patience=config.patience,
        rationale_weight=plugins.options["rationale"]["weight"],
    )


def tokenize(config: RunConfig, tokenizer: Any, encoder: Any) -> Tokenization:
    """The tokenizer with the run's length limit.

    Raises:
        KitError: a limit beyond the encoder's positions.
    """
    from empathy_kit.core.batch import Tokenization
    from empathy_kit.core.encoder import longest_input

    longest = longest_input(encoder)
    if config.max_tokens > longest:
        raise KitError(f"--max-tokens {config.max_tokens}: {config.encoder} reads at most {longest} tokens a post")
    return Tokenization(tokenizer, config.max_tokens, config.truncate)


def read_posts(config: RunConfig, tokenization: Tokenization, corpus: Corpus) -> tuple[list[TokenPair], Truncation]:
    """Every pair as the run's model is shown it, and what the length limit took away."""
    tokens, truncation = tokenization.encode(corpus.pairs)
    if config.posts == "response":
        tokens = [replace(pair, seeker=tokenization.empty) for pair in tokens]
    return tokens, truncation


def run(
    config: RunConfig,
    registry: Registry,
    out: Path,
    *,
    expected: Mapping[str, str] | None = None,
    providers: Mapping[str, Mapping[str, str]] | None = None,
    keep_model: bool = True,
) -> Iterator[Opened | Step | Epoch | Finished]:
    """Train and test one configuration, yielding what happens; the last event is `Finished`.

    Args:
        config: what to run.
        registry: where the plugins are.
        out: the run directory, which must not exist.
        expected: sha256 of the data and of the split ("data", "split"), where a run is repeated.
        providers: who provided each kind's plugin, where a run is repeated.
        keep_model: leave the model in the run directory, and not only what it scored.

    Raises:
        KitError: anything in the configuration, the data or the output folder that the user can mend.
    """
    warnings = compare_providers(providers, config, registry) if providers else ()
    plugins = choose_plugins(config, registry)
    record.check_output(out)
    corpus = load_corpus(config.data)
    split = make_split(corpus, config.split, config.split_seed)
    data, parts_found = describe_data(corpus), describe_split(corpus, split)
    for name, found in (("data", data), ("split", parts_found)):
        if expected and found["sha256"] != expected[name]:
            raise KitError(
                f"--config: the {name} is not that of the recorded run (sha256 {found['sha256'][:12]}... found, expected "
                f"{expected[name][:12]}...); its scores cannot be repeated"
            )

    import torch

    from empathy_kit.core import checkpoint
    from empathy_kit.core.encoder import load_encoder
    from empathy_kit.core.engine import Epoch

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)  # before anything is initialised: the heads' first weights are part of the run
    source = encoder_source(config.encoder)
    encoder, tokenizer = load_encoder(source.location, local=source.local, attention_dropout=config.attention_dropout)
    tokenization = tokenize(config, tokenizer, encoder)
    tokens, truncation = read_posts(config, tokenization, corpus)
    parts: dict[str, list[TokenPair]] = {name: [tokens[at] for at in split.part(name)] for name in PARTS}

    tasks = build_tasks(corpus, split)
    model = build_model(config, plugins, tasks, encoder)
    engine = build_engine(config, plugins, tasks, model, tokenization)
    posts = (tuple(post) for pair in tokens for post in (pair.seeker, pair.response))
    states = model.trunk.remember(posts, cache_folder() / "states")
    own_criterion = any(hasattr(head, "criterion") for head in model.heads.values())
    if own_criterion:
        warnings += (f"head {config.head} trains with a loss of its own, not with --loss {config.loss}",)
    device = str(engine.accelerator.device)
    losses = engine.losses_status()
    where = None if states is None else states.path
    yield Opened(config, data, parts_found, truncation, plugins.oracle, device, losses, warnings, where)

    history: list[Epoch] = []
    with _blaming(plugins):
        for event in engine.fit(parts["train"], parts["validation"], build_recipe(config, plugins), seed=config.seed):
            if isinstance(event, Epoch):
                history.append(event)
            yield event
        predictions = engine.predict(parts["test"])
        swapped = engine.predict(swap_seekers(parts["test"], config.split_seed))

    result = record.Record(
        format=record.FORMAT,
        kit=__version__,
        oracle=plugins.oracle,
        # The options with their defaults written out: a plugin may change a default, and a repeat must not follow it.
        config=to_dict(replace(config, options=dict(routes(plugins.options)))),
        plugins={
            kind: {"name": entry.spec.name, "distribution": entry.distribution, "version": entry.version}
            for kind, entry in (("loss", plugins.loss), ("rationale", plugins.rationale), ("head", plugins.head))
        },
        versions={
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in LIBRARIES},
        },
        machine={
            "system": platform.system(),
            "processor": platform.machine(),
            "device": device,
            "losses": losses,
            "threads": torch.get_num_threads(),
        },
        data=data,
        split=parts_found,
        truncation=asdict(truncation),
        training={**_training(history), "own_criterion": own_criterion},
        scores=_scores(predictions, parts["test"], tasks, config.seed),
        spans=_span_scores(predictions, parts["test"], config.seed),
    )
    with record.staged(out) as folder:
        if keep_model:
            checkpoint.save(folder / record.MODEL, model, tokenizer, encoder)
        columns, rows = _prediction_rows(corpus, split, predictions, swapped)
        record.write(folder, result, [asdict(epoch) for epoch in history], columns, rows)
    yield Finished(result, out)


@dataclass(frozen=True)
class Loaded:
    """A finished run's model, ready to predict."""

    record: record.Record
    engine: Engine
    tokenization: Tokenization = field(repr=False)
    warnings: tuple[str, ...] = ()  # plugins that are installed in another version than the run had


def load(folder: Path, registry: Registry) -> Loaded:
    """Rebuild a finished run's model from its folder: no network, no pickle, every byte compared with the manifest.

    Raises:
        KitError: a run that was changed, or whose plugins are not there.
    """
    from empathy_kit.config import configure
    from empathy_kit.core import checkpoint
    from empathy_kit.core.encoder import rebuild_encoder

    result = record.read(folder)
    config = configure(RunConfig(), result.config)
    warnings = compare_providers(result.plugins, config, registry)
    plugins = choose_plugins(config, registry)
    encoder, tokenizer = rebuild_encoder(folder / record.MODEL)
    counts = result.split["class_counts"]["train"]
    tasks = [Task(name, LEVELS, tuple(counts[name])) for name in MECHANISMS]
    model = build_model(config, plugins, tasks, encoder)
    checkpoint.load(folder / record.MODEL, model)
    tokenization = tokenize(config, tokenizer, encoder)
    engine = build_engine(config, plugins, tasks, model, tokenization)
    return Loaded(result, engine, tokenization, warnings)


def describe_data(corpus: Corpus) -> dict[str, Any]:
    """What was found in the data, and what of it cannot be used, as numbers."""
    repeated = duplicates(corpus)
    placement = corpus.placement
    return {
        "name": corpus.name,
        "pairs": len(corpus),
        "sha256": corpus.sha256(),
        "sources": corpus.sources,
        "class_counts": class_counts(corpus.pairs),
        "seeker_posts": len({pair.seeker for pair in corpus.pairs}),
        "duplicates": asdict(repeated),
        "spans": {
            "total": placement.total,
            "exact": placement.exact,
            "whitespace": placement.whitespace,
            "fuzzy": placement.fuzzy,
            "lost": [list(entry) for entry in placement.lost],
            "bare": [list(entry) for entry in placement.bare],
        },
    }


def describe_split(corpus: Corpus, split: Split) -> dict[str, Any]:
    """Sizes, class counts and leakage of a split."""
    return {
        "kind": split.kind,
        "seed": split.seed,
        "sha256": split.sha256(),
        "pairs": {name: len(split.part(name)) for name in PARTS},
        "class_counts": {name: class_counts(take(corpus, split.part(name))) for name in PARTS},
        "leakage": {name: asdict(leakage(corpus, split, name)) for name in PARTS[1:]},
    }


def describe_truncation(config: RunConfig, corpus: Corpus) -> dict[str, Any]:
    """What the length limit takes away, in the tokens of the run's encoder."""
    from empathy_kit.core.batch import Tokenization
    from empathy_kit.core.encoder import load_tokenizer

    source = encoder_source(config.encoder)
    tokenizer = load_tokenizer(source.location, local=source.local)
    return asdict(Tokenization(tokenizer, config.max_tokens, config.truncate).encode(corpus.pairs)[1])


def _training(history: Sequence[Epoch]) -> dict[str, Any]:
    best = [epoch for epoch in history if epoch.best][-1]
    return {
        "epochs": len(history),
        "best_epoch": best.epoch,
        "validation_loss": best.validation_loss,
        "validation_macro_f1": best.validation_macro_f1,
        "validation_accuracy": best.validation_accuracy,
        "seconds": round(sum(epoch.seconds for epoch in history), 1),
        "pairs_per_second": round(sum(epoch.pairs_per_second for epoch in history) / len(history), 1),
    }


def _scores(predictions: Predictions, pairs: Sequence[TokenPair], tasks: Sequence[Task], seed: int) -> dict[str, Any]:
    import numpy as np

    from empathy_kit.core.metrics import score

    target = np.array([pair.levels for pair in pairs])
    levels = predictions.levels()
    return {
        task.name: asdict(
            score(
                target[:, index],
                levels[task.name],
                task.num_classes,
                majority=task.class_counts.index(max(task.class_counts)),
                seed=seed,
            )
        )
        for index, task in enumerate(tasks)
    }


def _span_scores(predictions: Predictions, pairs: Sequence[TokenPair], seed: int) -> dict[str, Any] | None:
    from empathy_kit.core.metrics import score_spans

    if predictions.spans is None:
        return None
    scores: dict[str, Any] = {}
    for index, name in enumerate(MECHANISMS):
        known = [at for at, pair in enumerate(pairs) if pair.gold_known[index]]
        gold = [[place in pairs[at].gold[index] for place in range(len(pairs[at].response))] for at in known]
        scores[name] = asdict(score_spans(gold, [predictions.spans[at][index] for at in known], seed)) if known else None
    return scores


def swap_seekers(pairs: Sequence[TokenPair], seed: int) -> list[TokenPair]:
    """Each response beside another pair's seeker post: a model that uses the context must get worse.

    A post keeps its own where all are the same.
    """
    order = random.Random(seed).sample(range(len(pairs)), len(pairs))
    swapped = list(pairs)
    for at, position in enumerate(order):
        others = (pairs[order[(at + step) % len(order)]].seeker for step in range(1, len(order)))
        seeker = next((other for other in others if other != pairs[position].seeker), pairs[position].seeker)
        swapped[position] = replace(pairs[position], seeker=seeker)
    return swapped


def _prediction_rows(
    corpus: Corpus, split: Split, predictions: Predictions, swapped: Predictions
) -> tuple[list[str], list[list[str]]]:
    """The test part's predictions a mechanism: true level, predicted level, that with another's seeker post, probabilities.

    Hashed ids, and no text.
    """
    ids = record.hashed_ids(corpus)
    levels, elsewhere = predictions.levels(), swapped.levels()
    columns = ["id"]
    for name in MECHANISMS:
        columns += [f"{name}_true", f"{name}_predicted", f"{name}_swapped", *(f"{name}_p{level}" for level in LEVELS)]
    rows = []
    for at, position in enumerate(split.test):
        row = [ids[position]]
        for index, name in enumerate(MECHANISMS):
            row += [str(corpus.pairs[position].levels[index]), str(int(levels[name][at])), str(int(elsewhere[name][at]))]
            row += [f"{value:.6f}" for value in predictions.probabilities[name][at]]
        rows.append(row)
    return columns, rows
