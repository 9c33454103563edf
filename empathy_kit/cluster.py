"""A Ray cluster, or one that is started here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from empathy_kit.errors import KitError

LOCAL = "local"


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[int]:
    """A Ray cluster, and how many workers it gives; ``local`` starts one on this machine, and ends it.

    Raises:
        KitError: Ray is not installed, or does not answer at the address.
    """
    try:
        import ray
    except ImportError:
        raise KitError("--on ray: Ray is not installed; pip install 'empathy-kit[ray]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    local = address == LOCAL
    settings: dict[str, Any] = {"num_cpus": workers} if local else {"address": address}
    if local:
        settings["include_dashboard"] = False
    started = not ray.is_initialized()
    try:
        if started:
            ray.init(logging_level="error", log_to_driver=False, **settings)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise KitError(f"--ray-address {address}: no Ray cluster answers there ({type(error).__name__})") from None
    try:
        yield workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        if started:
            ray.shutdown()
