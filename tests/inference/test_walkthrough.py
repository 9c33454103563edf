"""The page from training to a plot runs as it stands, with a tiny encoder in place of minutes of training."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from empathy_kit.cli import cli

PAGE = Path(__file__).parents[2] / "docs" / "walkthrough.md"
QUICK = ["--epochs", "1", "--max-tokens", "16", "--threads", "1", "--trunk", "mean", "--batch-size", "150"]


@pytest.fixture(scope="module")
def walked(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str, str]:
    """Where the page was run; what its code defined, printed and was to print."""
    pytest.importorskip("pandas")
    import matplotlib as mpl

    folder = tmp_path_factory.mktemp("walk")
    world: dict[str, Any] = {"__name__": "__main__"}
    printed, said = io.StringIO(), ""
    with contextlib.chdir(folder), mpl.rc_context({"backend": "agg"}):
        for language, text in re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
            if language == "console":
                for line in text.splitlines():
                    arguments = shlex.split(line.removeprefix("$ empathy-kit "))
                    quick = ["--encoder", str(tiny_roberta), *QUICK] if arguments[0] == "run" else ["--json"]
                    world[arguments[0]] = CliRunner().invoke(cli, [*arguments, *quick], catch_exceptions=False)
            elif language == "py":
                with contextlib.redirect_stdout(printed):
                    exec(compile(text, str(PAGE), "exec"), world)
            else:
                said += text
    return folder, world, printed.getvalue(), said


def test_the_pages_code_prints_what_the_page_says(walked: tuple[Path, dict[str, Any], str, str]) -> None:
    _, world, printed, said = walked
    # The evidence depends on the training, so the page does not show it. All other lines do not.
    evidence = "".join(f"{span['text']}\n" for spans in world["predicted"]["IP_evidence"] for span in spans)
    before = "".join(said.splitlines(keepends=True)[:2])
    assert printed == before + evidence + said.removeprefix(before)


def test_its_table_is_the_pairs_that_the_model_has_not_seen(walked: tuple[Path, dict[str, Any], str, str]) -> None:
    _, world, _, _ = walked
    assert world["run"].exit_code == world["evaluate"].exit_code == 0
    found = json.loads(world["evaluate"].stdout)
    assert found["scored"] == len(world["posts"])
    assert {task: each["scores"]["accuracy"]["value"] for task, each in found["tasks"].items()} == pytest.approx(
        world["accuracy"].to_dict()
    )


def words(picture: Path) -> list[str]:
    """The text of an SVG, without the numbers of its axes."""
    texts = [each.text or "" for each in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    return sorted(text for text in texts if not re.fullmatch(r"[\N{MINUS SIGN}\d.]+", text))


def test_its_picture_is_the_committed_one_with_other_numbers(walked: tuple[Path, dict[str, Any], str, str]) -> None:
    folder, _, _, _ = walked
    assert "annotated" in words(folder / "levels.svg")
    assert words(folder / "levels.svg") == words(PAGE.with_suffix(".svg"))
