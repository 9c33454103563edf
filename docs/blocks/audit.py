"""Labels that were flipped on purpose and found again: the figures of docs/audit.md."""

from __future__ import annotations

from blocks.reading import count, listed, measured, table
from empathy_kit.runs.report import number

RULES = {
    "all found": "all that are listed",
    "as many as flipped": "the first, as many as were flipped",
}


def flipped() -> str:
    """Precision and recall of the list, by how much of it is taken."""
    found = measured("audit")
    lines = []
    for task, of_rule in found["means"].items():
        for rule, words in RULES.items():
            each = of_rule[rule]
            shares = (each[name] for name in ("precision", "recall", "suggested_true"))
            cells = ("-" if share is None else number(share) for share in shares)
            lines.append([task, words, f"{each['found']:.0f}", *cells])
    flips = [f"{flips} ({task})" for task, flips in found["flipped"].items()]
    seeds = len(found["seeds"])
    header = ["task", "taken", "labels", "of them flipped", "flipped ones among them", "suggestion right"]
    return (
        f"Of {found['pairs']} invented pairs {listed(flips)} labels were flipped at random. Means over "
        f"{count(seeds)} seed{'s' * (seeds != 1)}, each with models of its own ([how](../benchmarks/audit.py), "
        f"[figures](../benchmarks/results/audit.json)):\n\n{table(header, lines)}"
    )
