"""The command: its options arrive at the server, its faults are one line, and it ends with its own exit code."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

import uvicorn
from asked import PAIR
from click.testing import CliRunner
from pretend import pretend_model

from empathy_kit import KitError
from empathy_kit.cli import cli
from empathy_kit.inference import model
from empathy_kit.inference.graph import GraphEngine
from empathy_kit.inference.model import EmpathyModel
from empathy_kit.service import server
from empathy_kit.service.server import bind

BODY = json.dumps({"pairs": [PAIR]}).encode()
TOKEN = "correct-horse-battery"
UNSTARTED = "the server did not start: its model failed on the pair that warms it up; the lines above name the place"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The command line with the pretend model."""
    folder = Path(__file__).parent.parent / "inference"
    path = tmp_path / "serve.py"
    path.write_text(
        f"import os, sys\nsys.path.insert(0, {str(folder)!r})\n"
        "from pretend import pretend_model\n"
        "from empathy_kit.inference import model\n"
        "model.load = lambda source, **_: pretend_model(pause=float(os.environ.get('PAUSE', '0.02')))\n"
        "from empathy_kit.cli import main\nmain()\n"
    )
    return path


@contextmanager
def started(script: Path, *arguments: str, pause: float = 0.02) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command as a process of its own, and its port."""
    # A shell starts background jobs with SIGINT ignored, and the child would inherit it.
    code = "import signal, runpy, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv = sys.argv[1:]; "
    command = [sys.executable, "-c", code + "runpy.run_path(sys.argv[0], run_name='__main__')", str(script)]
    with subprocess.Popen(
        [*command, "serve", "model", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PAUSE": str(pause)},
    ) as process:
        assert process.stdout
        line = process.stdout.readline()
        try:
            assert line.startswith("model answers at http://"), line
            yield process, int(line.partition(";")[0].rpartition(":")[2])
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a process wrote to stderr by its end."""
    assert process.wait(60) == code
    assert process.stdout
    assert process.stderr
    assert process.stdout.read() == ""
    return process.stderr.read()


