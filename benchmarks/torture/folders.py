"""Hostile folders: runs whose manifest fits what an attacker put there, and encoders that hide code, links and absurd sizes."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.torture.commands import expect, told
from benchmarks.torture.settings import ESCAPE, HOSTILE, LINK, SCRIPT, check_told, spoiled
from benchmarks.torture.tables import TOKENS, mutated
from benchmarks.torture.trials import Experiment
from benchmarks.torture.world import World

ROOM = 3 * 2**30  # bytes that a child may take beyond what it has: absurd sizes must be refused before they are asked for
CANARY = "canary"
SECRET = "kanarienvogel"
TAG = "](x)<img src=x onerror=alert(1)>"
NAMES = [ESCAPE, SCRIPT, LINK, TAG, "\u202egnp.exe", "| a | b |\n|---|---|", "`" * 5, "a" * 5000, "---\nx: 1"]
TAGS = ("<script>alert", "<img src=x", "\x1b", "\u202e")  # that no page may hold as they are
FORBIDDEN = {".html": TAGS, ".md": (*TAGS, "](javascript:", "\n# Owned")}


_CODE = re.compile(r"\\[^\w\s]|(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)")


class _Opened:
    """A pickle that, loaded, leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def _bounded() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, resource.RLIM_INFINITY))


def _place(world: World, kind: str) -> Path:
    """A trial's folder, deep enough that a few ``../`` stay where they are seen."""
    top = world.folder / f"hostile-{os.getpid()}"
    shutil.rmtree(top, ignore_errors=True)
    place = top / "a" / "b" / kind
    place.mkdir(parents=True)
    (top / "a" / "secret").write_text(SECRET)
    os.chdir(place)
    return place


def _seen(place: Path) -> dict[str, tuple[int, int]]:
    """All around the output: what is there, and when it was changed."""
    top = place.parents[2]
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size)
        for path in sorted(top.rglob("*"))
        if not path.is_dir() and place / "out" not in path.parents
    }


def _reseal(folder: Path) -> None:
    """The manifest that fits the files, as whoever made them would write it."""
    import hashlib

    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    names = [path for path in files if path.name != "manifest.json"]
    hashes = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in names}
    (folder / "manifest.json").write_text(json.dumps({"format": 3, "sha256": hashes}))


def _rename(content: Any, dice: random.Random) -> Any:
    """A text somewhere in it becomes a hostile name."""
    if isinstance(content, dict) and content:
        name = dice.choice(list(content))
        if dice.random() < 0.1:
            return {(dice.choice(NAMES) if key == name else key): value for key, value in content.items()}
        return {**content, name: _rename(content[name], dice)}
    if isinstance(content, list) and content:
        at = dice.randrange(len(content))
        return [*content[:at], _rename(content[at], dice), *content[at + 1 :]]
    return dice.choice(NAMES) if isinstance(content, str) else content


def _edit(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))), encoding="utf-8")


def _run_attack(folder: Path, dice: random.Random) -> str:
    """Spoil a run, and say how."""
    attack = dice.choice([*["names"] * 3, *["values"] * 2, "bytes", "link", "special", "manifest", "pickle", "more"])
    secret, record = folder.parents[1] / "secret", folder / "run.json"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    if attack in ("names", "values"):
        for _ in range(dice.randrange(1, 8)):
            _edit(record, lambda content: (_rename if attack == "names" else spoiled)(content, dice))
    elif attack == "bytes":
        path = dice.choice([each for each in files if each.name != "manifest.json"])
        path.write_bytes(mutated(path.read_bytes(), dice, TOKENS))
    elif attack == "link":
        path = dice.choice([*files, folder / "model" / "merges.txt", folder / "notes.txt", folder / "README.md"])
        path.unlink(missing_ok=True)
        path.symlink_to(dice.choice([secret, Path("../../../secret"), Path("/etc/hostname"), Path("/dev/zero"), Path("nowhere")]))
        if "zero" in str(path.readlink()):
            return f"{attack}, endless"
    elif attack == "special":
        path = dice.choice([*files, folder / "more"])
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return f"{attack}, a pipe"
    elif attack == "pickle":
        data = pickle.dumps(_Opened(folder.parents[2] / CANARY))
        dice.choice([folder / "model" / "pytorch_model.bin", folder / "model" / "model.safetensors"]).write_bytes(data)
    elif attack == "more":
        (folder / "model" / "tokenization_x.py").write_text(f"open({str(folder.parents[2] / CANARY)!r}, 'w')")
        auto = {"AutoConfig": "tokenization_x.X", "AutoModel": "tokenization_x.X", "AutoTokenizer": ["tokenization_x.X", None]}
        for name in ("config.json", "tokenizer_config.json"):
            _edit(folder / "model" / name, lambda content: {**content, "auto_map": auto, "trust_remote_code": True})
    _reseal(folder)
    if attack == "manifest":
        names = ["../../secret", "/etc/hostname", ESCAPE, SCRIPT, "model/../../../secret", ".", "\0"]
        more = {dice.choice(names): "0" * 64}
        _edit(folder / "manifest.json", lambda content: {**content, "sha256": {**content["sha256"], **more}})
    return attack


