"""Plugins: whatever an installed distribution does, the built-ins and the other plugins live, and the fault is told."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from empathy_kit.config import RunConfig
from empathy_kit.errors import KitError
from empathy_kit.plugins import KINDS, ONLY, OURS, Failure, Registry, load_registry
from empathy_kit.runs.choose import choose_plugins

BUILT_IN = {
    "loss": ["ce", "focal", "weighted"],
    "rationale": ["none", "gold", "train-only", "predicted", "tag"],
    "head": ["linear", "attention"],
    "sampler": ["all", "over", "under"],
    "trunk": ["gru", "mean"],
}
SPECS = "Head, KitError, Loss, Rationale, Sampler, Trunk, hookimpl"
HEADER = f"from empathy_kit import {SPECS}\n\ndef build(task, *, gamma: float = 1.0): ...\n\n"
HOOKS = "empathy_kit_losses, empathy_kit_rationales, empathy_kit_heads, empathy_kit_samplers, empathy_kit_trunks"


def losses(*names: str) -> str:
    """The source of a plugin that offers these losses."""
    return (
        HEADER
        + "@hookimpl\ndef empathy_kit_losses():\n"
        + "".join(f"    yield Loss({name!r}, build)\n" for name in names or ("",))
    )


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a distribution of one module on the path; only distributions of this test are looked at."""
    site, modules = tmp_path / "site", []
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv(ONLY, "")

    def add(name: str, source: str | None, *, metadata: str | None = None) -> None:
        module = f"empathy_kit_{name}"
        info = site / f"{module}-0.1.dist-info"
        info.mkdir()
        if metadata is None:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: empathy-kit-{name}\nVersion: 0.1\n")
        (info / "entry_points.txt").write_text(f"[empathy_kit]\n{name} = {module}\n")
        if source is not None:
            (site / f"{module}.py").write_text(source)
        modules.append(module)
        monkeypatch.setenv(ONLY, ",".join(f"empathy-kit-{known.removeprefix('empathy_kit_')}" for known in modules))
        importlib.invalidate_caches()

    yield add
    for module in modules:
        sys.modules.pop(module, None)


def names(registry: Registry) -> dict[str, list[str]]:
    return {kind: [entry.spec.name for entry in registry.of(kind)] for kind in KINDS}


def test_the_kits_own_plugins_are_there_with_nothing_else_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ONLY, "")
    registry = load_registry()
    assert names(registry) == BUILT_IN
    assert {entry.distribution for entry in registry.provided} == {OURS}
    assert registry.failures == ()


def test_a_third_partys_loss_is_listed_and_can_be_chosen_with_its_options(install: Install) -> None:
    install("poly", losses("poly"))
    registry = load_registry()
    assert names(registry) == {**BUILT_IN, "loss": ["ce", "focal", "weighted", "poly"]}
    chosen = choose_plugins(RunConfig(loss="poly", options={"loss.gamma": "1.5", "loss.ER.gamma": "3"}), registry)
    loss = chosen.chosen["loss"]
    assert (loss.distribution, loss.version) == ("empathy-kit-poly", "0.1")
    assert chosen.options["loss"] == {"ER": {"gamma": 3.0}, "EX": {"gamma": 1.5}, "IP": {"gamma": 1.5}}


def test_one_plugin_may_offer_all_kinds_and_the_same_name_in_each(install: Install) -> None:
    source = (
        HEADER
        + "@hookimpl\ndef empathy_kit_losses():\n    return [Loss('trio', build)]\n\n"
        + "@hookimpl\ndef empathy_kit_rationales():\n    return (Rationale('trio', build, gold='never'),)\n\n"
        + "@hookimpl\ndef empathy_kit_heads():\n    yield Head('trio', build)\n\n"
        + "@hookimpl\ndef empathy_kit_samplers():\n    yield Sampler('trio', build)\n\n"
        + "@hookimpl\ndef empathy_kit_trunks():\n    yield Trunk('trio', build)\n"
    )
    install("trio", source)
    registry = load_registry()
    assert names(registry) == {kind: [*built_in, "trio"] for kind, built_in in BUILT_IN.items()}


