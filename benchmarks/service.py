"""How fast does `empathy-kit serve` answer, and what does it do under load?

    EMPATHY_KIT_REDDIT=FOLDER python benchmarks/service.py MODEL > benchmarks/results/service.json
    python benchmarks/service.py MODEL --requests 2000    # shorter

MODEL is an exported folder. The server is a process of its own on loopback, and so are the clients, which share its cores. Bodies
are pairs of the data in $EMPATHY_KIT_REDDIT (or the sample) at their real lengths, one pair per request. Measured are:

- the seconds from the start of the process to its first answer of /readyz, and its resident memory all the time;
- 16 clients that each ask again as soon as they are answered;
- 50 such clients until all requests are answered; who is refused waits as Retry-After says, and asks again;
- as many arrivals at twice the rate that such clients reached: how many are refused with 429, and how long the others take, from
  the moment when they were due;
- with playwright and Chromium: milliseconds from a key's going down on the page until marks and meters are painted.

Every answer is compared with what the server answers when it is asked for this pair alone. The command fails where an answer is
lost, is another one, or has a status of 500 or more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from empathy_kit.data.sources import load_corpus

CLIENTS, MANY = 16, 50
BODIES = 1000  # different requests
APART = 1e-3  # of probabilities
TYPED, KEYS = 20, 10  # answers on the page, and keystrokes in each
PACKAGES = ("fastapi", "uvicorn", "onnxruntime")


Answers = dict[bytes, Any]  # body to what the server answers for it alone


@dataclass
class Load:
    """What clients met."""

    expected: Answers = field(repr=False)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of answers that are predictions
    lost: int = 0  # connections that ended without an answer
    other: int = 0  # predictions that are not those of their pair
    taken: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Rates and quantiles."""
        milliseconds = 1000 * np.array(self.seconds or [np.nan])
        quantiles = {"median": 50, "p95": 95, "p99": 99}
        return {
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "lost": self.lost,
            "other_answers": self.other,
            "pairs_per_second": round(self.statuses[200] / self.taken, 1),
            "ms": {name: round(float(np.percentile(milliseconds, at)), 1) for name, at in quantiles.items()},
        }

    @property
    def failed(self) -> bool:
        """Whether something went wrong that no load excuses."""
        return bool(self.lost or self.other or any(status >= 500 for status in self.statuses))


class Client:
    """A connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes, load: Load, due: float | None = None) -> int:
        """Send one request, and count its answer, its time from when it was due; the seconds to wait where it is refused."""
        started = due or time.perf_counter()
        if self._streams is not None and self._streams[0].at_eof():
            self.close()  # the server has closed a connection that was idle for long
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(
                b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            content = await reader.readexactly(int(fields[b"content-length"]))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.close()
            load.lost += 1
            return 0
        status = int(head.split(b" ", 2)[1])
        load.statuses[status] += 1
        if status == 200:
            load.seconds.append(time.perf_counter() - started)
            load.other += not same(json.loads(content), load.expected.setdefault(body, json.loads(content)))
        return int(fields.get(b"retry-after", b"1")) if status == 429 else 0

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def same(one: Any, other: Any) -> bool:
    """Whether two answers say the same; a pair that is computed with others may differ in the last digits."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < APART
    return bool(one == other)


async def alone(port: int, bodies: Sequence[bytes]) -> Load:
    """One client: what each pair is answered alone."""
    return await closed_loop(port, bodies, {}, len(bodies), 1)


async def closed_loop(port: int, bodies: Sequence[bytes], expected: Answers, requests: int, clients: int) -> Load:
    """Clients that ask again as soon as they are answered, until all requests are; who is refused waits and asks again."""
    load, waiting = Load(expected), iter(range(requests))

    async def work() -> None:
        client = Client(port)
        for number in waiting:
            while seconds := await client.ask(bodies[number % len(bodies)], load):
                await asyncio.sleep(seconds)
        client.close()

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    load.taken = time.perf_counter() - started
    return load


async def open_loop(port: int, bodies: Sequence[bytes], expected: Answers, requests: int, rate: float) -> Load:
    """Requests at a rate, whether or not the earlier ones were answered."""
    load, idle = Load(expected), [Client(port) for _ in range(8)]
    asked = set()

    async def one(body: bytes, due: float) -> None:
        client = idle.pop() if idle else Client(port)
        await client.ask(body, load, due)
        idle.append(client)

    started = time.perf_counter()
    for number in range(requests):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(bodies[number % len(bodies)], due))
        asked.add(task)
        task.add_done_callback(asked.discard)
    load.taken = time.perf_counter() - started  # so that its rate is the one that was reached
    await asyncio.gather(*asked)
    for client in idle:
        client.close()
    return load


@dataclass
class Server:
    """The process that is measured."""

    process: subprocess.Popen[str]
    port: int
    ready_seconds: float

    def mebibytes(self, what: str = "VmRSS") -> float:
        """Resident memory, or the most that there was (VmHWM)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return round(int(status.partition(f"{what}:")[2].split()[0]) / 1024, 1)


@contextmanager
def serving(model: Path) -> Iterator[Server]:
    """`empathy-kit serve`, from nothing until it is ready."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "empathy_kit", "serve", str(model), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        port = int(line.partition("127.0.0.1:")[2].partition(";")[0])
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz").close()
        try:
            yield Server(process, port, round(time.perf_counter() - started, 2))
        finally:
            process.send_signal(signal.SIGTERM)
            if process.wait(60) != 0:
                raise SystemExit("the server did not end well")


