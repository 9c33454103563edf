"""The HTTP interface: routes over a model and its batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from empathy_kit import __version__
from empathy_kit.errors import KitError
from empathy_kit.inference.model import EmpathyModel, post_fault
from empathy_kit.service.batches import Batches, Busy, Late
from empathy_kit.service.guard import LOG, OPEN, PAGE, TOO_LARGE, Guard, place, refusal
from empathy_kit.service.measures import Measures
from empathy_kit.service.messages import (
    MOST_PAIRS,
    ErrorAnswer,
    Fault,
    PairOfPosts,
    PredictAnswer,
    PredictRequest,
    Refused,
    answer,
)
from empathy_kit.service.served import Served

BATCH = 16  # pairs: enough to compute well, few enough that nobody waits long for a batch to end
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
REFUSALS = (400, 401, 413, 415, 422, 429, 431, 500, 503)
TOKEN = 4  # characters, about


@dataclass(frozen=True)
class Settings:
    """How a server behaves."""

    longest_wait: float = 0.5  # seconds that the pairs before a request may need; over it the answer is 429
    deadline: float = 10.0  # seconds until a request is given up
    workers: int = 1  # batches that are computed at once
    hosts: frozenset[str] = frozenset()  # names that the Host header may have, next to IP addresses and localhost
    token: str | None = field(default=None, repr=False)


def create(served: Served, settings: Settings) -> FastAPI:
    """The application. Its lifespan warms the model up and computes batches."""
    measures = Measures(lambda: batches.waiting)
    batches = Batches(
        served.model.predict,
        longest_wait=settings.longest_wait,
        size=BATCH,
        workers=settings.workers,
        reads=TOKEN * served.model.tokenization.max_tokens,
        seen=measures.batch,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(lambda: served.described)  # warms the model up
        working = asyncio.create_task(batches.work())
        working.add_done_callback(partial(_ended, served))
        yield
        working.cancel()
        await asyncio.wait({working})

    # The pages that FastAPI adds load scripts from other hosts. Its telemetry would give requests to whatever OpenTelemetry
    # provider the process has; versions without it ignore the setting.
    app = FastAPI(
        title="empathy-kit",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False},
    )
    _page(app)
    _state(app, served, measures)
    _predict(app, served, batches, measures, settings.deadline)
    _errors(app)
    if settings.token is not None:
        _declare_token(app)
    paths = frozenset(path for route in app.routes if (path := getattr(route, "path", None)))
    app.add_middleware(Guard, hosts=settings.hosts, token=settings.token, paths=paths, measures=measures)
    return app


def _ended(served: Served, working: asyncio.Task[None]) -> None:
    """Without workers every request would wait for its deadline, so that the server has to end and be started again."""
    if working.cancelled():
        return
    served.broken = True
    error = working.exception()
    while isinstance(error, BaseExceptionGroup):  # of the task group: what it holds has the place
        error = error.exceptions[0]
    if error is not None:
        LOG.error("%s", place(error))


def _declare_token(app: FastAPI) -> None:
    """Add to the description what the guard asks for, on the paths where it asks."""
    described = app.openapi()
    described.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in described["paths"].items():
        for operation in () if path in OPEN else operations.values():
            operation["security"] = [{"token": []}]


def _page(app: FastAPI) -> None:
    folder = resources.files("empathy_kit.service") / "page"
    for path, name in PAGE.items():
        show = partial(_file, (folder / name).read_bytes(), KINDS[Path(name).suffix])
        app.add_route(path, show, include_in_schema=False)


async def _file(content: bytes, kind: str, _: Request) -> Response:
    return Response(content, media_type=f"{kind}; charset=utf-8")


def _state(app: FastAPI, served: Served, measures: Measures) -> None:
    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """The process is alive."""
        return "ok"

    @app.get("/readyz", responses={503: {"model": ErrorAnswer}})
    async def readyz() -> dict[str, bool]:
        """The model is loaded and computes, and the server is not about to stop."""
        if served.broken:
            raise Refused(503, Fault(code="not_ready", message="the model computes no more; the server's log names the place"))
        if served.stopping:
            raise Refused(503, Fault(code="not_ready", message="the server is stopping"))
        return {"ready": True, "model_changed_since_start": await asyncio.to_thread(lambda: served.changed)}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """The tasks and their labels, what the model reads, and its record."""
        return {**served.described, "changed_since_start": await asyncio.to_thread(lambda: served.changed)}

    @app.get("/v1/model/card", response_class=PlainTextResponse, responses={404: {"model": ErrorAnswer}})
    async def card() -> Response:
        """The model card, as Markdown."""
        try:
            text = await asyncio.to_thread(served.card)
        except KitError as error:
            raise Refused(404, Fault(code="not_found", message=str(error))) from None
        return Response(text, media_type="text/markdown; charset=utf-8")


def _predict(app: FastAPI, served: Served, batches: Batches, measures: Measures, deadline: float) -> None:
    errors: dict[int | str, dict[str, Any]] = {status: {"model": ErrorAnswer} for status in REFUSALS}

    @app.post("/v1/predict", response_model=PredictAnswer, responses=errors)
    async def predict(request: Request, asked: Annotated[PredictRequest, Body()]) -> Response:
        """Predict one pair or several."""
        for at, pair in enumerate(asked.pairs):
            _check(at, pair, served.model)
        posts = [(pair.seeker_post, pair.response_post) for pair in asked.pairs]
        working = asyncio.create_task(batches.predict(posts, deadline=deadline))
        leaving = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                measures.gone.inc()
                return Response(status_code=499)  # nobody reads it
            found = await working
        except Busy as busy:
            fault = Fault(code="too_busy", message=f"too many pairs wait; ask again in {busy.seconds} s")
            raise Refused(429, fault, {"Retry-After": str(busy.seconds)}) from None
        except Late:
            fault = Fault(code="too_late", message=f"no answer within {deadline:g} s; ask again later, or send fewer pairs")
            raise Refused(503, fault, {"Retry-After": "1"}) from None
        finally:
            for task in (working, leaving):
                task.cancel()
        return Response(answer(served.model.digest, asked.pairs, found).model_dump_json(), media_type="application/json")


async def _gone(request: Request) -> None:
    """Return when the client has left; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check(at: int, pair: PairOfPosts, model: EmpathyModel) -> None:
    for name in ("seeker_post", "response_post") if model.reads_seekers else ("response_post",):
        fault = post_fault(getattr(pair, name))
        if fault is not None:
            code, problem = fault
            raise Refused(422, Fault(code=code, message=f"pair {at}, {name}: {problem}", pair=at, field=name))


