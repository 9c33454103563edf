"""`--on ray`: what the commands ask of a cluster and give its workers; tests/inference/test_cluster.py has the cluster itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_reply import Reply

from empathy_kit.comparison.cluster import RayWorker
from empathy_kit.errors import KitError
from empathy_kit.inference.scoring import Job
from empathy_kit.inference.tables import Columns

FLAGS = ("--on", "ray", "--ray-address", "10.0.0.1:6379", "--workers", "3")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a cluster was asked for, which gives seven workers, and that it was left."""
    found: list[object] = []

    @contextmanager
    def connected(address: str, workers: int | None) -> Iterator[int]:
        found.append((address, workers))
        yield 7
        found.append("left")

    monkeypatch.setattr("empathy_kit.cluster.connected", connected)
    return found


def test_predict_gives_the_job_the_model_and_its_place_to_the_workers(
    kit: Reply, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SimpleNamespace(engine=None, reads_seekers=True, warnings=())
    given: list[Any] = []

    def write_on_ray(*arguments: Any) -> str:
        given.append(arguments)
        return "parts from the cluster"

    def predict_table(*arguments: Any) -> Iterator[Any]:
        given.append(arguments)
        return iter(())

    monkeypatch.setattr("empathy_kit.inference.cluster.write_on_ray", write_on_ray)  # first: it imports its own load
    monkeypatch.setattr("empathy_kit.inference.model.load", lambda *_, **__: model)
    monkeypatch.setattr("empathy_kit.inference.scoring.predict_table", predict_table)
    more = ("--plugin", "own.py", "--device", "cpu")
    assert kit("predict", "runs/mine", "posts.csv", "--out", "out.csv", *FLAGS, *more)[0] == 0
    job = Job(Path("posts.csv"), Path("out.csv"), Columns("seeker_post", "response_post"))
    assert given == [(job, model, "runs/mine", 7, (Path("own.py"),), "cpu"), (job, model, "parts from the cluster")]
    assert asked == [("10.0.0.1:6379", 3), "left"]


def test_compare_has_as_many_runs_at_once_as_workers_and_each_has_one_thread(
    kit: Reply, asked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def execute(*_: object, **how: object) -> None:
        given.append(how)
        raise KitError("no run is made")

    monkeypatch.setattr("empathy_kit.comparison.execute.execute", execute)
    code, _, err = kit("compare", "T1", "--out", "out", *FLAGS)
    assert (code, err) == (2, "Error: no run is made\n")
    assert given == [{"jobs": 7, "keep_models": False, "files": (), "worker": RayWorker, "threads": 1}]
    assert asked == [("10.0.0.1:6379", 3)]
