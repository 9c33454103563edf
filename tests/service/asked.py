"""A true server of the pretend model in a thread, and a plain client."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "inference"))

from pretend import ByWords, pretend_model

from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import TokenPair
from empathy_kit.service import server
from empathy_kit.service.app import Settings, create
from empathy_kit.service.served import Served

PAIR = {"seeker_post": "I am sad", "response_post": "so sorry to hear that"}


class Held(ByWords):
    """A model that answers at once, but for the time that a test holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()  # whether it computes
        self._let = threading.Event()
        self._let.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """What it begins to compute within the block is done after it."""
        self.entered.clear()
        self._let.clear()
        try:
            yield
        finally:
            self._let.set()

    def _score(self, pairs: Sequence[TokenPair]) -> Iterator[Scored]:
        self.entered.set()
        self._let.wait(60)
        return super()._score(pairs)


@dataclass
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]  # lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fault(self) -> tuple[int, str, str]:
        error = self.json["error"]
        return self.status, error["code"], error["message"]


@dataclass
class Asked:
    """A server that runs."""

    port: int
    served: Served
    engine: Any
    stop: Any
    ended: threading.Event
    connections: Any

    def __call__(self, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> Reply:
        """Send a request on a connection of its own; a body that is no bytes is sent as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if content is not None else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, content, given)
            found = connection.getresponse()
            return Reply(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())
        finally:
            connection.close()

    def tells(self, measure: str) -> bool:
        """Whether a line is one of `/metrics`."""
        return measure in self("/metrics").body.decode().splitlines()

    def predict(self, *pairs: Any, **headers: str) -> Reply:
        """Ask for predictions."""
        return self("/v1/predict", {"pairs": list(pairs)}, **headers)


@contextmanager
def running(
    *, settings: Settings | None = None, folder: Path | None = None, engine: Any = None, seekers: bool = True, model: Any = None
) -> Iterator[Asked]:
    """A server until the end of the block."""
    engine = engine or ByWords()
    served = Served(model or replace(pretend_model(seekers=seekers), engine=engine), folder)
    bound = server.bind("127.0.0.1", 0)
    settings = settings or Settings()
    config = server.configuration(create(served, settings), deadline=settings.deadline)
    begun = threading.Event()
    process = server.Server(config, started=begun.set, stopping=served.stop, broken=lambda: served.broken)
    ended = threading.Event()

    def run() -> None:
        process.run(sockets=[bound])
        ended.set()

    thread = threading.Thread(target=run)
    thread.start()

    def stop() -> None:
        process.should_exit = True
        thread.join(20)

    try:
        if not begun.wait(60):
            raise TimeoutError("the server did not start")
        yield Asked(bound.getsockname()[1], served, engine, stop, ended, process.server_state.connections)
    finally:
        stop()
        bound.close()


def until(condition: Any, seconds: float = 30.0) -> None:
    """Wait for something that happens soon."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.005)
