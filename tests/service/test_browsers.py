"""No test of the page can be skipped unseen where a browser has to be there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import browsers
import pytest

CI = Path(__file__).parents[2] / ".ci" / "run"
ASKED: dict[str, Callable[[], object]] = {
    "Chromium": browsers.program,
    "Playwright": partial(browsers.library, "no_playwright", "Playwright"),
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the path. It has what a shell script needs, and no browser."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname"):
        (folder / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(browsers.VARIABLE, raising=False)
    return folder


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.usefixtures("programs")
def test_a_missing_browser_is_a_skip_and_a_failure_where_it_is_required(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(pytest.skip.Exception, match=f"{what} is not installed"):
        ASKED[what]()
    monkeypatch.setenv(browsers.VARIABLE, "required")
    with pytest.raises(pytest.fail.Exception, match=f"{what} is not installed, but EMPATHY_KIT_BROWSER is set to required"):
        ASKED[what]()


@pytest.mark.parametrize(("browser", "setting"), [("chromium", "required"), ("chromium-browser", "required"), (None, "")])
def test_ci_requires_the_browser_that_it_has(programs: Path, browser: str | None, setting: str) -> None:
    copy = programs.parent / ".ci" / "run"
    copy.parent.mkdir()
    shutil.copy(CI, copy)
    for name, script in {"python3": "exit 1", "make": f'echo "$1 ${browsers.VARIABLE}"', browser or "none": ""}.items():
        (programs / name).write_text(f"#!{programs / 'bash'}\n{script}\n")
        (programs / name).chmod(0o755)
    done = subprocess.run(["bash", str(copy)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == f"test {setting}".strip()
