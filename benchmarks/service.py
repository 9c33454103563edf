"""How fast does `empathy-kit serve` answer, and what does it do under load?

    EMPATHY_KIT_REDDIT=FOLDER python benchmarks/service.py MODEL > benchmarks/results/service.json
    python benchmarks/service.py MODEL --requests 2000    # shorter

MODEL is an exported folder. The server is a process of its own on loopback, and so are the clients, which share its cores. Bodies
are pairs of the data in $EMPATHY_KIT_REDDIT (or the sample) at their real lengths, one pair per request. Measured are:

- the seconds from the start of the process to its first answer of /readyz, and its resident memory at the end of each phase;
- 16 clients that each ask again as soon as they are answered;
- 50 such clients until all requests are answered: errors, lost answers, growth of memory;
- arrivals at twice the rate that 16 clients reached: how many are refused with 429, and how long the others take;
- with playwright and Chromium: milliseconds from a keystroke on the page until its marks and meters show.
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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from empathy_kit.data.sources import load_corpus

CLIENTS, MANY = 16, 50
TYPED, KEYS = 20, 10  # answers on the page, and keystrokes in each
PACKAGES = ("fastapi", "uvicorn", "onnxruntime")


@dataclass
class Load:
    """What clients met."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of answers that are predictions
    lost: int = 0  # connections that ended without an answer
    taken: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Rates and quantiles."""
        milliseconds = 1000 * np.array(self.seconds or [np.nan])
        quantiles = {"median": 50, "p95": 95, "p99": 99}
        return {
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "lost": self.lost,
            "pairs_per_second": round(self.statuses[200] / self.taken, 1),
            "ms": {name: round(float(np.percentile(milliseconds, at)), 1) for name, at in quantiles.items()},
        }


class Client:
    """A connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes, load: Load) -> None:
        """Send one request, and count its answer."""
        started, reused = time.perf_counter(), self._streams is not None
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
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            self.close()
            # The server closes a connection that was idle for long; every client asks once more then, on a new one.
            if reused and not getattr(error, "partial", b""):
                await self.ask(body, load)
            else:
                load.lost += 1
            return
        status = int(head.split(b" ", 2)[1])
        load.statuses[status] += 1
        if status == 200:
            load.lost += not content.endswith(b"}")
            load.seconds.append(time.perf_counter() - started)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(port: int, bodies: Sequence[bytes], requests: int, clients: int) -> Load:
    """Clients that ask again as soon as they are answered."""
    load, waiting = Load(), iter(range(requests))

    async def work() -> None:
        client = Client(port)
        for number in waiting:
            await client.ask(bodies[number % len(bodies)], load)
        client.close()

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    load.taken = time.perf_counter() - started
    return load


async def open_loop(port: int, bodies: Sequence[bytes], requests: int, rate: float) -> Load:
    """Requests at a rate, whether or not the earlier ones were answered."""
    load, idle = Load(), [Client(port) for _ in range(8)]
    asked = set()

    async def one(body: bytes) -> None:
        client = idle.pop() if idle else Client(port)
        await client.ask(body, load)
        idle.append(client)

    started = time.perf_counter()
    for number in range(requests):
        await asyncio.sleep(max(0.0, started + number / rate - time.perf_counter()))
        task = asyncio.create_task(one(bodies[number % len(bodies)]))
        asked.add(task)
        task.add_done_callback(asked.discard)
    await asyncio.gather(*asked)
    load.taken = time.perf_counter() - started
    for client in idle:
        client.close()
    return load


@dataclass
class Server:
    """The process that is measured."""

    process: subprocess.Popen[str]
    port: int
    ready_seconds: float

    def mebibytes(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


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


def phase(name: str, server: Server, work: Callable[[], Awaitable[Load]]) -> dict[str, Any]:
    """One kind of load, and the memory after it."""

    async def run() -> Load:
        return await work()

    before = server.mebibytes()
    found = asyncio.run(run())
    told = {**found.summary(), "mebibytes": {"before": before, "after": server.mebibytes()}}
    print(f"{name}: {told}", file=sys.stderr)
    return told


WATCH = """() => {
    const box = document.querySelector("#draft-1"), feedback = document.querySelector(".feedback");
    let pressed = 0;
    window.taken = [];
    box.addEventListener("input", () => { pressed = performance.now(); });
    new MutationObserver(() => {
        if (pressed && !feedback.classList.contains("old")) {
            const since = pressed;
            pressed = 0;
            requestAnimationFrame(() => window.taken.push(performance.now() - since));
        }
    }).observe(feedback, { attributes: true });
}"""


def typing(port: int, pairs: Sequence[Any]) -> dict[str, Any] | str:
    """Milliseconds from a keystroke to the frame that shows its marks and meters, the pause before asking included."""
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
    found = {name: round(float(np.percentile(taken, at)), 1) for name, at in (("median", 50), ("p95", 95))}
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
    bodies = [json.dumps({"pairs": [{"seeker_post": pair.seeker, "response_post": pair.response}]}).encode() for pair in pairs]
    few, before = max(2000, arguments.requests // 10), os.getloadavg()[0]
    readies = []
    for _ in range(5):
        with serving(arguments.model) as server:
            readies.append(server.ready_seconds)
    with serving(arguments.model) as server:
        memory = server.mebibytes()
        sixteen = phase("16 clients", server, lambda: closed_loop(server.port, bodies, few, CLIENTS))
        many = phase("50 clients", server, lambda: closed_loop(server.port, bodies, arguments.requests, MANY))
        rate = 2 * sixteen["pairs_per_second"]
        over = phase("twice the rate", server, lambda: open_loop(server.port, bodies, arguments.requests // 4, rate))
        keys = typing(server.port, pairs)
        result = {
            "what": "empathy-kit serve on loopback, one pair per request; clients on the same cores",
            "data": corpus.name,
            "ready_s": {"median": float(np.median(readies)), "max": max(readies)},
            "mebibytes_at_start": memory,
            "sixteen_clients": sixteen,
            "fifty_clients": many,
            "twice_the_rate": {"rate": rate, **over},
            "keystroke_to_marks": keys,
            "machine": {**machine(), **{name: version(name) for name in PACKAGES}, "load_before": round(before, 1)},
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
