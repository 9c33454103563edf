"""From a configuration to a model that can be trained, in each of a run's processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from empathy_kit.config import RunConfig
from empathy_kit.data.pairs import Corpus, placeholder_rows
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import Split, make_split, thin_out
from empathy_kit.errors import KitError
from empathy_kit.plugins import Kind
from empathy_kit.runs import results
from empathy_kit.runs.build import flags_named, open_encoder
from empathy_kit.runs.choose import Plugins, library_versions, provenance
from empathy_kit.runs.describe import describe_data, describe_split
from empathy_kit.runs.differences import listed
from empathy_kit.runs.identity import Stopped, all_versions, changes, settings_of
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
    plugins: dict[Kind, dict[str, str]]  # where they come from, as in the record
    data: dict[str, Any]  # as in the record
    parts: dict[str, Any]  # of the split, as in the record
    hashes: dict[str, str]  # of data, split and encoder, and of the encoder's weights alone
    encoder: nn.Module
    tokenizer: Any
    prepared: Prepared
    losses: str  # how the kit's own losses are computed
    state: TrainState
    warnings: tuple[str, ...]  # where a stopped run was begun with something else

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
        KitError: a fault that the user can fix; the data, the split or the encoder are not those of the run to repeat, or of the
            stopped run; or these, settings, plugins or versions are not those of the first process.
    """
    warnings: list[str] = []

    def check_same(what: str, found: str) -> None:
        known = original.hashes.get(what, found)
        if found != known:
            raise KitError(
                f"--{what} {getattr(config, what)}: is not that of the recorded run (sha256 {found[:12]}... found, expected "
                f"{known[:12]}...); restore it{_release(what, original)}, or their scores cannot be compared"
            )
        if before is not None:
            warnings.extend(before.check_hash(what, found, weights=hashes.get("weights")))
        first = processes.told(what, found)
        if found != first:
            raise KitError(
                f"torchrun: the {what} of rank {processes.rank} is not that of rank 0 (sha256 {found[:12]}... found, "
                f"expected {first[:12]}...); start all processes with the same {what}"
            )

    mine = settings_of(config, plugins)
    differing = changes(processes.told("settings", mine), mine)
    if differing:
        raise KitError(f"torchrun: rank 0 was started with {listed(differing)}; start all processes with the same settings")
    provided = _provided(plugins, processes)
    corpus = load_corpus(config.data, config.schema)
    if warning := placeholder_rows(corpus.pairs, seekers=config.posts == "both").warning:
        warnings.append(warning)
    split = make_split(corpus, config.split, config.split_seed, config.schema.select(config.tasks))
    split = thin_out(corpus, split, config.train_share, config.schema.select(config.tasks))
    data, parts = describe_data(corpus), describe_split(corpus, split)
    hashes = {"data": data["sha256"], "split": parts["sha256"]}
    for name, found in hashes.items():
        check_same(name, found)

    import torch

    from empathy_kit.core.fingerprint import fingerprint, weights
    from empathy_kit.core.state import seed_process

    # The bits depend on how many there are.
    threads = processes.told("threads", config.threads or (original.threads if before is None else before.threads))
    # Set even where it stays as it is: MKL then takes this number for every product, as it does in a repeat, which sets it.
    torch.set_num_threads(threads or torch.get_num_threads())
    seed_process(config.seed)  # before any initialisation: the heads' initial weights are part of the run
    encoder, tokenizer = open_encoder(config)
    hashes |= {"encoder": fingerprint(encoder, tokenizer), "weights": weights(encoder)}
    check_same("encoder", hashes["encoder"])
    prepared = prepare(config, plugins, corpus, split, encoder, tokenizer, processes)
    with flags_named():
        losses = prepared.objective.status(prepared.device, {task.name: task.num_classes for task in prepared.tasks})
    with plugins.blamed():
        state = prepared.trainer.start(prepared.model, prepared.objective, seed=config.seed)
    return Begun(corpus, split, provided, data, parts, hashes, encoder, tokenizer, prepared, losses, state, tuple(warnings))


def _provided(plugins: Plugins, processes: Processes) -> dict[Kind, dict[str, str]]:
    """Where the plugins come from, as in the record, after a check that all processes have the same plugins and versions."""
    provided = {kind: provenance(entry) for kind, entry in plugins.chosen.items()}
    told = {"plugins": {str(kind): _shown(each) for kind, each in provided.items()}, "versions": all_versions()}
    for what, mine in told.items():
        first = processes.told(what, mine)
        differing = [f"{name} {text} found, expected {first.get(name)}" for name, text in mine.items() if text != first.get(name)]
        if differing:
            raise KitError(
                f"torchrun: the {what} of rank {processes.rank} are not those of rank 0 ({'; '.join(differing)}); "
                f"start all processes with the same {what}"
            )
    return provided


def _release(what: str, original: Original) -> str:
    """What else may restore an encoder: its hash is also of settings that only a release of transformers fills in."""
    then = original.versions.get("transformers")
    if what != "encoder" or then in (None, library_versions()["transformers"]):
        return ""
    return f" or install transformers {then}, whose defaults are in the hash"


def _shown(plugin: Mapping[str, str]) -> str:
    """``poly1 of empathy-kit-poly1 0.1.0 (sha256 0123456789ab...)``."""
    code = f" (sha256 {plugin['sha256'][:12]}...)" if "sha256" in plugin else ""
    return f"{plugin['name']} of {plugin['distribution']} {plugin['version']}{code}"
