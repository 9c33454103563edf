"""Build a run's model, objective and trainer from its configuration and plugins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from empathy_kit.cache import cache_folder
from empathy_kit.config import RunConfig
from empathy_kit.contracts import Encoded, Rationale, Task
from empathy_kit.data.pairs import Corpus, class_counts
from empathy_kit.data.schema import Schema
from empathy_kit.data.splits import Split, take
from empathy_kit.encoders import encoder_source
from empathy_kit.errors import KitError
from empathy_kit.plugins import OURS, Provided
from empathy_kit.runs.choose import Plugins

if TYPE_CHECKING:
    from torch import device, nn

    from empathy_kit.core.batch import Examples
    from empathy_kit.core.model import Model
    from empathy_kit.core.objective import Criterion, Objective
    from empathy_kit.core.predictor import Predictor
    from empathy_kit.core.processes import Processes
    from empathy_kit.core.tokens import Tokenization, TokenPair, Truncation
    from empathy_kit.core.trainer import Trainer


def build_tasks(corpus: Corpus, split: Split, schema: Schema) -> list[Task]:
    """The tasks as builders see them: class counts come from the training part only."""
    counts = class_counts(take(corpus, split.train), corpus.schema)
    return [Task(task.name, task.labels, counts[task.name]) for task in schema.tasks]


def open_encoder(config: RunConfig) -> tuple[nn.Module, Any]:
    """The run's encoder with its pretrained weights, and its tokenizer.

    Raises:
        KitError: as `load_encoder`.
    """
    from empathy_kit.core.encoder import NOT_HERE, load_encoder

    source = encoder_source(config.encoder)
    try:
        with flags_named():
            return load_encoder(source.location, local=source.local, attention_dropout=config.attention_dropout)
    except KitError as error:
        if not str(error).endswith(NOT_HERE):
            raise
        advice = "download it where there is a network and give its folder as --encoder FOLDER, or use --encoder minilm"
        raise KitError(f"{error}; {advice}") from None


def build_tokenization(config: RunConfig, tokenizer: Any, encoder: nn.Module) -> Tokenization:
    """The tokenizer with the run's length limit; it leaves out the seeker posts with ``--posts response``.

    Raises:
        KitError: the limit exceeds the encoder's positions.
    """
    from empathy_kit.core.encoder import longest_input
    from empathy_kit.core.tokens import Tokenization

    longest = longest_input(encoder)
    if config.max_tokens > longest:
        raise KitError(f"--max-tokens {config.max_tokens}: {config.encoder} reads at most {longest} tokens per post")
    return Tokenization(tokenizer, config.max_tokens, config.truncate, seekers=config.posts == "both")


def read_posts(config: RunConfig, tokenization: Tokenization, corpus: Corpus) -> tuple[Examples, Truncation]:
    """Every pair as the run's model sees it, with the labels of its tasks, and what truncation removed."""
    schema = config.schema.select(config.tasks)
    positions = [corpus.schema.index(name) for name in schema.names]
    examples, truncation = tokenization.encode_labelled(corpus.pairs, positions)
    # Where no pair has a span of a task, the task was not annotated: a pair without a span is then unknown, not negative.
    marked = [any(pair.spans[task] for pair in corpus.pairs) for task in positions]
    if not all(marked):
        labels = (replace(each, gold_known=tuple(map(min, each.gold_known, marked))) for each in examples.labels)
        examples = replace(examples, labels=tuple(labels))
    return examples, truncation


def build_model(config: RunConfig, plugins: Plugins, tasks: Sequence[Task], encoder: nn.Module) -> Model:
    """The trunk with its injector and post encoder, and one head per task.

    Raises:
        KitError: a plugin cannot be built, or does not build a module.
    """
    from torch import nn

    from empathy_kit.core.model import Model
    from empathy_kit.core.posts import PostEncoder

    with flags_named():
        posts = PostEncoder(encoder, freeze_layers=config.freeze_layers)
    injector = plugins.build("rationale", tasks, posts.width)
    if not isinstance(injector, nn.Module):
        raise plugins.wrong("rationale", f"{type(injector).__name__} found, expected an nn.Module")
    trunk = plugins.build("trunk", posts, injector)
    width = getattr(trunk, "width", None)
    if not isinstance(trunk, nn.Module) or not isinstance(width, int) or width < 1:
        found = f"width {width!r}" if isinstance(trunk, nn.Module) else type(trunk).__name__
        raise plugins.wrong("trunk", f"{found} found, expected an nn.Module with an integer attribute width")
    heads = {task.name: plugins.build("head", task, width, task=task.name) for task in tasks}
    for head in heads.values():
        if not isinstance(head, nn.Module) or not callable(getattr(head, "probabilities", None)):
            found = "no method probabilities" if isinstance(head, nn.Module) else type(head).__name__
            raise plugins.wrong("head", f"{found} found, expected an nn.Module with a method probabilities")
    return Model(trunk, heads)


