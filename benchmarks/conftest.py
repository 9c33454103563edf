"""The contents of `--benchmark-json`: the machine in the same form as in all results, and no name of a host or person."""

from __future__ import annotations

from typing import Any

from machine import machine


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Shorten the report to what is committed."""
    output_json["machine_info"] = machine()
    output_json.pop("commit_info", None)
    for entry in output_json["benchmarks"]:
        for name in ("fullname", "params", "param", "options"):
            entry.pop(name, None)
        entry["stats"] = {name: entry["stats"][name] for name in ("median", "min", "iqr", "rounds", "iterations")}
