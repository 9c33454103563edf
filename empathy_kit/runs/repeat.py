"""What a ``run.json`` reports of the run that is to be repeated, of which the repeat is compared."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empathy_kit.config import RANGES, read_content
from empathy_kit.errors import KitError
from empathy_kit.plugins import KINDS
from empathy_kit.runs.choose import LIBRARIES

_DATA, _ENCODER = ("data", "schema"), ("encoder", "attention_dropout")
RESTS_ON = {"data": _DATA, "split": (*_DATA, "split", "split_seed"), "encoder": _ENCODER}
"""What a record has a hash of, and the settings that it follows from: where one of these is changed, another is expected."""

OF_A_RECORD = ("format", "data", "split", "encoder", "plugins", "versions", "machine")  # next to its settings


@dataclass(frozen=True)
class Original:
    """The run to repeat; what is not known of it is empty, and is not compared."""

    hashes: Mapping[str, str] = field(default_factory=dict)  # sha256 of "data", "split" and "encoder"
    providers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # kind to its plugin's name, distribution, ...
    versions: Mapping[str, str] = field(default_factory=dict)  # of the libraries
    machine: Mapping[str, Any] = field(default_factory=dict)  # what computed it

    @property
    def threads(self) -> int | None:
        """How many threads computed it."""
        return self.machine.get("threads")


UNKNOWN = Original()


def read_original(path: Path, changed: Container[str] = ()) -> Original:
    """What a recorded run was made of and computed with; a file that is not a run's record has nothing of it.

    Args:
        path: the file.
        changed: settings that replace the recorded ones; the hashes that follow from them are left out.

    Raises:
        KitError: a record lacks a part, so that a repeat could not be checked.
    """
    content = read_content(path)
    if "config" not in content or content.keys().isdisjoint(OF_A_RECORD):
        return UNKNOWN
    checked = _Checked(path, content)
    names = [name for name, settings in RESTS_ON.items() if not any(setting in changed for setting in settings)]
    hashes = {name: checked.hash_of(name) for name in names}
    return Original(hashes, checked.providers(), checked.versions(), checked.machine())


@dataclass(frozen=True)
class _Checked:
    """A record's content: what is missing or malformed is refused, or a check would be off and nobody would know."""

    path: Path
    content: Mapping[str, Any]

    def hash_of(self, name: str) -> str:
        part = self.content.get(name)
        return self._text(part if isinstance(part, dict) else {}, "sha256", f"the sha256 of its {name}")

    def providers(self) -> dict[str, dict[str, str]]:
        """Per kind its plugin's name, distribution, version and perhaps a hash."""
        plugins = self._part("plugins")
        found: dict[str, dict[str, str]] = {}
        for kind in KINDS:
            entry = plugins.get(kind)
            if not isinstance(entry, dict):
                raise self._lacks(f"the plugin of its {kind}")
            optional = ["sha256"] if "sha256" in entry else []
            keys = ("name", "distribution", "version", *optional)
            found[kind] = {key: self._text(entry, key, f"the {key} of its {kind}'s plugin") for key in keys}
        return found

    def versions(self) -> dict[str, str]:
        versions = self._part("versions")
        return {name: self._text(versions, name, f"the version of {name}") for name in LIBRARIES}

    def machine(self) -> dict[str, Any]:
        machine = self._part("machine")
        threads = machine.get("threads")
        if type(threads) is not int or not RANGES["threads"][0] <= threads <= RANGES["threads"][1]:
            raise self._lacks("the number of threads of its machine")
        return machine

    def _part(self, name: str) -> dict[str, Any]:
        part = self.content.get(name)
        if not isinstance(part, dict):
            raise self._lacks(f"the part {name}")
        return part

    def _text(self, part: Mapping[str, Any], key: str, what: str) -> str:
        if not isinstance(value := part.get(key), str):
            raise self._lacks(what)
        return value

    def _lacks(self, what: str) -> KitError:
        return KitError(f"--config {self.path}: {what} is missing; restore the file as the run wrote it")