def test_with_no_word_from_the_environment_everything_installed_is_loaded(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("poly", losses("poly"))
    monkeypatch.delenv(ONLY)
    assert load_registry().get("loss", "poly").distribution == "empathy-kit-poly"


HALFWAY = losses("half") + "    raise RuntimeError('out of\\n  ideas')\n"
UNREADABLE = "class Rude(Exception):\n    def __str__(self):\n        raise RuntimeError\n\nraise Rude\n"
BROKEN: dict[str, tuple[str, str]] = {
    "an import error": ("import no_such_module_at_all\n", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
    "a syntax error": ("def (\n", "SyntaxError: invalid syntax (empathy_kit_bad.py, line 1)"),
    "SystemExit at import": ("import sys\nsys.exit('no licence')\n", "SystemExit: no licence"),
    "SystemExit in a hook": (losses().replace("yield Loss('', build)", "raise SystemExit"), "SystemExit: no message"),
    "an exception that cannot be printed": (UNREADABLE, "Rude: no readable message"),
    "an exception halfway through": (HALFWAY, "RuntimeError: out of ideas"),
    "a hook without its mark": (
        HEADER + "def empathy_kit_losses():\n    yield Loss('bad', build)\n",
        f"TypeError: no hook found, expected {HOOKS} marked with @empathy_kit.hookimpl",
    ),
    "a hook that yields nothing": (
        HEADER + "@hookimpl\ndef empathy_kit_losses():\n    Loss('bad', build)\n",
        "TypeError: empathy_kit_losses returns nothing, expected it to yield Loss specs",
    ),
    "a hook around those of others": (
        HEADER + "@hookimpl(wrapper=True)\ndef empathy_kit_losses():\n    found = yield\n    return []\n",
        "TypeError: empathy_kit_losses returns nothing, expected it to yield Loss specs",
    ),
    "a name that is a keyword": (
        losses("lambda"),
        "ValueError: Loss name 'lambda': a keyword of Python, expected another name",
    ),
    "not a spec": (
        HEADER + "@hookimpl\ndef empathy_kit_losses():\n    yield build\n",
        "TypeError: empathy_kit_losses yields a function, expected Loss",
    ),
    "another kind's spec": (
        HEADER + "@hookimpl\ndef empathy_kit_heads():\n    yield Loss('bad', build)\n",
        "TypeError: empathy_kit_heads yields a Loss, expected Head",
    ),
    "a spec in place of many": (
        HEADER + "@hookimpl\ndef empathy_kit_losses():\n    return Loss('bad', build)\n",
        "TypeError: 'Loss' object is not iterable",
    ),
    "a name that is none": (
        losses("Bad Name"),
        "ValueError: Loss name 'Bad Name': expected lower-case letters, digits and hyphens, first a letter",
    ),
    "a name that is no text": (
        "from pathlib import PurePosixPath\n" + losses().replace("''", "PurePosixPath('bad')"),
        "ValueError: Loss name PurePosixPath('bad'): expected lower-case letters, digits and hyphens, first a letter",
    ),
    "a builder that is none": (
        losses("bad").replace("', build)", "', 5)"),
        "TypeError: Loss 'bad': build is a int, expected a function",
    ),
    "one name twice": (losses("bad", "bad"), "ValueError: empathy_kit_losses yields 'bad' twice"),
    "gold at a time that is none": (
        HEADER + "@hookimpl\ndef empathy_kit_rationales():\n    yield Rationale('bad', build, gold='test')\n",
        "ValueError: Rationale 'bad': gold is 'test', expected 'never', 'train' or 'always'",
    ),
    "an option with no type": (
        losses("bad").replace(": float", ""),
        "TypeError: option 'gamma' has no type; expected an annotation such as `: float = 2.0`",
    ),
    "an option before the star": (
        losses("bad").replace("*, ", ""),
        "TypeError: parameter 'gamma' has a default, but is no option; put `*,` before it, or drop the default",
    ),
    "the kit's own option": (
        HEADER.replace("gamma", "weight") + "@hookimpl\ndef empathy_kit_rationales():\n    yield Rationale('bad', build)\n",
        "ValueError: rationale 'bad': option 'weight' belongs to the kit",
    ),
    "a built-in's name": (
        losses("good", "focal"),
        "loss 'focal' is a built-in name; the plugin must choose another",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_skipped_whole_and_named(install: Install, case: str) -> None:
    source, reason = BROKEN[case]
    install("bad", source)
    install("poly", losses("poly"))
    registry = load_registry()
    assert [str(failure) for failure in registry.failures] == [f"empathy-kit-bad 0.1: {reason}"]
    assert names(registry) == {**BUILT_IN, "loss": ["ce", "focal", "weighted", "poly"]}
    assert registry.get("loss", "focal").distribution == OURS


@pytest.mark.parametrize(
    ("source", "phrases"),
    [
        (losses("bad").replace("_losses", "_loses"), ["PluginValidationError: unknown hook 'empathy_kit_loses' in plugin "]),
        (losses("bad").replace("losses()", "losses(config)"), ["PluginValidationError: ", "'config'", "empathy_kit_losses"]),
    ],
    ids=["an unknown hook", "a hook with arguments of its own"],
)
def test_a_hook_that_the_kit_would_never_call_is_named(install: Install, source: str, phrases: list[str]) -> None:
    install("bad", source)
    install("poly", losses("poly"))
    registry = load_registry()
    (failure,) = registry.failures
    assert all(phrase in failure.reason for phrase in phrases)  # the words between are pluggy's
    assert "\n" not in failure.reason
    assert names(registry)["loss"] == ["ce", "focal", "weighted", "poly"]


def test_an_entry_point_whose_module_is_gone_is_a_broken_plugin(install: Install) -> None:
    install("stale", None)
    install("poly", losses("poly"))
    registry = load_registry()
    assert [str(failure) for failure in registry.failures] == [
        "empathy-kit-stale 0.1: ModuleNotFoundError: No module named 'empathy_kit_stale'"
    ]
    assert names(registry)["loss"] == ["ce", "focal", "weighted", "poly"]


def test_a_distribution_without_metadata_goes_by_its_module(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("torn", losses("torn"), metadata="none")  # as an interrupted installation leaves it
    install("poly", losses("poly"))
    monkeypatch.delenv(ONLY)
    registry = load_registry()
    torn = registry.get("loss", "torn")
    assert (torn.distribution, torn.version) == ("empathy_kit_torn", "unknown")
    assert registry.get("loss", "poly").version == "0.1"


def test_two_third_parties_with_one_name_disable_that_name_alone(install: Install) -> None:
    install("a", losses("twin", "only-a"))
    install("b", losses("only-b", "twin"))
    registry = load_registry()
    assert names(registry)["loss"] == ["ce", "focal", "weighted", "only-a", "only-b"]
    reason = "loss 'twin' is also offered by empathy-kit-{} 0.1; the name is disabled until one is uninstalled"
    assert [str(failure) for failure in registry.failures] == [
        f"empathy-kit-a 0.1: {reason.format('b')}",
        f"empathy-kit-b 0.1: {reason.format('a')}",
    ]


REASON = "ModuleNotFoundError: No module named 'x'"


@pytest.mark.parametrize(
    ("failures", "text"),
    [
        ([], ""),
        ([("empathy-kit-dice", REASON)], f"; not loaded: empathy-kit-dice 0.1: {REASON}"),
        (
            [("empathy-kit-b", "loss 'dice' is a built-in name")],
            "; not loaded: empathy-kit-b 0.1: loss 'dice' is a built-in name",
        ),
        (
            [("empathy-kit-b", "loss 'dice' is also offered by c"), ("empathy-kit-b", "head 'dice' is also offered by c")],
            "; not loaded: empathy-kit-b 0.1: loss 'dice' is also offered by c; 1 more did not load, which `empathy-kit plugins "
            "list` names",
        ),
        ([("empathy-kit-b", REASON)], "; 1 installed did not load, which `empathy-kit plugins list` names"),
        (
            [("Dice", REASON), ("empathy-kit-b", REASON), ("c", REASON)],
            f"; not loaded: Dice 0.1: {REASON}; 2 more did not load, which `empathy-kit plugins list` names",
        ),
    ],
)
def test_a_missing_name_lists_what_there_is_and_what_of_that_name_did_not_load(
    monkeypatch: pytest.MonkeyPatch, failures: list[tuple[str, str]], text: str
) -> None:
    monkeypatch.setenv(ONLY, "")
    registry = Registry(load_registry().provided, tuple(Failure(name, "0.1", reason) for name, reason in failures))
    with pytest.raises(KitError) as error:
        registry.get("loss", "dice")
    assert str(error.value) == f"--loss dice: unknown; there are ce, focal, weighted{text}"
    with pytest.raises(KitError) as error:
        registry.named("dice")
    assert str(error.value).startswith("plugin dice: unknown; there are ce, focal, weighted, none, ")
    for name, reason in failures:  # of any kind here
        concerned = name.lower().endswith("dice") or "'dice'" in reason
        assert (f"{name} 0.1: {reason}" in str(error.value)) == concerned


def test_a_name_belongs_to_its_kind(install: Install) -> None:
    with pytest.raises(KitError, match=r"^--head focal: unknown; there are linear, attention$"):
        load_registry().get("head", "focal")


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ("", []),
        (" , ", []),
        ("empathy-kit-poly", ["poly"]),
        ("Empathy_Kit.Poly", ["poly"]),  # as PyPI compares names
        ("empathy-kit-dice, empathy-kit-poly", ["dice", "poly"]),
    ],
)
def test_the_environment_chooses_the_plugins_and_what_it_leaves_out_is_not_even_imported(
    install: Install, monkeypatch: pytest.MonkeyPatch, only: str, expected: list[str]
) -> None:
    install("poly", losses("poly"))
    install("dice", losses("dice"))
    install("bad", "raise RuntimeError\n")
    monkeypatch.setenv(ONLY, only)
    registry = load_registry()
    assert names(registry) == {**BUILT_IN, "loss": [*BUILT_IN["loss"], *expected]}
    assert registry.failures == ()
    assert "empathy_kit_bad" not in sys.modules


def test_a_distribution_that_the_environment_asks_for_and_nobody_installed_is_named(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("poly", losses("poly"))
    monkeypatch.setenv(ONLY, "empathy-kit-poli")
    assert [str(failure) for failure in load_registry().failures] == [
        "empathy-kit-poli -: EMPATHY_KIT_PLUGINS asks for it, but no installed distribution of that name offers plugins"
    ]


def test_the_order_of_plugins_does_not_depend_on_the_order_of_installation(install: Install) -> None:
    install("z", losses("alpha"))
    install("a", losses("zeta"))
    assert names(load_registry())["loss"] == ["ce", "focal", "weighted", "alpha", "zeta"]


def test_loading_twice_gives_the_same_and_keeps_no_state(install: Install) -> None:
    install("poly", losses("poly"))
    install("bad", HALFWAY)
    first, second = load_registry(), load_registry()
    assert names(first) == names(second)
    assert first.failures == second.failures
