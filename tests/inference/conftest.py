"""Fixtures of the tests of inference: two small trained runs, one with a span head and one that is not shown the seeker posts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import Hub, serving
from huggingface_hub import close_session, constants

from empathy_kit.config import RunConfig, configure
from empathy_kit.plugins import load_registry
from empathy_kit.runs.train import run

SMALL: dict[str, Any] = {"epochs": 1, "threads": 1, "max_tokens": 16, "batch_size": 64}


def train(folder: Path, encoder: Path, **changes: Any) -> Path:
    """A finished run of one epoch on the sample."""
    options = {"trunk.hidden": 16, **changes.pop("options", {})}
    config = configure(RunConfig(), {**SMALL, "encoder": str(encoder), **changes, "options": options})
    list(run(config, load_registry(), folder))
    return folder


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
