"""The Containerfile, the systemd unit and the page about them do what they say, as far as it can be tried without either."""

from __future__ import annotations

import configparser
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from asked import running
from small_runs import train

import empathy_kit
from empathy_kit.cli import TRAIN
from empathy_kit.cli.serve import serve
from empathy_kit.service.messages import MOST_BYTES
from empathy_kit.service.served import Served

ROOT = Path(__file__).parents[2]


def steps() -> list[tuple[str, str]]:
    """The Containerfile's instructions: name and rest, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def only(name: str) -> str:
    (found,) = [rest for step, rest in steps() if step == name]
    return found


def test_the_containers_files_are_there_and_what_it_installs_is_offered() -> None:
    copied = [shlex.split(rest)[:-1] for step, rest in steps() if step == "COPY"]
    assert all((ROOT / name).exists() for names in copied for name in names)
    install = next(rest for step, rest in steps() if step == "RUN" and "pip install" in rest)
    (target,) = re.findall(r"'\.\[(\w+)\]'", install)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert target in extras
    assert "--constraint constraints.txt" in install
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= {name for names in copied for name in names}  # the build reads them


LIBRARIES = sysconfig.get_path("purelib")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # pip reads the last as: no isolation


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The container's files after its steps, below a folder. They are run offline: the dependencies are those of the tests."""
    pytest.importorskip("hatchling", reason="what builds the wheel is not installed")
    root = tmp_path_factory.mktemp("container")
    (root / "opt").mkdir()
    folder, path = root, os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    for step, rest in steps():
        if step == "WORKDIR":
            folder = root / rest.strip("/")
            folder.mkdir(exist_ok=True)
        elif step == "COPY":
            *sources, target = shlex.split(rest)
            for name in sources:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, folder / target)
        elif step == "RUN" and not rest.startswith("useradd "):  # it would be a user of this machine
            command = re.sub(r"(?<![\w.])/(?=opt/|src/)", f"{root}/", rest)
            subprocess.run(["sh", "-ec", command], cwd=folder, env={"PATH": path, "PYTHONPATH": LIBRARIES, **OFFLINE}, check=True)
    return root


