"""`empathy-kit serve`: a model behind HTTP, with a page that gives feedback on a draft."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import click

from empathy_kit.cli import terminal
from empathy_kit.cli.flags import Number, plugin_files, refuse_of_other_models
from empathy_kit.errors import KitError

REMOTE = (
    "other machines can reach this server. Posts travel unencrypted; put a proxy with TLS in front of it, "
    "and name the host that browsers ask for with --allowed-host"
)
UNGUARDED = "everybody who reaches it may send posts; --token-file asks clients for a token"
LONGEST_TOKEN = 4096


@click.command()
@click.argument("model", metavar="MODEL")
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="the address to listen on  [127.0.0.1: this machine alone]")
@click.option(
    "--port",
    cls=Number,
    type=click.IntRange(0, 65535),
    default=8000,
    metavar="N",
    help="the port; 0 for one that is free  [8000]",
)
@click.option("--allow-remote", is_flag=True, help="allow a --host that other machines can reach")
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="a name in the Host header, such as a proxy's, without a port; may be repeated",
)
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="clients must send this file's token")
@click.option(
    "--deadline", cls=Number, type=click.FloatRange(0.1, 600), default=10.0, metavar="SECONDS", help="per request  [10]"
)
@click.option(
    "--longest-wait",
    cls=Number,
    type=click.FloatRange(0.01, 600),
    default=0.5,
    metavar="SECONDS",
    help="that a request may have to wait; over it, 429  [0.5]",
)
@click.option("--threads", cls=Number, type=click.IntRange(1), metavar="N", help="CPU threads of an exported model  [all cores]")
@click.option("--device", type=click.Choice(["auto", "cpu"]), help="device of a run's model  [as it was trained]")
@plugin_files
def serve(
    *,
    model: str,
    host: str,
    port: int,
    allow_remote: bool,
    hosts: tuple[str, ...],
    token_file: Path | None,
    deadline: float,
    longest_wait: float,
    threads: int | None,
    device: Literal["auto", "cpu"] | None,
    plugin_files: tuple[Path, ...],
) -> None:
    """Answer HTTP requests with MODEL, and give feedback on a page while an answer is written.

    MODEL is a run's folder, an exported folder, or hub:user/name. Posts are neither stored nor logged. The page needs no network
    and asks no other machine. Ctrl-C or SIGTERM stops the server after it has answered what it was asked.
    """
    from empathy_kit.inference.graph import GraphEngine, needed

    for module in ("fastapi", "prometheus_client", "uvicorn"):
        needed(module, extra="serve", purpose="serve a model")
    from empathy_kit.service import server

    for name in hosts:
        check_name(name)
    token = None if token_file is None else read_token(token_file)
    if not (allow_remote or server.is_loopback(host)):
        raise KitError(f"--host {host}: other machines could reach it; add --allow-remote if they may, or use 127.0.0.1")
    with server.bind(host, port) as bound:
        from empathy_kit.runs.quiet import quiet_libraries

        quiet_libraries()
        from empathy_kit.inference.model import HUB, load
        from empathy_kit.processor import cores
        from empathy_kit.service.app import Settings, create
        from empathy_kit.service.served import Served

        # Each core computes a batch of its own: what arrives while one is busy goes to the next. Torch shares its cores itself.
        loaded = load(model, device=device, threads=1, plugins=plugin_files)
        exported = isinstance(loaded.engine, GraphEngine)
        refuse_of_other_models(model, exported, threads=threads, device=device)
        workers = (threads or cores()) if exported else 1
        served = Served(loaded, None if model.startswith(HUB) else Path(model))
        settings = Settings(
            longest_wait=longest_wait,
            deadline=deadline,
            workers=workers,
            hosts=frozenset(name.lower() for name in hosts),
            token=token,
        )
        remarks = list(loaded.warnings)
        if not server.is_loopback(host):
            remarks += [REMOTE, *([] if token else [UNGUARDED])]
        for remark in remarks:
            terminal.remark(f"warning: {remark}")
        where = server.address(bound)
        server.serve(
            create(served, settings),
            bound,
            deadline=deadline,
            started=lambda: terminal.line(f"{model} answers at {where}; Ctrl-C stops it"),
            stopping=served.stop,
            broken=lambda: served.broken,
        )


def check_name(name: str) -> None:
    """Refuse a name that no Host header could match.

    Raises:
        KitError: it has a scheme, a port, or signs that browsers encode.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise KitError(f"--allowed-host {name}: expected a name alone, such as coach.example.org, without a scheme or a port")


def read_token(path: Path) -> str:
    """The token in a file's only line.

    Raises:
        KitError: no file, or one that others may read, or that holds no token.
    """
    try:
        # Systemd's credentials have mode 0440: the group's bit stands for the service's user, and the folder is closed to others.
        credential = path.parent == Path(os.environ.get("CREDENTIALS_DIRECTORY", os.devnull))
        others = os.name == "posix" and path.stat().st_mode & (0o037 if credential else 0o077)
        text = path.read_text(encoding="ascii", errors="strict")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not ASCII text"
        raise KitError(f"--token-file {path}: cannot be read: {reason}") from None
    if others:
        raise KitError(f"--token-file {path}: other users may read it; run chmod 600 on it")
    token = text.strip()
    if not 16 <= len(token) <= LONGEST_TOKEN or not token.isprintable() or " " in token:
        raise KitError(f"--token-file {path}: no token found, expected one line of 16 characters or more without spaces")
    return token
