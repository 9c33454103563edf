"""What is remarked of runs that stand in one table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from made_up import made_up, rewrite, rewrite_record

from empathy_kit.comparison.finished import read_finished
from empathy_kit.comparison.pages.summarise import summarise


def test_what_may_not_belong_together_is_remarked(tmp_path: Path) -> None:
    folder = made_up(tmp_path / "made-up", ["T1"], 3, resplit=False)
    assert read_finished(folder).remarks == []
    theirs = {"name": "ce", "distribution": "empathy-kit-mine", "version": "1"}
    for seed, version in enumerate(("2.1.0", "2.1.0", "2.2.0")):
        rewrite_record(
            folder / "runs" / f"T1-{seed}",
            lambda content, version=version: content.update(
                versions={"torch": version}, plugins={"loss": {**theirs, "sha256": version}}
            ),
        )
    shutil.copy(folder / "runs" / "T1-0" / "predictions.csv", tmp_path)
    copied = (tmp_path / "predictions.csv").read_text()
    scores = json.loads((folder / "runs" / "T1-0" / "run.json").read_text())["scores"]
    rewrite(folder / "runs" / "T1-1", lambda files: files.update({"predictions.csv": copied}))
    rewrite_record(folder / "runs" / "T1-1", lambda content: content.update(scores=scores))
    assert read_finished(folder).remarks == [
        "The runs were computed with different versions of torch (2.1.0, 2.2.0), whose numbers may differ.",
        "T1: the files of its loss changed between its runs, whose numbers may differ.",
        "T1: seeds 0 and 1 predicted the same to the last digit; one may be a copy.",
    ]


def test_runs_of_different_machines_and_versions_are_remarked_and_all_are_shown(tmp_path: Path) -> None:
    """A record of an earlier version knows less of its machine, which is no difference."""
    folder = made_up(tmp_path / "made-up", ["T1"], 3)
    machines: list[dict[str, Any]] = [
        {"threads": 1},
        {"threads": 2, "device": "cpu", "variables": {}},
        {"threads": 1, "device": "cuda", "processes": 2, "variables": {"MKL_CBWR": "AVX2"}},
    ]
    for seed, machine in enumerate(machines):
        rewrite_record(
            folder / "runs" / f"T1-{seed}",
            lambda content, seed=seed, machine=machine: content.update(
                machine=machine, kit=f"0.{1 + seed // 2}.0", versions={"python": f"3.1{1 + seed // 2}"}
            ),
        )
    found = read_finished(folder)
    assert found.remarks == [
        "The runs were computed with different versions of empathy-kit (0.1.0, 0.2.0), whose numbers may differ.",
        "The runs were computed with different versions of python (3.11, 3.12), whose numbers may differ.",
        "The runs differ in their device (cpu; cuda), on which their numbers may depend.",
        "The runs differ in their number of threads (1; 2), on which their numbers may depend.",
        "The runs differ in their number of processes (1; 2), on which their numbers may depend.",
        "The runs differ in their environment variables (MKL_CBWR=AVX2; none), on which their numbers may depend.",
    ]
    summary = summarise(found)
    assert summary.versions == {"python": ["3.11", "3.12"]}
    assert summary.machine == {
        "threads": [1, 2],
        "device": ["cpu", "cuda"],
        "variables": [{}, {"MKL_CBWR": "AVX2"}],
        "processes": 2,
    }
