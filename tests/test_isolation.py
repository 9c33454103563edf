"""Real hostile distributions, installed beside a good one: each is named, and nothing else suffers.

Every case is a folder in ``dists`` with a ``.dist-info`` of its own, put on the path of a process of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from empathy_kit import KitError, __version__, plugins
from empathy_kit.cli import cli
from empathy_kit.config import RunConfig, configure
from empathy_kit.plugins import OURS, Registry, load_registry
from empathy_kit.runs.train import Finished, run

DISTS = Path(__file__).with_name("dists")

# What is said of each, after "empathy-kit-<case> 1.0: ". More faults of one module are in test_plugins.py.
SKIPPED = {
    "import_error": "ModuleNotFoundError: No module named 'libfoo_that_nobody_has'",
    "system_exit": "SystemExit: 3",
    "base_exception": "Stop: enough",
    "keyboard_interrupt": "KeyboardInterrupt: no message",
    "long_message": "ValueError: line 0 line 1 line 2",
    "unknown_hook": (
        "PluginValidationError: unknown hook 'empathy_kit_optimisers' in plugin <module 'empathy_kit_unknown_hook' from "
        "'{dists}/unknown_hook/empathy_kit_unknown_hook.py'>"
    ),
    "wrong_arguments": (
        "PluginValidationError: Plugin 'empathy_kit_wrong_arguments' for hook 'empathy_kit_losses' hookimpl definition: "
        "empathy_kit_losses(registry) Argument(s) {{'registry'}} are declared in the hookimpl but can not be found in the "
        "hookspec"
    ),
    "half_way": "RuntimeError: the second one is missing",
    "stolen_name": "loss 'ce' is a built-in name; the plugin must choose another",
    "infinite_default": "TypeError: option 'alpha': its default is inf; expected a finite number",
    "newer_kit": f"RuntimeError: made for empathy-kit >=99, and this is empathy-kit {__version__}",
    "hyphens": ("ValueError: its entry point is 'empathy-kit-hyphens', expected a module's name such as empathy_kit_mine"),
    "latin_metadata": "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 79: invalid continuation byte",
    "missing_attribute": "AttributeError: module 'empathy_kit_missing_attribute' has no attribute 'plugin'",
}
TWINS = {
    "twin_one": "loss 'twin' is also offered by empathy-kit-twin-two 1.0; the name is disabled until one is uninstalled",
    "twin_two": "loss 'twin' is also offered by empathy-kit-twin-one 1.0; the name is disabled until one is uninstalled",
}
LOADED = {"talkative": "talkative", "warns": "warns", "absent": "absent", "lazy": "lazy"}  # rude or odd, and harmless


def distribution(case: str) -> str:
    return f"empathy-kit-{case.replace('_', '-')}"


def environment(*cases: str, **changes: str) -> dict[str, str]:
    """Nothing of what else is installed here, but the cases."""
    path = os.pathsep.join(str(DISTS / case) for case in cases)
    return {**os.environ, "PYTHONPATH": path, "EMPATHY_KIT_PLUGINS": ",".join(map(distribution, cases)), **changes}


def kit(arguments: list[str], *cases: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "-m", "empathy_kit", *arguments]
    return subprocess.run(command, env=environment(*cases, **changes), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def everything() -> Iterator[Registry]:
    """All hostile distributions at once, in this process, but for the one that hangs it."""
    cases = [*SKIPPED, *TWINS, *LOADED, "good"]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        for case in cases:
            patch.syspath_prepend(str(DISTS / case))
        patch.setenv("EMPATHY_KIT_PLUGINS", ",".join(map(distribution, cases)))
        patch.setattr(sys, "dont_write_bytecode", True)
        warnings.simplefilter("ignore")  # "this plugin is old"
        yield load_registry()


@pytest.mark.parametrize(("case", "reason"), [*SKIPPED.items(), *TWINS.items()])
def test_a_hostile_distribution_is_skipped_and_named(everything: Registry, case: str, reason: str) -> None:
    found = [failure.reason for failure in everything.failures if failure.distribution == distribution(case)]
    assert found == [reason.format(dists=DISTS)]


def test_they_harm_no_other_and_the_twins_lose_their_common_name_alone(everything: Registry) -> None:
    assert len(everything.failures) == len(SKIPPED) + len(TWINS)
    thirds = {entry.spec.name for entry in everything.provided if entry.distribution != OURS}
    assert thirds == {"fair", *LOADED.values()}


def test_what_plugins_print_or_warn_of_stands_in_no_result() -> None:
    process = kit(["plugins", "list", "--json"], *LOADED, "system_exit", "good")
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    names = {row["name"] for row in found["plugins"] if row["distribution"] != OURS}
    assert names == {"fair", *LOADED.values()}
    assert [failure["reason"] for failure in found["failures"]] == [SKIPPED["system_exit"]]


def test_beside_all_of_them_a_run_works(everything: Registry, tiny_roberta: Path, tmp_path: Path) -> None:
    small = {"epochs": 1, "threads": 1, "max_tokens": 16, "batch_size": 64, "encoder": str(tiny_roberta), "loss": "fair"}
    config = configure(RunConfig(), {**small, "options": {"trunk.hidden": 16, "trunk.layers": 1}})
    *_, finished = run(config, everything, tmp_path / "run")
    assert isinstance(finished, Finished)
    assert finished.record.plugins["loss"]["name"] == "fair"


def test_a_missing_name_lists_what_of_that_name_did_not_load_and_counts_the_others(everything: Registry) -> None:
    with pytest.raises(KitError) as error:
        everything.get("loss", "twin")
    assert str(error.value).startswith("--loss twin: unknown; there are ce, focal, weighted, absent, fair, ")
    twins = "; ".join(f"{distribution(case)} 1.0: {reason}" for case, reason in TWINS.items())
    rest = f"{len(SKIPPED)} more did not load, which `empathy-kit plugins list` names"
    assert str(error.value).endswith(f"; not loaded: {twins}; {rest}")


def test_without_a_word_from_the_environment_an_endless_import_hangs_and_ctrl_c_names_it() -> None:
    # A shell starts background jobs with SIGINT ignored, and the child would inherit it.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'empathy-kit'; "
    command = [sys.executable, "-B", "-c", f"{code}from empathy_kit.__main__ import main; main()", "plugins", "list"]
    process = subprocess.Popen(command, env=environment("endless"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "loading\n"  # it says so as it begins
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (
        2,
        "",
        "Error: interrupted while empathy-kit-endless 1.0 was loading; EMPATHY_KIT_PLUGINS chooses what to load, "
        "empty for nothing\n",
    )


def test_a_plugin_that_imports_torch_by_its_classes_alone_is_named_as_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch  # noqa: F401 - as in a process that has it already

    (tmp_path / "heavy_one.py").write_text("from torch import Tensor\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("heavy_one")
    assert plugins._heavy("heavy_one", set(sys.modules)) == ["torch"]


def test_plugins_check_counts_what_did_not_load_as_broken_and_of_a_name_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def checked(cases: list[str], *name: str) -> tuple[int, list[str]]:
        for case in cases:
            monkeypatch.syspath_prepend(DISTS / case)
        monkeypatch.setenv(plugins.ONLY, ",".join(map(distribution, cases)))
        said = CliRunner().invoke(cli, ["plugins", "check", *name])
        return said.exit_code, said.stdout.splitlines()

    assert checked(["system_exit"]) == (
        1,
        [
            "not loaded: empathy-kit-system-exit 1.0: SystemExit: 3",
            "0 promises of 0 plugins: 0 kept, 0 broken, 0 not judged; 1 not loaded",
        ],
    )
    code, lines = checked(["system_exit", "good"], "fair")
    assert (code, lines[-1]) == (0, "14 promises of 1 plugin: 13 kept, 0 broken, 1 not judged; 0 not loaded")
    code, lines = checked(["half"], "empathy-kit-half")
    assert (code, lines[-2:]) == (
        1,
        [
            "not loaded: empathy-kit-half 1.0: ModuleNotFoundError: No module named 'libfoo_that_nobody_has'",
            "14 promises of 1 plugin: 13 kept, 0 broken, 1 not judged; 1 not loaded",
        ],
    )


def test_there_are_as_many_cases_as_distributions() -> None:
    cases = {*SKIPPED, *TWINS, *LOADED, "good", "endless", "half"}
    assert {folder.name for folder in DISTS.iterdir()} == cases