def ready(
    config: RunConfig, plugins: Plugins, tasks: Sequence[Task], folder: Path, device: Literal["auto", "cpu"]
) -> tuple[Predictor, Tokenization, tuple[str, ...]]:
    """A saved model that predicts on a device, its tokenization, and warnings about the precision.

    Raises:
        KitError: the folder's files are not those of such a model, or a plugin cannot be built.
    """
    from empathy_kit.core import checkpoint
    from empathy_kit.core.encoder import rebuild_encoder
    from empathy_kit.core.precision import find_device, predicting_precision
    from empathy_kit.core.predictor import Predictor

    encoder, tokenizer = rebuild_encoder(folder)
    model = build_model(config, plugins, tasks, encoder)
    checkpoint.load(folder, model)
    tokenization = build_tokenization(config, tokenizer, encoder)
    where = find_device(device)
    precision, warnings = predicting_precision(where, config.precision)
    return Predictor(model, pad_id=tokenization.pad_id, device=where, precision=precision), tokenization, warnings


def check_model(plugins: Plugins, tasks: Sequence[Task], model: Model, tokenization: Tokenization) -> bool:
    """Pass two empty pairs through a new model, so that a plugin that returns wrong shapes is named before training.

    Returns:
        Whether the injector predicts spans.

    Raises:
        KitError: the width of a trunk, or the outputs of an injector or a head, are not as expected.
    """
    import torch

    from empathy_kit.core.batch import collate_texts
    from empathy_kit.core.tokens import TokenPair

    texts = collate_texts([TokenPair(tokenization.empty, tokenization.empty)] * 2, tokenization.pad_id)
    # No GPU is asked for its state: until training starts, the model is on the CPU.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(), plugins.blamed():
        output = model.eval().trunk(texts, None)
        width = cast(int, model.trunk.width)
        if not isinstance(output, tuple) or len(output) != 2:
            raise plugins.wrong(
                "trunk", f"{type(output).__name__} found as its output, expected an Encoded and span logits or None"
            )
        encoded, span_logits = output
        if not isinstance(encoded, Encoded):
            raise plugins.wrong("trunk", f"its output is a {type(encoded).__name__}, expected an Encoded")
        shape = tuple(encoded.pooled.shape)
        if shape != (2, width) or encoded.sequence.shape[-1] != width:
            found = shape if shape != (2, width) else tuple(encoded.sequence.shape)
            raise plugins.wrong("trunk", f"its width is {width}, but its states for two pairs have shape {found}")
        expected = (2, len(tasks), texts.response.shape[1])
        if span_logits is not None and tuple(span_logits.shape) != expected:
            raise plugins.wrong("rationale", f"span logits for two pairs: {tuple(span_logits.shape)} found, expected {expected}")
        for task in tasks:
            head = model.heads[task.name]
            logits = head(encoded)
            if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != 2:
                what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
                raise plugins.wrong("head", f"logits of {task.name} for two pairs: {what} found, expected shape (2, K)")
            shape = tuple(head.probabilities(logits).shape)  # type: ignore[operator]
            if shape != (2, task.num_classes):
                wanted = (2, task.num_classes)
                raise plugins.wrong("head", f"probabilities of {task.name} for two pairs: {shape} found, expected {wanted}")
    return span_logits is not None


FEW = 0.1
"""Share of the labels above the lowest that have a span, below which there is a warning.

The span loss leaves out the others, and takes in every pair of the lowest label, of which no token is evidence. So the fewer
labels above the lowest have a span, the rarer evidence is in the loss than in the posts. A tenth is a choice, not a measurement.
"""


def marked_tasks(tasks: Sequence[Task], train: Examples) -> frozenset[str]:
    """The names of the tasks of which a training pair has an annotated span."""
    return frozenset(task.name for at, task in enumerate(tasks) if any(each.gold[at] for each in train.labels))


