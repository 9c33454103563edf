"""What an encoder's name stands for: the base-size encoder comes in parts, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from empathy_kit import encoders
from empathy_kit.encoders import MPNET_ADVICE, MPNET_HUB, MPNET_PARTS, MPNET_REPAIR, EncoderSource, encoder_source
from empathy_kit.errors import KitError

NAMES = list(MPNET_PARTS)
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


def expect(parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts as they are now are the published ones."""
    content = {name: path.read_bytes() for name, path in parts.items()}
    monkeypatch.setattr(encoders, "MPNET_SHA256", hashlib.sha256(b"".join(content.values())).hexdigest())
    monkeypatch.setattr(encoders, "MPNET_PARTS", {name: hashlib.sha256(part).hexdigest() for name, part in content.items()})


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
    expect(found, monkeypatch)
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


def test_what_killed_processes_left_is_removed_and_what_others_write_stays(parts: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "encoders"
    old, young = folder / ".mpnet-0.partial-00000000", folder / ".mpnet-0.partial-11111111"
    for path in (old, young):
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(b"half")
    os.utime(old, (0, 0))
    unpacked = Path(encoder_source("mpnet").location)
    assert set(folder.iterdir()) == {young, unpacked}
    assert stat.S_IMODE(unpacked.stat().st_mode) == 0o700


def test_another_process_may_unpack_it_at_the_same_time(parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the faster one has put there is in use: the slower one must not replace it."""
    join = encoders._join
    faster: list[tuple[str, int]] = []

    def overtaken(*given: Any) -> None:
        if not faster:
            faster.append(("", 0))
            location = encoder_source("mpnet").location
            faster.append((location, Path(location).stat().st_ino))
        join(*given)

    monkeypatch.setattr(encoders, "_join", overtaken)
    location = encoder_source("mpnet").location
    assert (location, Path(location).stat().st_ino) == faster[-1]
    assert [path.name for path in Path(location).parent.iterdir()] == [Path(location).name]


def test_parts_that_are_missing_are_named(parts: dict[str, Path], tmp_path: Path) -> None:
    del parts[NAMES[2]]
    parts[NAMES[4]].unlink()
    missing = f"{NAMES[2]}, {NAMES[4]}"
    assert refusal() == f"--encoder mpnet: of its five parts, these are not installed: {missing}; {MPNET_ADVICE}"
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"?" + data[1:], lambda data: b""]
)
def test_a_part_that_was_altered_is_named(parts: dict[str, Path], tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = parts[NAMES[3]]
    path.write_bytes(change(path.read_bytes()))
    assert refusal() == f"--encoder mpnet: altered since they were published: {NAMES[3]}; {MPNET_REPAIR}"
    assert not any((tmp_path / "cache" / "encoders").iterdir())


def test_a_part_that_cannot_be_read_is_named(parts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = parts[NAMES[1]]
    monkeypatch.setattr(encoders.os.path, "isfile", lambda _: True)
    path.unlink()
    path.mkdir()
    assert refusal() == f"--encoder mpnet: {NAMES[1]}: {path} cannot be read: Is a directory"


def test_an_archive_without_a_file_that_is_needed_is_refused(parts: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive({name: part for name, part in CONTENT.items() if name != "tokenizer.json"})
    for number, path in enumerate(parts.values()):
        path.write_bytes(data if number == 0 else b"")
    expect(parts, monkeypatch)
    assert refusal() == f"--encoder mpnet: the parts hold no tokenizer.json; {MPNET_REPAIR}"


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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The hosts and ports to which a connection was tried: each answers, and no proxy stands before them."""
    hosts: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> SimpleNamespace:
        address[0].encode("idna")  # as the real one does
        hosts.append(address)
        return SimpleNamespace(close=lambda: None)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(encoders.urllib.request, "getproxies", dict)
    monkeypatch.setattr(encoders.socket, "create_connection", connect)
    return hosts


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        (None, ("huggingface.co", 443)),
        ("https://mirror.example/hub", ("mirror.example", 443)),
        ("http://mirror.example", ("mirror.example", 80)),
        ("http://[::1]:8080/", ("::1", 8080)),
    ],
)
def test_the_hub_is_asked_where_the_environment_has_it(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, endpoint: str | None, host: tuple[str, int]
) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False) if endpoint is None else monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert not encoder_source("someone/encoder").local
    assert asked == [host]


@pytest.mark.parametrize(
    "endpoint",
    ["", "mirror.example", "ftp://mirror.example", "http://:80", "https://mirror.example:port", "http://[::1", "http://a..b"],
)
def test_an_endpoint_that_is_no_url_is_refused(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(KitError) as error:
        encoder_source("someone/encoder")
    assert str(error.value) == f"HF_ENDPOINT {endpoint}: expected a URL such as https://huggingface.co"
    assert asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_of_the_endpoints_own_scheme_is_left_to_find_it(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setattr(encoders.urllib.request, "getproxies", lambda: {"https": "proxy:3128"})
    monkeypatch.setenv("HF_ENDPOINT", f"{scheme}://mirror.example")
    assert not encoder_source("someone/encoder").local
    assert asked == ([] if scheme == "https" else [("mirror.example", 80)])
