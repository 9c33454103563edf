"""What third parties do, for real: built wheels in a clean environment, and their own tests, untouched.

The kit's wheel, the distributions of ``plugins/`` and one that `plugins new` writes for each kind are installed together. The
environment reaches the heavy libraries through a path file, so that nothing is fetched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import pytest
from hatchling.build import build_wheel

from empathy_kit.plugins import KINDS

ROOT = Path(__file__).parents[1]
PUBLISHED = sorted(path for path in (ROOT / "plugins").glob("empathy-kit-*"))
NAMES = {
    "loss": {"poly1", "class-balanced", "ldam", "logit-adjusted", "asymmetric", "new-loss"},
    "rationale": {"cues", "new-rationale"},
    "head": {"ordinal", "hurdle", "dense", "new-head"},
    "sampler": {"repeat-factor", "new-sampler"},
    "trunk": {"bi-encoder", "new-trunk"},
}


@dataclass(frozen=True)
class Clean:
    """A virtual environment with the wheels, and where the distributions' sources lie."""

    python: Path
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "EMPATHY_KIT_PLUGINS")}
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.folder,
            env={**environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )


# One process for all kinds: most of the time of each would be Python's start.
SCAFFOLD = """
import sys
from empathy_kit.cli import cli
for kind in sys.argv[2:]:
    cli(["plugins", "new", f"new-{kind}", "--kind", kind, "--into", sys.argv[1]], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """The environment: the kit first, so that `plugins new` is the wheel's, then everything else."""
    folder = tmp_path_factory.mktemp("clean")
    venv = [sys.executable, "-m", "venv", "--without-pip", str(folder / "env")]
    subprocess.run(venv, check=True, capture_output=True, timeout=120)
    python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    environment = Clean(python, folder)
    site = Path(environment.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    # By a path file of its own and not by "site": that would read this environment's path files too, and find the checkout.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    _install(folder, site, ROOT)
    said = environment.run("-c", SCAFFOLD, str(folder / "new"), *KINDS)
    assert said.returncode == 0, said.stderr
    for source in (*PUBLISHED, *(folder / "new").iterdir()):
        _install(folder, site, source)
    return environment


def _install(folder: Path, site: Path, source: Path) -> None:
    into = folder / "wheels" / source.name
    with chdir(source):
        wheel = build_wheel(str(into))
    shutil.unpack_archive(into / wheel, site, format="zip")  # what a wheel of pure Python is for


def test_the_kit_is_the_wheels_and_not_the_checkout(clean: Clean) -> None:
    where = clean.run("-c", "import empathy_kit; print(empathy_kit.__file__)").stdout
    assert where.startswith(str(clean.folder))


def test_all_of_them_are_listed_with_their_distributions(clean: Clean) -> None:
    said = clean.run("-m", "empathy_kit", "plugins", "list", "--json")
    found = json.loads(said.stdout)
    assert found["failures"] == []
    for kind, names in NAMES.items():
        assert {row["name"] for row in found["plugins"] if row["kind"] == kind and row["distribution"] != "empathy-kit"} == names


def test_every_distribution_passes_its_own_tests_untouched(clean: Clean) -> None:
    """In one process, for most of the time of each would be torch's import."""
    folders = [source / "tests" for source in (*PUBLISHED, *sorted((clean.folder / "new").iterdir()))]
    # --import-mode=importlib, or the sources beside the tests would be what is imported. Hypothesis is slow to import.
    plugins = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    flags = ("-q", "-rp", *plugins, "--import-mode=importlib", f"--rootdir={clean.folder.anchor}")
    said = clean.run("-m", "pytest", *flags, *map(str, folders))
    assert said.returncode == 0, said.stdout[-3000:]
    passed = [line.split()[1].partition("::")[0] for line in said.stdout.splitlines() if line.startswith("PASSED ")]
    names = [*(source.name for source in PUBLISHED), *(f"empathy-kit-new-{kind}" for kind in KINDS)]
    counts = {name: sum(name in Path(file).parts for file in passed) for name in names}
    assert min(counts.values()) >= 5, counts
    assert sum(counts.values()) == len(passed)


def test_every_published_distributions_readme_names_its_paper_and_how_to_measure_it() -> None:
    for source in PUBLISHED:
        text = (source / "README.md").read_text(encoding="utf-8")
        assert "## Scores" in text
        assert "arxiv.org/abs/" in text
