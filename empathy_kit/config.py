"""RunConfig <-> JSON and TOML; the presets as plain data."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from empathy_kit.data.schema import EPITOME, Schema, read_schema
from empathy_kit.errors import KitError
from empathy_kit.options import check_routes, parse
from empathy_kit.reading import read_regular


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class RunConfig:
    """All that a run depends on. The defaults are the recipe for the small encoder; every field is a flag of `run`."""

    data: str = _setting("sample", "sample, reddit, a folder with the three EPITOME files, or a .csv, .jsonl or .parquet table")
    schema: Schema = _setting(EPITOME, "a TOML file of the table's tasks and their labels; epitome: ER, EX, IP")
    tasks: tuple[str, ...] | None = _setting(None, "which of the schema's tasks to train, such as ER,IP; none for all")
    split: Literal["grouped", "paper"] = _setting(
        "grouped", "grouped: pairs of one seeker or seeker post stay in one part; paper: rows at random"
    )
    split_seed: int = _setting(0, "which split")
    train_share: float = _setting(1.0, "share of the training part's seekers that is used, for learning curves")
    seed: int = _setting(0, "initial weights, order of batches, dropout")
    encoder: str = _setting("minilm", "minilm, mpnet, or any Hugging Face name or folder")
    max_tokens: int = _setting(64, "longest post in tokens, special tokens included")
    truncate: Literal["head", "head-tail"] = _setting("head-tail", "what a longer post keeps: its start, or its start and end")
    posts: Literal["both", "response"] = _setting("both", "response: the model is not shown the seeker post")
    loss: str = _setting("ce", "see `empathy-kit plugins list`")
    rationale: str = _setting("none", "see `empathy-kit plugins list`")
    head: str = _setting("linear", "see `empathy-kit plugins list`")
    sampler: str = _setting("all", "which training pairs an epoch shows; see `empathy-kit plugins list`")
    trunk: str = _setting("gru", "between the posts and the heads; see `empathy-kit plugins list`")
    freeze_layers: int = _setting(0, "lowest layers of the encoder that are not trained; their states are computed once")
    attention_dropout: float | None = _setting(0.0, "the encoder's, inside attention; none keeps its own")
    epochs: int = _setting(5, "at most")
    batch_size: int = _setting(32, "pairs per step")
    encoder_lr: float = _setting(5e-5, "learning rate of the encoder")
    lr: float = _setting(1e-3, "learning rate of everything else")
    warmup: float = _setting(0.1, "share of the steps over which the learning rates rise")
    schedule: Literal["linear", "constant"] = _setting("linear", "learning rates after the warm-up: falling to 0, or constant")
    clip: float | None = _setting(1.0, "largest gradient norm; none for no limit")
    average: float | None = _setting(0.98, "decay of the weights' moving average, per step; none keeps the last weights")
    select: Literal["macro-f1", "loss"] = _setting("macro-f1", "the validation score that chooses the epoch")
    patience: int = _setting(2, "epochs without a better one before training ends")
    device: Literal["auto", "cpu"] = _setting("auto", "auto takes an accelerator where there is one")
    precision: Literal["no", "bf16", "fp16"] = _setting("no", "mixed precision")
    fused: Literal["auto", "on", "off"] = _setting(
        "auto", "the kit's losses by fused kernels: where there are some, always, never"
    )
    threads: int | None = _setting(None, "CPU threads; none for torch's own choice")
    options: Mapping[str, Any] = field(default_factory=dict)  # "loss.gamma", "loss.ER.gamma": of the plugins

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise KitError(f"{flag(name)} {value}: out of range, expected {low} to {high}")


RANGES: dict[str, tuple[float, float]] = {
    "split_seed": (0, 2**32 - 1),
    "train_share": (0.001, 1),
    "seed": (0, 2**32 - 1),
    "max_tokens": (8, 100_000),
    "freeze_layers": (0, 1000),
    "attention_dropout": (0, 0.99),
    "epochs": (1, 10_000),
    "batch_size": (1, 1_000_000),
    "encoder_lr": (0, 10),
    "lr": (0, 10),
    "warmup": (0, 1),
    "clip": (1e-9, 1e9),
    "average": (0, 0.99999),
    "patience": (1, 10_000),
    "threads": (1, 4096),
}

ADDED = ("train_share",)  # settings that records of earlier versions lack; their default is what those versions did

PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    # Section 4.2 of the paper. It names no learning rate schedule, no clipping and no patience: none of these here, so the
    # first epoch that is no better ends the training.
    "paper": {
        "encoder": "roberta-base",
        "split": "paper",
        "max_tokens": 64,
        "truncate": "head",
        "head": "linear",
        "trunk": "gru",
        "options": {"trunk.hidden": 256, "trunk.layers": 2, "trunk.dropout": 0.3},
        "attention_dropout": None,
        "freeze_layers": 0,
        "epochs": 5,
        "batch_size": 32,
        "encoder_lr": 1e-5,
        "lr": 1e-5,
        "warmup": 0.0,
        "schedule": "constant",
        "clip": None,
        "average": None,
        "select": "loss",
        "patience": 1,
    },
    # The larger encoder, with the remedy for rare levels, truncation, rationale, head and trunk that validation scores on the
    # Reddit data chose (docs/paper.md).
    "best": {
        "encoder": "mpnet",
        "freeze_layers": 8,
        "loss": "weighted",
        "options": {"loss.power": 0.5},
        "rationale": "tag",
        "head": "attention",
        "trunk": "mean",
    },
}

COMPARISON: dict[str, dict[str, Any]] = {
    # The four configurations of the paper's Table 1. What its T2 and T4 see of the test pairs' rationales is not stated; these
    # see nothing of them.
    "T1": {"loss": "ce", "rationale": "none"},
    "T2": {"loss": "ce", "rationale": "predicted"},
    "T3": {"loss": "focal", "rationale": "none"},
    "T4": {"loss": "focal", "rationale": "predicted"},
    # The same with the test pairs' own annotation, which gives the level away: oracles.
    "T2g": {"loss": "ce", "rationale": "gold"},
    "T4g": {"loss": "focal", "rationale": "gold"},
    # With the annotation in training and nothing at test.
    "T2t": {"loss": "ce", "rationale": "train-only"},
    "T4t": {"loss": "focal", "rationale": "train-only"},
    "weighted": {"loss": "weighted", "rationale": "none"},
    "response": {"loss": "ce", "rationale": "none", "posts": "response"},
    # One model per task instead of one for all, which is no setting of a run.
    "T1s": {"loss": "ce", "rationale": "none", "separate": True},
    "T3s": {"loss": "focal", "rationale": "none", "separate": True},
}
FOUR = ("T1", "T2", "T3", "T4")

# Table 1 of the paper, accuracy and F-score (weighted, as its size shows): one run per cell on its own random 464 test pairs.
PAPER: dict[str, dict[str, tuple[float, float]]] = {
    "T1": {"ER": (0.7801, 0.7686), "EX": (0.9353, 0.9235), "IP": (0.8297, 0.8103)},
    "T2": {"ER": (0.7801, 0.7780), "EX": (0.9159, 0.9003), "IP": (0.8168, 0.7981)},
    "T3": {"ER": (0.8060, 0.8023), "EX": (0.9288, 0.9216), "IP": (0.8426, 0.8228)},
    "T4": {"ER": (0.7780, 0.7836), "EX": (0.9159, 0.9152), "IP": (0.8081, 0.7898)},
}


def flag(name: str) -> str:
    """A field's name as its flag: ``encoder_lr`` -> ``--encoder-lr``."""
    return "--" + name.replace("_", "-")


