"""A finished run's model, loaded: it predicts what the run recorded, from nothing but its folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from run_world import configuration, read_predictions
from safetensors.torch import load_file
from torch import Tensor, nn

from empathy_kit import Head, KitError, Loss, Task, Trunk, __version__
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.data.pairs import class_counts
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, take
from empathy_kit.plugins import Provided, Registry, load_registry
from empathy_kit.runs import record
from empathy_kit.runs.load import Loaded, load
from empathy_kit.runs.memory import Trained, rebuild, train
from empathy_kit.runs.train import run


def predicted(loaded: Loaded) -> list[dict[str, str]]:
    """What a loaded model says of its run's test part, as predictions.csv has it."""
    config = loaded.record.config
    corpus = load_corpus(config["data"], loaded.record.schema)
    test = [corpus.pairs[at] for at in make_split(corpus, config["split"], config["split_seed"], loaded.record.tasks).test]
    return [
        {f"{name}_p{level}": f"{share:.6f}" for name, shares in each.probabilities.items() for level, share in enumerate(shares)}
        for each in loaded.predictor.predict(loaded.tokenization.encode(test))
    ]


def recorded(folder: Path) -> list[dict[str, str]]:
    return [{name: cell for name, cell in row.items() if "_p" in name and "_pre" not in name} for row in read_predictions(folder)]


CHANGES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "response alone": {"posts": "response"},  # it was never shown a seeker post, and is not now
    "some tasks, with evidence": {"tasks": ("IP", "ER"), "rationale": "tag", "head": "attention"},
    "another trunk": {"trunk": "mean", "options": {"trunk.hidden": 16}},
    "half precision": {"precision": "bf16"},
    "frozen layers": {"freeze_layers": 1, "truncate": "head"},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.usefixtures("cache")
