"""Without what trains: the kit is installed without torch, lists plugins, and says in one line what a command lacks."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import tomllib
import urllib.request
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


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", WITHOUT, *map(str, arguments)]


def without(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def test_what_trains_is_an_extra_and_the_kit_itself_needs_none_of_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {need.partition(">")[0].replace("scikit-learn", "sklearn") for need in project["optional-dependencies"]["train"]}
    assert names == TRAIN
    assert not {need.partition(">")[0] for need in project["dependencies"]} & {*TRAIN, "scikit-learn"}


@pytest.mark.parametrize("arguments", [("--help",), ("plugins", "list"), ("predict", "--help"), ("doctor",)])
def test_what_needs_no_training_works_without_it(arguments: tuple[str, ...]) -> None:
    said = without(*arguments)
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
    assert [row["EX_predicted"] for row in rows] == [each["EX"].label for each in expected]
    said = without("evaluate", marking_export, "sample", "--json")
    assert (said.returncode, said.stderr) == (0, "")
    assert list(json.loads(said.stdout)["tasks"]) == ["ER", "EX", "IP"]


def test_an_exported_model_is_served_without_it(marking_export: Path) -> None:
    pytest.importorskip("fastapi", reason="the serve extra is not installed")
    body = json.dumps({"pairs": [{"seeker_post": "I am sad", "response_post": "so sorry"}]}).encode()
    with subprocess.Popen(command("serve", marking_export, "--port", 0), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            url = process.stdout.readline().partition(" answers at ")[2].partition(";")[0]
            asked = urllib.request.Request(f"{url}/v1/predict", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=60) as reply:
                assert list(json.load(reply)["predictions"][0]["tasks"]) == ["ER", "EX", "IP"]
            with urllib.request.urlopen(f"{url}/v1/model/card", timeout=60) as reply:
                assert reply.read().startswith(b"---\n")
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
