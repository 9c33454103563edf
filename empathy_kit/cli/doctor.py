"""`empathy-kit doctor`: what this installation has, and what it lacks."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import click

from empathy_kit import __version__
from empathy_kit.cli import terminal


@click.command()
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def doctor(as_json: bool) -> None:
    """Report versions, devices, how the losses are computed and why, the encoder, the cache and plugins."""
    from empathy_kit.cache import cache_folder
    from empathy_kit.encoders import encoder_source
    from empathy_kit.errors import KitError
    from empathy_kit.plugins import load_registry
    from empathy_kit.runs.choose import LIBRARIES

    try:
        encoder = encoder_source("minilm").location
    except KitError as error:
        encoder = str(error)
    folder = cache_folder()
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.access(path, os.F_OK))
    registry = load_registry()
    versions = {"empathy-kit": __version__, **{library: _version(library) for library in LIBRARIES}}
    found = {
        "versions": ", ".join(f"{name} {version}" for name, version in {"python": platform.python_version(), **versions}.items()),
        **_losses(),
        "encoder minilm": encoder,
        "cache": f"{folder}{'' if nearest.is_dir() and os.access(nearest, os.W_OK) else ': cannot be written'}",
        **{f"not loaded, {number}": str(failure) for number, failure in enumerate(registry.failures, start=1)},
    }
    if as_json:
        terminal.content(found)
        return
    for name, text in found.items():
        terminal.line(f"{name}: {text}")


def _losses() -> dict[str, str]:
    """How they are computed on each device, and why."""
    try:
        import torch

        from empathy_kit.core import kernels
    except ModuleNotFoundError as error:
        return {"losses": f"{error.name} is not installed; pip install 'empathy-kit[train]'"}
    devices = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return {f"losses on {device}": kernels.status(torch.device(device)) for device in devices}


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
