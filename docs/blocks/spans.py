"""What annotated spans give away: the figures of docs/leakage.md."""

from __future__ import annotations

from blocks.reading import comparison, count, gains, listed, measured, sentences, table, verdict


def rule() -> str:
    """The rule that reads no word."""
    found = measured("leakage")
    lines = [[task, f"{scores['accuracy']:.3f}", f"{scores['macro_f1']:.3f}"] for task, scores in found["scores"].items()]
    return f"Mean of {count(len(found['seeds']))} {found['split']} splits:\n\n{table(['', 'accuracy', 'macro F1'], lines)}"


def best() -> str:
    """How far the best honest models are from the rule."""
    found, rule = comparison("reddit-grouped"), measured("leakage")
    summary, by_task = found.summary, rule["scores"]
    theirs = {str(run.seed): run.record.split["sha256"] for runs in found.results.runs.values() for run in runs}
    splits = "the same splits" if theirs == rule["splits"] else "other splits of the same kind"
    top = {
        task: max(row.cells[task].scores["accuracy"].value for row in summary.ranked() if task in row.cells)
        for task in summary.names
    }
    gaps = [f"{100 * (by_task[task]['accuracy'] - value):.1f} ({task})" for task, value in top.items()]
    return (
        "The most accurate models of [the comparison](comparison.md) that see no annotated span at test time are "
        f"{listed(gaps)} points of accuracy below it, on {splits}."
    )


def findings() -> str:
    """What the spans are worth at test time, and what they do in training alone."""
    found = comparison("reddit-grouped")
    oracle, honest = found.row("T2g"), found.row("T1")
    told = []
    shared = [at for at, seed in enumerate(oracle.seeds) if seed in honest.seeds] if oracle and honest else []
    if oracle and honest and shared:
        worth = []
        for task, cell in oracle.cells.items():
            of_seed = dict(zip(honest.seeds, honest.cells[task].runs["accuracy"], strict=True))
            gaps = [cell.runs["accuracy"][at] - of_seed[oracle.seeds[at]] for at in shared]
            worth.append(f"{sum(gaps) / len(gaps) * found.summary.labelled[task]:.0f} ({task})")
        told.append(
            f"The spans at test time are worth {listed(worth)} of {found.summary.test_pairs:.0f} pairs: T2g against T1. The "
            "oracles' one use is to show the size of the leak."
        )
    in_training, predicted = found.contrasts("T1", "T2t"), found.contrasts("T1", "T2")
    if in_training:
        told.append(
            "T2t is given the spans in training alone, and learns to rely on what is missing at test time. Against T1 its right "
            f"answers change by {gains(in_training)}. {verdict(in_training)}"
        )
    if predicted:
        told.append(f"With `predicted` (T2), which needs no span at test time, T1's right answers change by {gains(predicted)}.")
    return sentences(*told)
