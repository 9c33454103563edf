"""Compile every variant of the GPU kernels ahead of time, without a GPU, and count what its machine code holds.

    python benchmarks/ahead_of_time.py > benchmarks/results/ahead-of-time.json

Registers, spilled registers and instructions are counted in the code that NVIDIA's own disassembler shows; for AMD in the
assembly. Nothing here was run on a GPU. The tests check that the committed table is that of the current kernels, and compile a
part of it again (``--cover``: every setting of every kernel at least once).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import click
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from empathy_kit.core.kernels import gpu

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
WAYS = {"losses": gpu.FORWARD, "gradients": gpu.EACH, "gradients of a mean": gpu.SHARED, "both": gpu.BOTH}
POINTERS = ("z", "gamma", "weight", "up", "loss", "gradient", "parts")
NVIDIA = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Approximate instructions of the device; what has none computes on a GPU what it computes anywhere, but for the division's start.
APPROXIMATE = ("ex2.approx", "lg2.approx", "sqrt.approx", "sin.approx", "rsqrt.approx")


@dataclass(frozen=True)
class Variant:
    """One kernel, specialised."""

    kernel: str
    way: str
    mode: int  # 2: gamma 2; 3: any gamma, one per class
    dtype: str  # fp32, bf16, fp16
    label: str  # i64, i32, i8
    constants: tuple[tuple[str, int], ...]
    warps: int


def variants() -> Iterator[Variant]:
    """Every way and gamma in float32; every type and label where it is the training step's."""
    heads = (("C", 3), ("HEADS", 3), ("ROWS", gpu.ROWS))
    for way, mode in product(WAYS, (0, 2, 3)):
        yield Variant("few", way, mode, "fp32", "i64", heads, 4)
    for dtype, label in product(("fp32", "bf16", "fp16"), ("i64", "i32", "i8")):
        yield Variant("few", "gradients of a mean", 2, dtype, label, heads, 4)
    for dtype, columns in (("fp32", 16_384), ("bf16", 16_384), ("fp32", 128)):
        for way in WAYS:
            yield Variant("some", way, 2, dtype, "i64", (("COLUMNS", columns),), gpu.warps(columns))
    for dtype, way in product(("fp32", "bf16"), WAYS):
        yield Variant("many", way, 2, dtype, "i64", (("COLUMNS", gpu.BLOCK),), 8)


def compiled(variant: Variant, target: GPUTarget) -> Any:
    """The kernel for one target. Pointers and numbers of columns are declared multiples of 16, as they are in use."""
    kernel = getattr(gpu, variant.kernel)
    constants = {"WAY": WAYS[variant.way], "MODE": variant.mode, **dict(variant.constants)}
    types = dict.fromkeys(POINTERS, "*fp32") | {"n": "i32", "c": "i32", "y": f"*{variant.label}"}
    if variant.dtype != "fp32":
        types |= dict.fromkeys(("z", "up", "loss", "gradient"), f"*{variant.dtype}")
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if name not in constants},
    )
    return triton.compile(source, target=target, options={"num_warps": variant.warps, **gpu.FUSION})


def nvidia(code: Any) -> dict[str, Any]:
    """What stands in the machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        text = subprocess.run([NVIDIA / "nvdisasm", "-c", file.name], capture_output=True, text=True, check=True).stdout
        usage = subprocess.run([NVIDIA / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", text)
    operations = [name for name in found if name != "NOP"]
    return {
        "instructions": len(operations),
        "registers": int(re.findall(r"REG:(\d+)", usage)[-1]),
        "spills": sum(name.startswith(("LDL", "STL")) for name in operations),
        "wide_loads": sum(name.startswith("LDG") and ".128" in name for name in operations),
        "wide_stores": sum(name.startswith("STG") and ".128" in name for name in operations),
        "approximate": sorted({name for name in APPROXIMATE if name in code.asm["ptx"]}),
        "rounds_to_nearest": "cvt.rn.bf16" in code.asm["ptx"],
    }


def amd(code: Any) -> dict[str, Any]:
    """The same of AMD's assembly."""
    text = code.asm["amdgcn"]
    lines = [line.split()[0] for line in text.splitlines() if re.match(r"\s+(v|s|ds|global|buffer|flat|scratch)_\w+", line)]
    return {
        "instructions": len([name for name in lines if not name.startswith(("s_nop", "s_waitcnt", "s_code_end"))]),
        "registers": int(re.findall(r"\.vgpr_count:\s+(\d+)", text)[-1]),
        "spills": int(re.findall(r"\.vgpr_spill_count:\s+(\d+)", text)[-1]),
        "wide_loads": sum(name in ("global_load_dwordx4", "buffer_load_dwordx4") for name in lines),
        "wide_stores": sum(name in ("global_store_dwordx4", "buffer_store_dwordx4") for name in lines),
    }


def counted(variant: Variant, target: str) -> dict[str, Any]:
    """A row of the table."""
    code = compiled(variant, TARGETS[target])
    found = nvidia(code) if TARGETS[target].backend == "cuda" else amd(code)
    return {**settings(variant, target), **found}


def settings(variant: Variant, target: str) -> dict[str, Any]:
    """What a row of the table is about."""
    own = {key: value for key, value in vars(variant).items() if key != "constants"}
    return {**own, **dict(variant.constants), "target": target}


def table() -> list[tuple[Variant, str]]:
    """Every variant for every target."""
    return list(product(dict.fromkeys(variants()), TARGETS))


def cover(rows: list[tuple[Variant, str]]) -> list[tuple[Variant, str]]:
    """A few of them that have every setting of every kernel: always the row that adds most, the first of equals."""

    def shown(row: tuple[Variant, str]) -> set[tuple[str, str, Any]]:
        return {(row[0].kernel, name, value) for name, value in settings(*row).items()}

    left, chosen = set[tuple[str, str, Any]]().union(*map(shown, rows)), []
    while left:
        best = max(rows, key=lambda row: len(shown(row) & left))
        chosen.append(best)
        left -= shown(best)
    return chosen


def source() -> str:
    """A digest of the kernels' source."""
    return hashlib.sha256((Path(gpu.__file__).parent / "focal_triton.py").read_bytes()).hexdigest()


@click.command()
@click.option("--cover", "part", is_flag=True, help="Compile only a few, which have every setting of every kernel.")
def main(part: bool) -> None:
    """Print the table as JSON."""
    chosen = cover(table()) if part else table()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(counted, *zip(*chosen, strict=True)))
    what = __doc__.strip().splitlines()[0]
    print(json.dumps({"what": what, "triton": triton.__version__, "source": source(), "rows": rows}, indent=1))


if __name__ == "__main__":
    # What was compiled before would be taken from triton's cache; whether it compiles now is the question.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        main()
