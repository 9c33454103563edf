"""The wheel has the same bytes from the same source, and holds nothing but the package; importing that connects to nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "empathy_kit")
CODE = {".py", ".c", ".j2", ".in", ".typed", ".md", ".html", ".css", ".js", ".svg"}
DATA = {"empathy_kit/data/sample/pairs.jsonl"}  # invented


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two builds: of two copies of the source, made at different times, in different places, with other permissions."""
    folder = tmp_path_factory.mktemp("wheels")
    built = []
    for number, umask in enumerate(("022", "077")):
        copy = folder / f"copy-{number}"
        copy.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():  # other tests write compiled modules meanwhile
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(ROOT / name, copy / name)
        compiled = copy / "empathy_kit" / "__pycache__"
        compiled.mkdir()
        (compiled / "config.cpython-311.pyc").write_bytes(b"of no wheel")
        for path in copy.rglob("*"):
            os.utime(path, (1e9 + number, 1e9 + number))
        subprocess.run(
            [
                sys.executable,
                "-c",
                f"import os; os.umask(0o{umask}); from hatchling.build import build_wheel; build_wheel('dist')",
            ],
            cwd=copy,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
            check=True,
            capture_output=True,
            timeout=600,
        )
        built += (copy / "dist").glob("*.whl")
    return built


def test_the_same_source_gives_the_same_wheel_to_the_byte(wheels: list[Path]) -> None:
    one, other = wheels
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_the_wheel_holds_the_package_and_no_tests_and_no_data_but_the_invented_sample(wheels: list[Path]) -> None:
    with zipfile.ZipFile(wheels[0]) as archive:
        names = [name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")]
        assert {name.split("/")[0] for name in names} == {"empathy_kit"}
        assert [name for name in names if {"tests", "__pycache__"} & set(Path(name).parts)] == []
        assert {name for name in names if Path(name).suffix not in CODE} == DATA
        for path in (ROOT / "empathy_kit").rglob("*.py"):
            assert archive.read(path.relative_to(ROOT).as_posix()) == path.read_bytes()


IMPORT = """
import importlib, pkgutil, sys
seen = []
QUIET = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")
sys.addaudithook(lambda event, arguments: seen.append(event) if event in QUIET else None)
import empathy_kit
for module in pkgutil.walk_packages(empathy_kit.__path__, "empathy_kit."):
    if module.name != "empathy_kit.__main__":
        importlib.import_module(module.name)
imported = len([name for name in sys.modules if name.startswith("empathy_kit.")])
print(imported, seen)
import socket
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
print("socket.connect" in seen)
"""


def test_importing_every_module_connects_to_nothing(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", IMPORT], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=True)
    imported, watched = ran.stdout.splitlines()
    count, _, seen = imported.partition(" ")
    assert int(count) > 100
    assert seen == "[]"
    assert watched == "True"  # the hook would have seen one