def settings() -> dict[str, tuple[Any, str]]:
    """Every field but the plugins' options: its default and its help."""
    return {entry.name: (entry.default, entry.metadata["help"]) for entry in fields(RunConfig) if entry.name != "options"}


def configure(base: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """A configuration with some fields changed, from text or from JSON or TOML values.

    Raises:
        KitError: an unknown field, or a value that is not what the field expects.
    """
    types = get_type_hints(RunConfig)
    # Options belong to the plugin that is named: another loss does not inherit this one's gamma.
    kept = {
        route: value
        for route, value in base.options.items()
        if changes.get(route.partition(".")[0]) in (None, getattr(base, route.partition(".")[0], None))
    }
    values: dict[str, Any] = {"options": kept}
    for name, value in changes.items():
        if name == "schema":
            values[name] = _schema(value)
        elif name == "options":
            if not isinstance(value, Mapping):
                raise KitError(f"options: a {type(value).__name__} found, expected names and values such as loss.gamma 1.5")
            new = dict(routes(value))
            check_routes(new)
            # A task's own option beats the general one, so an inherited one would silence a general one given now.
            inherited = {route: old for route, old in kept.items() if _general(route) not in new}
            values[name] = {**inherited, **new}
        elif name not in types:
            raise KitError(f"unknown setting {name!r}; there are {', '.join(types)}")
        else:
            try:
                os.fsencode(value if isinstance(value, str) else "")  # half of a sign, which JSON can write, fails
                values[name] = parse(types[name], value)
            except UnicodeEncodeError:
                raise KitError(f"{flag(name)} {value}: broken Unicode, expected text") from None
            except ValueError as error:
                raise KitError(f"{flag(name)} {value}: {error}") from None
    config = replace(base, **values)
    if config.tasks is not None and set(config.tasks) <= set(config.schema.names) and len(set(config.tasks)) == len(config.tasks):
        # One model whatever the order: its heads stand in that of the schema.
        config = replace(config, tasks=tuple(name for name in config.schema.names if name in config.tasks))
    return config


def _schema(value: Any) -> Schema:
    """A schema by the name of its file, or written out."""
    if isinstance(value, str):
        return EPITOME if value == "epitome" else read_schema(Path(value))
    return value if isinstance(value, Schema) else Schema.from_dict(value)


def _general(route: str) -> str:
    """``loss.ER.gamma`` -> ``loss.gamma``."""
    kind, _, rest = route.partition(".")
    return f"{kind}.{rest.rpartition('.')[2]}"


def routes(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``loss.gamma`` as it is; also TOML's own reading of the unquoted key, a table ``gamma`` in a table ``loss``."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from routes(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def preset(name: str) -> RunConfig:
    """A preset's configuration.

    Raises:
        KitError: no preset of that name.
    """
    if name not in PRESETS:
        raise KitError(f"--preset {name}: unknown, expected one of {', '.join(PRESETS)}")
    return configure(RunConfig(), PRESETS[name])


def to_dict(config: RunConfig) -> dict[str, Any]:
    """All fields, as JSON has them."""
    values = {entry.name: getattr(config, entry.name) for entry in fields(RunConfig)}
    values["tasks"] = None if config.tasks is None else list(config.tasks)
    return {**values, "schema": config.schema.to_dict(), "options": dict(config.options)}


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, or in a run's ``run.json``.

    Raises:
        KitError: no such file, or one that holds no settings.
    """
    content = read_content(path)
    if "config" not in content:
        return content
    found = content["config"]
    if not isinstance(found, dict):
        raise KitError(f"--config {path}: config is a {type(found).__name__}, expected settings")
    return found


_NAMES = ("sample", "reddit", "minilm", "mpnet", "epitome")  # of data, encoders and schemas, whatever lies about


def located(settings: Mapping[str, Any], path: Path, option: str = "--config") -> dict[str, Any]:
    """Settings of a file, with the files and folders that they name where they are: here, or next to that file or above it.

    A run records what it was given, and is repeated from any folder.

    Raises:
        KitError: data that are in none of these places.
    """
    found = dict(settings)
    for name in ("data", "encoder", "schema"):
        given = settings.get(name)
        if not isinstance(given, str) or given in _NAMES or "\0" in given or os.path.lexists(given):
            continue
        places = [] if Path(given).is_absolute() else [os.path.join(folder, given) for folder in path.absolute().parents]  # noqa: PTH118 - Path.exists raises for some
        there = next((place for place in places if os.path.exists(place)), None)  # noqa: PTH110
        if there is not None:
            found[name] = os.path.relpath(there)
        elif name == "data" and not Path(given).is_absolute():
            raise KitError(
                f"{option} {path}: its data {given} are neither in this folder nor next to that file or in a folder above it; "
                "give them as --data"
            )
    return found


def read_content(path: Path) -> dict[str, Any]:
    """All that is in a TOML file of settings, or in a run's ``run.json``.

    Raises:
        KitError: it cannot be read, or holds no settings.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise KitError(f"--config {path}: cannot be read: {reason}") from None
    try:
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise KitError(f"--config {path}: not valid {'TOML' if path.suffix == '.toml' else 'JSON'}: {error}") from None
    if not isinstance(content, dict):
        raise KitError(f"--config {path}: a {type(content).__name__} found, expected settings")
    return content