def test_the_containers_steps_install_the_kit_and_leave_no_source(installed: Path) -> None:
    assert list((installed / "src").iterdir()) == []
    where = "import empathy_kit; print(empathy_kit.__file__)"
    found = subprocess.run(
        [installed / "opt/empathy-kit/bin/python", "-c", where],
        env={"PYTHONPATH": LIBRARIES},
        cwd=installed,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Path(found).is_relative_to(installed / "opt" / "empathy-kit")


def test_the_container_is_no_root_before_it_starts() -> None:
    names = [step for step, _ in steps()]
    assert only("USER") == "10001"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert not [rest for step, rest in steps()[names.index("USER") :] if step in ("RUN", "COPY", "ADD")]


@pytest.fixture(scope="module")
def exported(each_graph_once: None, tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small exported model, the one of tests/inference."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="the onnx extra is not installed")
    from empathy_kit.inference.export import export
    from empathy_kit.plugins import load_registry

    folder = tmp_path_factory.mktemp("served")
    run = train(folder / "run", tiny_roberta, rationale="predicted", head="attention")
    return export(run, folder / "model", load_registry(), scores=False).folder


def test_a_runs_folder_is_served_with_torch_as_its_export_is_without(exported: Path) -> None:
    replies = []
    for folder in (exported.parent / "run", exported):
        with running(model=empathy_kit.load(folder)) as asked:
            replies.append(asked.predict({"seeker_post": "I am sad.", "response_post": "I am so sorry. What happened?"}).json)
            about = asked("/v1/model").json
            assert about["record"]["config"]["rationale"] == "predicted"
            assert about["precision"] == ("float32" if folder == exported else None)
            card = asked("/v1/model/card")
            assert (card.status, card.headers["content-type"]) == (200, "text/markdown; charset=utf-8")
    (trained,), (graph,) = (reply["predictions"] for reply in replies)
    for task, answer in trained["tasks"].items():
        assert graph["tasks"][task]["label"] == answer["label"]
        assert graph["tasks"][task]["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-4)


def test_a_served_card_is_that_of_what_is_served_under_no_name_that_it_does_not_have(exported: Path) -> None:
    run, graph = (empathy_kit.load(folder) for folder in (exported.parent / "run", exported))
    assert "\n## Export\n" not in Served(run, None).card()
    local = Served(graph, exported).card()
    assert "\n| `precision` | `float32` |\n" in local
    assert "How to load it" not in local
    published = replace(graph, about={**graph.about, "hub": f"me/model@{'0' * 40}"})
    card = Served(published, None).card()
    assert '\nmodel = empathy_kit.load("hub:me/model")\n' in card
    assert "0" * 40 not in card


def no_writes() -> None:
    """No file of this process may grow: what a read-only file system would refuse fails here too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_the_containers_command_serves_a_model_and_writes_nothing(installed: Path, exported: Path) -> None:
    command = [*json.loads(only("ENTRYPOINT")), *json.loads(only("CMD"))]
    arguments = [str(exported) if part == "/model" else part for part in command[1:]]
    port = arguments.index("--port") + 1
    assert only("EXPOSE") == arguments[port]
    arguments[port] = "0"
    environment = dict(pair.split("=") for pair in only("ENV").split())
    given = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "TMPDIR": "/nonexistent", **environment}
    with subprocess.Popen(
        [installed / command[0].strip("/"), *arguments],
        env=given | {"PYTHONPATH": LIBRARIES},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=no_writes,
    ) as process:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        served = re.search(r"http://0\.0\.0\.0:(\d+)", line)
        assert served, line + process.stderr.read()
        body = json.dumps({"pairs": [{"seeker_post": "I am sad.", "response_post": "I am sorry."}]}).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{served[1]}/v1/predict", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=60) as reply:
            assert list(json.load(reply)["predictions"][0]["tasks"]) == ["ER", "EX", "IP"]
        with urllib.request.urlopen(f"http://127.0.0.1:{served[1]}/v1/model/card", timeout=60) as reply:
            assert reply.read().startswith(b"---\n")
        libraries = Path(f"/proc/{process.pid}/maps").read_text("utf-8")
        assert "onnxruntime" in libraries
        assert [name for name in TRAIN if f"/{name}/" in libraries] == []
        health = re.search(r"CMD (\[.*\])", only("HEALTHCHECK"))
        assert health
        probe = [sys.executable, *json.loads(health[1])[1:]]
        assert subprocess.run([each.replace(":8000", f":{served[1]}") for each in probe], check=False).returncode == 0
        process.terminate()
        assert process.wait(60) == 0
        said = [line for line in process.stderr.read().splitlines() if "[W:onnxruntime" not in line]  # of some machines
    assert [line.partition(":")[0] for line in said] == ["warning"] * 2  # that others can reach it, and without a token


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit() -> Any:
    parser = _Unit(strict=False)
    parser.read_string((ROOT / "docs" / "empathy-kit.service").read_text("utf-8"))
    return parser


def test_the_unit_runs_as_nobody_on_a_read_only_system_and_stops_within_its_time() -> None:
    from empathy_kit.service import server
    from empathy_kit.service.app import Settings

    service = unit()["Service"]
    assert (service["DynamicUser"], service["ProtectSystem"], service["NoNewPrivileges"]) == ("yes", "strict", "yes")
    assert (service["CapabilityBoundingSet"], service["IPAddressDeny"]) == ("", "any")
    assert (service["PrivateUsers"], service["SystemCallErrorNumber"]) == ("yes", "EPERM")
    stop = server.configuration(None, deadline=Settings().deadline).timeout_graceful_shutdown
    assert stop is not None
    assert float(service["TimeoutStopSec"]) == Settings().deadline + 30 > stop + server.DRAIN_SECONDS


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "empathy-kit.service").read_text("utf-8").replace("/opt/empathy-kit/bin/empathy-kit", "/bin/true")
    path = tmp_path / "empathy-kit.service"
    path.write_text(text)
    changes = re.search(r"```\n(\[Service\]\n.*?)```", (ROOT / "docs" / "service.md").read_text("utf-8"), re.DOTALL)
    assert changes
    folder = tmp_path / "empathy-kit.service.d"
    folder.mkdir()
    (folder / "override.conf").write_text(changes[1].replace("/opt/empathy-kit/bin/empathy-kit", "/bin/true"))
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False)
    assert "empathy-kit.service" not in checked.stderr


def runs_of_the_container() -> list[list[str]]:
    """What the documented runs of the container give to its command: what follows the image's name, or else the usual options."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "docs" / "service.md").read_text("utf-8"))
    runs = [shlex.split(line) for line in text.splitlines() if line.startswith("podman run")]
    return [run[run.index("empathy-kit") + 1 :] or json.loads(only("CMD")) for run in runs]


def test_every_documented_run_of_the_container_can_be_reached_from_outside_it() -> None:
    assert len(runs_of_the_container()) == 2
    for options in runs_of_the_container():
        context = serve.make_context("serve", [*json.loads(only("ENTRYPOINT"))[2:], *options])
        assert (context.params["host"], context.params["allow_remote"]) == ("0.0.0.0", True)


def test_the_documented_secrets_are_ones_that_the_server_accepts() -> None:
    text = (ROOT / "docs" / "service.md").read_text("utf-8")
    assert f"--secret empathy-kit,mode=0400,uid={only('USER')}" in text
    assert re.findall(r"LoadCredential=(\w+):", text) == re.findall(r"--token-file %d/(\w+)", text) == ["token"]


def test_the_documented_proxy_writes_no_body_to_a_disk() -> None:
    text = (ROOT / "docs" / "service.md").read_text("utf-8")
    assert f"client_max_body_size {MOST_BYTES // 2**20}m;\n    client_body_buffer_size {MOST_BYTES // 2**20}m;" in text


def documented() -> list[str]:
    lines = (ROOT / "docs" / "service.md").read_text("utf-8").splitlines() + (ROOT / "README.md").read_text("utf-8").splitlines()
    found = [line.removeprefix("$ ") for line in lines if line.removeprefix("$ ").startswith("empathy-kit serve")]
    return sorted({*found, unit()["Service"]["ExecStart"].rpartition("/bin/")[2]})


@pytest.mark.parametrize("command", documented())
def test_every_documented_command_is_one_that_there_is(command: str) -> None:
    context = serve.make_context("serve", shlex.split(command)[2:])
    assert context.params["model"]


def test_the_page_about_it_lists_every_path_and_every_code() -> None:
    from typing import get_args

    from empathy_kit.service.messages import Fault

    text = (ROOT / "docs" / "service.md").read_text("utf-8")
    codes = set(get_args(Fault.model_fields["code"].annotation)) - {"not_found", "method_not_allowed", "not_ready"}
    assert {code for code in codes if f"`{code}`" not in text} == set()
    with running() as asked:
        paths = asked("/openapi.json").json["paths"]
    assert [path for path in paths if f"| `{path}` |" not in text] == []