def phase(name: str, server: Server, work: Awaitable[Load]) -> tuple[dict[str, Any], Load]:
    """One kind of load, and the memory before, meanwhile and after it."""

    async def run() -> tuple[Load, list[float]]:
        seen: list[float] = []

        async def watch() -> None:
            while True:
                seen.append(server.mebibytes())
                await asyncio.sleep(1)

        watching = asyncio.create_task(watch())
        found = await work
        watching.cancel()
        return found, seen

    before = server.mebibytes()
    found, seen = asyncio.run(run())
    half = seen[len(seen) // 2 :]
    memory = {"before": before, "after": server.mebibytes(), "growth_in_second_half": round(half[-1] - half[0], 1)}
    told = {**found.summary(), "mebibytes": memory}
    print(f"{name}: {told}", file=sys.stderr)
    return told, found


WATCH = """() => {
    const box = document.querySelector("#draft-1"), feedback = document.querySelector(".feedback");
    let pressed = 0;
    window.taken = [];
    box.addEventListener("keydown", () => { pressed = performance.now(); });
    new MutationObserver(() => {
        if (pressed && !feedback.classList.contains("old")) {
            const since = pressed;
            pressed = 0;
            // The second frame begins when the first was painted.
            requestAnimationFrame(() => requestAnimationFrame(() => window.taken.push(performance.now() - since)));
        }
    }).observe(feedback, { attributes: true });
}"""


def typing(port: int, pairs: Sequence[Any]) -> dict[str, Any] | str:
    """Milliseconds from a keystroke until its marks and meters are painted, the pause before asking included.

    A keystroke that is followed by another before it shows counts as never shown.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        browser = None
    if browser is None:
        return "not measured: no playwright or Chromium"
    taken: list[float] = []
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = window.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.evaluate(WATCH)
        for pair in pairs[:TYPED]:
            page.fill("#seeker", pair.seeker)
            page.fill("#draft-1", pair.response)
            page.wait_for_timeout(300)
            page.evaluate("() => { window.taken = [] }")
            for _ in range(KEYS):
                page.locator("#draft-1").press_sequentially("a")
                page.wait_for_timeout(150)  # the time between two keystrokes of a quick typist
            taken += page.evaluate("() => window.taken")
        window.close()
    never = [np.inf] * (TYPED * KEYS - len(taken))
    of_all = {name: float(np.percentile([*taken, *never], at, method="higher")) for name, at in (("median", 50), ("p95", 95))}
    found = {name: round(value, 1) if np.isfinite(value) else None for name, value in of_all.items()}
    return {"ms": found, "keystrokes": TYPED * KEYS, "shown": len(taken)}


def main() -> None:
    """Print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=50_000, metavar="N", help="of the 50 clients  [50000]")
    arguments = parser.parse_args()
    corpus = load_corpus(os.environ.get("EMPATHY_KIT_REDDIT") or "sample")
    order = np.random.default_rng(0).permutation(len(corpus))
    pairs = [corpus.pairs[at] for at in order]
    bodies = [
        json.dumps({"pairs": [{"seeker_post": pair.seeker, "response_post": pair.response}]}).encode() for pair in pairs[:BODIES]
    ]
    requests, before = arguments.requests, os.getloadavg()[0]
    readies = []
    for _ in range(5):
        with serving(arguments.model) as server:
            readies.append(server.ready_seconds)
    with serving(arguments.model) as server:
        port, memory = server.port, server.mebibytes()
        one, first = phase("one client", server, alone(port, bodies))
        known = first.expected
        sixteen, few = phase("16 clients", server, closed_loop(port, bodies, known, max(2000, requests // 10), CLIENTS))
        fifty, many = phase("50 clients", server, closed_loop(port, bodies, known, requests, MANY))
        rate = 2 * max(sixteen["pairs_per_second"], fifty["pairs_per_second"])
        twice, over = phase("twice the rate", server, open_loop(port, bodies, known, requests, rate))
        keys = typing(port, pairs)
        result = {
            "what": "empathy-kit serve on loopback, one pair per request; clients on the same cores",
            "model": described(arguments.model),
            "data": corpus.name,
            "ready_s": {"median": float(np.median(readies)), "max": max(readies)},
            "mebibytes": {"at_start": memory, "most": server.mebibytes("VmHWM")},
            "one_client": one,
            "sixteen_clients": sixteen,
            "fifty_clients": fifty,
            "twice_the_rate": {"rate": rate, "reached": round(requests / over.taken, 1), **twice},
            "keystroke_to_marks": keys,
            "machine": {**machine(), **{name: version(name) for name in PACKAGES}, "load_before": round(before, 1)},
        }
    print(json.dumps(result, indent=2))
    if any(each.failed for each in (first, few, many, over)):
        sys.exit("an answer was lost, was another one, or had a status of 500 or more")


def described(model: Path) -> dict[str, Any]:
    """What is served, as its folder has it."""
    content = json.loads((model / "export.json").read_text("utf-8"))
    found = {name: content[name] for name in ("title", "precision", "max_tokens")}
    return {
        **found,
        "encoder": content["record"]["config"]["encoder"],
        "sha256": sha256((model / "manifest.json").read_bytes()).hexdigest(),
    }


if __name__ == "__main__":
    main()
