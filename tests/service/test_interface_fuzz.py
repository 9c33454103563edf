"""No request of any shape is answered with a 500, with text of its own, or not at all.

As a script it sends more, and prints their count as benchmarks/results/torture has it:

    python tests/service/test_interface_fuzz.py 10000 > benchmarks/results/torture/interface.json
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "inference"))

from pretend import pretend_model

from empathy_kit.service.app import Settings, create
from empathy_kit.service.messages import ErrorAnswer, PredictAnswer
from empathy_kit.service.served import Served

MARK = "kanarienvogel"
# Half a surrogate pair is no text, but JSON has a way to write it.
texts = (
    st.text(st.characters(), max_size=40)
    | st.text("a\ud800\udfff", max_size=8)
    | st.sampled_from(["", " \n", "\0", "\u200b", "<script>alert(1)</script>", "&lt;b&gt;"])
)
marked = texts.map(lambda text: MARK + text)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | marked
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(marked, inner, max_size=3), max_leaves=8
)
words = st.text("abc \U0001f600\u0301\u05d0", min_size=1, max_size=60).map(lambda text: f"sorry {text}")
good = st.lists(st.fixed_dictionaries({"seeker_post": words, "response_post": words}), min_size=1, max_size=8)
posts = st.fixed_dictionaries({}, optional={"seeker_post": marked | values, "response_post": marked | values})
pairs = st.fixed_dictionaries({"seeker_post": texts, "response_post": texts}) | posts | values
others = st.dictionaries(st.sampled_from(["pairs", "x"]), values, max_size=3)
asked = st.fixed_dictionaries({"pairs": good}) | st.fixed_dictionaries({"pairs": st.lists(pairs, max_size=8)}) | others | values
bodies = asked.map(lambda content: json.dumps(content).encode())
broken = st.tuples(bodies, st.binary(max_size=5), st.integers(0, 200)).map(
    lambda each: each[0][: each[2]] + each[1] + each[0][each[2] :]
)
# Most requests get past the first checks, so that what stands behind them is tried too.
OTHERS = ["/", "/v1/model", "/metrics", "/healthz", "/readyz", "/openapi.json", f"/{MARK}", f"/{MARK}/\u00e9"]
paths = st.sampled_from(["/v1/predict"] * 20 + OTHERS)
methods = st.sampled_from(["POST"] * 20 + ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
names = st.sampled_from([b"content-type", b"host", b"authorization", b"content-length", b"accept", b"origin", b"cookie"])
queries = st.just(b"") | st.binary(max_size=30).map(lambda query: MARK.encode() + query)
headers = st.one_of(*[st.just([])] * 3, st.lists(st.tuples(names, st.binary(max_size=30)), max_size=3))
usual = [(b"host", b"localhost"), (b"content-type", b"application/json")]


async def answered(
    app: Any, method: str, path: str, query: bytes, given: list[tuple[bytes, bytes]], parts: list[bytes]
) -> tuple[int, bytes]:
    """One request through the application, its body in parts."""
    messages = [{"type": "http.request", "body": part, "more_body": at + 1 < len(parts)} for at, part in enumerate(parts)]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.Event().wait()  # the client stays until it is answered
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": query,
        "headers": given,
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "root_path": "",
    }
    await asyncio.wait_for(app(scope, receive, send), 20)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


class Log(logging.Handler):
    """Whatever any library of this process logs, at whichever level."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))  # with the traceback, where there is one


class Application:
    """The service in a loop of its own."""

    def __init__(self) -> None:
        self.log, self.level = Log(), logging.root.level
        logging.root.addHandler(self.log)
        logging.root.setLevel(logging.DEBUG)
        self.loop = asyncio.new_event_loop()
        self.app = create(Served(pretend_model(), None), Settings(longest_wait=600))
        self.lifespan = self.app.router.lifespan_context(self.app)
        self.loop.run_until_complete(self.lifespan.__aenter__())
        self.statuses: Counter[int] = Counter()

    def close(self) -> None:
        self.loop.run_until_complete(self.lifespan.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        logging.root.removeHandler(self.log)
        logging.root.setLevel(self.level)

    def ask(
        self,
        method: str,
        path: str,
        query: bytes = b"",
        extra: list[tuple[bytes, bytes]] | None = None,
        body: bytes = b"",
        cut: int = 0,
    ) -> tuple[int, bytes]:
        kept = [each for each in usual if each[0] not in {name for name, _ in extra or []}]
        parts = [body[:cut], body[cut:]]
        return self.loop.run_until_complete(answered(self.app, method, path, query, kept + (extra or []), parts))

    def check(self, method: str, path: str, query: bytes, extra: list[tuple[bytes, bytes]], body: bytes, cut: int) -> None:
        status, content = self.ask(method, path, query, extra, body, cut)
        self.statuses[status] += 1
        assert status < 500, (method, path, extra, body)
        if status == 200 and path == "/v1/predict":
            PredictAnswer.model_validate_json(content)
        if status >= 400 and method != "HEAD":
            ErrorAnswer.model_validate_json(content)
            assert MARK.encode() not in content

    def check_traces(self) -> None:
        """Nothing of a request is in any log or counter."""
        status, measures = self.ask("GET", "/metrics")
        assert status == 200
        assert MARK not in measures.decode() + "\n".join(self.log.lines)


requests = st.tuples(methods, paths, queries, headers, bodies | broken | st.binary(max_size=50), st.integers(0, 300))


@pytest.fixture(scope="module")
def application() -> Iterator[Application]:
    application = Application()
    yield application
    application.close()


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(request_=requests)
def test_no_request_is_an_error_of_the_server(application: Application, request_: tuple[Any, ...]) -> None:
    application.check(*request_)


def test_the_requests_got_as_far_as_the_model_and_as_every_refusal(application: Application) -> None:
    assert application.statuses[200] > 20
    assert {400, 404, 405, 415, 422} <= set(application.statuses)


def test_nothing_of_the_requests_is_in_a_log_or_a_counter(application: Application) -> None:
    logging.getLogger("anybody").debug("heard")
    assert application.log.lines[-1] == "heard"
    application.check_traces()


def main(count: int) -> dict[str, Any]:
    """Send so many requests; the first that is not answered as it should be is raised."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from machine import machine

    from empathy_kit import __version__

    found = Application()

    @seed(0)
    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(request_=requests)
    def send(request_: tuple[Any, ...]) -> None:
        found.check(*request_)

    send()
    found.check_traces()
    found.close()
    answered = found.statuses.total()
    return {
        "experiment": "requests of any shape to `serve`",
        "survived_means": "an answer below 500, of the form that is described; nothing of it in a refusal, a log or a counter",
        "command": f"python tests/service/test_interface_fuzz.py {count}",
        "tried": answered,
        "survived": answered,
        "statuses": {str(status): number for status, number in sorted(found.statuses.items())},
        "kit": __version__,
        "machine": machine(),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1])), indent=2))  # noqa: T201
