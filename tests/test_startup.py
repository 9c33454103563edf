"""What a command does not need it does not load: the command line answers before anybody waits."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "accelerate", "sklearn", "safetensors", "numpy", "matplotlib", "pyarrow", "tokenizers"}

COMMANDS = {
    "--help": 0,
    "--version": 0,
    "run --help": 0,
    "data describe --help": 0,
    "plugins list": 0,
    "plugins list --json": 0,
    "data check": 0,
    "data split": 0,
    "run --loss nope": 2,
    "run --loss focal -o loss.gama 1": 2,
}

PROBE = """
import json, sys
from empathy_kit.cli import main
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code or 0, sorted(sys.modules)]), file=sys.stderr)
"""


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EMPATHY_KIT_PLUGINS": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_light_command_loads_nothing_heavy(command: str, tmp_path: Path) -> None:
    reply = run(["-c", PROBE, *command.split()], tmp_path)
    code, loaded = json.loads(reply.stderr.splitlines()[-1])
    assert code == COMMANDS[command]
    assert HEAVY & {name.split(".")[0] for name in loaded} == set()
    assert "empathy_kit.cli.run" in loaded  # the probe saw the kit at all
    assert list(tmp_path.iterdir()) == []


def test_importing_the_plugin_authors_vocabulary_loads_nothing_heavy(tmp_path: Path) -> None:
    reply = run(["-c", "import empathy_kit, sys, json; print(json.dumps(sorted(sys.modules)))"], tmp_path)
    loaded = {name.split(".")[0] for name in json.loads(reply.stdout)}
    assert (HEAVY | {"click", "rich"}) & loaded == set()


@pytest.mark.parametrize(("command", "seconds"), [("--help", 0.4), ("plugins list", 0.8)])
def test_the_promised_time_to_answer(command: str, seconds: float, tmp_path: Path) -> None:
    # Processor time, and the best of several: on a busy machine the clock on the wall measures the others.
    best = math.inf
    for _ in range(5):
        before = os.times()
        reply = run(["-m", "empathy_kit", *command.split()], tmp_path)
        after = os.times()
        assert reply.returncode == 0, reply.stderr
        best = min(best, sum(after[2:4]) - sum(before[2:4]))  # of children, in user and in system mode
        if best < seconds:
            return
    pytest.fail(f"empathy-kit {command} took {best:.2f} s at best, promised {seconds} s")
