"""Speed and memory, from what the benchmarks printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blocks.reading import RESULTS, count, listed, measured, processor, table

OURS = ("copy of the logits", "fused", "fused, one loss per row", "closed form", "eager", "eager, compiled")
FEW = {0: "gamma 0", 2: "gamma 2", 3: "any gamma, one per class"}  # the kernel's mode, as the table has it
WIDE = {
    "some": "16,384 classes, gamma 2, gradients, float32 and bfloat16: one program per row",
    "many": "more, the same: in blocks of 8,192",
}


def time() -> str:
    """What docs/performance.md lists."""
    return "\n".join(f"- {text}" for text in (padding(), mpnet(), bf16(), startup()))


def padding() -> str:
    """The kit against every post padded."""
    found = measured("padding")
    speed = {name: sum(each) / len(each) for name, each in found["pairs_per_second"].items()}
    faster, seconds = found["faster_in_training"], found["seconds_with_validation"]
    return (
        f"**Against padding everything.** {count(len(faster['epochs'])).capitalize()} epochs each way on "
        f"{_threads(found['machine'])}, from the same weights, epoch by epoch in turn: {speed['kit']:.0f} pairs/s against "
        f"{speed['padded']:.0f} with every post padded to {found['config']['max_tokens']} tokens and two encoder calls. That is "
        f"{faster['median']:.2f} times as fast ({listed([f'{each:.2f}' for each in faster['epochs']])} by epoch). Validation "
        f"included it is {seconds['kit']:.0f} s against {seconds['padded']:.0f} s. Posts lie end to end in one call, and the GRU "
        "makes each weight's gradient in one product."
    )


def mpnet() -> str:
    """The base-size encoder against transformers' own padded one."""
    found = measured("mpnet")
    speed, faster, settings = found["pairs_per_second"], found["kit_faster"], found["settings"]
    limit, longest = "padded to the limit", "padded to the longest"
    return (
        f"**An encoder of RoBERTa's size** (`--encoder mpnet --freeze-layers 6`, {settings['steps']} training steps of "
        f"{settings['batch_size']} pairs on {_threads(found['machine'])}): {speed['kit']['median']} pairs/s, against "
        f"{speed[limit]['median']} with every post padded to {settings['max_tokens']} tokens and {speed[longest]['median']} with "
        "posts padded to the batch's longest one, both with transformers' own attention and the frozen layers computed anew. The "
        f"median of the paired ratios is {faster[limit]['median']} and {faster[longest]['median']}; step by step they range from "
        f"{faster[limit]['min']} to {faster[limit]['max']} and from {faster[longest]['min']} to {faster[longest]['max']}. The "
        f"logits differ by {found['largest_logit_difference']:.0e} at most."
    )


def bf16() -> str:
    """A training step in half precision."""
    whole, half = (_median(f"test_training_step[{name}]") for name in ("fused", "fused, encoder in bfloat16"))
    return (
        f"**`--precision bf16`** makes a training step {whole / half:.1f} times as fast on a CPU with AMX, one thread: "
        f"{half:.2f} s against {whole:.2f} s."
    )


def startup() -> str:
    """How soon a command answers."""
    found = measured("startup")
    seconds = {name: times["median"] for name, times in found["seconds"].items()}
    return (
        f"**The first answer.** `empathy-kit --help` takes {seconds['-m empathy_kit --help']:.2f} s and `plugins list` "
        f"{seconds['-m empathy_kit plugins list']:.2f} s, of which the bare interpreter is {seconds['-c pass']:.2f} s "
        f"({found['machine']['processor']}). Neither imports torch."
    )


def sharing() -> str:
    """What sharing the frozen layers' states saves."""
    found = measured("sharing")
    seconds, settings = found["seconds"], found["settings"]
    runs = [run.split()[0] for run in found["runs"]]
    return (
        f"{listed(runs)}, {count(settings['epochs'])} epoch each with {settings['freeze_layers']} frozen layers, take "
        f"{seconds['shared']:.0f} s together, two at once with shared states. One after the other on both cores, with the frozen "
        f"layers computed anew for every batch, they take {seconds['alone']:.0f} s, {found['faster']:.2f} times as long."
    )


def ends() -> str:
    """What implementations of focal loss give for extreme logits."""
    return (RESULTS / "ends.md").read_text("utf-8")


def loss_times() -> str:
    """Milliseconds, and the share of eager's."""
    shapes, by_name = _losses()
    lines = [[name, *(_time(of_shape.get(shape)) for shape in shapes)] for name, of_shape in by_name.items()]
    return table(["", *shapes], lines)


