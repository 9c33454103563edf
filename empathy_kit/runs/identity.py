"""What a stopped run was, and what must be the same where it is continued."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from empathy_kit import __version__
from empathy_kit.config import RunConfig, to_dict
from empathy_kit.errors import KitError
from empathy_kit.files import PARTIAL
from empathy_kit.plugins import OURS, Registry
from empathy_kit.runs.checkpoints import STATE, Checkpoint, folders, newest
from empathy_kit.runs.choose import Plugins, all_options, compare_providers, library_versions, provenance
from empathy_kit.runs.differences import as_given, listed, sentences
from empathy_kit.runs.machine import PARTS, THEN, described

KIT = "empathy-kit"  # among the versions
BY_CONTENT = ("data", "encoder")  # settings that name what is known by its hash, wherever it lies
READS = {"transformers", "tokenizers"}  # the hash of an encoder is also of settings and rules that a release of these fills in


def settings_of(config: RunConfig, plugins: Plugins) -> dict[str, Any]:
    """All settings and options of a run as JSON gives them back."""
    found: dict[str, Any] = json.loads(json.dumps(to_dict(replace(config, options=all_options(plugins)))))
    return found


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped, and may be continued."""

    partial: Path
    checkpoint: Checkpoint
    faults: tuple[str, ...] = ()  # of newer checkpoints, which are damaged
    anyway: bool = False  # whether other versions, and what follows from them, are accepted

    @property
    def settings(self) -> dict[str, Any]:
        """Its settings and options, as in its record."""
        return dict(self.checkpoint.identity["settings"])

    @property
    def machine(self) -> dict[str, Any]:
        """What computed it, as in its record."""
        found: dict[str, Any] = self.checkpoint.identity["machine"]
        return found

    @property
    def threads(self) -> int:
        """How many threads computed it."""
        return int(self.machine["threads"])

    @property
    def line(self) -> str | None:
        """Where it is continued; None from the beginning."""
        if self.checkpoint.packed is None:
            return None
        position = self.checkpoint.identity["position"]
        return f"continues {self.partial}: {position} is done"

    def check(self, config: RunConfig, plugins: Plugins, registry: Registry) -> tuple[str, ...]:
        """Compare its settings, plugins and versions with those of now; returns warnings about versions.

        Raises:
            KitError: they differ; only versions may, and only ``anyway``.
        """
        changed = changes(self.settings, settings_of(config, plugins))
        if changed:
            raise self._other(listed(changed), "use the same settings, or another --out")
        then = self.checkpoint.identity["plugins"]
        compare_providers(then, config, registry)
        for kind, entry in plugins.chosen.items():
            now = provenance(entry)
            if now["distribution"] != OURS and now != then[kind]:
                was = f"{kind} {now['name']} of {then[kind]['distribution']} {then[kind]['version']}"
                other = f"version {now['version']}" if now["version"] != then[kind]["version"] else "other files"
                raise self._other(f"{was}, and now it has {other}", "install what it was begun with, or use another --out")
        return self._accepted(self._other_versions().values())

    def _other_versions(self) -> dict[str, str]:
        """How the version of the kit or of a library differs, by its name."""
        recorded = self.checkpoint.identity["versions"]
        return {
            name: f"{name} {recorded.get(name)}, not {now}"
            for name, now in all_versions().items()
            if str(recorded.get(name)).rpartition(THEN)[2] != now
        }

    def _accepted(self, differing: Collection[str]) -> tuple[str, ...]:
        """Warnings for versions that differ, or for what follows from them."""
        if differing and not self.anyway:
            what = "install what it was begun with, use another --out, or continue it with --resume-anyway to other numbers"
            raise self._other("; ".join(differing), what)
        return tuple(f"the run was begun with {each}; its numbers may differ" for each in differing)

    def check_hash(self, what: str, found: str, *, weights: str | None = None) -> tuple[str, ...]:
        """Compare the data, the split or the encoder by its sha256; returns warnings.

        Raises:
            KitError: the hash differs. With ``anyway``, an encoder's may, if its weights are the same and transformers or
                tokenizers has another version.
        """
        hashes = self.checkpoint.identity["sha256"]
        known = hashes[what]
        if found == known:
            return ()
        same = weights is not None and weights == hashes.get("weights")  # states of earlier versions have no such hash
        if what == "encoder" and same and self.anyway and not READS.isdisjoint(self._other_versions()):
            return self._accepted([f"the encoder of sha256 {known[:12]}..., not {found[:12]}..."])
        raise KitError(
            f"{self.partial}: the {what} is not the stopped run's (sha256 {found[:12]}... found, expected {known[:12]}...); "
            f"use the same {what}, or another --out"
        )

    def check_machine(self, found: Mapping[str, Any]) -> tuple[str, ...]:
        """Compare what computes; returns warnings. The number of processes may differ.

        Raises:
            KitError: another device or processor, or another setting of the environment; or, without ``anyway``, another way to
                compute the losses: the kernels come with a compiler's and triton's versions.
        """
        known, now = (
            {part: text.rpartition(THEN)[2] for part, text in described(each).items()} for each in (self.machine, found)
        )
        differing = {
            part: f"{PARTS[part]} {text}, not {now[part]}"
            for part, text in known.items()
            if part != "processes" and now.get(part, text) != text
        }
        if differing.keys() <= {"losses"}:
            return self._accepted(differing.values())
        raise self._other("; ".join(differing.values()), "continue it where it was begun, or use another --out")

    def _other(self, what: str, to_do: str) -> KitError:
        return KitError(f"{self.partial}: holds a stopped run with {what}; {to_do}")


