"""A stand-in for the server of the page: it serves the page's files, and answers as scripted, as late as a test wants."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

import empathy_kit

PAGE = Path(empathy_kit.__file__).parent / "service" / "page"
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LABELS = ("0", "1", "2")
EPITOME = {"ER": "emotional reactions", "EX": "explorations", "IP": "interpretations"}


def model(tasks: Mapping[str, str] = EPITOME, labels: Sequence[str] = LABELS, **others: Any) -> dict[str, Any]:
    """What `GET /v1/model` answers: tasks as name and title, all with the same labels."""
    return {
        "schema": {"tasks": [{"name": name, "title": title, "labels": list(labels)} for name, title in tasks.items()]},
        "reads_seekers": True,
        "marks_evidence": True,
        "max_tokens": 64,
        "truncate": "head-tail",
        "uncertain_below": 0.6,
        "limits": {"pairs": 64, "characters": 100_000, "bytes": 1_048_576},
        "digest": "one",
        "kit": "0.1.0",
    } | others


def span(response: str, quote: str) -> dict[str, int]:
    """Where a quote stands, in characters and in UTF-16 units."""
    start = response.index(quote)
    units = [len(text.encode("utf-16-le")) // 2 for text in (response[:start], response[: start + len(quote)])]
    return {"start": start, "end": start + len(quote), "utf16_start": units[0], "utf16_end": units[1]}


def answer(
    response: str,
    level: int,
    *quotes: str,
    sure: float = 0.8,
    uncertain: bool = False,
    labels: Sequence[str] = LABELS,
    evidence: bool = True,
) -> dict[str, Any]:
    """One task's part of a prediction: the labels but the predicted one share what is left, the next one most of it."""
    rest = [at for at in range(len(labels)) if at != level]
    shares = {level: sure} | {at: (1 - sure) * (0.75 if at == rest[0] else 0.25 / max(len(rest) - 1, 1)) for at in rest}
    return {
        "label": labels[level],
        "level": level,
        "probabilities": {label: shares[at] for at, label in enumerate(labels)},
        "uncertain": uncertain,
        "evidence": [span(response, quote) for quote in quotes] if evidence else None,
    }


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def predicted(tasks: Mapping[str, Any], *, digest: str = "one", seeker: bool = False, response: bool = False) -> Reply:
    """One pair's prediction; the flags are whether the posts are longer than the model reads."""
    pair = {"tasks": dict(tasks), "seeker_truncated": seeker, "response_truncated": response}
    return Reply({"digest": digest, "predictions": [pair]})


def levels(response: str, er: int = 0, ex: int = 0, ip: int = 0) -> Reply:
    """A prediction without evidence."""
    return predicted({name: answer(response, level) for name, level in zip(EPITOME, (er, ex, ip), strict=True)})


def error(status: int, code: str, message: str, **more: Any) -> Reply:
    """A refusal as the API words it."""
    headers = more.pop("headers", {})
    return Reply({"error": {"code": code, "message": message, **more}}, status, headers)


class PageServer:
    """The stand-in, on a port of its own."""

    def __init__(self) -> None:
        self.model = Reply(model())
        self.replies: dict[str, Reply | list[Reply]] = {}  # by response post; a list is used up, but for its last
        self.asked: list[tuple[str, str]] = []  # the pairs, in the order they arrived
        self.tokens: list[str | None] = []  # the Authorization header of every call of the API
        self.token: str | None = None  # what the header has to be
        self._gates: dict[str, Event] = {}
        self._start(0)

    def _start(self, port: int) -> None:
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.owner = self
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/"

    def hold(self, post: str) -> Event:
        """Answers about this post, of a seeker or a response, wait until the event is set."""
        return self._gates.setdefault(post, Event())

    def until_asked(self, pairs: int) -> None:
        """Wait until so many pairs have arrived."""
        end = time.monotonic() + 30
        while len(self.asked) < pairs:
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(0.005)

    def stop(self) -> None:
        """Ends the server; `again` starts it on the same port."""
        for gate in self._gates.values():
            gate.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def again(self) -> None:
        self._start(self._http.server_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def reply(self, path: str, body: bytes, token: str | None) -> Reply:
        self.tokens.append(token)
        if self.token is not None and token != self.token:
            return error(401, "unauthorized", "A token is needed.")
        if path == "/v1/model":
            return self.model
        (pair,) = json.loads(body)["pairs"]
        seeker, response = pair["seeker_post"], pair["response_post"]
        self.asked.append((seeker, response))
        for gate in (self._gates.get(seeker), self._gates.get(response)):
            if gate is not None:
                gate.wait(timeout=60)
        scripted = self.replies.get(response, levels(response))
        if isinstance(scripted, list):
            return scripted.pop(0) if len(scripted) > 1 else scripted[0]
        return scripted


class _Http(ThreadingHTTPServer):
    owner: PageServer
    daemon_threads = False  # so that closing waits for them, and none outlives its test

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nobody waits for this answer any more: the page aborted its request."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        file = PAGE / (path.strip("/") or "index.html")
        if file.parent == PAGE and file.is_file():
            self._send(200, file.read_bytes(), {"Content-Type": KINDS[file.suffix], "Content-Security-Policy": POLICY})
        else:
            self._api(path)

    def do_POST(self) -> None:
        self._api(self.path)

    def _api(self, path: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply = self.server.owner.reply(path, body, self.headers.get("Authorization"))
        content = reply.content if isinstance(reply.content, bytes) else json.dumps(reply.content).encode()
        self._send(reply.status, content, {"Content-Type": "application/json", **reply.headers})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """No log."""