def check_spans(plugins: Plugins, tasks: Sequence[Task], train: Examples) -> tuple[str, ...]:
    """Warnings for the tasks without annotated spans, or with few; called only for an injector that learns from them.

    Raises:
        KitError: the training part has no annotated span of any task.
    """
    name = plugins.chosen["rationale"].spec.name
    marked = marked_tasks(tasks, train)
    without = [task.name for task in tasks if task.name not in marked]
    if len(without) == len(tasks):
        raise without_spans(plugins.chosen["rationale"], without, "use --rationale none, or a table with spans")
    warnings = [f"the training part has no annotated span of {task}: rationale {name} learns nothing of it" for task in without]
    for at, task in enumerate(tasks):
        above = [bool(each.gold[at]) for each in train.labels if each.levels[at] > 0]
        if 0 < sum(above) < FEW * len(above):
            warnings.append(
                f"only {sum(above):,} of {len(above):,} training pairs with a label of {task.name} above the lowest have an "
                f"annotated span: rationale {name} learns little of it"
            )
    return tuple(warnings)


def without_spans(rationale: Provided, tasks: Iterable[str], instead: str) -> KitError:
    """The error for an injector that learns from spans where the training part has none of some tasks."""
    spec = cast(Rationale, rationale.spec)
    if rationale.distribution != OURS and spec.gold == "train":  # which its author may not have written down
        instead += '; if it reads none, give its Rationale gold="never", for the default is "train"'
    return KitError(
        f"--rationale {spec.name}: it learns from annotated spans, and the training part has none of {', '.join(tasks)}; "
        f"{instead}"
    )


def own_criterion(head: nn.Module) -> Any:
    """The head's own loss; None where it is trained with the run's."""
    return getattr(head, "criterion", None)


def build_objective(config: RunConfig, plugins: Plugins, tasks: Sequence[Task], model: Model) -> Objective:
    """One loss per task: the head's own criterion where it has one, else the run's loss.

    Raises:
        KitError: a loss cannot be built, or is not callable.
    """
    from empathy_kit.core.objective import Objective

    criteria: dict[str, Criterion] = {}
    for task in tasks:
        own = own_criterion(model.heads[task.name])
        criterion = plugins.build("loss", task, task=task.name) if own is None else own
        if not callable(criterion):
            what = f"{type(criterion).__name__} found, expected a function or nn.Module"
            raise plugins.wrong("loss", what) if own is None else plugins.wrong("head", f"criterion: {what}")
        criteria[task.name] = criterion
    return Objective(criteria, rationale_weight=plugins.rationale_weight, fused=config.fused)


def build_trainer(
    config: RunConfig,
    plugins: Plugins,
    tasks: Sequence[Task],
    tokenization: Tokenization,
    train: Examples,
    validation: Examples,
    on: device,
    processes: Processes | None = None,
) -> Trainer:
    """A trainer with the configuration's recipe; it passes annotated spans only where the injector's spec allows it.

    Raises:
        KitError: a sampler cannot be built, or the device does not support the precision.
    """
    from empathy_kit.core.trainer import Recipe, Trainer

    recipe = Recipe(
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
    )
    sample = plugins.build("sampler", tasks, train.levels())
    if not callable(sample):
        raise plugins.wrong("sampler", f"{type(sample).__name__} found, expected a function of a generator")
    with flags_named():
        return Trainer(
            train,
            validation,
            recipe,
            pad_id=tokenization.pad_id,
            gold=plugins.rationale.gold,
            sample=sample,
            device=on,
            precision=config.precision,
            processes=processes,
        )


def encoder_warnings(model: Model) -> tuple[str, ...]:
    """Why a model's encoders are slower than they could be."""
    from empathy_kit.core.posts import PostEncoder

    found = [part.warning for part in model.modules() if isinstance(part, PostEncoder)]
    return tuple(dict.fromkeys(f"encoder: {warning}" for warning in found if warning is not None))


def remember_states(model: Model, texts: Sequence[TokenPair]) -> Path | None:
    """Compute the frozen layers' states of all posts or find them in the cache; return their file, if any.

    Raises:
        KitError: the cache cannot be written.
    """
    from empathy_kit.core.posts import PostEncoder

    posts = [tuple(post) for pair in texts for post in (pair.seeker, pair.response)]
    with flags_named():
        found = [part.remember(posts, cache_folder() / "states") for part in model.modules() if isinstance(part, PostEncoder)]
    return next((states.path for states in found if states is not None), None)


@contextmanager
def flags_named() -> Iterator[None]:
    """Core's messages begin with the name of a setting, because core knows no flags: turn it into the flag."""
    try:
        yield
    except KitError as error:
        raise KitError(str(error) if str(error).startswith("--") else f"--{error}") from None
