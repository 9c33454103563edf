"""Real hostile distributions, installed beside a good one: each is named, and nothing else suffers.

Every case is a folder in ``dists`` with a ``.dist-info`` of its own, put on the path of a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from empathy_kit import KitError, __version__, recipes
from empathy_kit.config import RunConfig, configure
from empathy_kit.plugins import Registry, load_registry

DISTS = Path(__file__).with_name("dists")
OWN = ["ce", "focal", "weighted", "none", "gold", "train-only", "predicted", "tag", "linear", "attention"]

# What is said of each, after "empathy-kit-<case> 1.0: ".
SKIPPED = {
    "import_error": "ModuleNotFoundError: No module named 'libfoo_that_nobody_has'",
    "raises_at_import": "ImportError: needs libfoo 2, and cannot find it",
    "syntax_error": "SyntaxError: invalid syntax (empathy_kit_syntax_error.py, line 1)",
    "system_exit": "SystemExit: 3",
    "base_exception": "Stop: enough",
    "keyboard_interrupt": "KeyboardInterrupt: no message",
    "unreadable_error": "Odd: no readable message",
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
    "no_hook": (
        "TypeError: no hook found, expected empathy_kit_losses, empathy_kit_rationales, empathy_kit_heads marked with "
        "@empathy_kit.hookimpl"
    ),
    "half_way": "RuntimeError: the second one is missing",
    "not_a_spec": "TypeError: empathy_kit_losses yields a str, expected Loss",
    "not_iterable": "TypeError: 'Loss' object is not iterable",
    "wrong_kind": "TypeError: empathy_kit_losses yields a Head, expected Loss",
    "bad_name": "ValueError: Loss name 'My Loss': expected lower-case letters, digits and hyphens, first a letter",
    "no_builder": "TypeError: Loss 'empty': build is a NoneType, expected a function",
    "twice": "ValueError: empathy_kit_losses yields 'again' twice",
    "stolen_name": "loss 'ce' is a built-in name; the plugin must choose another",
    "untyped_option": "TypeError: option 'alpha' has no type; expected an annotation such as `: float = 2.0`",
    "infinite_default": "TypeError: option 'alpha': its default is inf; expected a finite number",
    "reserved_option": "ValueError: rationale 'heavy': option 'weight' belongs to the kit",
    "newer_kit": f"RuntimeError: made for empathy-kit >=99, and this is empathy-kit {__version__}",
    "stale": "ModuleNotFoundError: No module named 'empathy_kit_stale'",
    "missing_attribute": "AttributeError: module 'empathy_kit_missing_attribute' has no attribute 'plugin'",
}
TWINS = {
    "twin_one": "loss 'twin' is also offered by empathy-kit-twin-two 1.0; the name is disabled until one is uninstalled",
    "twin_two": "loss 'twin' is also offered by empathy-kit-twin-one 1.0; the name is disabled until one is uninstalled",
}
LOADED = {"talkative": "talkative", "warns": "warns"}  # rude, and harmless
AT_WORK = {
    "builder_raises": (
        "unbuildable",
        "loss unbuildable of empathy-kit-builder-raises 1.0 cannot be built: LookupError: no table for this mechanism; "
        "`empathy-kit plugins check unbuildable` shows where",
    ),
    "wrong_shape": (
        "meanish",
        "loss of ER: shape () found, expected one value a pair (64,) (loss meanish is from empathy-kit-wrong-shape 1.0)",
    ),
    "not_a_number": (
        "nanny",
        "the loss became nan in epoch 1, step 1; try a smaller --lr or another loss (loss nanny is from "
        "empathy-kit-not-a-number 1.0)",
    ),
}


def distribution(case: str) -> str:
    return f"empathy-kit-{case.replace('_', '-')}"


def environment(*cases: str, **changes: str) -> dict[str, str]:
    """Nothing of what else is installed here, but the cases."""
    path = os.pathsep.join(str(DISTS / case) for case in cases)
    return {**os.environ, "PYTHONPATH": path, "EMPATHY_KIT_PLUGINS": ",".join(map(distribution, cases)), **changes}


def kit(arguments: list[str], *cases: str, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-B", "-m", "empathy_kit", *arguments]
    return subprocess.run(command, env=environment(*cases, **changes), capture_output=True, text=True, timeout=60)


def listed(*cases: str) -> tuple[list[str], dict[str, str]]:
    """The names that loaded, and what is said of each distribution that did not."""
    process = kit(["plugins", "list", "--json"], *cases)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    return [row["name"] for row in found["plugins"]], {
        f"{failure['distribution']} {failure['version']}": failure["reason"] for failure in found["failures"]
    }


@pytest.mark.parametrize("case", SKIPPED)
def test_a_hostile_distribution_is_skipped_named_and_harms_no_other(case: str) -> None:
    names, failures = listed(case, "good")
    assert sorted(names) == sorted([*OWN, "fair"])
    assert failures == {f"{distribution(case)} 1.0": SKIPPED[case].format(dists=DISTS)}


def test_two_third_parties_with_one_name_lose_that_name_alone() -> None:
    names, failures = listed(*TWINS, "good")
    assert sorted(names) == sorted([*OWN, "fair"])
    assert failures == {f"{distribution(case)} 1.0": reason for case, reason in TWINS.items()}


@pytest.mark.parametrize("case", LOADED)
def test_what_a_plugin_prints_or_warns_of_stands_in_no_result(case: str) -> None:
    names, failures = listed(case, "good")
    assert sorted(names) == sorted([*OWN, "fair", LOADED[case]])
    assert failures == {}


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """All hostile distributions at once, in this process, but for those that hang it or are judged at work."""
    cases = [*SKIPPED, *TWINS, *LOADED, *AT_WORK, "good"]
    for case in cases:
        monkeypatch.syspath_prepend(str(DISTS / case))
    monkeypatch.setenv("EMPATHY_KIT_PLUGINS", ",".join(map(distribution, cases)))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "this plugin is old"
        registry = load_registry()
    assert len(registry.failures) == len(SKIPPED) + len(TWINS)
    return registry


def small(encoder: Path, loss: str) -> RunConfig:
    changes = {"epochs": 1, "threads": 1, "max_tokens": 16, "hidden": 16, "layers": 1, "batch_size": 64}
    return configure(RunConfig(), {**changes, "encoder": str(encoder), "loss": loss})


@pytest.mark.parametrize("loss", ["ce", "fair"])
def test_beside_all_of_them_a_run_works(everything: Registry, tiny_roberta: Path, tmp_path: Path, loss: str) -> None:
    *_, finished = recipes.run(small(tiny_roberta, loss), everything, tmp_path / "run")
    assert isinstance(finished, recipes.Finished)
    assert finished.record.plugins["loss"]["name"] == loss


@pytest.mark.parametrize("case", AT_WORK)
def test_a_plugin_that_fails_at_work_ends_its_own_run_with_a_line(
    everything: Registry, tiny_roberta: Path, tmp_path: Path, case: str
) -> None:
    loss, message = AT_WORK[case]
    with pytest.raises(KitError) as error:
        list(recipes.run(small(tiny_roberta, loss), everything, tmp_path / "run"))
    assert str(error.value) == message
    assert list(tmp_path.iterdir()) == []


def test_a_missing_name_lists_all_that_did_not_load(everything: Registry) -> None:
    with pytest.raises(KitError) as error:
        everything.get("loss", "half")
    assert str(error.value).startswith("--loss half: unknown; there are ce, focal, weighted, fair, ")
    assert "; not loaded: empathy-kit-bad-name 1.0: ValueError: Loss name 'My Loss'" in str(error.value)
    assert "; empathy-kit-half-way 1.0: RuntimeError: the second one is missing" in str(error.value)


def test_without_a_word_from_the_environment_an_endless_import_hangs_and_ctrl_c_names_it() -> None:
    command = [sys.executable, "-B", "-m", "empathy_kit", "plugins", "list"]
    process = subprocess.Popen(command, env=environment("endless"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (
        2,
        "",
        "Error: interrupted while empathy-kit-endless 1.0 was loading; EMPATHY_KIT_PLUGINS chooses what to load, "
        "empty for nothing\n",
    )


def test_the_environment_is_the_way_out_of_an_endless_import() -> None:
    process = kit(["plugins", "list", "--json"], "endless", "good", EMPATHY_KIT_PLUGINS="empathy-kit-good")
    names = [row["name"] for row in json.loads(process.stdout)["plugins"]]
    assert sorted(names) == sorted([*OWN, "fair"])


def test_plugins_check_counts_what_did_not_load_as_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    process = kit(["plugins", "check"], "system_exit")
    assert (process.returncode, process.stdout) == (
        1,
        "BROKEN  not loaded: empathy-kit-system-exit 1.0: SystemExit: 3\n"
        "0 promises of 0 plugins checked, 0 broken; 1 not loaded\n",
    )


def test_there_are_as_many_cases_as_distributions() -> None:
    cases = {*SKIPPED, *TWINS, *LOADED, *AT_WORK, "good", "endless"}
    assert {folder.name for folder in DISTS.iterdir()} == cases
