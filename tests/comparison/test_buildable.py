"""An option value that only a builder refuses is refused before it is in the plan, where a name keeps its configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from empathy_kit import KitError, Rationale
from empathy_kit.comparison.execute import prepare
from empathy_kit.comparison.parse import parse_configurations
from empathy_kit.comparison.plan import PLAN, Plan, read_plan
from empathy_kit.config import RunConfig
from empathy_kit.plugins import load_registry

HEAD = """
from empathy_kit import Head, KitError, hookimpl


def picky(task, width, *, parts: int = 2):
    if width % parts:
        raise KitError(f"head picky: option 'parts' is {parts}; expected a divisor of {width}")


@hookimpl
def empathy_kit_heads():
    yield Head("picky", picky)
"""


def plan_of(*given: str, data: Path | str = "sample") -> Plan:
    known, separate = parse_configurations(given, None, RunConfig(data=str(data)))
    return Plan(known, (0,), False, separate)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--loss focal -o loss.gamma -1", "loss focal of ER: option 'gamma' is -1.0; expected 0 or more"),
        ("--loss focal -o loss.IP.gamma -1", "loss focal of IP: option 'gamma' is -1.0; expected 0 or more"),
        ("-o trunk.dropout 1.5", "trunk gru: option 'dropout' is 1.5; expected 0 to 0.99"),
        ("--sampler over -o sampler.most 0", "sampler over: option 'most' is 0.0; expected 1 to 1000"),
        ("--head picky -o head.parts 7", "head picky: option 'parts' is 7; expected a divisor of 256"),
    ],
)
def test_a_value_that_a_builder_refuses_is_not_planned_and_can_be_corrected(tmp_path: Path, flags: str, message: str) -> None:
    (tmp_path / "picky.py").write_text(HEAD)
    registry, out = load_registry([tmp_path / "picky.py"]), tmp_path / "out"
    with pytest.raises(KitError) as error:
        prepare(plan_of("T1", f"x={flags}"), out, registry)
    assert str(error.value) == f"compare x: {message}"
    assert not (out / PLAN).exists()
    prepare(plan_of("T1", "x=--loss focal -o loss.gamma 3"), out, registry)
    assert list(read_plan(out).configurations) == ["T1", "x"]


def never_built(tasks: object, width: int) -> NoReturn:
    raise AssertionError


def test_a_rationale_that_no_training_pair_has_spans_for_is_not_planned(tmp_path: Path) -> None:
    rows = [
        {"seeker_post": f"case {number}", "response_post": f"that is hard, number {number}"}
        | dict.fromkeys(("ER", "EX", "IP"), number % 3)
        | {"ER_spans": ["that is hard"] if number % 3 else []}
        for number in range(60)
    ]
    data, bare, out = tmp_path / "pairs.jsonl", tmp_path / "bare.jsonl", tmp_path / "out"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    bare.write_text("".join(json.dumps({**row, "ER_spans": []}) + "\n" for row in rows), "utf-8")
    what = "--rationale predicted: it learns from annotated spans, and the training part has none of"
    then = "name configurations without rationales, such as T1 and T3, or use a table with spans"
    for table, name, lacking in ((bare, "T2", "ER, EX, IP"), (data, "x=--rationale predicted --separate", "EX, IP")):
        with pytest.raises(KitError) as error:
            prepare(plan_of("T1", name, data=table), out, load_registry())
        assert str(error.value) == f"compare {name[:2].strip('=')}: {what} {lacking}; {then}"
        assert not out.exists()
    specs = Rationale("mine", never_built), Rationale("blind", never_built, gold="never")
    registry = load_registry().with_specs(*specs)
    with pytest.raises(KitError) as error:
        prepare(plan_of("T1", "x=--rationale mine", data=bare), out, registry)
    default = 'if it reads none, give its Rationale gold="never", for the default is "train"'
    assert str(error.value) == f"compare x: {what.replace('predicted', 'mine')} ER, EX, IP; {then}; {default}"
    assert not out.exists()
    prepare(plan_of("T1", "T3", "x=--rationale blind", data=bare), out, registry)
    prepare(plan_of("T1", "T2", "x=--rationale mine", data=data), tmp_path / "other", registry)


def test_the_widest_trunk_takes_no_memory(tmp_path: Path) -> None:
    prepare(plan_of("wide=-o trunk.hidden 65536 -o trunk.layers 64"), tmp_path / "out", load_registry())


def test_without_options_torch_is_not_loaded(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from test_buildable import load_registry, plan_of, prepare
prepare(plan_of("T1", "T3"), Path(sys.argv[1]), load_registry())
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "out"], cwd=Path(__file__).parent, check=True)
