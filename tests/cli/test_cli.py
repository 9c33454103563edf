"""The command line: results on stdout, one line on stderr for what the user can fix, exit code 2, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_reply import Reply

from empathy_kit import __version__
from empathy_kit.plugins import ONLY

LISTED = "there are ce, focal, weighted"


WRONG: dict[str, tuple[list[str], str]] = {
    "loss": (["--loss", "nope"], f"--loss nope: unknown; {LISTED}"),
    "a loss in two lines": (["--loss", "no\npe\u2028"], f"--loss no\\npe\\n: unknown; {LISTED}"),
    "rationale": (["--rationale", "x"], "--rationale x: unknown; there are none, gold, train-only, predicted, tag"),
    "head": (["--head", "x"], "--head x: unknown; there are linear, attention"),
    "option": (
        ["--loss", "focal", "-o", "loss.gama", "1"],
        "loss focal: unknown option 'gama'; its options: gamma: float = 2.0, power: float = 0.0",
    ),
    "option of a mechanism": (["-o", "loss.ER.gamma", "1"], "loss ce: unknown option 'gamma'; its options: none"),
    "value of an option": (
        ["--loss", "focal", "-o", "loss.gamma", "big"],
        "loss focal: option 'gamma' is 'big'; expected a finite number",
    ),
    "the kit's own option": (
        ["-o", "rationale.weight", "big"],
        "rationale: option 'weight' is 'big'; expected a finite number",
    ),
    "route": (
        ["-o", "trunk.gamma", "1"],
        "-o trunk.gamma: unknown, expected loss.OPTION, head.OPTION, rationale.OPTION or loss.ER.OPTION "
        "(also head, and ER, EX, IP)",
    ),
    "route to a mechanism": (
        ["-o", "loss.XX.gamma", "1"],
        "-o loss.XX.gamma: unknown, expected loss.OPTION, head.OPTION, rationale.OPTION or loss.ER.OPTION "
        "(also head, and ER, EX, IP)",
    ),
    "setting": (["--epochs", "many"], "--epochs many: expected a whole number"),
    "range": (["--dropout", "1.5"], "--dropout 1.5: out of range, expected 0 to 0.99"),
    "split": (["--split", "temporal"], "--split temporal: expected one of grouped, paper"),
    "preset": (["--preset", "large"], "--preset large: unknown, expected small or paper"),
    "config": (["--config", "no.toml"], "--config no.toml: cannot be read: No such file or directory"),
    "both starts": (
        ["--config", "a.toml", "--preset", "paper"],
        "--preset and --config: both given, expected one of them",
    ),
    "rationale and none": (
        ["--no-rationale", "--rationale", "gold"],
        "--no-rationale and --rationale gold: both given, expected one of them",
    ),
    "data": (
        ["--data", "nowhere.csv"],
        "--data nowhere.csv: no such file or folder; expected sample, reddit, a folder or a .csv, .jsonl or .parquet file",
    ),
    "output that exists": (
        ["--out", "there"],
        "--out there: already exists; a run never overwrites another, expected a new name",
    ),
    "output in a file": (["--out", "file/run"], "--out file/run: cannot be written: Not a directory"),
    "a name too long for a folder": (["--loss", "x" * 300], f"--loss {'x' * 300}: unknown; {LISTED}"),
    "a file name too long for a folder": (
        ["--data", f"{'x' * 300}.csv"],
        f"--out runs/{'x' * 300}-ce-none-0: cannot be written: File name too long",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_run_is_told_in_one_line_and_nothing_is_left(case: str, kit: Reply, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "file").touch()
    arguments, message = WRONG[case]
    assert kit("run", *arguments) == (2, "", f"Error: {message}\n")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "runs", "there"]


def test_an_encoder_folder_that_is_not_there_is_one_line_that_says_what_to_do(kit: Reply, tmp_path: Path) -> None:
    code, out, err = kit("run", "--encoder", "no-such-folder")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("Error: --encoder no-such-folder: ")
    assert "give its folder as --encoder FOLDER, or use --encoder minilm" in err
    assert list(tmp_path.iterdir()) == []


def test_no_rationale_is_rationale_none_word_for_word(kit: Reply) -> None:
    _, _, plain = kit("run", "--loss", "focal", "--no-rationale", "--data", "nowhere")
    _, _, same = kit("run", "--loss", "focal", "--no-rationale", "--rationale", "none", "--data", "nowhere")
    assert plain == same
    assert plain.startswith("Error: --data nowhere: ")  # it came as far as the data


def test_a_config_file_is_changed_by_flags_and_no_rationale_wins_over_it(kit: Reply, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('rationale = "nope"\nloss = "nope"\n')
    assert kit("run", "--config", "mine.toml", "--loss", "ce")[2].startswith("Error: --rationale nope: unknown")
    assert kit("run", "--config", "mine.toml", "--no-rationale")[2].startswith("Error: --loss nope: unknown")


def test_help_and_version_are_on_stdout(kit: Reply) -> None:
    assert kit("--version") == (0, f"empathy-kit, version {__version__}\n", "")
    code, out, err = kit("run", "-h")
    assert (code, err) == (0, "")
    for flag in ("--loss VALUE", "--no-rationale", "--encoder-lr VALUE", "--preset small|paper", "-o, --option NAME VALUE"):
        assert flag in out


def test_plugins_list_as_json_names_options_and_providers(kit: Reply) -> None:
    code, out, err = kit("plugins", "list", "--json")
    content = json.loads(out)
    assert (code, err, content["failures"]) == (0, "", [])
    assert [f"{row['kind']} {row['name']}" for row in content["plugins"]] == [
        "loss ce",
        "loss focal",
        "loss weighted",
        "rationale none",
        "rationale gold",
        "rationale train-only",
        "rationale predicted",
        "rationale tag",
        "head linear",
        "head attention",
    ]
    assert content["plugins"][1] == {
        "kind": "loss",
        "name": "focal",
        "summary": "Focal loss: easy pairs count less, the more so the larger gamma; the paper's T3 and T4.",
        "options": ["gamma: float = 2.0", "power: float = 0.0"],
        "distribution": "empathy-kit",
        "version": __version__,
    }
    assert all(row["summary"].endswith(".") for row in content["plugins"])  # it is written for the person who chooses


ODD = '''from empathy_kit import Loss, hookimpl

def odd(task, *, weights: tuple[float, ...] = (1.0,)):
    """Weights [red]classes[/blue] :warning:, see [/docs]."""

@hookimpl
def empathy_kit_losses():
    yield Loss("odd", odd)
'''


BROKEN = '''from empathy_kit import Loss, hookimpl

def mean(task):
    """The mean over the batch, which is the kit's to take. arXiv 1708.02002, and 1.50000 is no paper."""
    from torch.nn.functional import cross_entropy
    return lambda logits, target: cross_entropy(logits, target)

