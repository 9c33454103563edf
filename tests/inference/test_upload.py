"""What is published of a run or an export, how it gets to the hub, and what is not published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from folders import altered, data, exported, files, rewritten
from hub_stand_in import OWNER, READER, Hub
from huggingface_hub import ModelCard

import empathy_kit
from empathy_kit import KitError
from empathy_kit.cli.evaluate import evaluate
from empathy_kit.cli.publish import publish as command
from empathy_kit.inference.hub import fetch
from empathy_kit.inference.model import digest
from empathy_kit.inference.upload import contents, publish, read_token, write
from empathy_kit.runs import record
from empathy_kit.runs.report import estimate

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the client's own, where it uploads by LFS

NAME = "me/model"
PAIR = ("I failed my exam and I feel lost.", "That sounds so hard. Have you talked to anyone?")


def test_an_exported_folder_is_published_with_its_runs_card(hub: Hub, marking_run: Path, tmp_path: Path) -> None:
    folder = exported(marking_run, tmp_path / "export")
    publish(contents(folder, NAME), NAME, token=OWNER)
    assert set(hub.repos[NAME].main) == files(folder) | {"README.md", ".gitattributes"}
    assert hub.repos[NAME].main["README.md"].decode().count("| `int8` | `True` |") == 1
    fetched = fetch(NAME)
    assert (fetched / "model.onnx").read_bytes() == b"graph" * 1000
    description = json.loads((fetched / "export.json").read_text())
    assert description["record"]["config"]["encoder"] == "tiny-roberta0"  # where that lies is nobody's business
    record.verify(fetched)


def test_scores_on_other_data_are_in_the_card_and_those_of_another_model_are_not(marking_run: Path, tmp_path: Path) -> None:
    table = tmp_path / "forum | x.csv"
    rows = "I failed my exam.,That sounds hard.,1,0,0\nNobody calls me.,I hear you. Why?,1,2,0\n"
    table.write_text(f"seeker_post,response_post,ER,EX,IP\n{rows}", encoding="utf-8")
    done = CliRunner().invoke(evaluate, [str(marking_run), str(table), "--json"])
    file = tmp_path / "forum.json"
    file.write_text(done.stdout)
    found = json.loads(done.stdout)
    out = tmp_path / "card"
    arguments = [str(marking_run), NAME, "--dry-run", str(out), "--evaluation", str(file)]
    assert CliRunner().invoke(command, arguments).exit_code == 0
    page = (out / "README.md").read_text("utf-8")
    assert (
        f"\nforum \\| x: 2 pairs, sha256 `{found['sha256']}`. The model was trained or validated on the seeker posts of 0 "
        in page
    )
    scores = {name: task["scores"] for name, task in found["tasks"].items()}
    keys = ("accuracy", "weighted_f1", "macro_f1", "kappa")
    for name, each in scores.items():
        assert f"| {name} | 2 | {' | '.join(estimate(each[key]) for key in keys)} |\n" in page
    results = [one for one in ModelCard(page).data.eval_results or () if one.dataset_name == "forum | x"]
    assert [(one.dataset_config, one.metric_value) for one in results] == [
        (name, round(each[key]["value"], 4)) for name, each in scores.items() for key in keys[:3]
    ]
    assert "Scores on other data" not in contents(marking_run, NAME)["README.md"].decode()  # type: ignore[union-attr]

    other = exported(marking_run, tmp_path / "export")
    with pytest.raises(KitError) as error:
        contents(other, NAME, evaluations=[file])
    assert str(error.value) == (
        f"--evaluation {file}: of another model (sha256 {found['digest'][:12]}) than the published one ({digest(other)[:12]}); "
        "evaluate the folder that is published"
    )


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "[" * 9000,
        "\x00",
        "{}",
        '{"scored": 2}',
        '{"scored": true, "unseen": null, "data": "x", "sha256": "0", "tasks": {}, "digest": "0"}',
        json.dumps(
            {"scored": 2, "unseen": None, "data": "x", "sha256": "0" * 64, "tasks": {"ER": {"scores": {}}}, "digest": "0"}
        ),
    ],
)
def test_what_is_no_evaluation_is_one_line(marking_run: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(KitError) as error:
        contents(marking_run, NAME, evaluations=[file])
    assert str(error.value) == f"--evaluation {file}: expected what `empathy-kit evaluate MODEL DATA --json` prints"
    with pytest.raises(KitError) as error:
        contents(marking_run, NAME, evaluations=[tmp_path])
    assert str(error.value) == f"--evaluation {tmp_path}: cannot be read: Is a directory"


def test_a_branch_is_made_and_a_commit_stays_what_it_was(hub: Hub, marking_run: Path, tmp_path: Path) -> None:
    first = publish(contents(marking_run, NAME), NAME, token=OWNER)
    second = publish(contents(exported(marking_run, tmp_path / "export"), NAME), NAME, revision="int8", token=OWNER)
    repo = hub.repos[NAME]
    assert repo.branches == {"main": first, "int8": second}
    # The run's files are no longer part of the model, and are deleted; the card is written anew.
    assert set(repo.commits[second]) == {
        ".gitattributes",
        "README.md",
        "export.json",
        "manifest.json",
        "model.onnx",
        "tokenizer.json",
    }
    assert [fetch(f"{NAME}{at}").name for at in ("", "@main", "@int8", f"@{first}")] == [first, first, second, first]
    hub.requests.clear()
    assert fetch(f"{NAME}@{second}").name == second
    assert hub.requests == []


def test_a_dry_run_writes_what_would_be_published_and_the_kit_loads_it(hub: Hub, marking_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    write(contents(marking_run, NAME), out)
    assert hub.requests == []
    assert files(out) == data(marking_run) | {"README.md"}
    (out / "README.md").write_text("edited")  # as people do on the hub
    assert empathy_kit.load(out).predict([PAIR]) == empathy_kit.load(marking_run).predict([PAIR])
    with pytest.raises(KitError) as error:
        write(contents(marking_run, NAME), out)
    assert str(error.value) == f"--dry-run {out}: already exists; use another name"
    held = {**contents(marking_run, NAME), "history.jsonl": tmp_path / "vanished"}
    with pytest.raises(KitError, match=r"--dry-run .*: cannot be written: No such file or directory"):
        write(held, tmp_path / "half")
    assert [path.name for path in tmp_path.iterdir() if "half" in path.name] == []
    reply = CliRunner().invoke(command, [str(marking_run), NAME, "--dry-run", str(tmp_path / "other")])
    assert reply.output == f"{len(files(out))} files in {tmp_path / 'other'}; nothing was uploaded\n"
    with pytest.raises(KitError) as error:
        contents(marking_run, NAME, licence="MIT License")
    assert str(error.value) == (
        "--license 'MIT License': expected one of the hub's identifiers, such as mit, apache-2.0 or cc-by-4.0"
    )


def test_the_hashes_of_the_training_posts_are_kept_back_where_asked(hub: Hub, marking_run: Path, tmp_path: Path) -> None:
    shown, bare = contents(marking_run, NAME), contents(marking_run, NAME, seen=False)
    assert set(shown) - set(bare) == {"model/seen.json"}
    assert [b"seen.json" in card for card in (shown["README.md"], bare["README.md"]) if isinstance(card, bytes)] == [True, False]
    write(bare, tmp_path / "bare")
    assert empathy_kit.load(tmp_path / "bare").seen is None


def test_the_command_keeps_them_back_and_names_the_license_and_the_branch(hub: Hub, marking_run: Path, tmp_path: Path) -> None:
    given = [str(marking_run), NAME, "--without-seen", "--license", "mit"]
    assert CliRunner().invoke(command, [*given, "--dry-run", str(tmp_path / "dry")]).exit_code == 0
    assert files(tmp_path / "dry") == {*data(marking_run), "README.md"} - {"model/seen.json"}
    assert ModelCard((tmp_path / "dry" / "README.md").read_text("utf-8")).data.license == "mit"
    (tmp_path / "access").write_text(OWNER)
    done = CliRunner().invoke(command, [*given, "--revision", "bare", "--token-file", str(tmp_path / "access")])
    commit = hub.repos[NAME].branches["bare"]
    assert done.stdout == f"published hub:{NAME}@{commit}\n"
    assert set(hub.repos[NAME].commits[commit]) == {*files(tmp_path / "dry"), ".gitattributes"}
    assert hub.repos[NAME].main.keys() == {".gitattributes"}


@pytest.mark.parametrize("kind", ["run", "export"])
def test_labels_and_options_are_published_as_they_are(kind: str, marking_run: Path, tmp_path: Path) -> None:
    """Only paths are cut: "/s" and "/srs" are labels of sarcasm and earnest."""
    config = json.loads((marking_run / "run.json").read_text())["config"]
    tasks = [{**task, "labels": ["/", "/s", "/ours/ann"]} for task in config["schema"]["tasks"]]
    options = {"cues.sign": "/", "cues.tag": "/s", "cues.home": "~", "cues.words": "/ours/ann/words.txt", "cues.rate": 0.5}
    config |= {"schema": {"tasks": tasks}, "options": options, "data": "/ours/ann/posts.csv"}
    run = altered(marking_run, tmp_path / "run", rewritten(config=config))

    def with_schema(folder: Path) -> None:
        told = json.loads((folder / "export.json").read_text())
        (folder / "export.json").write_text(json.dumps({**told, "schema": config["schema"]}))

    name = "run.json" if kind == "run" else "export.json"
    export = altered(exported(run, tmp_path / "plain"), tmp_path / "export", with_schema)
    content = contents(run if kind == "run" else export, NAME)[name]
    assert isinstance(content, bytes)
    published = json.loads(content)
    if kind == "export":
        assert published["schema"] == config["schema"]
        published = published["record"]
    assert published["config"]["schema"] == config["schema"]
    assert published["config"]["options"] == {**options, "cues.words": "words.txt"}
    assert published["config"]["data"] == "posts.csv"


def test_what_is_no_model_or_an_oracle_is_not_published(marking_run: Path, tmp_path: Path) -> None:
    def without_model(folder: Path) -> None:
        shutil.rmtree(folder / "model")

    def with_code(folder: Path) -> None:
        (folder / "model" / "head.py").write_text("import os\n")

    oracle = altered(marking_run, tmp_path / "oracle", rewritten(oracle=True))
    bare = altered(marking_run, tmp_path / "bare", without_model)
    code = altered(marking_run, tmp_path / "code", with_code)
    damaged = tmp_path / "damaged"
    shutil.copytree(marking_run, damaged)
    (damaged / "model" / "config.json").write_text("{}")
    recordless = altered(exported(marking_run, tmp_path / "export"), tmp_path / "recordless", lambda folder: _strip(folder))
    for folder, reason in {
        tmp_path / "nothing": "no such folder; expected a run or an exported model",
        oracle: "an ORACLE is not published, because its scores are those of a model that sees annotated spans",
        bare: f"the run has no model; `empathy-kit run --config {bare / 'run.json'} --out NEW` repeats it and keeps its model",
        code / "model/head.py": "this kind of file is not published; expected only data, no code and no pickle",
        damaged / "model/config.json": "changed after the run (sha256 differs from the manifest)",
        recordless / "export.json": "has no record of the run, which the card is made from; export the run again",
    }.items():
        with pytest.raises(KitError) as error:
            contents(next(path for path in (folder, *folder.parents) if path.parent == tmp_path), NAME)
        assert str(error.value) == f"{folder}: {reason}"


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"[" * 100_000])
def test_an_export_whose_description_is_no_json_behind_a_whole_manifest_is_one_line(
    marking_run: Path, tmp_path: Path, content: bytes
) -> None:
    def change(folder: Path) -> None:
        (folder / "export.json").write_bytes(content)

    folder = altered(exported(marking_run, tmp_path / "export"), tmp_path / "changed", change)
    with pytest.raises(KitError) as error:
        contents(folder, NAME)
    assert str(error.value) == f"{folder / 'export.json'}: {record.MALFORMED}"


@pytest.mark.parametrize("name", ["run.json", "export.json", "manifest.json"])
def test_a_byte_order_mark_is_not_published(marking_run: Path, tmp_path: Path, name: str) -> None:
    """A loaded run may have one, so a published one may too."""

    def marked(folder: Path) -> None:
        (folder / name).write_text((folder / name).read_text("utf-8"), encoding="utf-8-sig")

    source = exported(marking_run, tmp_path / "export") if name == "export.json" else marking_run
    folder = altered(source, tmp_path / "changed", marked)
    if name == record.MANIFEST:  # of which the manifest has no hash
        marked(folder)
    held = contents(folder, NAME)
    assert held.keys() == contents(source, NAME).keys()
    told = held[name]
    assert isinstance(told, bytes)
    json.loads(told.decode("utf-8"))


def _strip(folder: Path) -> None:
    (folder / "export.json").write_text(json.dumps({"format": 1, "schema": {}}))


def test_a_repository_that_holds_something_else_or_is_public_is_left_alone(hub: Hub, marking_run: Path) -> None:
    held = contents(marking_run, NAME)
    publish(held, NAME, token=OWNER)
    with pytest.raises(KitError) as error:
        publish(held, NAME, private=True, token=OWNER)
    assert str(error.value) == f"{NAME}: exists and is public; make it private on the hub, or leave --private out"
    hub.repos[NAME].commit("main", {"pytorch_model.bin": b"pickle", ".gitattributes": b""}, "theirs")
    with pytest.raises(KitError) as error:
        publish(held, NAME, token=OWNER)
    assert str(error.value) == f"{NAME}: holds something other than a model of empathy-kit; use another name"
    assert hub.repos[NAME].messages[-1] == "theirs"


def test_two_who_publish_at_once_do_not_mix_their_files(hub: Hub, marking_run: Path) -> None:
    publish(contents(marking_run, NAME), NAME, token=OWNER)
    hub.meanwhile = lambda: hub.repos[NAME].commit("main", {"run.json": b"{}"}, "theirs")
    with pytest.raises(KitError) as error:
        publish(contents(marking_run, NAME, licence="mit"), NAME, token=OWNER)
    assert str(error.value) == f"{NAME}: cannot be published: it was changed meanwhile; try again"
    assert hub.repos[NAME].messages[-1] == "theirs"


@pytest.mark.parametrize(
    ("token", "user", "reason"),
    [
        (None, "me", "the hub does not know you; log in with `hf auth login`, or give --token-file"),
        ("hf_wrong_secret", "me", "the hub does not know you; log in with `hf auth login`, or give --token-file"),
        (READER, "me", "your token does not allow it; use one with write access to that user or organisation"),
        (OWNER, "you", "your token does not allow it; use one with write access to that user or organisation"),
    ],
)
def test_who_may_not_write_is_told_so_and_no_token_is_shown(
    token: str | None, user: str, reason: str, hub: Hub, marking_run: Path
) -> None:
    with pytest.raises(KitError) as error:
        publish(contents(marking_run, f"{user}/model"), f"{user}/model", token=token)
    assert str(error.value) == f"{user}/model: cannot be published: {reason}"
    assert hub.repos == {}


def test_a_token_stands_alone_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xef\xbb\xbf" + OWNER.encode() + b"\r\n")
    assert read_token(path) == OWNER
    for content in (b"", b"one two", b"HF_TOKEN=x\nhf_x\n", "hf_\u00e9".encode()):
        path.write_bytes(content)
        with pytest.raises(KitError) as error:
            read_token(path)
        assert str(error.value) == f"--token-file {path}: expected one access token and nothing else"
    with pytest.raises(KitError) as error:
        read_token(tmp_path / "other")
    assert str(error.value) == f"--token-file {tmp_path / 'other'}: cannot be read: No such file or directory"


def test_the_page_names_every_option() -> None:
    page = (Path(__file__).parents[2] / "docs" / "publish.md").read_text("utf-8")
    assert [
        option for each in command.params for option in each.opts if option.startswith("--") and f"`{option}" not in page
    ] == []
