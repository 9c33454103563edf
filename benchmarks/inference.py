"""How many pairs per second does an exported model predict, next to torch and to what others would use?

    EMPATHY_KIT_REDDIT=FOLDER python benchmarks/inference.py RUN > benchmarks/results/inference.json
    EMPATHY_KIT_REDDIT=FOLDER python benchmarks/inference.py MPNET_RUN --no-peers > benchmarks/results/inference-mpnet.json

RUN is a finished run with its model. The contenders (predictors.py) take turns on the same pairs, round after round, so that all
meet the same machine; the median of each one's rounds counts, and each round's ratio to the torch predictor. The probabilities of
those that compute the whole model are compared too. A contender whose packages are missing is left out by name. The kit needs
none of them:

    pip install openvino nncf torchao
    pip install --no-deps fastembed loguru mmh3 py-rust-stemmers requests certifi charset-normalizer urllib3 pillow
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from machine import machine
from predictors import OURS, PEERS, Predict, World

import empathy_kit
from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import TokenPair
from empathy_kit.data.sources import load_corpus
from empathy_kit.encoders import encoder_source
from empathy_kit.errors import KitError
from empathy_kit.inference.export import export
from empathy_kit.plugins import load_registry
from empathy_kit.processor import cores
from empathy_kit.runs.load import load


def measured(contenders: dict[str, Predict], pairs: list[TokenPair], rounds: int) -> dict[str, list[float]]:
    """Pairs per second, one figure per round; before the first, each warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for predict in contenders.values():
        predict(pairs[:64])
    for number in range(rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:  # nobody always follows the same one
            predict = contenders[name]
            started = time.perf_counter()
            predict(pairs)
            speeds[name].append(len(pairs) / (time.perf_counter() - started))
        told = ", ".join(f"{name} {each[-1]:.1f}" for name, each in speeds.items())
        print(f"round {number + 1}: {told}", file=sys.stderr)
    return speeds


def compared(contenders: dict[str, Predict], pairs: list[TokenPair]) -> dict[str, dict[str, float]]:
    """Of those that give the whole model's probabilities: how many levels are the same, and the largest difference."""
    whole = {name: found for name, predict in contenders.items() if isinstance(found := predict(pairs), list) and found}
    scored = {name: found for name, found in whole.items() if isinstance(found[0], Scored)}
    ours = scored["kit in torch"]
    found = {}
    for name, theirs in scored.items():
        rows = zip(ours, theirs, strict=True)
        both = [(one.probabilities[task], values) for one, other in rows for task, values in other.probabilities.items()]
        found[name] = {
            "same_level_percent": round(100 * statistics.mean(int(one.argmax() == other.argmax()) for one, other in both), 2),
            "largest_difference": round(max(float(np.abs(one - other).max()) for one, other in both), 5),
        }
    return found


def one_by_one(folder: Path, texts: list[tuple[str, str]]) -> dict[str, float]:
    """Milliseconds of one warm pair, from its posts to its labels and marked evidence."""
    model = empathy_kit.load(folder)
    model.predict(texts[:64])
    taken = []
    for pair in texts[:300]:
        started = time.perf_counter()
        model.predict([pair])
        taken.append(1000 * (time.perf_counter() - started))
    return {"median": round(statistics.median(taken), 2), "p95": round(float(np.percentile(taken, 95)), 2)}


def cold(folder: Path, texts: list[tuple[str, str]]) -> dict[str, float]:
    """Seconds of `empathy-kit predict` on 10 pairs, from nothing to its end."""
    taken = []
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch) / "in.jsonl"
        rows = [{"seeker_post": seeker, "response_post": response} for seeker, response in texts[:10]]
        table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for number in range(7):
            out = Path(scratch) / f"out-{number}.csv"
            started = time.perf_counter()
            command = [sys.executable, "-m", "empathy_kit", "predict", str(folder), str(table), "--out", str(out)]
            subprocess.run(command, check=True, capture_output=True)
            taken.append(time.perf_counter() - started)
    return {"median": round(statistics.median(taken), 3), "max": round(max(taken), 3)}


def versions() -> dict[str, str]:
    """Of what computes next to torch."""
    found = {}
    for name in ("onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "torchao", "fastembed", "tokenizers", "numpy"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def main() -> None:
    """Print the comparison as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(cores())
    loaded = load(arguments.run, load_registry(), device="cpu")
    data = os.environ.get("EMPATHY_KIT_REDDIT") or loaded.record.config["data"]
    corpus = load_corpus(data, loaded.record.schema)
    shown = [corpus.pairs[at] for at in np.random.default_rng(0).permutation(len(corpus))[: arguments.pairs]]
    pairs = list(loaded.tokenization.encode(shown))
    if next(iter(loaded.predictor.predict(pairs[:1]))).evidence is None:
        raise KitError(f"{arguments.run}: has no span head, expected a whole model: a run with --rationale tag or predicted")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checked = {}
        for precision in ("float32", "int8"):
            done = export(arguments.run, folder / precision, load_registry(), int8=precision == "int8").description
            size = (folder / precision / "model.onnx").stat().st_size
            checked[precision] = {"apart": done["apart"], "mebibytes": round(size / 2**20, 1), "in_int8": done.get("in_int8")}
        texts = [(pair.seeker, pair.response) for pair in shown]
        encoder = Path(encoder_source(loaded.record.config["encoder"]).location)
        world = World(arguments.run, loaded, folder, texts, pairs, encoder, loaded.tokenization.pad_id)
        contenders, missing = {}, {}
        for name, make in {**OURS, **({} if arguments.no_peers else PEERS)}.items():
            try:
                with redirect_stdout(sys.stderr):  # NNCF prints its progress
                    contenders[name] = make(world)
                    contenders[name](pairs[:16])
            except Exception as error:  # a peer that is not installed, or does not know an operator
                contenders.pop(name, None)
                missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        before = os.getloadavg()[0]
        speeds = measured(contenders, pairs, arguments.rounds)
        result = {
            "what": f"pairs per second of {loaded.record.title} on {loaded.record.config['encoder']}, contenders in turn",
            "model": {"title": loaded.record.title, "encoder": loaded.record.config["encoder"], "span_head": True},
            "data": corpus.name,
            "tokens_per_pair": round(statistics.mean(pair.tokens for pair in pairs), 1),
            "pairs_per_second": {
                name: {"median": round(statistics.median(each), 1), "min": round(min(each), 1), "max": round(max(each), 1)}
                for name, each in speeds.items()
            },
            "times_the_kit_in_torch": {
                name: round(statistics.median(a / b for a, b in zip(each, speeds["kit in torch"], strict=True)), 2)
                for name, each in speeds.items()
            },
            "next_to_the_kit_in_torch": compared(contenders, pairs),
            "one_warm_pair_ms": one_by_one(folder / "int8", texts),
            "cold_predict_of_10_pairs_s": cold(folder / "int8", texts),
            "exports": checked,
            "left_out": missing,
            "settings": {"pairs": len(pairs), "rounds": arguments.rounds, "max_tokens": loaded.tokenization.max_tokens},
            "machine": {**machine(), **versions(), "threads": cores(), "load_before": round(before, 1)},
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    try:
        main()
    except KitError as error:
        raise SystemExit(f"Error: {error}") from None
