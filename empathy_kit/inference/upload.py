"""A run's folder or an exported one -> its published files -> a folder, or one commit on the hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from empathy_kit import __version__, files
from empathy_kit.errors import KitError, written_to
from empathy_kit.inference.card import OWN, of_export, published, without_paths, write_card
from empathy_kit.inference.elsewhere import read_evaluation
from empathy_kit.inference.graph import EXPORT
from empathy_kit.inference.hub import READ, answering, check_name, listed, names
from empathy_kit.inference.model import digest
from empathy_kit.runs import record
from empathy_kit.runs.seen import SEEN

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

MAIN = "main"


def contents(
    folder: Path, name: str, *, licence: str | None = None, seen: bool = True, evaluations: Sequence[Path] = ()
) -> dict[str, Path | bytes]:
    """The published files of a run's folder or an exported one, by name, including the card.

    Tables are not published, because they have a line per pair. Absolute paths in the record are cut to their last part.

    Args:
        folder: the run or the export.
        name: the repository: ``user/name``.
        licence: an identifier for the card, such as "mit".
        seen: whether the hashes of the training posts are published too.
        evaluations: files with what ``empathy-kit evaluate --json`` printed of this folder, which the card shows.

    Raises:
        KitError: the folder has no model, was changed or is an ORACLE's, an evaluation is of another model, or the name is not
            valid on the hub.
    """
    check_name(name)
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,49}", licence):
        raise KitError(f"--license {licence!r}: expected one of the hub's identifiers, such as mit, apache-2.0 or cc-by-4.0")
    if not os.path.isdir(folder):  # noqa: PTH112 - Path's own raises for names that cannot be
        raise KitError(f"{folder}: no such folder; expected a run or an exported model")
    exported = os.path.isfile(folder / EXPORT)  # noqa: PTH113
    found, export = _exported(folder) if exported else (record.read_with_model(folder), None)
    if found.oracle:
        raise KitError(f"{folder}: an ORACLE is not published, because its scores are those of a model that sees annotated spans")
    manifest = _json(folder / record.MANIFEST)
    about = EXPORT if exported else record.RUN
    description = record.to_json(without_paths(_json(folder / about))).encode()
    kept_back = re.compile(r".*\.csv" if seen else rf".*\.csv|(.*/)?{re.escape(SEEN)}")
    hashes = {each: value for each, value in manifest["sha256"].items() if not kept_back.fullmatch(each)}
    hashes[about] = hashlib.sha256(description).hexdigest()
    other = next((each for each in hashes if not READ.fullmatch(each)), None)
    if other is not None:
        raise KitError(f"{folder / other}: this kind of file is not published; expected only data, no code and no pickle")
    has_seen = any(each.endswith(SEEN) for each in hashes)
    elsewhere = [read_evaluation(path, digest(folder)) for path in evaluations]
    card = write_card(published(found), name, licence=licence, export=export, seen=has_seen, elsewhere=elsewhere)
    return {
        **{each: folder / each for each in hashes},
        about: description,
        record.MANIFEST: record.to_json({**manifest, "sha256": hashes}).encode(),
        record.CARD: card.encode(),
    }


def _exported(folder: Path) -> tuple[record.Record, dict[str, Any]]:
    """The record of the exported run, and what the card shows of the export."""
    record.verify(folder)
    described = _json(folder / EXPORT)
    try:
        found = record.Record(**described["record"])
    except (KeyError, TypeError):
        raise KitError(
            f"{folder / EXPORT}: has no record of the run, which the card is made from; export the run again"
        ) from None
    return found, of_export(described)


def _json(path: Path) -> dict[str, Any]:
    """A file that the manifest lists, or the manifest; whoever has sealed the folder may have written it by other means."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        record.check_type(content, dict)
    except (OSError, ValueError, TypeError, RecursionError):
        raise KitError(f"{path}: {record.MALFORMED}") from None
    return content


def write(held: Mapping[str, Path | bytes], out: Path) -> None:
    """Write the published files into a new folder, whole or not at all; the kit loads it like a run.

    Raises:
        KitError: the folder exists, or cannot be written.
    """
    with written_to("--dry-run", out, exists="use another name"):
        files.refuse_existing(out)
        with files.staged_folder(out) as staging:
            for name, content in held.items():
                path = staging / name
                path.parent.mkdir(exist_ok=True)
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    shutil.copyfile(content, path)


def publish(
    held: Mapping[str, Path | bytes],
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> str:
    """Upload in one commit, which also deletes files of an earlier publication that are no longer needed.

    Args:
        held: as returned by `contents`.
        name: ``user/name``.
        private: make a new repository private.
        revision: a branch; if it does not exist, it is created from the main branch.
        token: an access token; None uses that of `hf auth login` or ``HF_TOKEN``.

    Returns:
        The commit, in 40 hexadecimal digits: name@commit always loads the same bytes.

    Raises:
        KitError: the hub does not answer or refuses, or the repository holds something else.
    """
    check_name(name, revision)
    branch, api = revision or MAIN, HfApi(token=token, library_name=OWN, library_version=__version__)
    with answering(name, "published"):
        found = _found(api, name, branch)
        there = found and names(found)
        if found is None:
            api.create_repo(name, private=private or None)
        elif private and not found.private:
            raise KitError(f"{name}: exists and is public; make it private on the hub, or leave --private out")
        elif there and not there <= set(record.UNLISTED) and record.MANIFEST not in there:
            raise KitError(f"{name}: holds something other than a model of empathy-kit; use another name")
        if revision is not None:
            api.create_branch(name, branch=branch, exist_ok=True)
        stale: set[str] = set()
        if found is not None and there and record.MANIFEST in there:
            stale = (set(_manifest(api, name, found.sha)) & there) - set(held)
        done = api.create_commit(
            name,
            [
                *(CommitOperationDelete(path_in_repo=each) for each in sorted(stale)),
                *(
                    CommitOperationAdd(path_in_repo=each, path_or_fileobj=content if isinstance(content, bytes) else str(content))
                    for each, content in held.items()
                ),
            ],
            commit_message=f"Publish a model of {OWN} {__version__}",
            revision=branch,
            parent_commit=found.sha if found is not None else None,  # or two simultaneous publications would mix their files
        )
    return str(done.oid)


def _found(api: HfApi, name: str, branch: str) -> ModelInfo | None:
    # The first request, because only this one has a timeout: it finds out whether the hub answers at all.
    for revision in dict.fromkeys((branch, None)):
        try:
            return api.model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except RevisionNotFoundError:
            continue
        except RepositoryNotFoundError:
            return None
    return None


def _manifest(api: HfApi, name: str, commit: str | None) -> list[str]:
    """The files of an earlier publication; none where its manifest cannot be read."""
    try:
        path = api.hf_hub_download(name, record.MANIFEST, revision=commit)
        return listed(Path(path).read_bytes(), name)
    except KitError:
        return []


def read_token(path: Path) -> str:
    """An access token, read from a file so that it does not appear on a command line.

    Raises:
        KitError: the file does not exist, or holds something else.
    """
    try:
        token = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise KitError(f"--token-file {path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if not re.fullmatch(r"[!-~]{1,500}", token):
        raise KitError(f"--token-file {path}: expected one access token and nothing else")
    return token
