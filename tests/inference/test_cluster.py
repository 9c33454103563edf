"""On Ray a job gives the bytes of the local way, whichever worker dies, and a comparison the runs of the local way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pretend import pretend_model

from empathy_kit import KitError
from empathy_kit.cluster import connected
from empathy_kit.comparison.cluster import RayWorker
from empathy_kit.comparison.execute import execute, prepare
from empathy_kit.comparison.plan import Plan
from empathy_kit.comparison.worker import Done, Failed, Order, Worker
from empathy_kit.config import RunConfig, configure
from empathy_kit.data.sources import load_corpus
from empathy_kit.inference import cluster, scoring
from empathy_kit.inference.cluster import Scorer
from empathy_kit.inference.model import load
from empathy_kit.inference.outputs import Output
from empathy_kit.inference.scoring import Job, Part, Request, predict_table
from empathy_kit.inference.tables import Columns, Input
from empathy_kit.plugins import load_registry
from empathy_kit.runs import record


class Mortal(cluster.Scorer):
    """A worker that is killed in the middle of its second part, once."""

    def write(self, request: Request) -> Part:
        last_words = self.job.parts / "died"
        if request.number == 1 and not last_words.exists():
            last_words.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(request)


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # Ray's own processes are found by their path; what is imported here must be found by its workers too.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    with connected("local", 2) as workers:
        yield workers


@pytest.mark.filterwarnings("ignore")  # of Ray's own sockets and threads
def test_parts_on_two_workers_are_those_of_one_process_and_a_killed_worker_changes_nothing(
    two_workers: int, marking_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PART", 15)
    monkeypatch.setattr(cluster, "Scorer", Mortal)
    source = tmp_path / "in.csv"
    rows = [
        f'"{pair.seeker}","{pair.response}"'
        for pair in load_corpus("sample").pairs[:70]
        if '"' not in pair.seeker + pair.response
    ]
    rows[40] = '"",""'
    source.write_text("\n".join(["seeker_post,response_post", *rows]) + "\n", encoding="utf-8")
    model = load(marking_run, threads=1)
    job = Job(source, tmp_path / "here.parquet", Columns("seeker_post", "response_post"), evidence=True, skip_errors=True)
    list(predict_table(job, model))
    there = replace(job, out=tmp_path / "there.parquet")
    write = cluster.write_on_ray(there, model, str(marking_run), two_workers)
    died = False

    def watched(missing: Iterator[Request]) -> Iterator[Part]:
        nonlocal died
        yield from write(missing)
        died = (there.parts / "died").exists()

    *_, last = predict_table(there, model, watched)
    assert (died, last.rows, last.bad) == (True, len(rows), 1)
    assert there.out.read_bytes() == job.out.read_bytes()
    assert there.skipped.read_bytes() == job.skipped.read_bytes()


class Doomed(cluster.Scorer):
    """A worker that is killed by its second part whenever it tries."""

    def write(self, request: Request) -> Part:
        if request.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write(request)


@pytest.mark.filterwarnings("ignore")
def test_a_part_that_always_ends_its_worker_ends_the_job_and_finished_parts_are_kept(
    two_workers: int, tmp_path: Path, marking_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "PART", 3)
    monkeypatch.setattr(cluster, "Scorer", Doomed)
    monkeypatch.setattr(cluster, "DEATHS", 1)
    source = tmp_path / "in.csv"
    source.write_text("seeker_post,response_post\n" + "I am sad,so sorry\n" * 12)
    job, model = Job(source, tmp_path / "out.csv", Columns("seeker_post", "response_post")), load(marking_run, threads=1)
    with pytest.raises(KitError) as error:
        list(predict_table(job, model, cluster.write_on_ray(job, model, str(marking_run), two_workers)))
    assert str(error.value) == (
        "--on ray: a worker died 2 times, perhaps for want of memory; give its machine more. What is finished is kept, and the "
        "same command continues"
    )
    # Two more workers than the cluster has room for: they never start, and nobody waits for them.
    monkeypatch.setattr(cluster, "Scorer", Scorer)
    write = cluster.write_on_ray(job, model, str(marking_run), two_workers + 2)
    *_, last = predict_table(job, model, write)
    assert (last.rows, job.out.read_text().count("\n")) == (12, 13)


@pytest.mark.filterwarnings("ignore")
def test_workers_that_never_start_end_the_job(
    two_workers: int, tmp_path: Path, marking_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(cluster, "STARTING", 2)
    source = tmp_path / "in.csv"
    source.write_text("seeker_post,response_post\nI am sad,so sorry\n")
    job, model = Job(source, tmp_path / "out.csv", Columns("seeker_post", "response_post")), load(marking_run, threads=1)
    holder = ray.remote(num_cpus=two_workers)(Scorer).remote(job, "", {})
    ray.get(holder.start.remote())
    with pytest.raises(KitError) as error:
        list(predict_table(job, model, cluster.write_on_ray(job, model, str(marking_run), 1)))
    assert str(error.value) == (
        "--on ray: none of 1 workers could start within 2 seconds, expected a free CPU for each (and a GPU each, where the model "
        "computes on one); wait until the cluster has some"
    )


@pytest.mark.parametrize("name", ["model", "library", "device"])
def test_a_worker_that_would_compute_something_else_writes_nothing(marking_run: Path, tmp_path: Path, name: str) -> None:
    model = load(marking_run, threads=1)
    job = Job(tmp_path / "in.csv", tmp_path / "out.csv", Columns("seeker_post", "response_post"))
    output = Output(".csv", model.schema, (), {}, evidence=False)
    request = Request(0, (Input(1, "I am sad", "so sorry", ()),), output)
    job.parts.mkdir()
    with pytest.raises(KitError) as error:
        cluster.Scorer(job, str(marking_run), {**model.identity, name: "another"}).write(request)
    assert str(error.value) == (
        f"{marking_run}: a worker has {name} {model.identity[name]}, expected another as where the command was given; "
        "every machine needs the same model, libraries and --device"
    )
    assert list(job.parts.iterdir()) == []
    assert cluster.Scorer(job, str(marking_run), model.identity).write(request).rows == 1


@pytest.mark.parametrize(
    ("source", "there"), [("runs/mine", "{folder}/runs/mine"), ("hub:me/model@main", "hub:me/model@0123abcd")]
)
def test_every_worker_is_given_the_place_and_the_commit_that_were_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, there: str
) -> None:
    given: list[Any] = []

    def remote(*arguments: Any) -> Any:
        given.extend(arguments)
        return SimpleNamespace(start=SimpleNamespace(remote=lambda: None))

    ray = SimpleNamespace(remote=lambda **_: lambda _: SimpleNamespace(remote=remote), kill=lambda _: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(tmp_path)
    model = replace(pretend_model(), about={"hub": "me/model@0123abcd"})
    job = Job(Path("in.csv"), Path("out.csv"), Columns("seeker_post", "response_post"))
    assert list(cluster.write_on_ray(job, model, source, 1, [Path("plugin.py")], "cpu")(iter(()))) == []
    assert given[0].out == tmp_path / "out.csv"
    assert given[1:] == [there.format(folder=tmp_path), model.identity, [tmp_path / "plugin.py"], "cpu"]


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_a_worker_cannot_find_is_one_line(two_workers: int, marking_run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("seeker_post,response_post\nI am sad,so sorry\n")
    job = Job(source, tmp_path / "out.csv", Columns("seeker_post", "response_post"))
    model, nowhere = load(marking_run, threads=1), tmp_path / "nowhere"
    with pytest.raises(KitError) as error:
        list(predict_table(job, model, cluster.write_on_ray(job, model, str(nowhere), two_workers)))
    assert str(error.value) == f"{nowhere}: no such folder; expected a run, an exported model, or hub:user/name"
    assert not job.parts.exists()


def test_without_ray_or_a_cluster_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        with pytest.raises(KitError) as error, connected("local", 1):
            pass
        assert str(error.value) == "--on ray: Ray is not installed; pip install 'empathy-kit[ray]'"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("cache")
def test_a_comparisons_runs_are_tasks_with_the_local_answers_and_one_whose_worker_dies_begins_anew(
    two_workers: int, tiny_roberta: Path, tmp_path: Path
) -> None:
    small = {"encoder": str(tiny_roberta), "epochs": 1, "max_tokens": 16, "batch_size": 64, "options": {"trunk.hidden": 8}}
    base = configure(RunConfig(), {**small, "threads": 1})
    # Each task of T3s has a model, and so a run, of its own.
    plan = Plan({"T1": base, "T3s": configure(base, {"loss": "focal"})}, (0,), False, frozenset({"T3s"}))
    models = {"T1", "T3s.ER", "T3s.EX", "T3s.IP"}
    answers = []
    for worker in (Mortals, Worker):
        out = tmp_path / worker.__name__
        prepared = prepare(plan, out, load_registry())
        events = execute(prepared, out, load_registry(), jobs=two_workers, keep_models=False, worker=worker)
        ended = [event for event in events if isinstance(event, Done | Failed)]
        assert {(event.name, type(event)) for event in ended} == {(name, Done) for name in models}, ended
        answers.append({name: (out / "runs" / f"{name}-0" / record.PREDICTIONS).read_bytes() for name in models})
    assert (tmp_path / "died").exists()
    assert answers[0] == answers[1]


class Mortals(RayWorker):
    """Runs of which one is killed as it begins, once."""

    @staticmethod
    def work(order: Order) -> tuple[tuple[str, ...], str | None]:
        last_words = order.folder.parents[2] / "died"
        if order.config.loss == "focal" and not last_words.exists():
            last_words.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return RayWorker.work(order)
