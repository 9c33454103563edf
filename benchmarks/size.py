"""Time and memory of what reads a whole table, for tables of growing size: checked, split, prepared for training, reported.

    python benchmarks/size.py > benchmarks/results/size.json

The tables are invented: posts of 20 to 120 words and answers of 8 to 60, three tasks, spans of one of them, and seekers who wrote
several times. Each command is a process of its own. Memory is its largest resident size, as measured by the system. Runs are
prepared with the small encoder's tokenizer. A report is that of two configurations with two seeds each, trained for an epoch
with an encoder of one random layer, so that its test parts are 15 % of the pairs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from machine import machine, measured

TEXT = (
    "i you feel lost alone work day night help hope sorry hear what why when think about life friend family sleep tired happy "
    "sad strong call doctor try again better never always really maybe know understand talk listen care sounds hard going"
)
WORDS = TEXT.split()
KIT = (sys.executable, "-m", "empathy_kit")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=(100_000, 1_000_000), help="rows that are checked and split")
    parser.add_argument("--prepared", type=int, nargs="+", default=(10_000, 100_000), help="rows of a run that is prepared")
    parser.add_argument("--reported", type=int, nargs="+", default=(4_000, 40_000), help="rows of a comparison that is reported")
    parser.add_argument("--prepare", metavar="TABLE", help=argparse.SUPPRESS)  # the process that is measured
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.prepare)
        return
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in arguments.sizes:
            table = write_table(folder / f"{size}.csv", size)
            commands = ([*KIT, "data", command, "--data", str(table)] for command in ("check", "split"))
            rows += [{"what": " ".join(each[3:5]), "rows": size, **measured(each)} for each in commands]
            table.unlink()
        for size in arguments.prepared:
            table = write_table(folder / f"{size}.csv", size)
            rows.append({"what": "prepare a run", "rows": size, **measured([sys.executable, __file__, "--prepare", str(table)])})
            table.unlink()
        for size in arguments.reported:
            table, out = write_table(folder / f"{size}.csv", size), folder / f"compared-{size}"
            compare = [*KIT, "compare", "T1", "T3", "--seeds", "2", "--jobs", "2", "--data", str(table), "--resplit"]
            small = ["--encoder", str(write_encoder(folder / "encoder")), "--epochs", "1", "--max-tokens", "16"]
            measured([*compare, *small, "-o", "trunk.hidden", "8", "--out", str(out)])
            rows.append({"what": "report", "rows": size, **measured([*KIT, "compare", "--figures-from", str(out)])})
    print(json.dumps({"what": "time and memory by the size of a table", "machine": machine(), "measured": rows}, indent=2))


def write_table(path: Path, size: int) -> Path:
    """A table of invented pairs."""
    dice = random.Random(size)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["seeker_id", "seeker_post", "response_post", "ER", "EX", "IP", "ER_spans"])
        for _ in range(size):
            answer = dice.choices(WORDS, k=dice.randint(8, 60))
            level = dice.choice((0, 0, 1, 2))
            seeker, post = f"u{dice.randrange(3 * size // 4)}", " ".join(dice.choices(WORDS, k=dice.randint(20, 120)))
            others = dice.choice((0, 0, 0, 1, 2)), dice.choice((0, 1, 2))
            writer.writerow([seeker, post, " ".join(answer), level, *others, " ".join(answer[2:7]) if level else ""])
    return path


def write_encoder(folder: Path) -> Path:
    """An encoder of one random layer, with the small encoder's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from empathy_kit.encoders import encoder_source

    if not folder.exists():
        tokenizer = AutoTokenizer.from_pretrained(encoder_source("minilm").location)
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def prepare(table: str) -> None:
    """All that a run does before its first step."""
    from empathy_kit.config import RunConfig, configure
    from empathy_kit.plugins import load_registry
    from empathy_kit.runs.train import Opened, run

    with tempfile.TemporaryDirectory() as out:
        for event in run(configure(RunConfig(), {"data": table}), load_registry(()), Path(out) / "run"):
            if isinstance(event, Opened):
                os._exit(0)  # the process is measured up to here


if __name__ == "__main__":
    main()