KNOWN = {"body", "pairs", "seeker_post", "response_post"}


def _errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return refusal(error.status, error.fault, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Pydantic's own answer repeats the input, which is a post.
        first = error.errors()[0]
        broken = first["type"] == "json_invalid"  # its place is a position in the body
        place = [] if broken else [part for part in first["loc"] if isinstance(part, int) or part in KNOWN]
        pair = next((part for part in place if isinstance(part, int)), None) if "pairs" in place else None
        name = str(place[-1]) if place and place[-1] in ("seeker_post", "response_post") else None
        if first["type"] == "string_unicode":
            fault = Fault(code="invalid_text", message="half a surrogate pair found, expected text", pair=pair, field=name)
        else:
            where = ", ".join(f"pair {part}" if isinstance(part, int) and "pairs" in place else str(part) for part in place[1:])
            said = _said(first["type"], first.get("ctx", {}), first["msg"])
            fault = Fault(code="invalid_request", message=f"{where or 'body'}: {said}", pair=pair, field=name)
        return refusal(422, fault)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 413:
            return refusal(413, TOO_LARGE)
        if error.status_code == 405:
            fault = Fault(code="method_not_allowed", message="this path does not answer that method; /openapi.json lists all")
            return refusal(405, fault, dict(error.headers or {}))
        if error.status_code == 404:
            return refusal(404, Fault(code="not_found", message="no such path; /openapi.json lists all"))
        return refusal(error.status_code, Fault(code="invalid_request", message="the body cannot be read, expected JSON"))


def _said(kind: str, context: Mapping[str, Any], message: str) -> str:
    """A validation error in words that repeat nothing of the input."""
    if kind == "json_invalid":
        return f"not JSON, expected {_SHAPE}"
    if kind == "extra_forbidden":
        return f"a field of another name found, expected {_SHAPE}"
    if kind in ("too_long", "too_short"):
        found = context.get("actual_length")
        return f"{found if isinstance(found, int) else 'other'} pairs found, expected 1 to {MOST_PAIRS}"
    if kind in ("missing", "model_attributes_type", "list_type", "string_type"):
        return {"missing": "missing", "string_type": "expected text"}.get(kind, f"expected {_SHAPE}")
    return message


_SHAPE = '{"pairs": [{"seeker_post": "...", "response_post": "..."}]}'
