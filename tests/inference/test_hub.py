"""A model goes to the hub in one commit and comes back byte for byte, and whatever is wrong on the way is one line."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from folders import data, files
from hub_stand_in import OWNER, Hub, serving
from huggingface_hub import constants

import empathy_kit
from empathy_kit import KitError
from empathy_kit.cli import cli
from empathy_kit.inference import hub as hub_module
from empathy_kit.inference.hub import fetch
from empathy_kit.inference.upload import contents, publish
from empathy_kit.plugins import load_registry
from empathy_kit.runs.load import Loaded

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, where it uploads by LFS

NAME = "me/model"
PAIR = ("I failed my exam and I feel lost.", "That sounds so hard. Have you talked to anyone?")


def test_a_run_comes_back_from_the_hub_and_predicts_the_same(hub: Hub, marking_run: Path) -> None:
    done = publish(contents(marking_run, NAME, licence="mit"), NAME, token=OWNER)
    repo = hub.repos[NAME]
    assert repo.messages == ["initial commit", f"Publish a model of empathy-kit {empathy_kit.__version__}"]  # one commit
    sent = data(marking_run)
    assert set(repo.main) == sent | {"README.md", ".gitattributes"}
    weights = (marking_run / "model" / "model.safetensors").read_bytes()
    assert list(hub.stored.values()) == [weights]  # by LFS, and nothing else
    assert not repo.private

    model = empathy_kit.load(f"hub:{NAME}")
    assert model.about["hub"] == f"{NAME}@{done}"
    folder = fetch(NAME)
    assert folder == Path(constants.HF_HUB_CACHE) / "models--me--model" / "snapshots" / done
    assert files(folder) == sent  # neither the card nor the hub's own file is needed
    local = empathy_kit.load(marking_run)
    assert model.predict([PAIR]) == local.predict([PAIR])
    assert model.temperatures == local.temperatures


def test_an_export_comes_back_from_the_hub_and_predicts_the_same_with_and_without_a_network(
    hub: Hub, marking_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = publish(contents(marking_export, NAME, licence="mit"), NAME, token=OWNER)
    expected = empathy_kit.load(marking_export).predict([PAIR])
    assert empathy_kit.load(f"hub:{NAME}").predict([PAIR]) == expected
    assert files(fetch(NAME)) == files(marking_export)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    for name in (NAME, f"{NAME}@{done}"):
        copy = empathy_kit.load(f"hub:{name}")
        assert copy.predict([PAIR]) == expected
        assert copy.about["hub"] == f"{NAME}@{done}"
    assert hub.requests == []


def test_a_published_run_is_exported_as_its_folder_is(hub: Hub, response_run: Path, tmp_path: Path) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="the onnx extra is not installed")
    done = publish(contents(response_run, NAME), NAME, token=OWNER)
    for name, out in ((f"hub:{NAME}@{done}", "there"), (str(response_run), "here")):
        CliRunner().invoke(cli, ["export", name, "--out", str(tmp_path / out), "--no-scores"], catch_exceptions=False)
    there, here = (empathy_kit.load(tmp_path / out) for out in ("there", "here"))
    assert there.predict([PAIR]) == here.predict([PAIR])
    assert there.about["title"] == here.about["title"]


def test_no_data_are_read_or_fetched_that_a_published_record_names(
    hub: Hub, response_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason="the onnx extra is not installed")
    publish(contents(response_run, NAME), NAME, token=OWNER)
    read: list[str] = []
    module = importlib.import_module("empathy_kit.inference.export")
    load, load_corpus = module.load, module.load_corpus

    def reading(name: str, *more: Any) -> Any:
        read.append(name)
        return load_corpus(name, *more)

    monkeypatch.setattr(module, "load_corpus", reading)
    monkeypatch.setattr(module, "load", lambda *given, **how: of_reddit(load(*given, **how)))
    done = module.export(f"hub:{NAME}", tmp_path / "there", load_registry())
    assert done.warnings[-1] == "scores are not compared: the data of a run from the hub are not here"
    assert read == ["sample"]  # whose posts stand in for them
    publish(contents(tmp_path / "there", NAME), NAME, token=OWNER)
    with pytest.raises(KitError, match=f"^hub:{NAME}: an exported model already; give the run that it was made from$"):
        module.export(f"hub:{NAME}", tmp_path / "again", load_registry())


def of_reddit(loaded: Loaded) -> Loaded:
    return replace(loaded, record=replace(loaded.record, config={**loaded.record.config, "data": "reddit"}))


def test_the_clients_own_variables_decide_where_it_looks_and_a_copy_is_read_without_a_network(
    tmp_path: Path, marking_run: Path
) -> None:
    (tmp_path / "token").write_text(f"{OWNER}\n")
    write_name = "import sys; from empathy_kit.inference.hub import fetch; sys.stdout.write(str(fetch(sys.argv[1])))"

    def ran(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in ("HF_HUB_OFFLINE", "HF_TOKEN")}
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", **variables}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)

    with serving() as hub:
        there = {"HF_ENDPOINT": hub.endpoint}
        sent = ran("-m", "empathy_kit", "publish", marking_run, NAME, "--private", "--token-file", "token", **there)
        assert (sent.returncode, sent.stderr) == (0, "")
        commit = hub.repos[NAME].branches["main"]
        assert sent.stdout == f"published hub:{NAME}@{commit}\n"
        assert hub.repos[NAME].private
        first = ran("-c", write_name, NAME, HF_TOKEN=OWNER, **there)
        assert first.returncode == 0, first.stderr
    again = ran("-c", write_name, NAME, HF_HUB_OFFLINE="1", **there)
    assert again.stdout == first.stdout == str(tmp_path / "home" / "hub" / "models--me--model" / "snapshots" / commit)
    assert files(Path(again.stdout)) == data(marking_run)
    other = ran("-c", "from empathy_kit.inference.hub import fetch; fetch('me/other')", HF_HUB_OFFLINE="1", **there)
    assert other.stderr.splitlines()[-1] == (
        f"empathy_kit.errors.KitError: hub:me/other: no complete copy in {tmp_path / 'home' / 'hub'}, and HF_HUB_OFFLINE "
        "prevents a download; unset it"
    )


@pytest.mark.parametrize("name", ["model", "a/b/c", "me/../x", "me/m odel", "/model", "me/", "me/-x", "me/x.git"])
def test_a_name_that_the_hub_does_not_take_is_refused_before_anything_is_asked(name: str, hub: Hub, marking_run: Path) -> None:
    reason = f"{name!r}: not a valid name on the hub; expected user/name of letters, digits, '-', '_' and '.'"
    for attempt in (lambda: contents(marking_run, name), lambda: fetch(name)):
        with pytest.raises(KitError) as error:
            attempt()
        assert str(error.value) == reason
    assert hub.requests == []


@pytest.mark.parametrize("revision", ["../x", "a..b", "-x", "x y", "x" * 300])
def test_so_is_what_is_no_revision(revision: str, hub: Hub) -> None:
    with pytest.raises(KitError) as error:
        fetch(f"{NAME}@{revision}")
    assert str(error.value) == f"{revision!r}: not a valid revision; expected a branch, a tag or a commit"
    with pytest.raises(KitError) as error:
        fetch(f"{NAME}@")
    assert str(error.value) == f"hub:{NAME}@: nothing follows the @; give a branch, a tag or a commit"
    assert hub.requests == []


def test_a_model_that_cannot_be_had_is_one_line(hub: Hub, marking_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(contents(marking_run, "me/secret"), "me/secret", private=True, token=OWNER)
    publish(contents(marking_run, NAME), NAME, token=OWNER)
    private = "no such model, or one that is private; log in with `hf auth login` if it is yours"
    for name, reason in {
        "me/secret": private,
        "me/nothing": private,
        f"{NAME}@v9": "no such revision; expected a branch, a tag or a commit",
        f"{NAME}@{'0' * 40}": "no such revision; expected a branch, a tag or a commit",
    }.items():
        with pytest.raises(KitError) as error:
            fetch(name)
        assert str(error.value) == f"hub:{name}: cannot be loaded: {reason}"
    for status, reason in {
        403: "your token does not allow it; use one with write access to that user or organisation",
        429: "the hub received too many requests; try again later",
        503: "the hub answers with status 503; try again later",
    }.items():
        hub.status = status
        with pytest.raises(KitError) as error:
            fetch(NAME)
        assert str(error.value) == f"hub:{NAME}: cannot be loaded: {reason}"
    hub.status = None

    hub.silent = threading.Event()
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    for attempt, what in ((fetch, f"hub:{NAME}: cannot be loaded"), (_publishing(marking_run), f"{NAME}: cannot be published")):
        with pytest.raises(KitError) as error:
            attempt(NAME)
        assert str(error.value) == f"{what}: {hub.endpoint} does not answer (ReadTimeout)"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(KitError) as error:
        _publishing(marking_run)(NAME)
    assert str(error.value) == f"{NAME}: cannot be published: HF_HUB_OFFLINE is set; unset it"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(KitError) as error:
        fetch(NAME)
    assert str(error.value) == f"hub:{NAME}: cannot be loaded: http://127.0.0.1:9 does not answer (ConnectError)"


def _publishing(run: Path) -> Callable[[str], object]:
    return lambda name: publish(contents(run, name), name, token=OWNER)


def test_nothing_but_listed_data_is_ever_downloaded(hub: Hub, marking_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(contents(marking_run, NAME), NAME, token=OWNER)
    repo = hub.repos[NAME]
    good = dict(repo.main)

    def becomes(changed: dict[str, bytes | None]) -> str:
        repo.commit("main", {name: content for name, content in {**good, **changed}.items() if content is not None}, "theirs")
        hub.requests.clear()
        with pytest.raises(KitError) as error:
            fetch(NAME)
        return str(error.value)

    def listing(name: str) -> bytes:
        return json.dumps({"sha256": {**json.loads(good["manifest.json"])["sha256"], name: "0" * 64}}).encode()

    for name in ("model/head.py", "pytorch_model.bin", "model/x.pkl", "../up.json", "/etc/x.json", "a/b.json", "model/../x.json"):
        reason = f"hub:{NAME}: its manifest lists {name!r}; expected only data, no code and no pickle"
        assert becomes({"manifest.json": listing(name), name: b""}) == reason
        assert hub.asked("resolve") == hub.asked("manifest.json") != []
    missing = f"hub:{NAME}: model/more.json is missing, but the manifest lists it"
    assert becomes({"manifest.json": listing("model/more.json")}) == missing
    foreign = f"hub:{NAME}: not a model published by empathy-kit; manifest.json is"
    assert becomes({"manifest.json": None}) == f"{foreign} missing"
    for content in (b"[]", b"{", b'{"sha256": {"run.json": 1}}', b"[" * 100_000, b"\xff"):
        assert becomes({"manifest.json": content}) == f"{foreign} not a list of hashes"
    assert becomes({"manifest.json": b" " * (2**20 + 1)}) == (
        f"hub:{NAME}: manifest.json has 1,048,577 bytes, expected at most 1,048,576"
    )
    assert hub.asked("resolve") == []
    monkeypatch.setattr(hub_module, "MOST_BYTES", 1000)
    assert becomes({}).endswith(" bytes in all, expected at most 1,000")
    assert hub.asked("resolve") == []


def test_what_lies_in_the_repository_besides_stays_there(hub: Hub, marking_run: Path) -> None:
    publish(contents(marking_run, NAME), NAME, token=OWNER)
    repo = hub.repos[NAME]
    repo.commit("main", {**repo.main, "evil.py": b"", "pytorch_model.bin": b"", "README.md": b"edited"}, "theirs")
    assert files(fetch(NAME)) == data(marking_run)
    publish(contents(marking_run, NAME), NAME, token=OWNER)
    assert {"evil.py", "pytorch_model.bin"} <= set(repo.main)


def test_a_damaged_byte_is_found_there_and_in_the_copy_here(hub: Hub, marking_run: Path) -> None:
    publish(contents(marking_run, NAME), NAME, token=OWNER)
    folder = fetch(NAME)
    copy = Path(constants.HF_HUB_CACHE) / "models--me--model"
    weights = (folder / "model" / "model.safetensors").resolve()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    reason = "changed after the run (sha256 differs from the manifest)"
    with pytest.raises(KitError) as error:
        empathy_kit.load(f"hub:{NAME}")
    path = folder / "model" / "model.safetensors"
    assert str(error.value) == f"hub:{NAME}: damaged: {path}: {reason}; delete {copy} and load it again"
    shutil.rmtree(copy)
    assert fetch(NAME) == folder

    repo = hub.repos[NAME]
    oid = repo.commit("main", {**repo.main, "model/calibration.json": b"{}"}, "theirs")
    with pytest.raises(KitError) as error:
        fetch(NAME)
    path = copy / "snapshots" / oid / "model" / "calibration.json"
    assert str(error.value) == f"hub:{NAME}: damaged: {path}: {reason}; delete {copy} and load it again"
