"""Fixtures of the tests of inference: two small trained runs, one with a span head and one that is not shown the seeker posts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import Hub, serving
from huggingface_hub import close_session, constants
from small_runs import train

from empathy_kit.plugins import load_registry


@pytest.fixture(scope="session", autouse=True)
def graphs(each_graph_once: None) -> None:
    """No graph is made twice."""


@pytest.fixture(scope="session")
def marking_run(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model marks evidence."""
    return train(tmp_path_factory.mktemp("marking") / "run", tiny_roberta, rationale="predicted", head="attention")


@pytest.fixture(scope="session")
def response_run(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model reads responses alone and predicts two of the three tasks."""
    return train(tmp_path_factory.mktemp("response") / "run", tiny_roberta, posts="response", tasks=("ER", "IP"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A stand-in that the client in this process talks to, with a cache of its own. The client reads its variables at import."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving() as served:
        for name, value in {
            "ENDPOINT": served.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": f"{served.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
            "HF_HUB_DISABLE_XET": True,  # the stand-in knows LFS alone
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield served
        close_session()


@pytest.fixture(scope="session")
def marking_export(marking_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that marks evidence, exported in int8."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="the onnx extra is not installed")
    from empathy_kit.inference.export import export

    return export(marking_run, tmp_path_factory.mktemp("exported") / "model", load_registry(), int8=True).folder
