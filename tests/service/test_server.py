"""The process around the interface: slow clients, clients that leave, load over the bound, a stop that drops nothing."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from asked import PAIR, Held, running, until
from pretend import ByWords

from empathy_kit.service import server
from empathy_kit.service.app import Settings
from empathy_kit.service.guard import HEADERS
from empathy_kit.service.measures import Measures
from empathy_kit.service.server import is_loopback

BODY = json.dumps({"pairs": [PAIR]}).encode()
REQUEST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


def closed(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    connection.settimeout(30)
    found = b""
    try:
        while part := connection.recv(65_536):
            found += part
    except ConnectionResetError:
        pass
    return found


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HT",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /heal",
    ],
    ids=["nothing", "half a line", "half a body", "half of a second request"],
)
def test_a_client_that_does_not_finish_its_request_is_cut_off(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.3)
    with running() as asked, socket.create_connection(("127.0.0.1", asked.port)) as slow:
        started = time.monotonic()
        slow.sendall(sent)
        found = closed(slow)
        assert 0.2 < time.monotonic() - started < 9  # the usual time is 10
        assert found.count(b"HTTP/1.1 200") == (b"\r\n\r\nGET" in sent)
        assert asked("/healthz").status == 200


def test_an_answer_that_takes_longer_than_a_request_may_is_given_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 1)
    engine = Held()
    with running(engine=engine) as asked, ThreadPoolExecutor(1) as pool:
        with engine.held():
            slow = pool.submit(asked.predict, PAIR)
            assert engine.entered.wait(20)
            time.sleep(1.1)
        assert slow.result().status == 200


def many(requests: int) -> bytes:
    return requests * b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_client_that_never_reads_its_answers_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_SECONDS", 0.3)
    with running() as asked, socket.create_connection(("127.0.0.1", asked.port)) as client:
        client.sendall(many(500))  # whose answers are more than the system keeps for a client
        assert client.recv(1)  # or it might not yet be there, which looks like being cut off
        until(lambda: len(asked.connections) == 0)
        assert asked("/healthz").status == 200


def test_a_client_that_reads_late_but_in_time_is_not_cut_off() -> None:
    """The clock that would cut it off is stopped: to wait for it would take its time, and a busy machine could miss it."""

    def answers(wanted: int) -> None:
        found = 0
        while found < wanted:
            part = client.recv(65_536)
            assert part
            found += part.count(b"200 OK")

    with running() as asked, socket.create_connection(("127.0.0.1", asked.port), timeout=30) as client:
        client.sendall(many(500))
        until(lambda: len(asked.connections) == 1)
        (connection,) = asked.connections
        timers: list[asyncio.TimerHandle] = []
        until(lambda: timers.append(connection._taken_until) or timers[-1] is not None)
        answers(490)  # a few status lines may be torn between two parts
        until(lambda: connection._taken_until is None)
        assert timers[-1].cancelled()
        assert len(asked.connections) == 1


def read_answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    answer = http.client.HTTPResponse(client)
    answer.begin()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def test_what_is_no_http_is_answered_as_every_other_refusal() -> None:
    with running() as asked, socket.create_connection(("127.0.0.1", asked.port)) as client:
        client.sendall(b"kanarienvogel\r\n\r\n")
        status, headers, body = read_answer(client)
        assert (status, headers["content-type"], headers["connection"]) == (400, "application/json", "close")
        assert json.loads(body)["error"] == {
            "code": "invalid_request",
            "message": "no HTTP request found, expected one of HTTP/1.1",
        }
        assert headers.items() >= HEADERS.items()
        assert closed(client) == b""


def test_connections_over_the_bound_are_refused_and_those_before_them_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 2)
    with running() as asked:
        first, second, over = (socket.create_connection(("127.0.0.1", asked.port)) for _ in range(3))
        with first, second:
            with over:
                over.sendall(REQUEST % (len(BODY), BODY))
                status, headers, body = read_answer(over)
            assert (status, headers["connection"], headers["retry-after"]) == (503, "close", "1")
            assert json.loads(body)["error"] == {"code": "too_busy", "message": "too many connections are open; ask again later"}
            assert headers.items() >= HEADERS.items()
            second.sendall(REQUEST % (len(BODY), BODY))
            assert read_answer(second)[0] == 200
        until(lambda: asked("/healthz").status == 200)


def test_headers_and_bodies_without_a_length_have_limits() -> None:
    with running() as asked:
        with socket.create_connection(("127.0.0.1", asked.port)) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 300_000 + b"\r\n\r\n")
            found = closed(client)
            assert found.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
            assert b'"headers_too_large"' in found
        for path in (f"/healthz?{'x' * 20_000}", "/healthz"):  # whole, in one packet
            reply = asked(path, more="x" * 20_000 if path == "/healthz" else "")
            assert (reply.status, reply.fault[1]) == (431, "headers_too_large")
        with socket.create_connection(("127.0.0.1", asked.port)) as client:
            client.sendall(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            part = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
            for _ in range(17):
                client.sendall(part)
            client.settimeout(30)
            assert client.recv(65_536).startswith(b"HTTP/1.1 413")
        assert asked("/healthz").status == 200


def test_what_follows_an_early_answer_and_is_no_http_is_cut_off_without_a_word_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running() as asked, socket.create_connection(("127.0.0.1", asked.port)) as client:
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: x/y\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert read_answer(client)[0] == 415
        client.sendall(b"no length of a chunk\r\n")
        closed(client)
        assert asked("/healthz").status == 200
    assert [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def test_the_pairs_of_a_client_that_left_are_not_computed() -> None:
    engine = Held()
    with running(engine=engine, settings=Settings(deadline=60)) as asked, ThreadPoolExecutor(1) as pool:
        before = engine.pairs
        with engine.held():
            first = pool.submit(asked.predict, PAIR)
            assert engine.entered.wait(20)
            for left in range(1, 6):
                with socket.create_connection(("127.0.0.1", asked.port)) as leaving:
                    leaving.sendall(REQUEST % (len(BODY), BODY))
                    until(lambda: asked.tells("empathy_kit_waiting_pairs 1.0"))
                until(lambda left=left: asked.tells(f"empathy_kit_abandoned_total {left}.0"))
        assert first.result().status == 200
        assert asked.predict(PAIR).status == 200
        assert engine.pairs - before == 2


def test_over_what_may_wait_a_client_is_told_when_to_come_back_and_all_others_are_answered() -> None:
    engine, settings = Held(), Settings(longest_wait=0.05, deadline=60)
    with running(engine=engine, settings=settings) as asked, ThreadPoolExecutor(24) as pool:
        with engine.held():
            asking = [pool.submit(asked.predict, PAIR) for _ in range(48)]
            until(lambda: any(each.done() for each in asking))
        replies = [each.result() for each in asking]
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {200, 429}
    for reply in replies:
        if reply.status == 429:
            assert reply.fault[1] == "too_busy"
            assert int(reply.headers["retry-after"]) >= 1


def test_a_request_that_is_not_answered_in_time_is_told() -> None:
    engine = Held()
    with running(engine=engine, settings=Settings(deadline=0.1)) as asked, engine.held():
        assert asked.predict(PAIR).fault == (503, "too_late", "no answer within 0.1 s; ask again later, or send fewer pairs")


@pytest.fixture
def told_all(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Ends the moment in which connections get to hear of a stop: however busy the machine is, it is not over before."""
    over = threading.Event()

    async def moment(seconds: float) -> None:
        assert seconds == server.DRAIN_SECONDS
        await asyncio.to_thread(over.wait, 30)

    monkeypatch.setattr(server, "asyncio", SimpleNamespace(sleep=moment))
    return over


