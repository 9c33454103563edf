"""Download a published model from the Hugging Face hub: data files only, every byte compared with the manifest."""

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

HTTPError: type[Exception] = HfHubHTTPError.__bases__[
    0
]  # the base class of the client's HTTP library, which has changed once already

MOST_BYTES = 16 * 2**30
"""The largest total size of a model."""

MOST_MANIFEST = 2**20

# Files that the kit reads: data with these endings, in the folder itself or in model/. No code, and no pickle.
READ = re.compile(r"(model/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.(json|jsonl|txt|safetensors|onnx|model)")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(name: str) -> Path:
    """The folder of a published model on this machine, in the hub client's own cache (see ``HF_HOME``).

    Only files in the manifest are downloaded, and only data: no pickle, no code. Every byte is compared with the manifest. A
    commit of 40 digits that is in the cache needs no request to the hub. With ``HF_HUB_OFFLINE`` no revision does.

    Args:
        name: ``user/name``, or with ``@`` and a branch, a tag or a commit.

    Returns:
        A folder whose name is the commit.

    Raises:
        KitError: the model or revision does not exist, may not be read or is damaged, or the hub does not answer.
    """
    what, (repo, _, asked) = f"{HUB}{name}", name.partition("@")
    revision = asked or None
    if name.endswith("@"):
        raise KitError(f"{what}: nothing follows the @; give a branch, a tag or a commit")
    check_name(repo, revision)
    api = HfApi(library_name=OWN, library_version=__version__)
    offline = constants.is_offline_mode()
    if offline or _COMMIT.fullmatch(asked):
        try:
            return _checked(_copy(repo, revision, what), what)
        except LocalEntryNotFoundError:
            if offline:
                raise KitError(
                    f"{what}: no complete copy in {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE prevents a download; unset it"
                ) from None
    with answering(what, "loaded"):
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        _check_sizes(info, what)
        folder = _copy(repo, revision, what, info)
    return _checked(folder, what)


def names(info: ModelInfo) -> set[str]:
    """The contents of a repository."""
    return {each.rfilename for each in info.siblings or ()}


def _copy(repo: str, revision: str | None, what: str, info: ModelInfo | None = None) -> Path:
    """The snapshot in the cache with every file of its manifest; missing files that the hub lists are downloaded."""

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
            raise KitError(f"{what}: was published again while it was being downloaded; try again")
        missing = next((each for each in wanted if each not in names(info)), None)
        if missing is not None:
            raise KitError(f"{what}: {missing} is missing, but the manifest lists it")
    for each in wanted:
        one(each, folder.name)
    return folder


def _check_sizes(info: ModelInfo, what: str) -> None:
    if record.MANIFEST not in names(info):
        raise KitError(f"{what}: not a model published by empathy-kit; {record.MANIFEST} is missing")
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    total = sum(size for each, size in sizes.items() if READ.fullmatch(each))
    if sizes[record.MANIFEST] > MOST_MANIFEST:
        raise KitError(f"{what}: {record.MANIFEST} has {sizes[record.MANIFEST]:,} bytes, expected at most {MOST_MANIFEST:,}")
    if total > MOST_BYTES:
        raise KitError(f"{what}: {total:,} bytes in all, expected at most {MOST_BYTES:,}")


def listed(manifest: bytes, what: str) -> list[str]:
    """The files of an untrusted manifest, after a check that all are data that the kit reads."""
    try:
        listed = json.loads(manifest)["sha256"]
        whole = all(re.fullmatch("[0-9a-f]{64}", value) for value in listed.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise KitError(f"{what}: not a model published by empathy-kit; {record.MANIFEST} is not a list of hashes")
    other = next((each for each in listed if not READ.fullmatch(each)), None)
    if other is not None:
        raise KitError(f"{what}: its manifest lists {other[:60]!r}; expected only data, no code and no pickle")
    return list(listed)


def _checked(folder: Path, what: str) -> Path:
    try:
        record.verify(folder)
    except KitError as error:
        # The client links a snapshot to files by their hash on the hub: a damaged file would be linked again.
        raise KitError(f"{what}: damaged: {error}; delete {folder.parent.parent} and load it again") from None
    return folder


def check_name(name: str, revision: str | None = None) -> None:
    """Check that a name and a revision are valid on the hub.

    Raises:
        KitError: one of them is not valid.
    """
    try:
        validate_repo_id(name)
        possible = name.count("/") == 1
    except HFValidationError:
        possible = False
    if not possible:
        raise KitError(f"{name!r}: not a valid name on the hub; expected user/name of letters, digits, '-', '_' and '.'")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise KitError(f"{revision!r}: not a valid revision; expected a branch, a tag or a commit")


@contextmanager
def answering(what: str, done: str) -> Iterator[None]:
    """Turn errors of the hub or the network into one line without the token."""
    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:  # the client has no common base class for them
        raise KitError(f"{what}: cannot be {done}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    if isinstance(error, RuntimeError | LocalEntryNotFoundError) and error.__cause__ is not None:  # of one file of several
        return _reason(error.__cause__)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it"
    if isinstance(error, GatedRepoError):
        return "its owner has to grant you access; request it on the model's page, then log in with `hf auth login`"
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
            403: "your token does not allow it; use one with write access to that user or organisation",
            409: "it exists already and you may not see it, or it is being changed right now",
            412: "it was changed meanwhile; try again",
            429: "the hub received too many requests; try again later",
        }
        return reasons.get(status, f"the hub answers with status {status}; try again later")
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return f"{constants.ENDPOINT} does not answer ({type(error).__name__})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
