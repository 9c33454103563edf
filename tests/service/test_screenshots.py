"""docs/screenshots.py takes its pictures of the bundled sample, and of nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import browsers
import pytest
from page_server import PageServer

from empathy_kit.data.sources import load_corpus

SCRIPT = Path(__file__).parents[2] / "docs" / "screenshots.py"


def test_the_pictures_show_a_pair_of_the_bundled_sample(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    browsers.library("playwright.sync_api", "Playwright")
    browsers.program()
    spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    screenshots = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(screenshots)
    taken: list[str] = []
    monkeypatch.setattr(screenshots, "_write", lambda path, png: taken.append(path.name))
    monkeypatch.setattr("sys.argv", ["screenshots.py", server.url])
    screenshots.main()
    assert taken == ["page-light.webp", "page-dark.webp"]
    assert set(server.asked) <= {(pair.seeker, pair.response) for pair in load_corpus("sample").pairs}
    assert len(server.asked) == len(taken)
