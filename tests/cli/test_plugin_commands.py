"""`plugins list`, `show` and `check`: what can be used by name, from where, and whether it keeps its promises."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_reply import Reply

from empathy_kit import __version__
from empathy_kit.plugins import ONLY, load_registry

ODD = '''from empathy_kit import Loss, hookimpl

def odd(task, *, weights: tuple[float, ...] = (1.0, 2.5), note: str | None = None):
    """Weights [red]classes[/blue] :warning:, see [/docs]."""

@hookimpl
def empathy_kit_losses():
    yield Loss("odd", odd)
'''

BROKEN = '''from empathy_kit import Loss, hookimpl

def flat(task):
    """The mean over the batch, which is the kit's to take. arXiv 1708.02002, and 1.50000 is no paper."""
    from torch.nn.functional import cross_entropy
    return lambda logits, target: cross_entropy(logits, target)

@hookimpl
def empathy_kit_losses():
    yield Loss("flat", flat)
'''

SCALED = BROKEN.replace("flat(task)", "flat(task, *, scale: float)").replace("target)\n", "target, reduction='none') * scale\n")

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs distributions, name to source, each of one module; no other is looked at."""

    def add(**sources: str) -> None:
        for name, source in sources.items():
            info = tmp_path / f"empathy_kit_{name}-0.1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: empathy-kit-{name}\nVersion: 0.1\n")
            (info / "entry_points.txt").write_text(f"[empathy_kit]\n{name} = empathy_kit_{name}_cli\n")
            (tmp_path / f"empathy_kit_{name}_cli.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv(ONLY, ",".join(f"empathy-kit-{name}" for name in sources))

    yield add
    for name in [name for name in sys.modules if re.fullmatch("empathy_kit_.*_cli", name)]:
        del sys.modules[name]


def test_plugins_list_as_json_names_options_and_providers(kit: Reply) -> None:
    code, out, err = kit("plugins", "list", "--json")
    content = json.loads(out)
    assert (code, err, content["failures"], content["warnings"]) == (0, "", [], [])
    named = [(row["kind"], row["name"]) for row in content["plugins"]]
    assert named == [(entry.kind, entry.spec.name) for entry in load_registry().provided]
    assert content["plugins"][1] == {
        "kind": "loss",
        "name": "focal",
        "summary": "Focal loss: easy pairs count less, the more so the larger gamma; the paper's T3 and T4.",
        "options": ["gamma: float = 2.0", "power: float = 0.0"],
        "distribution": "empathy-kit",
        "version": __version__,
    }
    assert all(row["summary"].endswith((".", "?")) for row in content["plugins"])  # it is written for the person who chooses


@pytest.mark.parametrize("columns", [80, 60])
def test_plugins_list_is_grouped_by_kind_and_breaks_no_word(
    kit: Reply, install: Install, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    install(odd=ODD)
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = kit("plugins", "list")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= columns
    groups = out.split("\n\n")
    assert [group.split(":")[0] for group in groups[:-1]] == ["losses", "rationale injectors", "heads", "samplers", "trunks"]
    assert " ".join(groups[0].split()) == (  # the words as they are written
        "losses: what each task learns from; --loss NAME "
        "ce Cross-entropy: the paper's T1 and T2. "
        "focal Focal loss: easy pairs count less, the more so the larger gamma; the paper's T3 and T4. "
        "-o loss.gamma: float = 2.0 -o loss.power: float = 0.0 "
        "weighted Class-weighted cross-entropy: weights (1 / class frequency)^power, mean 1 over the training part. "
        "-o loss.power: float = 1.0 "
        "odd Weights [red]classes[/blue] :warning:, see [/docs]. "
        "-o loss.weights: tuple[float, ...] = 1.0,2.5 -o loss.note: str | none = none from empathy-kit-odd 0.1"
    )
    assert "empathy-kit 0" not in out  # the kit's own need no provider
    assert "`" not in out


IMPORTS = {
    "module": "import sklearn\n",
    "part": "import sklearn.base as b\n",
    "name": "from sklearn import clone\n",
    "class": "from sklearn.base import Base\n",
    "later": "def f():\n    import sklearn\n",
    "types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sklearn\n",
}
LATE = ("later", "types")


@pytest.fixture
def sklearn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stands in for the real one, which is slow."""
    there = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "sklearn"}
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").write_text("def clone(): pass\n")
    (tmp_path / "sklearn" / "base.py").write_text("class Base: pass\n")
    yield
    for name in ("sklearn", "sklearn.base"):
        sys.modules.pop(name, None)
    sys.modules.update(there)


@pytest.mark.usefixtures("sklearn")
def test_plugins_list_says_what_did_not_load_and_what_everybody_waits_for(kit: Reply, install: Install) -> None:
    plugins = {how: code + ODD.replace('"odd"', f'"odd-{how}"') for how, code in IMPORTS.items()}
    install(bad="import no_such_module_at_all\n", **plugins)
    slow = "".join(
        f"slow: empathy-kit-{how} 0.1 imports sklearn as it is loaded, and every command waits for that; import inside the "
        "builders\n"
        for how in sorted(IMPORTS)
        if how not in LATE
    )
    bad = "not loaded: empathy-kit-bad 0.1: ModuleNotFoundError: No module named 'no_such_module_at_all'\n"
    # Each that imports it, not only the first; and again where all of it is loaded already.
    for _ in range(2):
        assert kit("plugins", "list")[2] == bad + slow


@pytest.mark.usefixtures("sklearn")
def test_plugins_check_names_what_is_slow_of_what_it_checks(kit: Reply, install: Install) -> None:
    install(flat=SCALED, heavy="import sklearn\n" + SCALED.replace('"flat"', '"steep"'))
    slow = (
        "slow: empathy-kit-heavy 0.1 imports sklearn as it is loaded, and every command waits for that; import inside the "
        "builders"
    )
    assert slow in kit("plugins", "check")[1].splitlines()
    assert slow in kit("plugins", "check", "steep")[1].splitlines()
    assert slow not in kit("plugins", "check", "flat")[1].splitlines()


def test_what_a_plugin_wrote_reaches_no_terminal_as_a_command(kit: Reply, install: Install) -> None:
    install(odd=ODD.replace("Weights", "\\x1b[2J\\x07Weights"))
    for arguments in (("list",), ("show", "odd")):
        out = kit("plugins", *arguments)[1]
        assert "\\x1b[2J\\x07Weights" in out
        assert not re.search(r"[\x00-\x09\x0b-\x1f]", out)


def test_plugins_show_tells_all_about_a_name(kit: Reply) -> None:
    code, out, err = kit("plugins", "show", "focal")
    assert (code, err) == (0, "")
    assert out.startswith(
        f"loss focal, from empathy-kit {__version__}\n  -o loss.gamma: float = 2.0\n  -o loss.power: float = 0.0\n"
        "  https://arxiv.org/abs/1708.02002\n"
    )
    assert "annotated spans: always" in kit("plugins", "show", "gold")[1]
    (row,) = json.loads(kit("plugins", "show", "focal", "--json")[1])["plugins"]
    assert (row["kind"], row["distribution"]) == ("loss", "empathy-kit")
    assert row["options"] == ["gamma: float = 2.0", "power: float = 0.0"]
    assert row["papers"] == ["https://arxiv.org/abs/1708.02002"]
    assert row["docstring"].splitlines()[0] in out


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_name_that_nobody_offers_is_one_line(kit: Reply, command: str) -> None:
    code, out, err = kit("plugins", command, "nobody")
    assert (code, out) == (2, "")
    there = ", ".join(dict.fromkeys(entry.spec.name for entry in load_registry().provided))
    assert err == f"Error: plugin nobody: unknown; there are {there}\n"


def test_plugins_check_shows_what_is_broken_and_where(kit: Reply, install: Install) -> None:
    install(flat=BROKEN, bad="import no_such_module_at_all\n")
    code, out, _ = kit("plugins", "check")
    assert code == 1
    lines = out.splitlines()
    assert lines[0] == "loss flat, from empathy-kit-flat 0.1"
    assert lines[1].startswith("  ok          can-be-built: The builder takes tasks of 2, 3 and 7 labels")
    assert "  BROKEN      one-value-per-item: Logits (N, C) float32 and targets (N,) give N values" in out
    assert "Traceback (most recent call last):" in lines
    assert "AssertionError: N = 5, C = 2 gives shape (), expected (5,)" in lines
    assert "  not judged  items-are-independent: one-value-per-item is broken" in lines
    assert lines[-2] == "not loaded: empathy-kit-bad 0.1: ModuleNotFoundError: No module named 'no_such_module_at_all'"
    assert lines[-1] == "14 promises of 1 plugin: 3 kept, 1 broken, 10 not judged; 1 not loaded"


def test_plugins_check_as_json_names_every_promise_and_how_it_ended(kit: Reply, install: Install) -> None:
    install(flat=BROKEN)
    code, out, _ = kit("plugins", "check", "flat", "--json")
    assert code == 1
    content = json.loads(out)
    (broken,) = [row for row in content["checks"] if row["failure"] is not None]
    failure = broken.pop("failure")
    assert broken == {
        "kind": "loss",
        "name": "flat",
        "distribution": "empathy-kit-flat",
        "version": "0.1",
        "check": "one-value-per-item",
        "not_judged": None,
    }
    assert failure.startswith("AssertionError: N = 5, C = 2 gives shape (), expected (5,)")  # then pytest's own words
    assert content["failures"] == []


def test_plugins_check_takes_options_and_asks_for_those_without_a_default(kit: Reply, install: Install) -> None:
    install(flat=SCALED)
    code, out, _ = kit("plugins", "check", "flat")
    assert code == 0
    assert "  not judged  can-be-built: an option has no default; give -o loss.scale VALUE\n" in out
    assert out.endswith("1 promise of 1 plugin: 0 kept, 0 broken, 1 not judged; 0 not loaded\n")
    code, out, _ = kit("plugins", "check", "flat", "-o", "loss.scale", "2")
    assert (code, out.splitlines()[-1]) == (0, "14 promises of 1 plugin: 13 kept, 0 broken, 1 not judged; 0 not loaded")
    for arguments, message in (
        (["-o", "loss.size", "2", "-o", "loss.scale", "1"], "loss flat: unknown option 'size'; its options: scale: float"),
        (["-o", "loss.scale", "big"], "loss flat: option 'scale' is 'big'; expected a finite number"),
        (["-o", "scale", "2"], "-o scale: unknown, expected loss.OPTION"),
        (["-o", "head.scale", "2"], "-o head.scale: unknown, expected loss.OPTION"),
    ):
        assert kit("plugins", "check", "flat", *arguments) == (2, "", f"Error: {message}\n")


def test_plugins_check_with_nothing_installed_says_so(kit: Reply) -> None:
    assert kit("plugins", "check") == (0, "no plugins are installed other than the kit's own; --all checks those\n", "")


def test_a_file_is_a_plugin_of_every_command_that_is_told_of_it(kit: Reply, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCALED.replace("scale: float", "scale: float = 2.0"))
    assert '"./mine.py"' in kit("plugins", "list", "--plugin", "mine.py", "--json")[1]
    assert "loss flat, from ./mine.py sha256:" in kit("plugins", "show", "flat", "--plugin", "mine.py")[1]
    code, out, _ = kit("plugins", "check", "--plugin", "mine.py")
    assert code == 0
    assert out.startswith("loss flat, from ./mine.py sha256:")
    assert kit("plugins", "check", "--plugin", "other.py") == (
        2,
        "",
        "Error: --plugin other.py: cannot be read: No such file or directory; expected a Python file such as ./my_loss.py\n",
    )