def stopped(partial: Path, *, anyway: bool = False) -> Stopped | None:
    """The run that was stopped in a folder, if any; ``anyway`` accepts other versions than it was begun with.

    Raises:
        KitError: it cannot be continued, because all its checkpoints are damaged or have another format.
    """
    checkpoint, faults = newest(partial)
    return None if checkpoint is None else Stopped(partial, checkpoint, faults, anyway)


def threads_of_stopped(out: Path) -> int | None:
    """With how many threads a run was begun that was stopped, if any: with others, its numbers would be others.

    Its checkpoints are not verified here; the run itself does that, and reports what is wrong.
    """
    for folder in folders(out.with_name(out.name + PARTIAL)):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return int(json.loads((folder / STATE).read_text(encoding="utf-8"))["identity"]["machine"]["threads"])
    return None


def named(partial: Path) -> Stopped:
    """The run that was stopped in the folder that --resume names.

    Raises:
        KitError: there is none.
    """
    if not partial.name.endswith(PARTIAL):
        raise KitError(f"--resume {partial}: expected the folder of a stopped run, whose name ends in {PARTIAL}")
    out = partial.with_name(partial.name.removesuffix(PARTIAL))
    if not partial.is_dir():
        done = f"; the run is complete in {out}" if out.is_dir() else ""
        raise KitError(f"--resume {partial}: no such folder{done}")
    found = stopped(partial)
    if found is None:
        raise KitError(f"--resume {partial}: no checkpoint found; start the run again with --out {out}")
    return found


def all_versions(before: Mapping[str, str] | None = None) -> dict[str, str]:
    """The versions of now of the kit and of the libraries; of a continued run, those before them too where they differ."""
    found = {KIT: __version__, **library_versions()}
    for name, then in (before or {}).items():
        now = found.get(name, then)
        found[name] = then if then.rpartition(THEN)[2] == now else f"{then}{THEN}{now}"
    return found


def changes(recorded: Mapping[str, Any], now: Mapping[str, Any], *, by_name: bool = False) -> list[str]:
    """Settings that differ, as flags: ``--epochs 1, not 2``; data and encoder are told by their hashes, unless ``by_name``."""
    without = () if by_name else BY_CONTENT
    # A record has the titles and columns of its schema, too: with others it would not be the one of the command.
    if recorded["schema"] == now["schema"]:
        return sentences(as_given(recorded, without=without), as_given(now, without=without))
    # Tasks are told by their schema, and that of another version may not be one for this version.
    without = ("schema", "tasks", *without)
    return ["another --schema", *sentences(as_given(recorded, without=without), as_given(now, without=without))]
