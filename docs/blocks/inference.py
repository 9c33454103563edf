"""Speed of models in use, from what benchmarks/inference.py printed."""

from __future__ import annotations

from typing import Any

from blocks.reading import count, measured, processor, table

WAYS = {
    "exported, int8": "exported, int8, the whole model",
    "exported, int8, from texts": "exported, int8, from posts to labels and marked evidence",
    "same graph, dynamic int8": "the same graph, int8 with a scale per batch (onnxruntime's `quantize_dynamic`)",
    "exported, float32": "exported, float32",
    "same graph in OpenVINO": "the same graph in OpenVINO, float32, one pair at a time",
    "same graph in OpenVINO, bfloat16": "the same graph in OpenVINO, bfloat16, one pair at a time",
    "same graph in OpenVINO, NNCF int8": "the same graph in OpenVINO, NNCF's int8, one pair at a time",
    "kit in torch": "the kit in torch",
    "kit in torch, bfloat16": "the kit in torch, bfloat16",
    "kit in torch, torchao int8": "the kit in torch, linear layers in torchao's int8, not compiled",
    "encoder alone, dynamic int8": "the encoder alone, dynamic int8, posts sorted and padded",
    "encoder alone, fastembed": "the encoder alone, dynamic int8, in fastembed, which also tokenises and averages",
    "transformers pipeline, one task": "transformers' text-classification pipeline, for one of the three tasks",
    "same model, padded in fixed batches": "the same model, padded in fixed batches",
    "three bi-encoders": "three bi-encoders (Sharma et al. 2020)",
}
ELSEWHERE = {"inference-amx": "", "inference-vnni": ", an earlier version, without a span head"}
BILLION = 10**9
MIB = 2**20


def speed() -> str:
    """The ways of predicting, fastest first."""
    found = measured("inference")
    speeds = found["pairs_per_second"]
    settings, machine = found["settings"], found["machine"]
    told = (
        f"Pairs per second of {_model(found)} on {count(machine['threads'])} cores ({_processor(machine)}; posts "
        f"of {found['data']} at their real lengths, {found['tokens_per_pair']} tokens per pair; contenders in turn, medians of "
        f"{count(settings['rounds'])} rounds of {settings['pairs']:,} pairs; "
        "[all figures](../benchmarks/results/inference.json)), and how many of the levels are those of the kit in torch:"
    )
    ordered = sorted(speeds, key=lambda name: -speeds[name]["median"])
    same = {name: f"{each['same_level_percent']:.1f} %" for name, each in found["next_to_the_kit_in_torch"].items()}
    rows = [
        (WAYS[name], f"{speeds[name]['median']:.0f}", f"{found['times_the_kit_in_torch'][name]:.2f}", same.get(name, ""))
        for name in ordered
    ]
    shown = table(("", "pairs/s", "times the kit in torch", "same levels"), rows)
    return f"{told}\n\n{shown}\n\n{_one(found)}{_mpnet()}\n\n{_elsewhere(found)}"


def _model(found: Any) -> str:
    model = found["model"]
    return f"{model['title']} on `{model['encoder']}`, {'with a' if model['span_head'] else 'without a'} span head,"


def _processor(machine: Any) -> str:
    with_amx = "amx_int8" in machine.get("instructions", "")
    return f"{processor(machine)}, with{'' if with_amx else 'out'} AMX"


def _one(found: Any) -> str:
    warm, cold = found["one_warm_pair_ms"], found["cold_predict_of_10_pairs_s"]
    return (
        f"One warm pair takes {warm['median']:.1f} ms in int8 (95th percentile {warm['p95']:.1f}). `empathy-kit predict` on 10 "
        f"pairs takes {cold['median']:.1f} s from its start to its end."
    )


def _mpnet() -> str:
    found = measured("inference-mpnet")
    speeds = {name: f"{each['median']:.0f}" for name, each in found["pairs_per_second"].items()}
    return (
        f" With `mpnet`: {speeds['exported, int8']} pairs/s in int8, {speeds['exported, float32']} in float32, and "
        f"{speeds['kit in torch']} in torch."
    )


