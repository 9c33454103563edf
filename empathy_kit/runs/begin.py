"""From a configuration to a model that can be trained, in each of a run's processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from empathy_kit.config import RunConfig
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import Split, make_split, thin_out
from empathy_kit.errors import KitError
from empathy_kit.runs import results
from empathy_kit.runs.build import flags_named, open_encoder
from empathy_kit.runs.choose import Plugins, library_versions
from empathy_kit.runs.describe import describe_data, describe_split
from empathy_kit.runs.identity import Stopped, changes, settings_of
from empathy_kit.runs.prepare import Prepared, prepare
from empathy_kit.runs.repeat import UNKNOWN, Original

if TYPE_CHECKING:
    from torch import nn

    from empathy_kit.core.evaluation import Evaluation
    from empathy_kit.core.processes import Processes
    from empathy_kit.core.state import TrainState


@dataclass(frozen=True)
class Begun:
    """All that a run has before its first step."""

    corpus: Corpus
    split: Split
    data: dict[str, Any]  # as in the record
    parts: dict[str, Any]  # of the split, as in the record
    hashes: dict[str, str]  # of data, split and encoder
    encoder: nn.Module
    tokenizer: Any
    prepared: Prepared
    losses: str  # how the kit's own losses are computed
    state: TrainState

    def evaluate(self, split_seed: int) -> tuple[Evaluation, Evaluation, Evaluation]:
        """The validation part, the test part, and the test part with other pairs' seeker posts."""
        evaluate, test = self.prepared.trainer.evaluate, self.prepared.test
        chosen, evaluated = evaluate(self.state, self.prepared.validation), evaluate(self.state, test)
        mismatched = results.swap_seekers(test, split_seed)
        return chosen, evaluated, evaluated if mismatched is test else evaluate(self.state, mismatched)


def begin(
    config: RunConfig,
    plugins: Plugins,
    processes: Processes,
    before: Stopped | None = None,
    original: Original = UNKNOWN,
) -> Begun:
    """Read and split the data, open the encoder, and build the model and its state.

    Args:
        config: what to run.
        plugins: its plugins.
        processes: those of the run.
        before: what was stopped, if anything; only the first process knows.
        original: the run to repeat, if any: its hashes are compared, and its number of threads is taken where none is set.

    Raises:
        KitError: a fault that the user can fix, or the settings, the data, the split or the encoder are not those of the run to
            repeat, of the stopped run, or of the first process.
    """

    def check_same(what: str, found: str) -> None:
        known = original.hashes.get(what, found)
        if found != known:
            raise KitError(
                f"--{what} {getattr(config, what)}: is not that of the recorded run (sha256 {found[:12]}... found, expected "
                f"{known[:12]}...); restore it{_release(what, original)}, or their scores cannot be compared"
            )
        if before is not None:
            before.check_hash(what, found)
        first = processes.told(what, found)
        if found != first:
            raise KitError(
                f"torchrun: the {what} of rank {processes.rank} is not that of rank 0 (sha256 {found[:12]}... found, "
                f"expected {first[:12]}...); start all processes with the same {what}"
            )

    mine = settings_of(config, plugins)
    differing = changes(processes.told("settings", mine), mine)
    if differing:
        raise KitError(f"torchrun: rank 0 was started with {'; '.join(differing)}; start all processes with the same settings")
    corpus = load_corpus(config.data, config.schema)
    split = make_split(corpus, config.split, config.split_seed, config.schema.select(config.tasks))
    split = thin_out(corpus, split, config.train_share, config.schema.select(config.tasks))
    data, parts = describe_data(corpus), describe_split(corpus, split)
    hashes = {"data": data["sha256"], "split": parts["sha256"]}
    for name, found in hashes.items():
        check_same(name, found)

    import torch

    from empathy_kit.core.fingerprint import fingerprint
    from empathy_kit.core.state import seed_process

    # The bits depend on how many there are.
    threads = processes.told("threads", config.threads or (original.threads if before is None else before.threads))
    # Set even where it stays as it is: MKL then takes this number for every product, as it does in a repeat, which sets it.
    torch.set_num_threads(threads or torch.get_num_threads())
    seed_process(config.seed)  # before any initialisation: the heads' initial weights are part of the run
    encoder, tokenizer = open_encoder(config)
    hashes["encoder"] = fingerprint(encoder, tokenizer)
    check_same("encoder", hashes["encoder"])
    prepared = prepare(config, plugins, corpus, split, encoder, tokenizer, processes)
    with flags_named():
        losses = prepared.objective.status(prepared.device, {task.name: task.num_classes for task in prepared.tasks})
    with plugins.blamed():
        state = prepared.trainer.start(prepared.model, prepared.objective, seed=config.seed)
    return Begun(corpus, split, data, parts, hashes, encoder, tokenizer, prepared, losses, state)


def _release(what: str, original: Original) -> str:
    """What else may restore an encoder: its hash is also of settings that only a release of transformers fills in."""
    then = original.versions.get("transformers")
    if what != "encoder" or then in (None, library_versions()["transformers"]):
        return ""
    return f" or install transformers {then}, whose defaults are in the hash"
