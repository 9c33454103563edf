"""Fixtures of the tests of inference: two small trained runs, one with a span head and one that is not shown the seeker posts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hub_stand_in import Hub, serving
from huggingface_hub import close_session, constants
from small_runs import train

from empathy_kit.plugins import load_registry

if TYPE_CHECKING:
    from empathy_kit.core.model import Model


@pytest.fixture(scope="session", autouse=True)
def each_graph_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A model's graph is made once, because torch takes many seconds for it. tests/core/test_portable.py makes each anew."""
    from empathy_kit.core import portable

    make, folder = portable.to_onnx, tmp_path_factory.mktemp("graphs")

    def once(model: Model, path: Path, *, spans: bool) -> None:
        digest = hashlib.sha256(f"{model} {spans}".encode())
        for name, tensor in model.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        known = folder / digest.hexdigest()
        if not known.exists():
            make(model, known, spans=spans)
        shutil.copy(known, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portable, "to_onnx", once)
        yield


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