def ask(port: int, **headers: str) -> tuple[int, str]:
    """The status of a request for a prediction, and the code and message of a refusal."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/v1/predict", BODY, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        error = json.loads(answer.read()).get("error", {"code": "", "message": ""})
        return answer.status, f"{error['code']}: {error['message']}".strip(": ")
    finally:
        connection.close()


REMOTE = (
    "warning: other machines can reach this server. Posts travel unencrypted; put a proxy with TLS in front of it, "
    "and name the host that browsers ask for with --allowed-host\n"
)
UNGUARDED = "warning: everybody who reaches it may send posts; --token-file asks clients for a token\n"


@pytest.mark.parametrize(
    ("number", "options", "warnings"),
    [(signal.SIGTERM, (), ""), (signal.SIGINT, ("--host", "0.0.0.0", "--allow-remote"), REMOTE + UNGUARDED)],
)
def test_the_command_says_where_it_answers_and_who_can_reach_it_and_ends_well(
    script: Path, number: signal.Signals, options: tuple[str, ...], warnings: str
) -> None:
    def status(port: int) -> int | None:
        try:
            return ask(port)[0]
        except http.client.RemoteDisconnected:  # it was taken, and dropped
            return 0
        except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
            return None  # the server had stopped listening, perhaps just as this waited for it: the request was never taken

    with started(script, *options) as (process, port), ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(status, port) for _ in range(16)]
        assert [each.result() for each in answers[:4]] == [200] * 4
        os.kill(process.pid, number)
        found = [each.result() for each in answers]
        assert set(found) <= {200, None}
        assert ended(process) == warnings


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def test_what_the_options_guard_is_guarded(script: Path, token_file: Path) -> None:
    options = ["--token-file", str(token_file), "--allowed-host", "Coach.example.org", "--host", "0.0.0.0", "--allow-remote"]
    with started(script, *options) as (process, port):
        assert ask(port)[0] == 401
        assert ask(port, Authorization=f"Bearer {TOKEN}") == (200, "")
        assert ask(port, Authorization=f"Bearer {TOKEN}", Host="coach.example.org:8443") == (200, "")
        status, said = ask(port, Authorization=f"Bearer {TOKEN}", Host="evil.example")
        assert (status, said.partition(":")[0]) == (400, "unknown_host")
        process.terminate()
        assert ended(process) == REMOTE


def test_the_deadline_and_the_longest_wait_are_those_that_were_given(script: Path) -> None:
    with started(script, "--deadline", "0.3", "--longest-wait", "0.01", pause=1) as (_, port), ThreadPoolExecutor(8) as pool:
        told = set(pool.map(lambda _: ask(port), range(8)))
    assert {status for status, _ in told} == {429, 503}
    assert (503, "too_late: no answer within 0.3 s; ask again later, or send fewer pairs") in told


def test_a_stop_follows_the_deadline_that_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(model, "load", lambda *_, **__: pretend_model())
    monkeypatch.setattr(server, "serve", lambda *_, **settings: given.update(settings))
    CliRunner().invoke(cli, ["serve", "model", "--port", "0", "--deadline", "600"], catch_exceptions=False)
    assert given["deadline"] == 600


def test_the_model_is_loaded_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def load(*source: str, **options: Any) -> EmpathyModel:
        given.append((*source, options))
        return replace(pretend_model(), engine=GraphEngine.__new__(GraphEngine)) if source == ("exported",) else pretend_model()

    monkeypatch.setattr(model, "load", load)
    monkeypatch.setattr(server, "serve", lambda *_, **__: None)
    asked = ["--port", "0", "--device", "cpu", "--plugin", "a.py"]
    CliRunner().invoke(cli, ["serve", "run", *asked], catch_exceptions=False)
    with pytest.raises(KitError) as error:
        CliRunner().invoke(cli, ["serve", "exported", *asked], catch_exceptions=False)
    assert str(error.value) == "--device: of a run's model alone, and exported is an exported one; leave it out"
    options = {"device": "cpu", "threads": 1, "plugins": (Path("a.py"),)}
    assert given == [("run", options), ("exported", options)]


def test_a_server_whose_model_computes_no_more_ends_as_a_failure(script: Path) -> None:
    lines = script.read_text().splitlines()
    broken = "from empathy_kit.service.measures import Measures; Measures.batch = lambda *_: 1 / 0"
    script.write_text("\n".join([*lines[:-2], broken, *lines[-2:]]))
    with started(script) as (process, port):
        assert ask(port) == (200, "")
        place, fault = ended(process, 2).splitlines()
    assert place.startswith("ZeroDivisionError at <lambda> (")
    assert fault == (
        "Error: the server stopped because its model computes no more; the line above names the place; start it again"
    )


def test_a_server_whose_model_fails_as_it_is_warmed_up_does_not_say_that_it_answers(script: Path) -> None:
    lines = script.read_text().splitlines()
    broken = "from pretend import ByWords; ByWords.predict = lambda *_: 1 / 0"
    script.write_text("\n".join([*lines[:-2], broken, *lines[-2:]]))
    reply = subprocess.run(
        [sys.executable, str(script), "serve", "model", "--port", "0"], capture_output=True, text=True, timeout=300
    )
    assert (reply.returncode, reply.stdout) == (2, "")
    *above, line = reply.stderr.splitlines()
    assert "ZeroDivisionError: division by zero" in above
    assert line == f"Error: {UNSTARTED}"


@pytest.mark.parametrize("ends", [False, True], ids=["returns", "ends the process"])
def test_so_it_is_whichever_way_uvicorn_gives_up(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def startup(process: uvicorn.Server, sockets: object = None) -> None:
        if ends:
            sys.exit(3)
        process.should_exit = True

    async def app(scope: object, receive: object, send: object) -> None:
        pass

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    told: list[str] = []
    with bind("127.0.0.1", 0) as bound, pytest.raises(KitError) as error:
        server.serve(app, bound, deadline=1, started=lambda: told.append("started"), stopping=lambda: None, broken=lambda: False)
    assert (str(error.value), told) == (UNSTARTED, [])


@pytest.mark.parametrize("name", ["coach.example.org:8443", "https://coach.example.org", "*.example.org", "[::1]", ""])
def test_a_name_that_no_host_header_matches_is_refused(name: str) -> None:
    with pytest.raises(KitError) as error:
        CliRunner().invoke(cli, ["serve", "model", "--allowed-host", name], catch_exceptions=False)
    assert str(error.value) == (
        f"--allowed-host {name}: expected a name alone, such as coach.example.org, without a scheme or a port"
    )


def refused(*arguments: str) -> str:
    with pytest.raises(KitError) as error:
        CliRunner().invoke(cli, ["serve", "model", *arguments], catch_exceptions=False)
    return str(error.value)


def test_a_port_in_use_and_other_faults_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "load", lambda *_, **__: pretend_model())
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert refused("--port", str(port)) == f"--port {port}: in use; use another --port, or --port 0 for one that is free"
    assert refused("--host", "0.0.0.0") == (
        "--host 0.0.0.0: other machines could reach it; add --allow-remote if they may, or use 127.0.0.1"
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


def test_a_credential_of_systemd_is_read_though_its_mode_has_the_groups_bit(
    token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empathy_kit.cli.serve import read_token

    token_file.chmod(0o440)
    with pytest.raises(KitError, match="other users may read it"):
        read_token(token_file)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_token(token_file) == TOKEN
    token_file.chmod(0o444)
    with pytest.raises(KitError, match="other users may read it"):
        read_token(token_file)
