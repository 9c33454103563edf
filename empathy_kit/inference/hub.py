"""A model to the Hugging Face hub and back: what is uploaded, what may be downloaded, and every byte of it compared."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
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

from empathy_kit import __version__, files
from empathy_kit.errors import KitError
from empathy_kit.inference.card import OWN, published, without_paths, write_card
from empathy_kit.inference.model import EXPORT, HUB
from empathy_kit.runs import record

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]  # of the client's HTTP library, which it has changed once
MAIN = "main"
KEPT_BACK = (record.PREDICTIONS, record.VALIDATION)  # a line per pair of the data: of use to who trained the model alone
MOST_BYTES = 16 * 2**30
"""What a model may have in all."""

MOST_MANIFEST = 2**20

# What the kit reads: data by these names, in the folder itself or in a run's model/. No code, and no pickle.
_READ = re.compile(r"(model/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\.(json|jsonl|csv|txt|safetensors|onnx|model)")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def contents(folder: Path, name: str, *, licence: str | None = None) -> dict[str, Path | bytes]:
    """What is published of a run's folder or an exported one: every file by its name there, the card among them.

    Predictions are kept back, and absolute paths in the record are cut to their last part.

    Raises:
        KitError: a folder that holds no model or was changed, an ORACLE, or a name that the hub does not take.
    """
    repository(name)
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,49}", licence):
        raise KitError(f"--license {licence!r}: expected one of the hub's identifiers, such as mit, apache-2.0 or cc-by-4.0")
    if not folder.is_dir():
        raise KitError(f"{folder}: no such folder; expected a run or an exported model")
    exported = (folder / EXPORT).is_file()
    found, export = _exported(folder) if exported else (_trained(folder), None)
    if found.oracle:
        raise KitError(f"{folder}: an ORACLE is not published: its scores are those of a model that sees annotated spans")
    manifest = _json(folder / record.MANIFEST)
    about = EXPORT if exported else record.RUN
    description = record.to_json(without_paths(_json(folder / about))).encode()
    hashes = {each: value for each, value in manifest["sha256"].items() if each not in KEPT_BACK}
    hashes[about] = hashlib.sha256(description).hexdigest()
    other = next((each for each in hashes if not _READ.fullmatch(each)), None)
    if other is not None:
        raise KitError(f"{folder / other}: not of a kind that is published; expected data alone, no code and no pickle")
    return {
        **{each: folder / each for each in hashes},
        about: description,
        record.MANIFEST: record.to_json({**manifest, "sha256": hashes}).encode(),
        record.CARD: write_card(published(found), name, licence=licence, export=without_paths(export)).encode(),
    }


def _trained(folder: Path) -> record.Record:
    found = record.read(folder)
    if not (folder / record.MODEL).is_dir():
        raise KitError(f"{folder}: the run has no model; a comparison keeps its runs' models with --keep-models")
    return found


def _exported(folder: Path) -> tuple[record.Record, dict[str, Any]]:
    """The record of the run that was exported, and whatever else the export tells of itself."""
    record.verify(folder)
    described = _json(folder / EXPORT)
    try:
        found = record.Record(**described["record"])
    except (KeyError, TypeError):
        raise KitError(
            f"{folder / EXPORT}: has no record of the run, which the card is made from; export the run again"
        ) from None
    return found, {key: value for key, value in described.items() if key not in ("record", "schema", "format")}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(held: Mapping[str, Path | bytes], out: Path) -> None:
    """Write what would be published into a new folder, whole or not at all; the kit loads it as it loads a run.

    Raises:
        KitError: something is there already, or it cannot be written.
    """
    try:
        files.refuse_existing(out)
        with files.staged_folder(out) as staging:
            for name, content in held.items():
                path = staging / name
                path.parent.mkdir(exist_ok=True)
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    shutil.copyfile(content, path)
    except FileExistsError:
        raise KitError(f"--dry-run {out}: already exists; give a new name") from None
    except OSError as error:
        raise KitError(f"--dry-run {out}: cannot be written: {error.strerror or error}") from None


@dataclass(frozen=True)
class Published:
    """Where a model is now."""

    name: str  # user/name
    commit: str  # 40 hexadecimal digits: this name and @ and these load the same bytes for good


def publish(
    held: Mapping[str, Path | bytes],
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Published:
    """Upload in one commit. Files of an earlier publication that are no more are deleted by it; all others stay.

    Args:
        held: as `contents` gives it.
        name: ``user/name``.
        private: make a new repository private.
        revision: a branch; it is made from the main one where it does not exist.
        token: as the hub gave it; what `hf auth login` or ``HF_TOKEN`` left where None.

    Raises:
        KitError: no answer, no right to do so, or a repository that holds something else.
    """
    repository(name, revision)
    branch, api = revision or MAIN, HfApi(token=token, library_name=OWN, library_version=__version__)
    with _answering(name, "published"):
        found = _found(api, name, branch)
        there = found and _names(found)
        if found is None:
            api.create_repo(name, private=private or None)
        elif private and not found.private:
            raise KitError(f"{name}: exists and is public; make it private on the hub, or leave --private out")
        elif there and not there <= set(record.UNLISTED) and record.MANIFEST not in there:
            raise KitError(f"{name}: holds something else than a model of empathy-kit; give a new name")
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
        )
    return Published(name, done.oid)


def _found(api: HfApi, name: str, branch: str) -> ModelInfo | None:
    # First of all requests: the only one that waits no longer than it is told to, and so finds out whether anybody is there.
    for revision in dict.fromkeys((branch, None)):
        try:
            return api.model_info(name, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except RevisionNotFoundError:
            continue
        except RepositoryNotFoundError:
            return None
    return None


def _names(info: ModelInfo) -> set[str]:
    return {each.rfilename for each in info.siblings or ()}


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
    repository(repo, revision)
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
    with _answering(what, "loaded"):
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        _check_sizes(info, what)
        folder = _copy(repo, revision, what, info)
    return _checked(folder, what)


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
    wanted = _listed(manifest.read_bytes(), what)
    if info is not None:
        if folder.name != info.sha:
            raise KitError(f"{what}: was published anew while it was read; try again")
        missing = next((each for each in wanted if each not in _names(info)), None)
        if missing is not None:
            raise KitError(f"{what}: {missing} is missing, but the manifest lists it")
    for each in wanted:
        one(each, folder.name)
    return folder


def _check_sizes(info: ModelInfo, what: str) -> None:
    if record.MANIFEST not in _names(info):
        raise KitError(f"{what}: no model that empathy-kit published; {record.MANIFEST} is missing")
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    total = sum(size for each, size in sizes.items() if _READ.fullmatch(each))
    if sizes[record.MANIFEST] > MOST_MANIFEST:
        raise KitError(f"{what}: {record.MANIFEST} has {sizes[record.MANIFEST]:,} bytes, expected at most {MOST_MANIFEST:,}")
    if total > MOST_BYTES:
        raise KitError(f"{what}: {total:,} bytes in all, expected at most {MOST_BYTES:,}")


def _manifest(api: HfApi, name: str, commit: str | None) -> list[str]:
    """What an earlier publication consists of; nothing where that cannot be read."""
    try:
        path = api.hf_hub_download(name, record.MANIFEST, revision=commit)
        return _listed(Path(path).read_bytes(), name)
    except KitError:
        return []


def _listed(manifest: bytes, what: str) -> list[str]:
    """What a manifest from elsewhere lists, if it is nothing but data that the kit reads."""
    try:
        listed = json.loads(manifest)["sha256"]
        whole = all(re.fullmatch("[0-9a-f]{64}", value) for value in listed.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise KitError(f"{what}: no model that empathy-kit published; {record.MANIFEST} is not a list of hashes")
    other = next((each for each in listed if not _READ.fullmatch(each)), None)
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


def repository(name: str, revision: str | None = None) -> None:
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


def read_token(path: Path) -> str:
    """An access token that stands alone in a file, so that it stands in no command line.

    Raises:
        KitError: no such file, or one that holds something else.
    """
    try:
        token = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise KitError(f"--token-file {path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if not re.fullmatch(r"[!-~]{1,500}", token):
        raise KitError(f"--token-file {path}: expected one access token and nothing else")
    return token


@contextmanager
def _answering(what: str, done: str) -> Iterator[None]:
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
            429: "the hub has had too many requests; try again later",
        }
        return reasons.get(status, f"the hub answers with status {status}; try again later")
    if isinstance(error, HTTPError | ConnectionError | TimeoutError):
        return f"{constants.ENDPOINT} does not answer ({type(error).__name__})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
