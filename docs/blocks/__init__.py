"""What the blocks of the pages hold, by name: functions from committed results to Markdown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from blocks import (
    audit,
    claims,
    findings,
    forest,
    inference,
    intervals,
    paper,
    paper_split,
    readme,
    recipe,
    reliability,
    service,
    spans,
    speed,
    tables,
)
from blocks.drawing import Picture
from blocks.picture import SCORES
from blocks.reading import ROOT

__all__ = ["BLOCKS", "PICTURES", "ROOT"]

PICTURES: tuple[Picture, ...] = (SCORES, *forest.CLAIM_PICTURES.values(), forest.EXPERTS_PICTURE)

BLOCKS: dict[str, Callable[[], str]] = {
    "readme-picture": readme.picture,
    "readme-data": readme.data,
    "readme-findings": readme.main_findings,
    "coverage": intervals.coverage,
    "false-alarms": intervals.false_alarms,
    "coverage-one-run": intervals.one_run,
    "grouped-command": lambda: tables.command("reddit-grouped"),
    "grouped-time": tables.time,
    "grouped-accuracy": lambda: tables.scores("reddit-grouped", "accuracy"),
    "grouped-macro-f1": lambda: tables.scores("reddit-grouped", "macro_f1"),
    "grouped-differences": lambda: tables.shown("reddit-grouped"),
    "grouped-batch-macro-f1": lambda: tables.batch_macro_f1("reddit-grouped"),
    "grouped-rare-levels": lambda: tables.rare_levels("reddit-grouped"),
    "grouped-findings": findings.grouped,
    "paper-command": lambda: tables.command("reddit-paper"),
    "paper-accuracy": lambda: tables.scores("reddit-paper", "accuracy"),
    "paper-weighted-f1": lambda: tables.scores("reddit-paper", "weighted_f1"),
    "paper-differences": lambda: tables.shown("reddit-paper"),
    "paper-findings": paper_split.findings,
    "sharing": speed.sharing,
    "leakage-rule": spans.rule,
    "leakage-best": spans.best,
    "leakage-findings": spans.findings,
    "inference-speed": inference.speed,
    "inference-int8": inference.int8,
    "inference-exactly-once": inference.exactly_once,
    "inference-memory": inference.memory,
    "inference-billion": inference.billion,
    "reliability": reliability.survived,
    "reliability-machines": reliability.machines,
    "checkpoints": reliability.checkpoints,
    "service": service.load,
    "sizes": speed.sizes,
    "time": speed.time,
    "loss-ends": speed.ends,
    "loss-times": speed.loss_times,
    "loss-memory": speed.loss_memory,
    "loss-findings": speed.loss_findings,
    "loss-step": speed.loss_step,
    "gpu-code": speed.gpu_code,
    "claims": paper.summary,
    **{f"claim-{name}": partial(paper.section, name) for name in claims.CLAIMS},
    "audit": audit.flipped,
    "tuning": recipe.tuned,
    "remedies": recipe.remedies,
    "ingredients": recipe.ingredients,
    "best": recipe.best,
    "scores-biencoder": partial(paper.of_plugins, "predecessor", "it with the kit's own model", "its-predecessor"),
    "scores-longtail": partial(
        paper.of_plugins, "imbalance", "`logit-adjusted`, `class-balanced` and `ldam` with cross-entropy", "focal-loss"
    ),
    "scores-ordinal": partial(paper.of_plugins, "imbalance", "`hurdle` with cross-entropy", "focal-loss"),
    "claim-independence": paper.independence,
    "experts": paper.experts,
    "experts-each-other": paper.experts_each_other,
}