def _run_folder(world: World, number: int, dice: random.Random) -> str:
    place = _place(world, "run")
    folder = place / "runs" / "T1-0"
    shutil.copytree(world.run, folder)
    attack = _run_attack(folder, dice)
    before = _seen(place)
    _bounded()
    out = place / "out"
    commands = [
        ["runs", "list", str(folder.parent)],
        ["runs", "verify", str(folder.parent)],
        ["runs", "show", str(folder)],
        ["predict", str(folder), str(world.table), "--out", str(out / "said.jsonl")],
        ["publish", str(folder), "me/model", "--dry-run", str(out / "card")],
        ["run", "--config", str(folder / "run.json"), "--epochs", "0", "--out", str(out / "again")],
    ]
    codes = []
    for command in commands:
        ended = told(command)
        check_told(ended)
        expect(SECRET not in ended.text, f"{command[0]} tells what stands in another file")
        codes.append(ended.code)
    _check_written(place, before)
    shutil.rmtree(place.parents[2] / "a")
    return f"{attack.partition(',')[0]}: {'loads' if codes[3] == 0 else 'refused'}"


def _pages(world: World, number: int, dice: random.Random) -> str:
    """A comparison with hostile names in the records of its runs; its report is a page for people."""
    place = _place(world, "comparison")
    folder = place / "out" / "comparison"
    shutil.copytree(world.comparison, folder)
    for run in (folder / "runs").iterdir():
        for _ in range(dice.randrange(1, 4)):
            content = json.loads((run / "run.json").read_text())
            part = dice.choice(["data", "encoder", "versions", "plugins", "machine"])
            content[part] = _named(content[part], dice.choice(NAMES), dice)
            (run / "run.json").write_text(json.dumps(content))
        _reseal(run)
    for page in folder.glob("report.*"):
        page.unlink()
    before = _seen(place)
    ended = told(["compare", "--figures-from", str(folder)])
    check_told(ended)
    _check_written(place, before)
    return "reported" if ended.code == 0 else "refused"


def _named(content: Any, name: str, dice: random.Random) -> Any:
    texts = [key for key, value in content.items() if isinstance(value, str) and "sha" not in key]
    if not texts:
        key = dice.choice(list(content))
        return {**content, key: _named(content[key], name, dice) if isinstance(content[key], dict) else content[key]}
    return {**content, dice.choice(texts): name}


def _check_written(place: Path, before: dict[str, tuple[int, int]]) -> None:
    expect(not (place.parents[2] / CANARY).exists() and not any(place.rglob(CANARY)), "code out of the folder was run")
    expect(_seen(place) == before, "something outside of the output was written")
    for path in (place / "out").rglob("*"):
        if path.suffix in FORBIDDEN:
            text = path.read_text(errors="replace")
            if path.suffix == ".md":  # what is escaped or code is not obeyed, nor are the metadata, which are YAML
                text = _CODE.sub("", re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL))
            found = next((each for each in FORBIDDEN[path.suffix] if each in text), None)
            expect(found is None, f"{path.name} holds {found!r}")
        expect(not path.is_file() or SECRET.encode() not in path.read_bytes(), f"{path.name} holds what stands in another file")


