"""The service under load, from what benchmarks/service.py printed."""

from __future__ import annotations

from typing import Any

from blocks.reading import count, measured, processor, table

SLOWER = "service-amx"


def load() -> str:
    """Speed, waiting times and memory."""
    found = measured("service")
    machine, keys = found["machine"], found["keystroke_to_marks"]
    rows = [
        ("one client, which asks again when it is answered", *_cells(found["one_client"])),
        ("16 such clients", *_cells(found["sixteen_clients"])),
        ("50 such clients", *_cells(found["fifty_clients"])),
        (f"{found['twice_the_rate']['reached']:.0f} requests per second arrive", *_cells(found["twice_the_rate"])),
    ]
    header = ("", "answered", "refused (429)", "other", "pairs/s", "median", "p95", "memory")
    told = (
        f"Measured on {count(machine['cores'])} cores ({processor(machine)}, {_products(machine)}), which the clients share "
        f"with the server: {found['data']}'s pairs, one per request, {_model(found['model'])} "
        "([all figures](../benchmarks/results/service.json)). "
        f"It is ready {found['ready_s']['median']:.1f} s after its start, and takes {found['mebibytes']['most']:.0f} MiB at most."
    )
    growth = found["fifty_clients"]["mebibytes"]["growth_in_second_half"]
    same = (
        "Every answer is compared with that for its pair alone. In the second half of the 50 clients' requests memory changes by "
        f"{growth:+.1f} MiB."
    )
    return f"{told}\n\n{table(header, rows)}\n\n{same} {_typing(keys)}{_elsewhere()}"


def _elsewhere() -> str:
    """The same on the slowest processor that was measured."""
    found = measured(SLOWER)
    sixteen, fifty = found["sixteen_clients"], found["fifty_clients"]
    return (
        f"\n\nOn {count(found['machine']['cores'])} cores of another kind ({processor(found['machine'])}, with AMX; "
        f"[figures](../benchmarks/results/{SLOWER}.json)): 16 clients get {sixteen['pairs_per_second']:.0f} pairs/s with a 95th "
        f"percentile of {sixteen['ms']['p95']:.0f} ms, 50 clients {fifty['pairs_per_second']:.0f}. From a keystroke to paint: "
        f"95th percentile {_ms(found['keystroke_to_marks']['ms']['p95'])}."
    )


def _model(model: Any) -> str:
    return f"{model['title']} on `{model['encoder']}` in {model['precision']}"


def _products(machine: Any) -> str:
    """Whether the processor has instructions for products in int8, without which int8 is hardly faster than float32."""
    return "with VNNI" if "vnni" in machine["instructions"] else "without VNNI, which int8 gains by"


def _cells(phase: Any) -> tuple[str, ...]:
    statuses = phase["statuses"]
    others = (
        sum(number for status, number in statuses.items() if status not in ("200", "429"))
        + phase["lost"]
        + phase["other_answers"]
    )
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
        f"From a keystroke until the page's marks and meters are painted: median {_ms(keys['ms']['median'])}, 95th percentile "
        f"{_ms(keys['ms']['p95'])}, over {keys['keystrokes']} keystrokes in Chromium, the pause before the request included."
    )


def _ms(value: float | None) -> str:
    return "not before the next keystroke" if value is None else f"{value:.0f} ms"