def test_a_stop_answers_what_came_and_tells_clients_to_close(told_all: threading.Event) -> None:
    engine = Held()
    with running(engine=engine, settings=Settings(deadline=60)) as asked, ThreadPoolExecutor(12) as pool:
        kept = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=30)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok"
        with engine.held():
            waiting = [pool.submit(asked.predict, PAIR, PAIR)]
            assert engine.entered.wait(20)
            waiting += [pool.submit(asked.predict, PAIR, PAIR) for _ in range(7)]
            until(lambda: asked.tells("empathy_kit_waiting_pairs 14.0"))
            stopping = threading.Thread(target=asked.stop)
            stopping.start()
            until(lambda: asked.served.stopping)
            kept.request("GET", "/readyz")
            told = kept.getresponse()
            assert (told.status, told.getheader("connection")) == (503, "close")
            assert json.loads(told.read())["error"]["code"] == "not_ready"
            kept.close()
            told_all.set()
        assert [each.result().status for each in waiting] == [200] * 8
        stopping.join()
        with pytest.raises(OSError):
            asked("/healthz")


def test_a_request_that_came_before_the_stop_is_told_to_close_too() -> None:
    engine = Held()
    with running(engine=engine, settings=Settings(deadline=60)) as asked:
        kept = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=30)
        with engine.held():
            kept.request("POST", "/v1/predict", BODY, {"Content-Type": "application/json"})
            assert engine.entered.wait(20)
            threading.Thread(target=asked.stop).start()
            until(lambda: asked.served.stopping)
        told = kept.getresponse()
        assert (told.status, told.getheader("connection")) == (200, "close")
        kept.close()


