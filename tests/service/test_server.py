"""The process around the interface: slow clients, clients that leave, load over the bound, a stop that drops nothing."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from asked import PAIR, running, until
from click.testing import CliRunner
from pretend import ByWords

from empathy_kit import KitError
from empathy_kit.cli import cli
from empathy_kit.service import server
from empathy_kit.service.app import Settings
from empathy_kit.service.server import bind, is_loopback

BODY = json.dumps({"pairs": [PAIR]}).encode()
REQUEST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


def closed(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    connection.settimeout(10)
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
        assert 0.2 < time.monotonic() - started < 5
        assert found.count(b"HTTP/1.1 200") == (b"\r\n\r\nGET" in sent)
        assert asked("/healthz").status == 200


def test_an_answer_that_takes_longer_than_a_request_may_is_given_nevertheless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "READ_SECONDS", 0.2)
    with running(engine=ByWords(pause=0.6)) as asked:
        assert asked.predict(PAIR).status == 200


def test_headers_and_bodies_without_a_length_have_limits() -> None:
    with running() as asked:
        with socket.create_connection(("127.0.0.1", asked.port)) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 300_000 + b"\r\n\r\n")
            assert closed(client).startswith(b"HTTP/1.1 400")
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
            client.settimeout(10)
            assert client.recv(65_536).startswith(b"HTTP/1.1 413")
        assert asked("/healthz").status == 200


def test_the_pairs_of_a_client_that_left_are_not_computed() -> None:
    with running(engine=ByWords(pause=0.3)) as asked:
        before = asked.engine.pairs
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(asked.predict, PAIR)
            until(lambda: asked("/metrics").body.decode().count("empathy_kit_batch_pairs_count 0.0") == 1)
            time.sleep(0.1)
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", asked.port)) as leaving:
                    leaving.sendall(REQUEST % (len(BODY), BODY))
                    time.sleep(0.02)
            assert first.result().status == 200
        until(lambda: b"empathy_kit_abandoned_total 5.0" in asked("/metrics").body)
        assert asked.predict(PAIR).status == 200
        assert asked.engine.pairs - before == 2


def test_over_what_may_wait_a_client_is_told_when_to_come_back_and_all_others_are_answered() -> None:
    with running(engine=ByWords(pause=0.05), settings=Settings(longest_wait=0.05)) as asked, ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(lambda _: asked.predict(PAIR), range(48)))
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {200, 429}
    for reply in replies:
        if reply.status == 429:
            assert reply.fault[1] == "too_busy"
            assert int(reply.headers["retry-after"]) >= 1


def test_a_request_that_is_not_answered_in_time_is_told() -> None:
    with running(engine=ByWords(pause=0.5), settings=Settings(deadline=0.1)) as asked:
        assert asked.predict(PAIR).fault == (503, "too_late", "no answer within 0.1 s; ask again later, or send fewer pairs")


def test_a_stop_answers_what_came_and_tells_clients_to_close() -> None:
    with running(engine=ByWords(pause=0.2)) as asked, ThreadPoolExecutor(12) as pool:
        kept = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=20)
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b"ok"
        waiting = [pool.submit(asked.predict, PAIR, PAIR) for _ in range(8)]
        time.sleep(0.15)
        stopping = threading.Thread(target=asked.stop)
        stopping.start()
        until(lambda: asked.served.stopping)
        kept.request("GET", "/readyz")  # within the moment that connections get to hear of it
        told = kept.getresponse()
        assert (told.status, told.getheader("connection")) == (503, "close")
        assert json.loads(told.read())["error"]["code"] == "not_ready"
        kept.close()
        assert [each.result().status for each in waiting] == [200] * 8
        stopping.join()
        with pytest.raises(OSError):
            asked("/healthz")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The command line with the pretend model."""
    folder = Path(__file__).parent.parent / "inference"
    path = tmp_path / "serve.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(folder)!r})\n"
        "from pretend import pretend_model\n"
        "from empathy_kit.inference import model\n"
        "model.load = lambda source, **_: pretend_model(pause=0.02)\n"
        "from empathy_kit.cli import main\nmain()\n"
    )
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_where_it_answers_and_ends_well(script: Path, number: signal.Signals) -> None:
    # A shell starts background jobs with SIGINT ignored, and the child would inherit it.
    code = "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", code + "runpy.run_path(sys.argv[0], run_name='__main__')", str(script)]
    with subprocess.Popen(
        [*command, "serve", "model", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        assert line.startswith("model answers at http://127.0.0.1:")
        port = int(line.partition("127.0.0.1:")[2].partition(";")[0])
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(_status, port) for _ in range(16)]
            time.sleep(0.1)
            os.kill(process.pid, number)
            found = [each.result() for each in answers]
        assert set(found) <= {200, None}
        assert found[:4] == [200] * 4
        assert process.wait(20) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")


def _status(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/v1/predict", BODY, {"Content-Type": "application/json"})
        return connection.getresponse().status
    except ConnectionRefusedError:  # the server had stopped listening: the request was never taken
        return None
    finally:
        connection.close()


def refused(script: Path, *arguments: str) -> str:
    reply = subprocess.run(
        [sys.executable, str(script), "serve", "model", *arguments], capture_output=True, text=True, timeout=60
    )
    assert (reply.returncode, reply.stdout) == (2, "")
    return reply.stderr


def test_a_port_in_use_and_other_faults_are_one_line(script: Path, tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        said = refused(script, "--port", str(port))
        assert said == f"Error: --port {port}: in use; use another --port, or --port 0 for one that is free\n"
    assert refused(script, "--host", "0.0.0.0") == (
        "Error: --host 0.0.0.0: other machines could reach it; add --allow-remote if they may, or use 127.0.0.1\n"
    )
    with pytest.raises(KitError) as error:
        bind("no-such-host.invalid", 0)
    assert str(error.value) == "--host no-such-host.invalid: no address of this machine, expected one such as 127.0.0.1"


@pytest.mark.parametrize("module", ["fastapi", "prometheus_client", "uvicorn"])
def test_a_missing_package_is_one_line(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(KitError) as error:
        CliRunner().invoke(cli, ["serve", "model"], catch_exceptions=False)
    assert str(error.value) == f"{module} is not installed: pip install 'empathy-kit[serve]' to serve a model"


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (b"short\n", 0o600, "no token found, expected one line of 16 characters or more without spaces"),
        (b"two words of sixteen letters\n", 0o600, "no token found, expected one line of 16 characters or more without spaces"),
        (b"correct-horse-\xff\xfe\n", 0o600, "cannot be read: not ASCII text"),
        (b"correct-horse-battery\n", 0o644, "other users may read it; run chmod 600 on it"),
    ],
)
def test_a_token_file_that_protects_nothing_is_refused(tmp_path: Path, content: bytes, mode: int, problem: str) -> None:
    from empathy_kit.cli.serve import read_token

    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(KitError) as error:
        read_token(path)
    assert str(error.value) == f"--token-file {path}: {problem}"
    path.write_bytes(b" correct-horse-battery\r\n")
    path.chmod(0o600)
    assert read_token(path) == "correct-horse-battery"


def test_loopback_is_told_from_what_others_reach() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", "")] == [False] * 5
