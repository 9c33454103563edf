"""What the HTTP interface answers: predictions, the model, and every kind of bad request in one plain line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from asked import PAIR, Asked, Held, running, until
from pretend import ByWords, pretend_model

from empathy_kit.inference.model import digest
from empathy_kit.runs.record import seal
from empathy_kit.service.app import Settings
from empathy_kit.service.messages import ErrorAnswer, PredictAnswer, PredictRequest

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


def test_the_model_says_what_it_reads(server: Asked) -> None:
    about = server("/v1/model").json
    assert [task["name"] for task in about["schema"]["tasks"]] == ["warm", "ER"]
    assert (about["marks_evidence"], about["reads_seekers"], about["max_tokens"]) == (True, True, 12)
    assert about["limits"] == {"pairs": 64, "characters": 100_000, "bytes": 1_048_576}
    card = server("/v1/model/card")
    assert card.fault[:2] == (404, "not_found")


def test_no_path_of_a_record_is_answered() -> None:
    home = f"/anywhere/{CANARY}"
    record = {
        "config": {"data": f"{home}/posts.csv", "options": {"cues.words": f"{home}/words.txt"}},
        "machine": {"losses": f"closed form in torch, no fused kernel: {home}/kernels cannot be used: Permission denied"},
    }
    with running(model=replace(pretend_model(), about=record)) as asked:
        answered = asked("/v1/model")
    assert answered.json["record"]["machine"] == {"losses": "closed form in torch"}
    assert CANARY not in answered.body.decode()


def test_what_is_told_of_a_model_is_made_before_the_first_request() -> None:
    with running() as asked:
        assert "described" in vars(asked.served)  # its imports would hold up the requests of others


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
    (
        {"pairs": [PAIR], CANARY: 7},
        422,
        "invalid_request",
        'body: a field of another name found, expected {"pairs": [{"seeker_post": "...", "response_post": "..."}]}',
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


@pytest.mark.parametrize("within", [lambda many: many, lambda many: {"pairs": [many]}, lambda many: {"pairs": list(many)}])
def test_a_cheap_body_with_many_faults_does_not_keep_the_server_busy(within: Any) -> None:
    from pydantic import ValidationError

    body = within({f"k{at}": 0 for at in range(95_000)})
    with pytest.raises(ValidationError) as error:
        PredictRequest.model_validate(body)
    assert error.value.error_count() == 1


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
    assert "securitySchemes" not in found["components"]


def test_openapi_declares_the_token_where_one_is_asked_for() -> None:
    with running(settings=Settings(token="correct-horse-battery")) as asked:
        found = asked("/openapi.json", Authorization="Bearer correct-horse-battery").json
    assert found["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}
    guarded = {path for path, operations in found["paths"].items() for each in operations.values() if "security" in each}
    assert guarded == {"/v1/predict", "/v1/model", "/v1/model/card", "/metrics"}


def test_a_model_folder_that_changed_is_told_and_the_loaded_model_continues_to_answer(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    weights = folder / "weights"
    weights.write_text("one")
    seal(folder)
    model = pretend_model(digest=digest(folder))

    with running(folder=folder, model=model) as asked:

        def told() -> set[bool]:
            assert asked.predict(PAIR).status == 200
            return {asked("/readyz").json["model_changed_since_start"], asked("/v1/model").json["changed_since_start"]}

        first = weights.stat()
        assert told() == {False}
        weights.write_text("two")  # of the same size
        os.utime(weights, ns=(first.st_atime_ns, first.st_mtime_ns + 1))
        assert told() == {True}
        weights.write_text("one more")
        os.utime(weights, ns=(first.st_atime_ns, first.st_mtime_ns))
        assert told() == {True}
        weights.write_text("one")
        os.utime(weights, ns=(first.st_atime_ns, first.st_mtime_ns))
        assert told() == {False}
        (folder / "manifest.json").write_text("{}")
        assert told() == {True}
        shutil.rmtree(folder)
        assert told() == {True}


def test_a_model_without_a_span_head_marks_no_evidence() -> None:
    class NoSpans(ByWords):
        def _score(self, pairs: Any) -> Any:
            return (replace(each, evidence=None) for each in super()._score(pairs))

    with running(engine=NoSpans()) as asked:
        assert asked("/v1/model").json["marks_evidence"] is False
        (found,) = asked.predict(PAIR).json["predictions"]
        assert {name: task["evidence"] for name, task in found["tasks"].items()} == {"warm": None, "ER": None}


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, type("PanicException", (BaseException,), {})])
def test_a_model_that_panics_fails_one_request_and_not_the_server(
    kind: type[BaseException], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Panicking(ByWords):
        def _score(self, pairs: Any) -> Any:
            if panics:
                raise kind(CANARY)
            return super()._score(pairs)

    panics = False
    with running(engine=Panicking()) as asked:
        panics = True
        reply = asked.predict({**PAIR, "response_post": CANARY})
        assert reply.fault[:2] == (500, "internal_error")
        panics = False
        assert asked.predict(PAIR).status == 200
        assert asked("/readyz").status == 200
    assert capfd.readouterr() == ("", "")
    assert [record.message.startswith(f"{kind.__name__} at _score (") for record in caplog.records] == [True]
    assert CANARY not in caplog.text + reply.body.decode()


def test_a_model_that_fails_is_an_error_without_its_message(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        warm = False

        def predict(self, pairs: Any) -> Any:
            if Failing.warm:
                raise RuntimeError(CANARY)
            return ByWords().predict(pairs)

    with running(engine=Failing()) as asked:
        Failing.warm = True
        reply = asked.predict({**PAIR, "response_post": CANARY})
        assert reply.fault[:2] == (500, "internal_error")
        assert asked("/healthz").status == 200
    assert capfd.readouterr() == ("", "")
    assert [record.message.startswith("RuntimeError at predict (") for record in caplog.records] == [True]
    assert CANARY not in caplog.text + reply.body.decode()


def test_probabilities_that_are_no_numbers_fail_one_request_and_not_those_of_its_batch(caplog: pytest.LogCaptureFixture) -> None:
    class Divides(Held):
        def _score(self, pairs: Any) -> Any:
            sizes.append(len(pairs))
            for pair, each in zip(pairs, super()._score(pairs), strict=True):
                wrong = {"ER": np.full(3, np.nan)} if len(pair.response) == 3 else {}
                yield replace(each, probabilities={**each.probabilities, **wrong})

    sizes: list[int] = []
    poison = {**PAIR, "response_post": CANARY}  # one word
    engine, settings = Divides(), Settings(deadline=60)
    with running(engine=engine, settings=settings) as asked, ThreadPoolExecutor(4) as clients:
        with engine.held():
            first = clients.submit(asked.predict, PAIR)
            assert engine.entered.wait(20)
            told = [clients.submit(asked.predict, pair) for pair in (PAIR, poison, PAIR)]
            until(lambda: asked.tells("empathy_kit_waiting_pairs 3.0"))  # for each other, while the first is computed
        fault, *answers = (each.result() for each in (told[1], first, told[0], told[2]))
        assert max(sizes[2:]) == 3  # the two before warmed it up
        assert fault.fault[:2] == (500, "internal_error")
        assert len({reply.body for reply in answers}) == 1
        assert {reply.status for reply in answers} == {200}
        assert asked("/readyz").status == 200
    assert [record.message.startswith("NotFinite at refuse_not_finite (") for record in caplog.records] == [True]
    assert CANARY not in caplog.text + fault.body.decode()