def test_no_request_of_clients_that_keep_asking_is_dropped_by_a_stop(told_all: threading.Event) -> None:
    def ask(port: int) -> list[int | None]:
        """The statuses of one connection's requests until it is told to close; None for one that got no answer."""
        connection, found = http.client.HTTPConnection("127.0.0.1", port, timeout=30), []
        while True:
            try:
                connection.request("POST", "/v1/predict", BODY, {"Content-Type": "application/json"})
                told = connection.getresponse()
            except (OSError, http.client.HTTPException):
                return [*found, None]
            told.read()
            found.append(told.status)
            if told.getheader("connection") == "close":
                return found

    with running(engine=ByWords(pause=0.02)) as asked, ThreadPoolExecutor(12) as pool:
        before = asked.engine.pairs
        clients = [pool.submit(ask, asked.port) for _ in range(12)]
        until(lambda: asked.engine.pairs - before > 36)
        stopping = threading.Thread(target=asked.stop)
        stopping.start()
        statuses = [status for each in clients for status in each.result()]
        told_all.set()
        stopping.join()
    assert len(statuses) > 36  # three per client and more
    assert set(statuses) == {200}


def test_a_stop_waits_as_long_as_a_request_may_take() -> None:
    longest = server.READ_SECONDS + 600 + server.WRITE_SECONDS
    assert server.configuration(None, deadline=600).timeout_graceful_shutdown == longest


def test_a_server_whose_model_computes_no_more_is_not_ready_and_ends(
    told_all: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("kanarienvogel")

    monkeypatch.setattr(Measures, "batch", broken)
    with running() as asked:
        assert asked("/readyz").status == 200
        assert asked.predict(PAIR).status == 200
        until(lambda: asked.served.broken)
        message = "the model computes no more; the server's log names the place"
        assert asked("/readyz").fault == (503, "not_ready", message)
        told_all.set()
        assert asked.ended.wait(20)
        with pytest.raises(ConnectionRefusedError):
            asked("/healthz")
    assert [record.message.startswith("RuntimeError at broken (") for record in caplog.records] == [True]
    assert "kanarienvogel" not in caplog.text
    assert capfd.readouterr() == ("", "")


def test_loopback_is_told_from_what_others_reach() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", "")] == [False] * 5
