"""What the HTTP interface answers: predictions, the model, and every kind of bad request in one plain line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from asked import PAIR, Asked, running

from empathy_kit.service.app import Settings
from empathy_kit.service.messages import ErrorAnswer, PredictAnswer

CANARY = "kanarienvogel"  # a word that no answer, log or metric may repeat


@pytest.fixture(scope="module")
def server() -> Iterator[Asked]:
    with running() as asked:
        yield asked


def test_pairs_are_answered_in_their_order_as_the_model_predicts_them(server: Asked) -> None:
    pairs = [{"seeker_post": f"post {at}", "response_post": f"answer number {at} to it"} for at in range(9)]
    reply = server.predict(*pairs)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    answered = PredictAnswer.model_validate(reply.json)
    assert answered.digest == server.served.model.digest
    expected = server.served.model.predict([(pair["seeker_post"], pair["response_post"]) for pair in pairs])
    for found, wanted in zip(answered.predictions, expected, strict=True):
        assert list(found.tasks) == ["warm", "ER"]
        for name, task in found.tasks.items():
            assert (task.label, task.level, task.probabilities) == (
                wanted[name].label,
                wanted[name].level,
                wanted[name].probabilities,
            )
            assert task.uncertain is (max(task.probabilities.values()) < 0.6)
        assert (found.seeker_truncated, found.response_truncated) == (wanted.seeker_truncated, wanted.response_truncated)


@pytest.mark.parametrize(
    "before",
    ["", "ab ", "\U0001f600 ", "e\u0301\u0301 ", "\u05e9\u05dc\u05d5\u05dd ", "\U0001f468\u200d\U0001f469\u200d\U0001f467 "],
)
def test_evidence_is_given_in_characters_and_in_utf_16_units(server: Asked, before: str) -> None:
    marked = 0
    for word in ("sorry", "hear", "you", "sad", "feel", "hard", "lonely", "friend"):
        response = f"{before}{word} \U0001f600 {word} end"
        units = response.encode("utf-16-le")
        for task in server.predict({**PAIR, "response_post": response}).json["predictions"][0]["tasks"].values():
            for span in task["evidence"]:
                characters = response[span["start"] : span["end"]]
                assert characters
                assert units[2 * span["utf16_start"] : 2 * span["utf16_end"]].decode("utf-16-le") == characters
                marked += 1
    assert marked


def test_a_model_that_reads_responses_alone_needs_no_seeker_post() -> None:
    with running(seekers=False) as asked:
        assert asked.predict({"response_post": "so sorry"}).status == 200
        assert asked("/v1/model").json["reads_seekers"] is False


def test_the_model_says_what_it_reads_and_answers_no_path(server: Asked) -> None:
    about = server("/v1/model").json
    assert [task["name"] for task in about["schema"]["tasks"]] == ["warm", "ER"]
    assert (about["marks_evidence"], about["reads_seekers"], about["max_tokens"]) == (True, True, 12)
    assert about["limits"] == {"pairs": 64, "characters": 100_000, "bytes": 1_048_576}
    card = server("/v1/model/card")
    assert card.fault[:2] == (404, "not_found")


BAD: list[tuple[Any, int, str, str]] = [
    (b"{", 422, "invalid_request", 'body: not JSON, expected {"pairs": [{"seeker_post": "...", "response_post": "..."}]}'),
    (b"", 422, "invalid_request", "body: missing"),
    (b"\xff\xfe", 422, "invalid_request", 'body: not JSON, expected {"pairs": [{"seeker_post": "...", "response_post": "..."}]}'),
    (b"[" * 100_000, 400, "invalid_request", "the body cannot be read, expected JSON"),
    ([], 422, "invalid_request", 'body: expected {"pairs": [{"seeker_post": "...", "response_post": "..."}]}'),
    ({}, 422, "invalid_request", "pairs: missing"),
    ({"pairs": []}, 422, "invalid_request", "pairs: 0 pairs found, expected 1 to 64"),
    ({"pairs": [PAIR] * 65}, 422, "invalid_request", "pairs: 65 pairs found, expected 1 to 64"),
    ({"pairs": [PAIR] * 10_000}, 422, "invalid_request", "pairs: 10000 pairs found, expected 1 to 64"),
    ({"pairs": [{"seeker_post": "a"}]}, 422, "invalid_request", "pairs, pair 0, response_post: missing"),
    ({"pairs": [PAIR, {**PAIR, "response_post": 7}]}, 422, "invalid_request", "pairs, pair 1, response_post: expected text"),
    (
        {"pairs": [{**PAIR, CANARY: 7}]},
        422,
        "invalid_request",
        'pairs, pair 0: a field of another name found, expected {"pairs": [{"seeker_post": "...", "response_post": "..."}]}',
    ),
    ({"pairs": [{**PAIR, "response_post": ""}]}, 422, "empty_post", "pair 0, response_post: empty, expected a post"),
    (
        {"pairs": [PAIR, {**PAIR, "response_post": " \n\t\u00a0"}]},
        422,
        "empty_post",
        "pair 1, response_post: empty, expected a post",
    ),
    (
        {"pairs": [{**PAIR, "seeker_post": "\u200b"}]},
        422,
        "empty_post",
        "pair 0, seeker_post: only invisible characters found, expected a post",
    ),
    (
        {"pairs": [{**PAIR, "response_post": f"{CANARY}\0"}]},
        422,
        "invalid_text",
        "pair 0, response_post: a NUL byte found, expected text",
    ),
    (
        b'{"pairs": [{"seeker_post": "kanarienvogel", "response_post": "\\ud800"}]}',
        422,
        "invalid_text",
        "pair 0, response_post: half a surrogate pair found, expected text",
    ),
    (
        {"pairs": [{**PAIR, "response_post": CANARY * 10_000}]},
        422,
        "too_long",
        "pair 0, response_post: 130,000 characters found, expected at most 100,000",
    ),
    (
        {"pairs": [{**PAIR, "response_post": CANARY * 100_000}]},
        413,
        "too_large",
        "the body is too large, expected at most 1,048,576 bytes; send fewer pairs",
    ),
]


@pytest.mark.parametrize(("body", "status", "code", "message"), BAD)
def test_a_bad_request_gets_one_line_that_names_the_place_and_never_the_text(
    server: Asked, body: Any, status: int, code: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reply = server("/v1/predict", body)
    assert reply.fault == (status, code, message)
    ErrorAnswer.model_validate(reply.json)
    assert CANARY not in reply.body.decode()
    assert capfd.readouterr() == ("", "")


def test_what_is_not_json_is_refused_by_its_type_so_that_no_other_page_can_send_it(server: Asked) -> None:
    content = json.dumps({"pairs": [PAIR]}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        assert server("/v1/predict", content, Content_Type=kind).fault[:2] == (415, "not_json")
    assert server("/v1/predict", content, Content_Type="application/json; charset=utf-8").status == 200
    asked = server("/v1/predict", method="OPTIONS", Origin="http://evil.example", Access_Control_Request_Method="POST")
    assert asked.fault[:2] == (405, "method_not_allowed")
    answered = server.predict(PAIR, Origin="http://evil.example")
    assert not [
        name for name in {**asked.headers, **answered.headers} if name.startswith("access-control") or name == "set-cookie"
    ]


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/v1/predict/", "/page.html", "/../etc/passwd", "/%2e%2e/x", "/\u00e9"])
def test_other_paths_are_not_found_and_not_repeated(server: Asked, path: str) -> None:
    reply = server(path.encode("ascii", "xmlcharrefreplace").decode())
    assert reply.status in (404, 405)
    assert b"passwd" not in reply.body


def test_health_readiness_and_measures(server: Asked) -> None:
    assert (server("/healthz").body, server("/readyz").json) == (b"ok", {"ready": True, "model_changed_since_start": False})
    before = server.predict(PAIR, PAIR)
    assert before.status == 200
    server(f"/{CANARY}")
    text = server("/metrics").body.decode()
    assert 'empathy_kit_requests_total{path="/v1/predict",status="200"}' in text
    assert 'empathy_kit_requests_total{path="other",status="404"}' in text
    assert "empathy_kit_batch_pairs_bucket" in text
    assert "empathy_kit_waiting_pairs 0.0" in text
    assert CANARY not in text


def test_openapi_describes_what_is_answered(server: Asked) -> None:
    found = server("/openapi.json").json
    assert set(found["paths"]) == {"/v1/predict", "/v1/model", "/v1/model/card", "/healthz", "/readyz", "/metrics"}
    refusals = map(str, (400, 401, 413, 415, 422, 429, 431, 500, 503))
    assert set(found["paths"]["/v1/predict"]["post"]["responses"]) == {"200", *refusals}


def test_a_model_folder_that_changed_is_told_and_the_loaded_model_goes_on_answering(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with running(folder=tmp_path) as asked:
        assert asked("/readyz").json["model_changed_since_start"] is True  # the pretend model has another digest
        assert asked("/v1/model").json["changed_since_start"] is True
        assert asked.predict(PAIR).status == 200


def test_a_model_that_fails_is_an_error_without_its_message(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        warm = False

        def predict(self, pairs: Any) -> Any:
            if Failing.warm:
                raise RuntimeError(CANARY)
            from pretend import ByWords

            return ByWords().predict(pairs)

    with running(engine=Failing()) as asked:
        Failing.warm = True
        reply = asked.predict({**PAIR, "response_post": CANARY})
        assert reply.fault[:2] == (500, "internal_error")
        assert asked("/healthz").status == 200
    assert capfd.readouterr() == ("", "")
    assert [record.message.startswith("RuntimeError at predict (") for record in caplog.records] == [True]
    assert CANARY not in caplog.text + reply.body.decode()


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
