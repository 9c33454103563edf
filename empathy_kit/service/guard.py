"""What stands before every request: which host was meant, who may ask, how much may be sent, and what is never told."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi.exceptions import HTTPException
from starlette.responses import JSONResponse

from empathy_kit.service.batches import Failed
from empathy_kit.service.measures import Measures
from empathy_kit.service.messages import MOST_BYTES, Fault

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_HEADER_BYTES = 16_384  # with the request's path and query
_FILES = ("page.css", "page.js", "feedback.js", "server.js", "words.js", "icon.svg")
PAGE = {"/": "index.html"} | {f"/{name}": name for name in _FILES}
OPEN = frozenset({*PAGE, "/healthz", "/readyz"})  # without a token: they hold no post and no record
LOG = logging.getLogger("empathy_kit.service")
HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware. No cookie is read or set, and no header allows another origin."""

    def __init__(
        self, app: Application, *, hosts: frozenset[str], token: str | None, paths: frozenset[str], measures: Measures
    ) -> None:
        """Put it before ``app``.

        Args:
            app: answers what passes.
            hosts: names that the Host header may have, next to IP addresses and localhost. A page of another name that resolves
                to this machine (DNS rebinding) is refused, because its browser sends that name.
            token: what clients have to send as ``Authorization: Bearer``; None asks for nothing.
            paths: those that are counted by name.
            measures: where they are counted.
        """
        self._app, self._hosts, self._paths, self._measures = app, hosts, paths, measures
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                known = {name for name, _ in message["headers"]}
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in known]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        try:
            refused = self._refused(scope)
            await (refused or self._app)(scope, _limited(receive), told)
        except Exception as error:
            # The message may repeat a post, so that only its kind and place are logged.
            LOG.error("%s", place(error))  # noqa: TRY400 - a traceback would hold the message
            if status:
                raise ConnectionAbortedError("an answer broke off") from None
            fault = Fault(code="internal_error", message="the model failed on this request; the server's log names the place")
            await refusal(500, fault)(scope, receive, told)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            if status:
                self._measures.requests.labels(path, status).inc()
                self._measures.seconds.labels(path).observe(time.perf_counter() - started)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers: dict[bytes, list[bytes]] = {}
        # The server counts too, but only while it waits for the rest: headers that arrive at once pass it.
        lengths = (len(name) + len(value) + 4 for name, value in scope["headers"])
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) + sum(lengths) > MOST_HEADER_BYTES:
            return refusal(431, HEADERS_TOO_LARGE)
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        host = headers.get(b"host", [])
        if len(host) != 1 or not self._known(host[0]):
            message = "the Host header names no host of this server; start it with --allowed-host NAME for each name that it has"
            return refusal(400, Fault(code="unknown_host", message=message))
        if self._token is not None and scope["path"] not in OPEN and not self._authorized(headers.get(b"authorization", [])):
            fault = Fault(code="unauthorized", message="a token is missing or wrong; send it as Authorization: Bearer TOKEN")
            return refusal(401, fault, {"WWW-Authenticate": "Bearer"})
        if scope["method"] == "POST":
            kinds = headers.get(b"content-type", [])
            if len(kinds) != 1 or kinds[0].partition(b";")[0].strip().lower() != b"application/json":
                return refusal(415, Fault(code="not_json", message="expected JSON, and Content-Type: application/json"))
            length = headers.get(b"content-length", [b"0"])[0]
            if length.isdigit() and int(length[:20]) > MOST_BYTES:
                return refusal(413, TOO_LARGE)
        return None

    def _known(self, header: bytes) -> bool:
        name = header.decode("latin-1").lower()
        name = name[: name.rfind("]") + 1] if name.startswith("[") else name.partition(":")[0]
        if name == "localhost" or name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    def _authorized(self, given: list[bytes]) -> bool:
        kind, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token or b"")


NOT_HTTP = Fault(code="invalid_request", message="no HTTP request found, expected one of HTTP/1.1")

CROWDED = Fault(code="too_busy", message="too many connections are open; ask again later")

TOO_LARGE = Fault(code="too_large", message=f"the body is too large, expected at most {MOST_BYTES:,} bytes; send fewer pairs")

HEADERS_TOO_LARGE = Fault(code="headers_too_large", message=f"expected headers of at most {MOST_HEADER_BYTES:,} bytes in all")


def refusal(status: int, fault: Fault, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse({"error": fault.model_dump(exclude_none=True)}, status, headers)


def _limited(receive: Receive) -> Receive:
    """The body of a request without a length, cut off where it is too large."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            raise HTTPException(413, "too_large")
        return message

    return limited


def place(error: BaseException) -> str:
    """An exception's type and where it came from, without its message."""
    kind = error.kind if isinstance(error, Failed) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    calls = " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in frames[::-1][:8])
    return f"{kind} at {calls}"
