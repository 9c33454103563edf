"""What stands before every request: which host was meant, who may ask, and what every answer forbids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from asked import PAIR, Asked, running

from empathy_kit.service.app import Settings

CANARY = "kanarienvogel"  # a word that no tracer may be given


@pytest.fixture(scope="module")
def server() -> Iterator[Asked]:
    with running() as asked:
        yield asked


def test_no_request_is_traced_where_the_process_has_a_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later versions of FastAPI have telemetry of their own, which any global provider switches on."""
    trace = pytest.importorskip("opentelemetry.trace", reason="this FastAPI has no telemetry")
    heard = []

    class Listening(trace.NoOpTracer):  # type: ignore[misc, name-defined]
        def start_span(self, *arguments: Any, **settings: Any) -> Any:
            heard.append((arguments, settings))
            return super().start_span(*arguments, **settings)

    class Provider(trace.TracerProvider):  # type: ignore[misc, name-defined]
        def get_tracer(self, *_: Any, **__: Any) -> Any:
            return Listening()

    provider = Provider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    with running() as asked:
        assert asked(f"/healthz?response_post={CANARY}").status == 200
        assert asked.predict({**PAIR, "response_post": CANARY}).status == 200
        assert asked.predict({**PAIR, "response_post": ""}).status == 422
    assert heard == []


def test_a_token_guards_what_holds_posts_or_a_record() -> None:
    with running(settings=Settings(token="correct-horse-battery")) as asked:
        for path in ("/v1/model", "/metrics", "/openapi.json", "/v1/model/card"):
            assert asked(path).fault[:2] == (401, "unauthorized")
            assert asked(path, Authorization="Bearer correct-horse-battery").status in (200, 404)
        for wrong in ("Bearer x", "Basic correct-horse-battery", "Bearer", "correct-horse-battery", "Bearer \xff"):
            reply = asked.predict(PAIR, Authorization=wrong)
            assert reply.fault[:2] == (401, "unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"
        assert asked.predict(PAIR, Authorization="bearer correct-horse-battery").status == 200
        for path in ("/", "/page.js", "/page.css", "/healthz", "/readyz"):
            assert asked(path).status == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1", True),
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("[::1]:8000", True),
        ("192.168.0.7:8000", True),
        ("coach.example.org", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", False),
        ("user@localhost", False),
    ],
)
def test_only_the_names_of_this_server_are_answered(named: Asked, host: str, allowed: bool) -> None:
    reply = named("/healthz", Host=host)
    assert reply.status == (200 if allowed else 400)
    if not allowed:
        assert reply.fault[1] == "unknown_host"


@pytest.fixture(scope="module")
def named() -> Iterator[Asked]:
    with running(settings=Settings(hosts=frozenset({"coach.example.org"}))) as asked:
        yield asked


def test_every_answer_forbids_what_a_page_does_not_need(server: Asked) -> None:
    for path in ("/", "/page.js", "/v1/model", "/nothing"):
        headers = server(path).headers
        assert (
            headers["content-security-policy"]
            == "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers
