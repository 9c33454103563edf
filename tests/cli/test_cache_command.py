"""`empathy-kit cache`: what is kept, how much of it, and that nothing but the kit's own files is deleted."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_reply import Reply

from empathy_kit.cache import hold

OURS = (
    "states/0a.npy",
    "states/0b.npy",
    "encoders/mpnet-0123/model.safetensors",
    "epitome-reddit/one.csv",
    "kernels/focal-1-2.so",
)
FOREIGN = (
    "states/notes.txt",
    "encoders/my-own/model.safetensors",
    "encoders/mpnet-0123/deeper/file",
    "kernels/other.so",
    "mine.npy",
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in a folder that is somebody's, who keeps other things there."""
    folder = tmp_path / "kept"
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(folder))
    monkeypatch.delenv("EMPATHY_KIT_STATES_LIMIT", raising=False)
    for name in (*OURS, *FOREIGN):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1024))
    return folder


def left(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_show_names_every_kind_with_its_size(kept: Path, kit: Reply) -> None:
    code, out, err = kit("cache", "show")
    assert (code, err) == (0, "")
    assert f"folder: {kept}\n" in out
    assert "kernels: 1.0 KiB in 1 file; the compiled losses" in out
    assert "as sensitive as the posts" in out
    found = json.loads(kit("cache", "show", "--json")[1])
    assert found["kinds"] == {
        "states": {"files": 2, "bytes": 2048},
        "epitome-reddit": {"files": 1, "bytes": 1024},
        "encoders": {"files": 1, "bytes": 1024},
        "kernels": {"files": 1, "bytes": 1024},
    }
    assert found["folder"] == str(kept)


def test_clear_deletes_one_kind_and_leaves_the_others(kept: Path, kit: Reply) -> None:
    assert kit("cache", "clear", "states", "--yes") == (0, "deleted: 2 files, 2.0 KiB\n", "")
    assert left(kept) == {*FOREIGN, *OURS[2:]}
    assert kit("cache", "clear", "states", "--yes") == (0, "nothing to delete\n", "")


def test_clearing_everything_leaves_what_is_not_the_kits(kept: Path, kit: Reply) -> None:
    outside = kept.parent / "outside"
    outside.mkdir()
    (outside / "focal-3.so").touch()
    (kept / "kernels" / "linked").symlink_to(outside)
    assert kit("cache", "clear", "--all", "--yes")[0] == 0
    assert left(kept) == set(FOREIGN)
    assert (outside / "focal-3.so").exists()


def test_clear_asks_first(kept: Path, kit: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, err = kit("cache", "clear", "--all")
    assert code == 1
    assert err.startswith(f"Delete 5.0 KiB in 5 files of states, epitome-reddit, encoders, kernels in {kept}? [y/N]: ")
    assert left(kept) == {*FOREIGN, *OURS}


@pytest.mark.skipif(sys.platform == "win32", reason="there, what is open cannot be deleted")
def test_states_that_a_run_uses_stay(kept: Path, kit: Reply) -> None:
    path = kept / "states" / "0a.npy"
    with path.open("rb") as stream:
        hold(stream, path)
        code, out, err = kit("cache", "clear", "states", "--yes")
    assert (code, out) == (0, "deleted: 1 file, 1.0 KiB\n")
    assert err == f"left alone, in use or not to be deleted: {path}\n"
    assert path.exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "which?"),
        (("states", "--all"), "which?"),
        (("models",), "models: no such kind"),
        (("\x1b[2J",), r"\x1b[2J: no such kind"),
    ],
)
def test_what_to_clear_must_be_known(kept: Path, kit: Reply, arguments: tuple[str, ...], problem: str) -> None:
    expected = f"Error: cache clear {problem}; expected states, epitome-reddit, encoders, kernels, or --all\n"
    assert kit("cache", "clear", *arguments) == (2, "", expected)
    assert left(kept) == {*FOREIGN, *OURS}
