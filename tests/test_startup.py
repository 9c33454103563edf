"""What a command does not need it does not load: the command line answers before anybody waits."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "accelerate", "sklearn", "safetensors", "numpy", "matplotlib", "pyarrow", "tokenizers"} | {
    "huggingface_hub"
}

COMMANDS = {
    "--version": 0,
    "run --help": 0,
    "predict --help": 0,
    "export --help": 0,
    "publish --help": 0,
    "serve --help": 0,
    "data describe --help": 0,
    "data audit --help": 0,
    "evaluate --help": 0,
    "plugins list --json": 0,
    "data check": 0,
    "data split": 0,
    "runs list": 2,  # there are none
    "cache show": 0,
    "run --loss nope": 2,
    "run --loss focal -o loss.gama 1": 2,
}

# In one process, where what is loaded stays loaded: a module is reported with the first command that loads it.
IN_TURN = """
import json, shlex, sys
found, seen = {}, set(sys.modules)
from empathy_kit.cli import main
for command in sys.argv[1:]:
    sys.argv = ["empathy-kit", *shlex.split(command)]
    try:
        main()
    except SystemExit as end:
        found[command] = [end.code or 0, sorted(set(sys.modules) - seen)]
    seen = set(sys.modules)
print(json.dumps(found), file=sys.stderr)
"""

# At most, of what no busy machine changes: Python functions called, and modules loaded beyond the interpreter's. About twice what
# it is: benchmarks/startup.py has the seconds.
PROMISED = {"--help": (110_000, 260), "plugins list": (260_000, 340)}

PROBE = """
import json, sys
calls, before = 0, set(sys.modules)
def count(frame, event, argument):
    global calls
    calls += event == "call"
sys.setprofile(count)
from empathy_kit.cli import main
try:
    main()
except SystemExit as end:
    sys.setprofile(None)
    print(json.dumps([end.code or 0, calls, sorted(set(sys.modules) - before)]), file=sys.stderr)
"""


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EMPATHY_KIT_PLUGINS": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_light_command_loads_nothing_heavy(tmp_path: Path) -> None:
    finished = sorted((Path(__file__).parents[1] / "benchmarks" / "results" / "reddit-paper" / "runs").iterdir())[:2]
    first, second = (shlex.quote(str(folder)) for folder in finished)
    looking = {f"runs list {first}": 0, f"runs verify {first} {second}": 0, f"runs diff {first} {second}": 0}
    reply = run(["-c", IN_TURN, *COMMANDS, *looking], tmp_path)
    found = json.loads(reply.stderr.splitlines()[-1])
    assert {command: code for command, (code, _) in found.items()} == COMMANDS | looking
    heavy = {command: HEAVY & {name.split(".")[0] for name in loaded} for command, (_, loaded) in found.items()}
    assert {command: names for command, names in heavy.items() if names} == {}
    # It saw the kit at all.
    assert {"empathy_kit.cli.run", "empathy_kit.runs.record"} <= {name for _, loaded in found.values() for name in loaded}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", PROMISED)
def test_a_command_that_is_given_often_does_little(command: str, tmp_path: Path) -> None:
    reply = run(["-c", PROBE, *command.split()], tmp_path)
    code, calls, loaded = json.loads(reply.stderr.splitlines()[-1])
    assert (code, HEAVY & {name.split(".")[0] for name in loaded}) == (0, set())
    assert "empathy_kit.cli.run" in loaded  # the probe saw the kit at all
    assert list(tmp_path.iterdir()) == []
    most_calls, most_modules = PROMISED[command]
    assert calls <= most_calls
    assert len(loaded) <= most_modules


# In one process, in this order, and what each may not load.
IMPORTS = {
    "import empathy_kit": HEAVY | {"click", "rich"},
    "empathy_kit.load; empathy_kit.Prediction": {"torch", "transformers"},
    "import empathy_kit.testing": {"torch"},
    "empathy_kit.EmpathyClassifier": {"torch", "transformers"},  # it is scikit-learn's
}


def test_what_the_kit_offers_loads_nothing_heavy_before_it_is_used(tmp_path: Path) -> None:
    lines = ["import json, sys", *(f"{line}; print(json.dumps(sorted(sys.modules)))" for line in IMPORTS)]
    reply = run(["-c", "\n".join(lines)], tmp_path)
    loaded = [{name.split(".")[0] for name in json.loads(line)} for line in reply.stdout.splitlines()]
    assert [names & found for names, found in zip(IMPORTS.values(), loaded, strict=True)] == [set()] * len(IMPORTS)
    assert ["sklearn" in found for found in loaded] == [False, False, False, True]
