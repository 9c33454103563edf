"""Without what trains: the kit is installed without torch, lists plugins, and says in one line what a command lacks."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from empathy_kit.cli import TRAIN
from empathy_kit.inference.model import load

ROOT = Path(__file__).parents[2]

# An environment in which what trains is not installed, as far as an import can tell.
WITHOUT = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(TRAIN)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from empathy_kit import cli
sys.argv[0] = "empathy-kit"
cli.main()
"""


def without(*arguments: object) -> subprocess.CompletedProcess[str]:
    said = subprocess.run([sys.executable, "-c", WITHOUT, *map(str, arguments)], capture_output=True, text=True, check=False)
    # Of some machines the runtime says that it finds no other device.
    said.stderr = "".join(line for line in said.stderr.splitlines(keepends=True) if "[W:onnxruntime" not in line)
    return said


def test_what_trains_is_an_extra_and_the_kit_itself_needs_none_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {need.partition(">")[0].replace("scikit-learn", "sklearn") for need in project["optional-dependencies"]["train"]}
    assert names == TRAIN
    assert not {need.partition(">")[0] for need in project["dependencies"]} & {*TRAIN, "scikit-learn"}


def test_doctor_works_without_it() -> None:
    """As does every command of tests/test_startup.py, which loads none of it."""
    said = without("doctor")
    assert (said.returncode, said.stderr) == (0, "")


def test_a_command_that_trains_says_what_it_lacks(tmp_path: Path, marking_run: Path) -> None:
    said = without("run", "--out", tmp_path / "run")
    assert said.returncode == 2
    assert said.stderr == "Error: torch is not installed, which this command needs: pip install 'empathy-kit[train]'\n"
    assert not list(tmp_path.iterdir())
    said = without("plugins", "check", "focal")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "Error: torch is not installed, which this command needs: pip install 'empathy-kit[train]'\n"
    said = without("predict", marking_run, tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    assert (said.returncode, said.stderr) == (
        2,
        f"Error: {marking_run}: a run's model needs torch: pip install 'empathy-kit[train]', or export the model where it is\n",
    )


def test_an_exported_model_gets_its_card_without_it(tmp_path: Path, marking_export: Path) -> None:
    out = tmp_path / "published"
    said = without("publish", marking_export, "somebody/model", "--dry-run", out)
    assert (said.returncode, said.stderr) == (0, "")
    assert (out / "README.md").read_text("utf-8").startswith("---\n")


def test_an_exported_model_predicts_and_is_evaluated_without_it(tmp_path: Path, marking_export: Path) -> None:
    (tmp_path / "in.csv").write_text("seeker_post,response_post\nI am sad,so sorry\nI am lost,tell me more\n")
    said = without("predict", marking_export, tmp_path / "in.csv", "--out", tmp_path / "out.csv", "--evidence")
    assert (said.returncode, said.stdout, said.stderr) == (0, "", f"2 pairs predicted: {tmp_path / 'out.csv'}\n")
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    expected = load(marking_export).predict([("I am sad", "so sorry"), ("I am lost", "tell me more")])
    for row, each in zip(rows, expected, strict=True):
        found = {str(level): float(row[f"EX_p{level}"]) for level in range(3)}
        assert found == pytest.approx(each["EX"].probabilities, abs=1e-6)
    said = without("evaluate", marking_export, "sample", "--json")
    assert (said.returncode, said.stderr) == (0, "")
    assert list(json.loads(said.stdout)["tasks"]) == ["ER", "EX", "IP"]