@hookimpl
def empathy_kit_losses():
    yield Loss("mean", mean)
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
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

    return add


def test_plugins_list_shows_what_loaded_as_it_is_written_and_what_did_not(
    kit: Reply, install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(odd=ODD, bad="import no_such_module_at_all\n")
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = kit("plugins", "list")
    assert code == 0
    assert "weights: tuple[float, ...] = (1.0,)" in out
    assert "Weights [red]classes[/blue] :warning:, see [/docs]." in out
    assert err == "not loaded: empathy-kit-bad 0.1: ModuleNotFoundError: No module named 'no_such_module_at_all'\n"
    assert json.loads(kit("plugins", "list", "--json")[1])["failures"] == [
        {
            "distribution": "empathy-kit-bad",
            "version": "0.1",
            "reason": "ModuleNotFoundError: No module named 'no_such_module_at_all'",
        }
    ]
    monkeypatch.setenv("COLUMNS", "60")
    assert "…" not in kit("plugins", "list")[1]


def test_plugins_show_tells_all_about_a_name(kit: Reply) -> None:
    code, out, err = kit("plugins", "show", "focal")
    assert (code, err) == (0, "")
    assert out.startswith(
        f"loss focal, from empathy-kit {__version__}\n  -o loss.gamma: float = 2.0\n  -o loss.power: float = 0.0\n  https://arxiv.org/abs/1708.02002\n"
    )
    assert "annotated spans: always" in kit("plugins", "show", "gold")[1]
    (row,) = json.loads(kit("plugins", "show", "focal", "--json")[1])["plugins"]
    assert (row["kind"], row["distribution"], row["options"]) == (
        "loss",
        "empathy-kit",
        ["gamma: float = 2.0", "power: float = 0.0"],
    )
    assert row["papers"] == ["https://arxiv.org/abs/1708.02002"]
    assert row["docstring"].splitlines()[0] in out


@pytest.mark.parametrize("command", ["show", "check"])
def test_a_name_that_nobody_offers_is_one_line(kit: Reply, command: str) -> None:
    code, out, err = kit("plugins", command, "nobody")
    assert (code, out) == (2, "")
    there = "ce, focal, weighted, none, gold, train-only, predicted, tag, linear, attention"
    assert err == f"Error: plugin nobody: unknown; there are {there}\n"


def test_plugins_check_shows_what_is_broken_and_where(kit: Reply, install: Callable[..., None]) -> None:
    install(mean=BROKEN, bad="import no_such_module_at_all\n")
    code, out, _ = kit("plugins", "check")
    assert code == 1
    assert "ok      loss mean (empathy-kit-mean 0.1): " in out
    assert "BROKEN  loss mean (empathy-kit-mean 0.1): Logits (N, C) float32 and targets (N,) give N values" in out
    assert "Traceback (most recent call last):" in out
    assert "AssertionError: N = 5, C = 2 gives shape (), expected (5,)" in out
    assert "BROKEN  not loaded: empathy-kit-bad 0.1: ModuleNotFoundError: " in out
    assert out.splitlines()[-1] == "12 promises of 1 plugins checked, 1 broken; 1 not loaded"


def test_plugins_check_as_json_names_every_promise_and_how_it_ended(kit: Reply, install: Callable[..., None]) -> None:
    install(mean=BROKEN)
    code, out, _ = kit("plugins", "check", "mean", "--json")
    assert code == 1
    content = json.loads(out)
    broken = [row for row in content["checks"] if row["failure"] is not None]
    assert [(row["name"], row["distribution"], row["version"], row["check"]) for row in broken] == [
        ("mean", "empathy-kit-mean", "0.1", "one-value-an-item")
    ]
    assert content["failures"] == []


def test_plugins_check_with_nothing_installed_says_so(kit: Reply) -> None:
    assert kit("plugins", "check") == (0, "no plugin beside the kit's own is installed; --all checks those\n", "")


def test_the_kits_own_plugins_keep_its_promises(kit: Reply) -> None:
    code, out, _ = kit("plugins", "check", "--all", "--json")
    assert [row for row in json.loads(out)["checks"] if row["failure"]] == []
    assert code == 0


@pytest.mark.parametrize("kind", ["loss", "head", "rationale"])
def test_plugins_new_says_where_it_wrote_and_what_comes_next(kit: Reply, tmp_path: Path, kind: str) -> None:
    code, out, err = kit("plugins", "new", "my-own", "--kind", kind)
    assert (code, err) == (0, "")
    assert out == (
        "written: empathy-kit-my-own\nnext:\n  cd empathy-kit-my-own\n  pip install --editable '.[test]'\n"
        "  empathy-kit plugins check my-own\n  pytest\n"
    )
    written = {path.relative_to(tmp_path / "empathy-kit-my-own").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        ".gitignore",
        "empathy_kit_my_own.py",
        "tests/test_my_own.py",
    }
    assert not any("$" in path.read_text() for path in (tmp_path / "empathy-kit-my-own").rglob("*.py"))


CANNOT_BE_WRITTEN = {
    "not a name": (
        ["My Own", "--kind", "loss"],
        "plugins new 'My Own': expected lower-case letters, digits and hyphens, first a letter, such as my-loss",
    ),
    "a path": (
        ["../up", "--kind", "head"],
        "plugins new '../up': expected lower-case letters, digits and hyphens, first a letter, such as my-head",
    ),
    "taken": (
        ["focal", "--kind", "loss"],
        f"plugins new focal: empathy-kit {__version__} has a loss of that name, expected another",
    ),
    "no such kind": (["mine", "--kind", "encoder"], "--kind encoder: unknown, expected loss, rationale or head"),
    "the folder exists": (
        ["there", "--kind", "loss"],
        "plugins new there: empathy-kit-there already exists; nothing is overwritten, expected another name or --into",
    ),
    "the place is a file": (
        ["mine", "--kind", "loss", "--into", "a-file"],
        "plugins new mine: a-file/empathy-kit-mine cannot be written: File exists",
    ),
}


@pytest.mark.parametrize("case", CANNOT_BE_WRITTEN)
def test_plugins_new_refuses_in_one_line_and_leaves_nothing_behind(kit: Reply, tmp_path: Path, case: str) -> None:
    (tmp_path / "empathy-kit-there").mkdir()
    (tmp_path / "a-file").write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = CANNOT_BE_WRITTEN[case]
    assert kit("plugins", "new", *arguments) == (2, "", f"Error: {message}\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_plugins_new_on_a_full_disk_leaves_nothing_behind(kit: Reply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = Path.write_text, []

    def full(path: Path, text: str, **how: str) -> int:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return write(path, text, **how)

    monkeypatch.setattr(Path, "write_text", full)
    code, out, err = kit("plugins", "new", "mine", "--kind", "loss")
    assert (code, out) == (2, "")
    assert err == "Error: plugins new mine: empathy-kit-mine cannot be written: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_a_loss_may_bear_the_name_of_a_head(kit: Reply) -> None:
    assert kit("plugins", "new", "focal", "--kind", "head")[0] == 0


@pytest.mark.parametrize(
    "arguments", [["run", "--losss", "ce"], ["runs"], ["data", "check", "extra"], ["run", "-o", "loss.gamma"]]
)
def test_a_flag_or_command_that_is_not_there_ends_with_2_as_everywhere(arguments: list[str], kit: Reply) -> None:
    code, out, err = kit(*arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("Error: ")


# --- doctor ---


def test_doctor_says_how_the_losses_are_computed_and_why(kit: Reply, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, out, err = kit("doctor")
    assert (code, err) == (0, "")
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["versions"].startswith("python 3.")
    assert f"empathy-kit {__version__}, torch " in lines["versions"]
    assert lines["losses on cpu"].startswith(("fused CPU kernel, ", "closed form in torch, no fused kernel: "))

    from empathy_kit.core import kernels

    kernels.find.cache_clear()
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    try:
        code, out, _ = kit("doctor", "--json")
        assert code == 0
        assert json.loads(out)["losses on cpu"] == "closed form in torch, no fused kernel: no C compiler (cc, gcc or clang)"
        assert json.loads(out)["cache"] == str(tmp_path)
        code, _, err = kit("run", "--fused", "on", "--out", "run")
        assert code == 2
        assert err.splitlines()[-1] == (
            "Error: --fused on: no fused kernel for cpu: no C compiler (cc, gcc or clang); expected one, or auto"
        )
        assert not (tmp_path / "run").exists()
    finally:
        kernels.find.cache_clear()