def test_it_predicts_what_its_run_recorded_without_the_encoder_and_wherever_it_lies(
    tiny_roberta: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("empathy_kit.core.precision.is_emulated", lambda *_: False)  # whatever this processor has
    encoder = shutil.copytree(tiny_roberta, tmp_path / "encoder")
    config = configuration(encoder, **{name: value for name, value in changes.items() if name != "options"})
    config = replace(config, options=changes.get("options", config.options))
    list(run(config, load_registry(), tmp_path / "run"))
    shutil.rmtree(encoder)
    folder = (tmp_path / "run").rename(tmp_path / "moved")
    torch.manual_seed(99)  # whatever state the process is in
    loaded = load(folder, load_registry())
    assert predicted(loaded) == recorded(folder)
    assert loaded.record == record.read(folder)
    assert loaded.warnings == ()


def test_what_a_runs_losses_have_learnt_is_in_its_checkpoint_and_its_model_needs_none_of_it(
    tiny_roberta: Path, tmp_path: Path
) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return cross_entropy(logits * self.scale, target)

    def build(task: Task) -> nn.Module:
        return Scaled()

    registry = Registry((*load_registry().provided, Provided("loss", Loss("scaled", build), "empathy-kit-scaled", "1")))
    list(run(configuration(tiny_roberta, loss="scaled"), registry, tmp_path / "run"))
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    learnt = {name: float(tensor) for name, tensor in weights.items() if name.startswith("losses.")}
    assert set(learnt) == {"losses.ER.scale", "losses.EX.scale", "losses.IP.scale"}
    assert 1 not in learnt.values()
    assert len(set(learnt.values())) == 3  # each task has its own
    assert predicted(load(tmp_path / "run", registry)) == recorded(tmp_path / "run")


def test_builders_are_told_of_the_tasks_what_the_run_told_them(tiny_roberta: Path, tmp_path: Path) -> None:
    """Class counts of the training part, and of nothing else: those of the test part are its labels."""
    told: dict[str, list[Task]] = {"loss": [], "head": []}

    def loss(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
        told["loss"].append(task)
        return cross_entropy

    def head(task: Task, width: int) -> nn.Module:
        told["head"].append(task)
        return LinearHead(width, task.num_classes)

    own = (Provided("loss", Loss("own", loss), "mine", "1"), Provided("head", Head("own", head), "mine", "1"))
    registry = Registry((*load_registry().provided, *own))
    list(run(configuration(tiny_roberta, loss="own", head="own"), registry, tmp_path / "run"))
    corpus = load_corpus("sample")
    counts = class_counts(take(corpus, make_split(corpus, "grouped", 0).train), corpus.schema)
    expected = [Task(task.name, task.labels, counts[task.name]) for task in corpus.schema.tasks]
    assert told == {"loss": expected, "head": expected}
    load(tmp_path / "run", registry)
    assert told == {"loss": expected, "head": [*expected, *expected]}


def test_a_plugin_that_has_changed_since_is_warned_of_and_one_that_is_gone_refused(
    first: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    registry = load_registry()
    others = [entry for entry in registry.provided if (entry.kind, entry.spec.name) != ("trunk", "gru")]
    gru = registry.get("trunk", "gru")
    newer = load(first[0], Registry((*others, replace(gru, version="9.9"))))
    was = f"trunk gru: the recorded run had it from empathy-kit {gru.version}"
    assert newer.warnings == (f"{was}; now it is 9.9, whose numbers may differ",)
    with pytest.raises(KitError) as error:
        load(first[0], Registry(tuple(others)))
    assert str(error.value) == f"{was}, which is missing; install it"


def test_an_option_that_another_version_renamed_is_told_with_both_versions(first: tuple[Path, list[Any]]) -> None:
    """A record has every option, so the user may have given none."""

    def build(encoder: Any, injector: nn.Module, *, width: int = 256, layers: int = 2, dropout: float = 0.3) -> nn.Module:
        raise NotImplementedError

    registry = load_registry()
    now = Provided("trunk", Trunk("gru", build), "empathy-kit", "9.9")
    newer = Registry((*(entry for entry in registry.provided if (entry.kind, entry.spec.name) != ("trunk", "gru")), now))
    found = record.read(first[0])
    kept = Trained(found.config, found.plugins, (), {}, (), ())
    for load_it in (lambda: load(first[0], newer), lambda: rebuild(kept, newer)):
        with pytest.raises(KitError) as error:
            load_it()
        assert str(error.value) == (
            "trunk gru: unknown option 'hidden'; its options: width: int = 256, layers: int = 2, dropout: float = 0.3; "
            f"trunk gru: the recorded run had it from empathy-kit {__version__}; now it is 9.9, whose numbers may differ"
        )


NO_FP16 = "precision fp16: not available on cpu; the model predicts in float32, with slightly other numbers"
NO_BF16 = NO_FP16.replace("fp16", "bf16").replace("on cpu", "on this processor")


@pytest.mark.parametrize("where", ["cpu", None])
@pytest.mark.parametrize(("precision", "warning"), [("fp16", NO_FP16), ("bf16", NO_BF16)], ids=["fp16", "bf16"])
def test_a_run_in_a_precision_that_this_device_lacks_predicts_in_float32_and_warns(
    first: tuple[Path, list[Any]],
    tmp_path: Path,
    where: Literal["cpu"] | None,
    precision: str,
    warning: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one trained with that precision on a GPU, which keeps its weights in float32."""
    monkeypatch.setattr("empathy_kit.core.precision.find_device", lambda _: torch.device("cpu"))
    monkeypatch.setattr("empathy_kit.core.precision.is_emulated", lambda _, chosen: chosen == "bf16")
    folder = Path(shutil.copytree(first[0], tmp_path / "run"))
    content = json.loads((folder / "run.json").read_text("utf-8"))
    content["config"]["precision"] = precision
    (folder / "run.json").write_text(json.dumps(content), "utf-8")
    record.seal(folder)
    loaded = load(folder, load_registry(), device=where)
    assert loaded.warnings == (warning,)
    assert predicted(loaded) == recorded(first[0])


def test_a_model_from_memory_does_so_too(tiny_roberta: Path) -> None:
    corpus, config = load_corpus("sample"), configuration(tiny_roberta, device="cpu")
    trained = train(config, load_registry(), corpus, make_split(corpus, "grouped", 0))
    assert trained.ready.warnings == ()
    half = replace(trained, config={**trained.config, "precision": "fp16"})
    assert half.ready.warnings == (NO_FP16,)


def test_an_oracle_warns_that_it_is_shown_no_spans_any_more(tiny_roberta: Path, tmp_path: Path) -> None:
    list(run(configuration(tiny_roberta, rationale="gold"), load_registry(), tmp_path / "run"))
    assert load(tmp_path / "run", load_registry()).warnings == (
        "the run was an ORACLE: it was scored with annotated spans, which it does not see when it predicts",
    )


SIZES = [
    (name, value) for name in ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size") for value in (10**9, -1, 0)
]


@pytest.mark.parametrize(("name", "value"), [*SIZES, ("num_attention_heads", 0), ("model_type", "nobodys")])
def test_a_model_of_sizes_that_its_weights_do_not_have_is_one_line(
    first: tuple[Path, list[Any]], tmp_path: Path, name: str, value: object
) -> None:
    """Before memory is asked for: the manifest was made anew, as by somebody who wants it believed."""
    folder = Path(shutil.copytree(first[0], tmp_path / "run"))
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), name: value}), "utf-8")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["sha256"]["model/config.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(KitError) as error:
        load(folder, load_registry())
    assert str(error.value).startswith(f"encoder {folder / 'model'}: ") or "of another model" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
