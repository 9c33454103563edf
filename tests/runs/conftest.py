"""Fixtures of the tests of runs: the command line in this process, one run for many tests, and words that must not leak."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_run import make_run, scored
from run_world import Said, configuration, words

import empathy_kit
from empathy_kit import cli, files
from empathy_kit.config import RunConfig, to_dict
from empathy_kit.data.sources import load_corpus
from empathy_kit.plugins import load_registry
from empathy_kit.runs.train import run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command line, in this process: importing torch anew for each would cost more than the runs."""
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))  # what the command sets is unset after the test
    monkeypatch.setenv("COLUMNS", "250")

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["empathy-kit", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        assert isinstance(code, int)
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def first(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A run with options, of two epochs, and its events; a test that would change its files copies them."""
    folder = tmp_path_factory.mktemp("first") / "run"
    options = {"loss.gamma": 1.5, "loss.ER.gamma": 3}
    config = configuration(tiny_roberta, loss="focal", epochs=2, seed=7, options=options)
    return folder, list(run(config, load_registry(), folder))


@pytest.fixture(scope="session")
def post_words(tiny_roberta: Path) -> set[str]:
    """Words of the sample's posts that the kit's own source and the encoder's configuration do not use."""
    posts = words(" ".join(text for pair in load_corpus("sample").pairs for text in (pair.seeker, pair.response)))
    own = [*Path(empathy_kit.__file__).parent.rglob("*.py"), tiny_roberta / "config.json"]
    found = posts - set().union(*(words(path.read_text(encoding="utf-8")) for path in own))
    assert len(found) > 1000
    return found


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, a damaged one, one in a comparison, an unfinished one, and what is no run."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    make_run(folder / "a", scored())
    other: dict[str, Any] = {"kit": "0.2.0", "split": {"kind": "grouped", "sha256": "6" * 64}}
    make_run(folder / "b", scored(0.75, config=to_dict(RunConfig(loss="ce", epochs=2)), **other))
    (make_run(folder / "bad", scored()) / "model" / "weights").write_bytes(b"")
    (folder / "many").mkdir()
    (folder / "many" / "comparison.json").write_text("{}")
    make_run(folder / "many" / "runs" / "T1-0", scored())
    partial = folder / "slow.partial"
    partial.mkdir()
    (partial / files.LOCK).touch()
    (partial / "checkpoint").write_bytes(bytes(1000))
    (folder / "notes").mkdir()
    (folder / "notes" / "run.txt").write_text("mine")
    (folder / "foreign.partial").mkdir()
    (folder / "foreign.partial" / "file").write_text("mine")
    return folder


@pytest.fixture
def tree(shelf: Path) -> Callable[[], set[str]]:
    """The names of everything in the folder."""
    return lambda: {path.relative_to(shelf).as_posix() for path in shelf.rglob("*")}
