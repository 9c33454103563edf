"""A small Hugging Face hub on loopback: as much of its HTTP interface as the real client asks for, and its rules that matter."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

OWNER, READER = "hf_owner_secret", "hf_reader_secret"  # access tokens: of the user "me", and of one who may write nothing
LARGE = (".safetensors", ".onnx")  # kept in LFS, as the hub's .gitattributes has it


@dataclass
class Repo:
    """Commits, and branches that lead to them."""

    private: bool
    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, changed: dict[str, bytes], message: str) -> str:
        whole = dict(changed)
        seed = json.dumps([message, len(self.commits), sorted((name, git_hash(content)) for name, content in whole.items())])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[oid], self.branches[branch] = whole, oid
        self.messages.append(message)
        return oid

    @property
    def main(self) -> dict[str, bytes]:
        return self.commits[self.branches["main"]]


@dataclass
class Hub:
    """All that the stand-in holds, and all that it was asked."""

    endpoint: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)  # LFS, by sha256
    requests: list[str] = field(default_factory=list)
    status: int | None = None  # what every request is answered with
    silent: threading.Event | None = None  # nobody is answered before it is set
    meanwhile: Callable[[], object] | None = None  # happens once, before a commit

    def asked(self, what: str) -> list[str]:
        return [each for each in self.requests if re.search(what, each)]


class RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def card_errors(content: str) -> list[str]:
    """What the hub's validator finds wrong with a card: https://github.com/huggingface/hub-docs/blob/main/modelcard.md."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if not match:
        return ["no metadata"]
    data = yaml.safe_load(match[1])
    found = [
        f"{key}: not a text" for key in ("license", "library_name", "pipeline_tag") if not isinstance(data.get(key, ""), str)
    ]
    found += [
        f"{key}: not a list of texts" for key in ("tags", "metrics") if not all(isinstance(one, str) for one in data.get(key, []))
    ]
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str):
            found.append("model-index: name")
        for result in model["results"]:
            texts = [result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"]]
            texts += [metric["type"] for metric in result["metrics"]]
            if not all(isinstance(text, str) and text for text in texts) or not result["metrics"]:
                found.append("model-index: a required text is missing")
            if any("value" not in metric for metric in result["metrics"]):
                found.append("model-index: a value is missing")
    return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 - as http.server calls them

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        try:
            if self.hub.silent is not None:
                self.hub.silent.wait()
                self.close_connection = True  # whoever asked has gone
                return
            self.route(path)
        except RefusedError as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self.send(refused.status, json.dumps({"error": refused.message}).encode(), headers)

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def reply(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    @property
    def token(self) -> str:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", OWNER, READER):
            raise RefusedError(401, message="Invalid credentials in Authorization header")
        return token

    def may_write(self, user: str) -> None:
        if self.token != OWNER or user != "me":
            raise RefusedError(403 if self.token else 401, message="You don't have the rights to create a model here")

    def repo(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.token != OWNER):
            raise RefusedError(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return repo

    def snapshot(self, repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
        oid = repo.branches.get(revision, revision)
        if oid not in repo.commits:
            raise RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, repo.commits[oid]

    def route(self, path: str) -> None:
        if self.hub.status is not None:
            raise RefusedError(self.hub.status)
        routes = {
            r"POST /api/repos/create": self.create,
            r"POST /api/validate-yaml": self.validate,
            r"GET /api/models/(\w+/[\w.-]+)": self.info,
            r"GET /api/models/(\w+/[\w.-]+)/revision/(.+)": self.info,
            r"POST /api/models/(\w+/[\w.-]+)/branch/(.+)": self.branch,
            r"POST /api/models/(\w+/[\w.-]+)/preupload/(.+)": self.preupload,
            r"POST /(\w+/[\w.-]+)\.git/info/lfs/objects/batch": self.batch,
            r"PUT /stored/([0-9a-f]{64})": self.store,
            r"POST /api/models/(\w+/[\w.-]+)/commit/(.+)": self.commit,
            r"(?:GET|HEAD) /(\w+/[\w.-]+)/resolve/([^/]+)/(.+)": self.resolve,
        }
        for pattern, method in routes.items():
            match = re.fullmatch(pattern, f"{self.command} {path}")
            if match:
                return method(*match.groups())
        raise RefusedError(404, message="no such route")

    def create(self) -> None:
        asked = json.loads(self.body)
        self.may_write(asked["organization"])
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repos:
            raise RefusedError(409, message="You already created this model repo")
        repo = self.hub.repos[name] = Repo(asked.get("visibility") == "private", {}, {})
        repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self.reply({"url": f"{self.hub.endpoint}/{name}"})

    def validate(self) -> None:
        found = card_errors(json.loads(self.body)["content"])
        self.send(400 if found else 200, json.dumps({"errors": [{"message": one} for one in found], "warnings": []}).encode())

    def info(self, name: str, revision: str = "main") -> None:
        repo = self.repo(name)
        oid, files = self.snapshot(repo, revision)
        blobs = "blobs" in urlsplit(self.path).query
        siblings = [
            {"rfilename": each, **({"size": len(content), "blobId": git_hash(content)} if blobs else {})}
            for each, content in files.items()
        ]
        self.reply({"id": name, "sha": oid, "private": repo.private, "siblings": siblings})

    def branch(self, name: str, branch: str) -> None:
        repo = self.repo(name)
        self.may_write(name.split("/")[0])
        if branch in repo.branches:
            raise RefusedError(409, message="Reference already exists")
        repo.branches[branch] = repo.branches["main"]
        self.reply({})

    def preupload(self, name: str, revision: str) -> None:
        self.snapshot(self.repo(name), revision)
        self.may_write(name.split("/")[0])
        asked = json.loads(self.body)["files"]
        modes = [(each["path"], "lfs" if each["path"].endswith(LARGE) else "regular") for each in asked]
        self.reply({"files": [{"path": each, "uploadMode": mode, "shouldIgnore": False} for each, mode in modes]})

    def batch(self, name: str) -> None:
        self.may_write(name.split("/")[0])
        objects = [
            each
            if each["oid"] in self.hub.stored
            else {**each, "actions": {"upload": {"href": f"{self.hub.endpoint}/stored/{each['oid']}"}}}
            for each in json.loads(self.body)["objects"]
        ]
        self.reply({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusedError(400, message="another sha256")
        self.hub.stored[oid] = self.body
        self.reply({})

    def commit(self, name: str, branch: str) -> None:
        repo = self.repo(name)
        self.may_write(name.split("/")[0])
        meanwhile, self.hub.meanwhile = self.hub.meanwhile, None
        if meanwhile:
            meanwhile()
        parent, before = self.snapshot(repo, branch)
        files, message = dict(before), ""
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", parent) != parent:
                    raise RefusedError(412, message="A commit has happened since")
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        oid = repo.commit(branch, files, message)
        self.reply({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}"})

    def resolve(self, name: str, revision: str, file: str) -> None:
        oid, files = self.snapshot(self.repo(name), revision)
        if file not in files:
            raise RefusedError(404, "EntryNotFound", "Entry not found")
        content = files[file]
        headers = {"X-Repo-Commit": oid, "ETag": f'"{git_hash(content)}"'}
        if file.endswith(LARGE):
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        self.send(200, content, headers)


@contextmanager
def serving() -> Iterator[Hub]:
    """A stand-in with no repository in it."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        if hub.silent is not None:
            hub.silent.set()
        server.shutdown()
        server.server_close()
        thread.join()
