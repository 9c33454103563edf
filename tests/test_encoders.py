"""What an encoder's name stands for: the base-size encoder comes in parts, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import zipfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from empathy_kit import encoders
from empathy_kit.encoders import MPNET_ADVICE, MPNET_HUB, MPNET_PARTS, EncoderSource, encoder_source
from empathy_kit.errors import KitError

CONTENT = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
    "tokenizer.json": b"[1]",
    "tokenizer_config.json": b"{ }",
}


def archive(content: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in content.items():
            file.writestr(f"all-mpnet-base-v2/{name}", data)
        file.writestr("all-mpnet-base-v2/1_Pooling/config.json", b"not this one")
        file.writestr("../outside.txt", b"nor this")
    return stream.getvalue()


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Five installed packages that carry a small archive, in a world where the kit expects just that one and no hub answers."""
    data = archive(CONTENT)
    size = -(-len(data) // 5)
    found = {}
    for number, name in enumerate(MPNET_PARTS):
        path = tmp_path / "site" / f"{name[:-4]}_{name[-3:]}" / "input" / f"all-mpnet-base-v2.zip.{name[-3:]}"
        path.parent.mkdir(parents=True)
        path.write_bytes(data[number * size : (number + 1) * size])
        found[name] = path

    def distribution(name: str) -> Any:
        if name not in found:
            raise PackageNotFoundError(name)
        return SimpleNamespace(locate_file=lambda file: tmp_path / "site" / file)

    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoders, "distribution", distribution)
    monkeypatch.setattr(encoders, "MPNET_SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setattr(encoders, "MPNET_FILES", {name: hashlib.sha256(part).hexdigest() for name, part in CONTENT.items()})
    return found


def refusal() -> str:
    with pytest.raises(KitError) as error:
        encoder_source("mpnet")
    (line,) = str(error.value).splitlines()
    return line


def test_the_parts_are_unpacked_once_and_only_what_an_encoder_consists_of(parts: dict[str, Path], tmp_path: Path) -> None:
    source = encoder_source("mpnet")
    folder = Path(source.location)
    assert source.local
    assert folder.parent == tmp_path / "cache" / "encoders"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not list(tmp_path.rglob("outside.txt"))
    written = (folder / "config.json").stat().st_mtime_ns
    parts.clear()  # not needed any more
    assert encoder_source("mpnet") == source
    assert (folder / "config.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("name", CONTENT)
def test_a_damaged_copy_is_unpacked_anew(parts: dict[str, Path], name: str) -> None:
    path = Path(encoder_source("mpnet").location) / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    encoder_source("mpnet")
    assert path.read_bytes() == CONTENT[name]


def test_a_part_that_is_missing_is_named(parts: dict[str, Path], tmp_path: Path) -> None:
    del parts[MPNET_PARTS[2]]
    assert refusal() == f"--encoder mpnet: {MPNET_PARTS[2]} 0.0.1 is not installed, and the other parts are; {MPNET_ADVICE}"
    assert not (tmp_path / "cache").exists()


def test_a_part_that_was_altered_is_not_believed(parts: dict[str, Path], tmp_path: Path) -> None:
    path = parts[MPNET_PARTS[3]]
    path.write_bytes(path.read_bytes()[:-1])
    line = refusal()
    assert line.startswith("--encoder mpnet: the parts have sha256 ")
    assert line.endswith(f"; install them again: {MPNET_ADVICE}")
    assert not any((tmp_path / "cache" / "encoders").iterdir())


def test_an_archive_without_a_file_that_is_needed_is_refused(parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive({name: part for name, part in CONTENT.items() if name != "tokenizer.json"})
    for number, path in enumerate(parts.values()):
        path.write_bytes(data if number == 0 else b"")
    monkeypatch.setattr(encoders, "MPNET_SHA256", hashlib.sha256(data).hexdigest())
    assert refusal() == f"--encoder mpnet: the parts hold no tokenizer.json; install them again: {MPNET_ADVICE}"


@pytest.mark.parametrize("answers", [True, False])
def test_without_any_part_it_comes_from_the_hub_where_that_answers(
    parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    parts.clear()
    monkeypatch.setattr(encoders, "_hub_answers", lambda: answers)
    if answers:
        assert encoder_source("mpnet") == EncoderSource(MPNET_HUB, local=False)
    else:
        assert refusal() == f"--encoder mpnet: not installed, and the Hugging Face hub does not answer; {MPNET_ADVICE}"
