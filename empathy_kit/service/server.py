"""The process: a socket, uvicorn, limits on slow clients, and a stop that drops nothing."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from empathy_kit.errors import KitError
from empathy_kit.service.guard import (
    CROWDED,
    HEADERS,
    HEADERS_TOO_LARGE,
    MOST_HEADER_BYTES,
    NOT_HTTP,
    Receive,
    Scope,
    Send,
    refusal,
)

READ_SECONDS = 10.0  # for the whole of one request to arrive
IDLE_SECONDS = 30  # that a connection is kept open between requests
DRAIN_SECONDS = 0.3  # after a signal: connections are still answered, and told to close
WRITE_SECONDS = 10.0  # for a client to take what was written
MOST_CONNECTIONS = 1000


class Protocol(H11Protocol):
    """HTTP/1.1 for clients that send a whole request and take its answer in time; uvicorn waits for slow ones without end."""

    _until: asyncio.TimerHandle | None = None
    _taken_until: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start waiting for the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` comes with the first byte that the client does not take
        if len(self.connections) > MOST_CONNECTIONS:
            self.app = _crowded
        self._expect()

    def data_received(self, data: bytes) -> None:
        """Wait on, unless the request is whole."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request, if part of it came with the last one."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._expected()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that does not read."""
        super().pause_writing()
        self._taken_until = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read all."""
        super().resume_writing()
        self._taken()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words
        """Answer what is no HTTP in the form of every other refusal; uvicorn's own is plain text without the guard's headers."""
        long = getattr(sys.exception(), "error_status_hint", None) == 431  # of h11's error, which uvicorn handles by this call
        status, fault = (431, HEADERS_TOO_LARGE) if long else (400, NOT_HTTP)
        answer = refusal(status, fault, {**HEADERS, "connection": "close"})
        parts: list[h11.Event] = [
            h11.Response(status_code=status, headers=answer.raw_headers, reason=HTTPStatus(status).phrase.encode()),
            h11.Data(data=bytes(answer.body)),
            h11.EndOfMessage(),
        ]
        # After an answer that came before the request's end, what follows can only be cut off.
        for part in parts if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) else ():
            self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _watch(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY) and not self._is_idle():
            self._expect()
        else:
            self._expected()

    def _is_idle(self) -> bool:
        """Whether the last byte of one request came, and none of the next."""
        return self.conn.their_state is h11.IDLE and self.cycle is not None and not self.conn.trailing_data[0]

    def _expect(self) -> None:
        if self._until is None:
            self._until = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def _expected(self) -> None:
        if self._until is not None:
            self._until.cancel()
            self._until = None

    def _taken(self) -> None:
        if self._taken_until is not None:
            self._taken_until.cancel()
            self._taken_until = None


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    """What a connection over the bound is answered."""
    await refusal(503, CROWDED, {**HEADERS, "connection": "close", "retry-after": "1"})(scope, receive, send)


class Server(uvicorn.Server):
    """Uvicorn that ends with its own exit code after SIGTERM or Ctrl-C, and tells clients to close first."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        started: Callable[[], object],
        stopping: Callable[[], object],
        broken: Callable[[], bool],
    ) -> None:
        super().__init__(config)
        self._told_started, self._told_stopping, self._broken = started, stopping, broken

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and say so."""
        await super().startup(sockets)
        if self.started:  # where the application fails to start, earlier versions of uvicorn return from here
            self._told_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let every client know before its connection is closed, so that no request meets a closed one."""
        self._told_stopping()
        closing = [*self.server_state.default_headers, (b"connection", b"close")]
        self.server_state.default_headers = closing
        for connection in self.server_state.connections:
            if isinstance(connection, Protocol) and connection.cycle is not None:  # its request came with the headers of before
                connection.cycle.default_headers = closing
        await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Stop where nothing computes any more, too."""
        return await super().on_tick(counter) or self._broken()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT. Uvicorn's own would raise the signal once more at the end."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.force_exit = self.should_exit and number == signal.SIGINT  # the second Ctrl-C does not wait
            self.should_exit = True

        main = threading.current_thread() is threading.main_thread()  # the only one that may listen
        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT) if main}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        KitError: the port is in use or not allowed, or the host is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError):
        raise KitError(f"--host {host}: no address of this machine, expected one such as 127.0.0.1") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(1024)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise KitError(f"--port {port}: in use; use another --port, or --port 0 for one that is free") from None
        if error.errno == errno.EACCES:
            raise KitError(f"--port {port}: not allowed for this user; use a --port above 1023") from None
        raise KitError(f"--host {host}: cannot be listened on: {error.strerror or error}") from None
    return bound


def address(bound: socket.socket) -> str:
    """Where a browser finds a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def configuration(app: Any, *, deadline: float) -> uvicorn.Config:
    """Uvicorn's settings.

    Args:
        app: answers the requests.
        deadline: seconds until a request is given up; a stop waits for that long, and for slow clients.
    """
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        loop="asyncio",
        access_log=False,  # paths hold no post, but a mistaken client's query may
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=math.ceil(READ_SECONDS + deadline + WRITE_SECONDS),
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
    )


def serve(
    app: Any,
    bound: socket.socket,
    *,
    deadline: float,
    started: Callable[[], object],
    stopping: Callable[[], object],
    broken: Callable[[], bool],
) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then finish those that came, and return.

    Raises:
        KitError: the application did not start, or nothing computes any more.
    """
    process = Server(configuration(app, deadline=deadline), started=started, stopping=stopping, broken=broken)
    try:
        process.run(sockets=[bound])
    except SystemExit:  # later versions end the process, with a code of their own
        if process.started:
            raise
    if not process.started:
        raise KitError("the server did not start: its model failed on the pair that warms it up; the lines above name the place")
    if broken():
        raise KitError("the server stopped because its model computes no more; the line above names the place; start it again")