def _encoder_attack(folder: Path, dice: random.Random) -> str:
    attack = dice.choice(["pickle", "code", "index", "bomb", *["sizes"] * 2, "special", "tokenizer", "values", *["bytes"] * 2])
    canary, weights, config = folder.parents[2] / CANARY, folder / "model.safetensors", folder / "config.json"
    if attack == "pickle":
        weights.unlink()
        name = dice.choice(["pytorch_model.bin", "model.safetensors", "tf_model.h5"])
        (folder / name).write_bytes(pickle.dumps(_Opened(canary)))
    elif attack == "code":
        (folder / "x.py").write_text(f"open({str(canary)!r}, 'w')\nclass X: pass\n")
        auto = dict.fromkeys(("AutoConfig", "AutoModel"), "x.X") | {"AutoTokenizer": [None, "x.X"]}
        for path in (config, folder / "tokenizer_config.json"):
            _edit(path, lambda content: {**content, "auto_map": auto, **dice.choice([{}, {"model_type": "x"}])})
    elif attack == "index":
        name = dice.choice(["../../secret", "/etc/hostname", "pytorch_model.bin", "a/../../../secret", "x\\y.safetensors"])
        weights.rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name, "b": "part.safetensors"}}))
    elif attack == "bomb":
        shape = {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4 * 10**18]}
        many = json.dumps({str(each): shape for each in range(20_001)}).encode()
        header = dice.choice([b"[" * 10**6, many, b"{}" + b" " * 10**7])
        length = dice.choice([len(header), 2**63, 10**8, 0])
        weights.write_bytes(length.to_bytes(8, "little") + header + weights.read_bytes()[:1000])
    elif attack == "sizes":
        names = [name for name, value in json.loads(config.read_text()).items() if type(value) is int] + ["num_labels", "n_layer"]
        _edit(config, lambda content: {**content, dice.choice(names): dice.choice([10**5, 10**7, 10**9, 10**12, 2**63, -1, 0])})
    elif attack == "special":
        path = dice.choice([*sorted(folder.iterdir()), folder / "added_tokens.json"])
        path.unlink(missing_ok=True)
        os.mkfifo(path) if dice.random() < 0.5 else path.symlink_to("/dev/zero")
    elif attack in ("tokenizer", "values"):
        path = folder / "tokenizer.json" if attack == "tokenizer" else dice.choice(sorted(folder.glob("*.json")))
        _edit(path, lambda content: spoiled(content, dice))
        if dice.random() < 0.3:
            regex = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
            _edit(folder / "tokenizer.json", lambda content: {**content, "pre_tokenizer": dice.choice([regex, *HOSTILE])})
    else:
        path = dice.choice(sorted(folder.iterdir()))
        path.write_bytes(mutated(path.read_bytes(), dice, TOKENS))
    return attack


def _encoder(world: World, number: int, dice: random.Random) -> str:
    from empathy_kit.core.encoder import load_encoder
    from empathy_kit.errors import KitError

    place = _place(world, "encoder")
    folder = place / "encoder"
    shutil.copytree(world.encoder, folder)
    attack = _encoder_attack(folder, dice)
    before = _seen(place)
    _bounded()
    ending = "loads"
    try:
        load_encoder(str(folder), local=True, attention_dropout=0.0)
    except KitError as error:
        from empathy_kit.errors import visible

        expect(len(visible(str(error)).split("\n")) == 1, f"more than a line: {error}")
        ending = "refused"
    (place / "out").mkdir()
    _check_written(place, before)
    shutil.rmtree(place.parents[2] / "a")
    return f"{attack}: {ending}"


SURVIVED = "no code is run, nothing is written outside of the output, no other file is shown, no name is obeyed, no traceback"

EXPERIMENTS = {
    "run-folders": Experiment(
        _run_folder, 200, "hostile runs, through `runs`, `predict`, `publish` and `run --config`", SURVIVED, inside=True, few=2,
        limit=lambda world: 10**9 * bool(world.run and world.table),
    ),
    "pages": Experiment(
        _pages, 40, "hostile names in the runs of a comparison's report", SURVIVED, inside=True, few=0,
        limit=lambda world: 10**9 * bool(world.comparison),
    ),
    "encoder-folders": Experiment(
        _encoder, 100, "hostile encoders", f"{SURVIVED}; absurd sizes before memory is asked for", inside=True, few=6,
        limit=lambda world: 10**9 * bool(world.encoder),
    ),
}  # fmt: skip
