"""The service under load, from what benchmarks/service.py printed."""

from __future__ import annotations

from typing import Any

from blocks.reading import count, measured, table


def load() -> str:
    """Speed, waiting times and memory."""
    found = measured("service")
    machine, keys = found["machine"], found["keystroke_to_marks"]
    rows = [
        ("16 clients, each asks again when it is answered", *_cells(found["sixteen_clients"])),
        ("50 such clients", *_cells(found["fifty_clients"])),
        (f"{found['twice_the_rate']['rate']:.0f} requests per second arrive", *_cells(found["twice_the_rate"])),
    ]
    header = ("", "answered", "refused (429)", "other", "pairs/s", "median", "p95", "memory")
    told = (
        f"Measured on {count(machine['cores'])} cores ({machine['processor']}, {_products(machine)}), which the clients share "
        "with the server: "
        f"{found['data']}'s pairs, one per request, MiniLM in int8 ([all figures](../benchmarks/results/service.json)). It is "
        f"ready {found['ready_s']['median']:.1f} s after its start."
    )
    return f"{told}\n\n{table(header, rows)}\n\n{_typing(keys)}"


def _products(machine: Any) -> str:
    """Whether the processor has instructions for products in int8, without which int8 is hardly faster than float32."""
    return "with VNNI" if "vnni" in machine["instructions"] else "without VNNI, which int8 gains by"


def _cells(phase: Any) -> tuple[str, ...]:
    statuses = phase["statuses"]
    others = sum(number for status, number in statuses.items() if status not in ("200", "429")) + phase["lost"]
    return (
        f"{statuses.get('200', 0):,}",
        f"{statuses.get('429', 0):,}",
        f"{others:,}",
        f"{phase['pairs_per_second']:.0f}",
        f"{phase['ms']['median']:.0f} ms",
        f"{phase['ms']['p95']:.0f} ms",
        f"{phase['mebibytes']['after']:.0f} MiB",
    )


def _typing(keys: Any) -> str:
    if isinstance(keys, str):
        return f"From a keystroke to the page's marks: {keys}."
    return (
        f"From a keystroke to the page's marks and meters: median {keys['ms']['median']:.0f} ms, 95th percentile "
        f"{keys['ms']['p95']:.0f} ms, over {keys['keystrokes']} keystrokes in Chromium, the pause before the request included."
    )