def _losses() -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The shapes, and implementation to shape to row."""
    by_name: dict[str, dict[str, Any]] = {}
    for row in measured("losses")["rows"]:
        by_name.setdefault(row["implementation"], {})[row["shape"]] = row
    return list(dict.fromkeys(row["shape"] for row in measured("losses")["rows"])), by_name


def _time(row: Mapping[str, float] | None) -> str:
    if row is None:
        return ""
    ms = row["milliseconds"]
    return f"{ms:.{3 if ms < 1 else 1 if ms < 100 else 0}f} ({row['of_eager']:.2f})"


def loss_memory() -> str:
    """Memory beyond the logits, as multiples of them."""
    found = measured("losses")["peak_memory_beyond_the_logits"]
    names = dict.fromkeys(name for of_shape in found.values() for name in of_shape)
    lines = [[name, *(f"{of_shape[name]:.1f}" if name in of_shape else "" for of_shape in found.values())] for name in names]
    return table(["memory at the peak beyond the logits, as multiples of them", *found], lines)


def loss_findings() -> str:
    """The fused mean next to eager and to the fastest of the others."""
    shapes, by_name = _losses()
    told = []
    for shape in shapes:
        fused = by_name["fused"][shape]
        peers = {
            name: of_shape[shape]["milliseconds"] for name, of_shape in by_name.items() if name not in OURS and shape in of_shape
        }
        peers.pop("F.cross_entropy")
        best = min(peers, key=peers.__getitem__)
        told.append(f"{fused['of_eager']:.2f} and {fused['milliseconds'] / peers[best]:.2f} ({best}) at {shape}")
    return f"As a share of eager's time, and of the fastest peer's, the fused mean takes {listed(told)}."


def loss_step() -> str:
    """What the losses are in a training step."""
    fused, closed = (1000 * _median(f"test_three_heads[{way}]") for way in ("auto", "off"))
    step, without = (_median(f"test_training_step[{loss}]") for loss in ("fused", "sum of the logits"))
    return (
        f"The three heads' losses of 32 pairs take {fused:.2f} ms forward and backward, {closed:.2f} ms in closed form. A whole "
        f"training step takes {step:.2f} s on one thread, and {without:.2f} s with the sum of the logits in place of the losses. "
        f"A Python `autograd.Function` that computes nothing takes {1e6 * _median('test_nothing'):.0f} µs; the fused loss is one."
    )


def _median(name: str) -> float:
    return float(next(each["stats"]["median"] for each in measured("steps")["benchmarks"] if each["name"] == name))


def _threads(machine: Mapping[str, Any]) -> str:
    return f"{count(machine['threads'])} threads of an {processor(machine)}"


def gpu_code() -> str:
    """Instructions, registers and spilled registers of the compiled GPU kernels, for NVIDIA's targets."""
    rows = [row for row in measured("ahead-of-time")["rows"] if row["target"].startswith("sm_")]
    lines = [
        _compiled(
            f"3 classes, 3 heads, {gamma}, {way}: one thread per row",
            rows,
            kernel="few",
            mode=mode,
            way=way,
            dtype="fp32",
            label="i64",
        )
        for mode, gamma in FEW.items()
        for way in ("losses", "gradients")
    ]
    wide = {"some": 16384, "many": 8192}
    lines += [_compiled(title, rows, kernel=name, way="gradients", COLUMNS=wide[name]) for name, title in WIDE.items()]
    return table([", ".join(dict.fromkeys(row["target"] for row in rows)), "instructions", "registers", "spilled"], lines)


def _compiled(title: str, rows: list[dict[str, Any]], **wanted: Any) -> list[str]:
    found = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    ends = [
        (min(values), max(values)) for values in ([row[key] for row in found] for key in ("instructions", "registers", "spills"))
    ]
    return [title, *(f"{low}" if low == high else f"{low} to {high}" for low, high in ends)]


def sizes() -> str:
    """Commands that read a whole table, for tables of growing size."""
    found = measured("size")
    rows, grown = [], []
    for what in dict.fromkeys(each["what"] for each in found["measured"]):
        small, large = [each for each in found["measured"] if each["what"] == what]
        grown.append(f"{large['seconds'] / small['seconds']:.1f} (`{what}`)")
        rows += [
            (f"`{what}`", f"{each['rows']:,}", f"{each['seconds']:.1f}", f"{each['peak_bytes'] / 2**30:.2f}")
            for each in (small, large)
        ]
    machine = found["machine"]
    told = (
        f"{large['rows'] / small['rows']:.0f} times the rows take {listed(grown)} times as long "
        "([how](../benchmarks/size.py), [figures](../benchmarks/results/size.json)), on "
        f"{machine['cores']} cores of an {processor(machine)}."
    )
    return f"{told}\n\n{table(('', 'rows', 'seconds', 'peak memory, GiB'), rows)}"
