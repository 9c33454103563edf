"""A published model from the Hugging Face hub: what may be downloaded, every byte of it compared, and what can go wrong there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from empathy_kit import __version__
from empathy_kit.errors import KitError
from empathy_kit.inference.card import OWN
from empathy_kit.inference.model import HUB
from empathy_kit.runs import record

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]  # of the client's HTTP library, which it has changed once

MOST_BYTES = 16 * 2**30
"""What a model may have in all."""

MOST_MANIFEST = 2**20

# What the kit reads: data by these names, in the folder itself or in a run's model/. No code, and no pickle.
READ = re.compile(r"(model/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.(json|jsonl|txt|safetensors|onnx|model)")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(name: str) -> Path:
    """The folder of a published model on this machine, in the hub client's own cache (see ``HF_HOME``).

    Only what the manifest lists is downloaded, and only data: no pickle, no code. Every byte is compared with the manifest. A
    revision that is a commit's 40 digits is taken from the cache without a request to the hub, as any is with ``HF_HUB_OFFLINE``.

    Args:
        name: ``user/name``, or with ``@`` and a branch, a tag or a commit.

    Returns:
        A folder that is named by its commit.

    Raises:
        KitError: no such model or revision, no answer, no right to read it, no copy of it, or a damaged one.
    """
    what, (repo, _, asked) = f"{HUB}{name}", name.partition("@")
    revision = asked or None
    if name.endswith("@"):
        raise KitError(f"{what}: nothing stands after the @; expected a branch, a tag or a commit")
    check_name(repo, revision)
    api = HfApi(library_name=OWN, library_version=__version__)
    offline = constants.is_offline_mode()
    if offline or _COMMIT.fullmatch(asked):
        try:
            return _checked(_copy(repo, revision, what), what)
        except LocalEntryNotFoundError:
            if offline:
                raise KitError(
                    f"{what}: no whole copy in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE keeps from fetching one; unset it"
                ) from None
    with answering(what, "loaded"):
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        _check_sizes(info, what)
        folder = _copy(repo, revision, what, info)
    return _checked(folder, what)


def names(info: ModelInfo) -> set[str]:
    """What a repository holds."""
    return {each.rfilename for each in info.siblings or ()}


def _copy(repo: str, revision: str | None, what: str, info: ModelInfo | None = None) -> Path:
    """The snapshot in the cache, with all that its manifest lists: downloaded where it is missing and the hub has told of it."""

    def one(file: str, revision: str | None) -> Path:
        return Path(
            hf_hub_download(
                repo, file, revision=revision, local_files_only=info is None, library_name=OWN, library_version=__version__
            )
        )

    manifest = one(record.MANIFEST, revision)
    folder = manifest.parent
    wanted = listed(manifest.read_bytes(), what)
    if info is not None:
        if folder.name != info.sha:
            raise KitError(f"{what}: was published anew while it was read; try again")
        missing = next((each for each in wanted if each not in names(info)), None)
        if missing is not None:
            raise KitError(f"{what}: {missing} is missing, but the manifest lists it")
    for each in wanted:
        one(each, folder.name)
    return folder


def _check_sizes(info: ModelInfo, what: str) -> None:
    if record.MANIFEST not in names(info):
        raise KitError(f"{what}: no model that empathy-kit published; {record.MANIFEST} is missing")
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    total = sum(size for each, size in sizes.items() if READ.fullmatch(each))
    if sizes[record.MANIFEST] > MOST_MANIFEST:
        raise KitError(f"{what}: {record.MANIFEST} has {sizes[record.MANIFEST]:,} bytes, expected at most {MOST_MANIFEST:,}")
    if total > MOST_BYTES:
        raise KitError(f"{what}: {total:,} bytes in all, expected at most {MOST_BYTES:,}")


def listed(manifest: bytes, what: str) -> list[str]:
    """What a manifest from elsewhere lists, if it is nothing but data that the kit reads."""
    try:
        listed = json.loads(manifest)["sha256"]
        whole = all(re.fullmatch("[0-9a-f]{64}", value) for value in listed.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise KitError(f"{what}: no model that empathy-kit published; {record.MANIFEST} is not a list of hashes")
    other = next((each for each in listed if not READ.fullmatch(each)), None)
    if other is not None:
        raise KitError(f"{what}: its manifest lists {other[:60]!r}; expected data alone, no code and no pickle")
    return list(listed)


def _checked(folder: Path, what: str) -> Path:
    try:
        record.verify(folder)
    except KitError as error:
        # The client links a snapshot to files by their hash on the hub: a damaged one would be linked to again.
        raise KitError(f"{what}: damaged: {error}; delete {folder.parent.parent} and load it again") from None
    return folder


def check_name(name: str, revision: str | None = None) -> None:
    """Find out whether the hub could have such a name, and such a revision.

    Raises:
        KitError: it could not.
    """
    try:
        validate_repo_id(name)
        possible = name.count("/") == 1
    except HFValidationError:
        possible = False
    if not possible:
        raise KitError(f"{name!r}: no name that the hub takes; expected user/name, of letters, digits, '-', '_' and '.'")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise KitError(f"{revision!r}: no revision; expected a branch, a tag or a commit")


@contextmanager
def answering(what: str, done: str) -> Iterator[None]:
    """Whatever the hub or the way there does wrong, in one line and without the token."""
    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:  # the client has no one class for all of them
        raise KitError(f"{what}: cannot be {done}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, RuntimeError | LocalEntryNotFoundError) and error.__cause__ is not None:  # of one file of several
        return _reason(error.__cause__)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, GatedRepoError):
        return "its owner has to let you in first; ask on its page, then log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "no such revision; expected a branch, a tag or a commit"
    if isinstance(error, RemoteEntryNotFoundError):
        return "a file is missing that the hub listed"
    if isinstance(error, RepositoryNotFoundError):
        return "no such model, or one that is private; log in with `hf auth login` if it is yours"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        reasons = {
            401: "the hub does not know you; log in with `hf auth login`, or give --token-file",
            403: "your token does not allow it; expected one with write access to that user or organisation",
            409: "it exists already and is not yours to see, or somebody is changing it just now",
            412: "it was changed meanwhile; try again",
            429: "the hub has had too many requests; try again later",
        }
        return reasons.get(status, f"the hub answers with status {status}; try again later")
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return f"{constants.ENDPOINT} does not answer ({type(error).__name__})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
