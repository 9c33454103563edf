"""The page on scikit-learn runs as it stands, with a tiny encoder in place of minutes of training."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scikit-learn.md"


def test_the_pages_code_prints_what_the_page_says(tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    tiny = f"EmpathyClassifier(encoder={str(tiny_roberta)!r}, max_tokens=8, trunk='mean', batch_size=150, "
    world: dict[str, Any] = {"__name__": "__main__"}
    blocks = re.findall(r"```(py|text)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 10
    for (_, code), (_, expected) in zip(blocks[::2], blocks[1::2], strict=True):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code.replace("EmpathyClassifier(", tiny), str(PAGE), "exec"), world)
        assert output.getvalue() == expected