def _elsewhere(here: Any) -> str:
    """The kit's own ways on every processor that was measured, because their ratios depend on it."""
    rows = []
    for name, each in {"inference": here, **{name: measured(name) for name in ELSEWHERE}}.items():
        speeds, times = each["pairs_per_second"], each["times_the_kit_in_torch"]
        cells = (f"{speeds[way]['median']:.0f} ({times[way]:.2f})" for way in ("exported, int8", "exported, float32"))
        link = f"[{_processor(each['machine'])}](../benchmarks/results/{name}.json){ELSEWHERE.get(name, '')}"
        rows.append((link, *cells, f"{speeds['kit in torch']['median']:.0f}"))
    return table(("pairs/s, and times the kit in torch", "int8", "float32", "the kit in torch"), rows)


def int8() -> str:
    """What int8 costs in score."""
    found = measured("int8")
    runs = found["runs"]
    rows = [
        (task, name, *(f"{each[score][what]:+.2f}" for what in ("mean", "min", "max")))
        for task, each in found["over_runs"].items()
        for score, name in (("accuracy", "accuracy"), ("macro_f1", "macro F1"))
    ]
    refused = found["runs_with_too_much"]
    told = (
        f"Points of score that all products in int8 change, on the test parts of {count(len(runs))} runs "
        f"([how](../benchmarks/int8.py), [figures](../benchmarks/results/int8.json)). In "
        f"{count(refused)} of them some score falls so far that the export would leave more in float32."
    )
    return f"{told}\n\n{table(('', '', 'mean', 'lowest', 'highest'), rows)}"


def billion() -> str:
    """What a billion pairs would take, as far as measured speed tells."""
    found = measured("inference")
    cores = found["machine"]["threads"]
    hours = {
        name: BILLION / found["pairs_per_second"][name]["median"] * cores / 3600 for name in ("exported, int8", "kit in torch")
    }
    return (
        f"An estimate, not a measurement: at the speeds of [an exported model](export.md#speed) on {count(cores)} cores, a "
        f"billion pairs would take about {_rounded(hours['exported, int8']):,} core hours in int8, and about "
        f"{_rounded(hours['kit in torch']):,} with a run's folder in torch, if reading and writing keep up."
    )


def _rounded(value: float) -> int:
    return int(float(f"{value:.2g}"))


def exactly_once() -> str:
    """What kills do to a job."""
    found = measured("exactly-once")
    wrong = found["outputs_that_differ"]
    differ = "none differs" if wrong == 0 else f"{count(wrong)} differ{'s' if wrong == 1 else ''}"
    return (
        f"Measured: {found['kills']} kills (SIGKILL) of jobs of {found['rows']:,} rows, {found['kills_with_finished_parts']} "
        f"of them while some parts were finished. Of the {count(found['jobs_completed'])} outputs that were "
        f"completed, {differ} from that of an uninterrupted job in any byte "
        "([how](../benchmarks/exactly_once.py), [figures](../benchmarks/results/exactly-once.json))."
    )


def memory() -> str:
    """Peak memory of tables of growing size."""
    found = measured("predict-size")
    sizes = found["sizes"]
    rows = [(f"{each['rows']:,}", _mib(each["input_bytes"]), _mib(each["peak_bytes"])) for each in sizes]
    change = (sizes[-1]["peak_bytes"] - sizes[0]["peak_bytes"]) / MIB
    told = (
        f"Peak memory of the whole process, JSON Lines to CSV, with a small exported model "
        f"({found['model']['bytes'] / MIB:.1f} MiB), so that the rows would show: from the smallest table to the "
        f"largest it changes by {change:+.0f} MiB "
        "([how](../benchmarks/predict_size.py), [figures](../benchmarks/results/predict-size.json))."
    )
    return f"{told}\n\n{table(('rows', 'input, MiB', 'peak memory, MiB'), rows)}"


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f}"
