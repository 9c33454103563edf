"""How many pairs per second does an exported model predict, next to torch and to what others would use?

    EMPATHY_KIT_REDDIT=FOLDER python benchmarks/inference.py RUN > benchmarks/results/inference.json
    python benchmarks/inference.py RUN --scores RUN RUN RUN    # and what int8 costs in score on these runs' test parts
    python benchmarks/inference.py MPNET_RUN --no-peers        # the kit's own ways alone

RUN is a finished run with its model. The contenders take turns on the same pairs, round after round, so that all meet the same
machine; the median of each one's rounds counts, and each round's ratio to the torch predictor. A contender whose packages are
missing is left out by name.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from torch import nn

from empathy_kit.cluster import cores
from empathy_kit.core.batch import collate_texts
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.model import Model
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.predictor import Predictor
from empathy_kit.core.rationales import TaggedRationale
from empathy_kit.core.tokens import TokenPair
from empathy_kit.data.sources import load_corpus
from empathy_kit.encoders import encoder_source
from empathy_kit.inference.export import export
from empathy_kit.inference.graph import feed, open_export, open_session
from empathy_kit.plugins import load_registry
from empathy_kit.runs.load import Loaded, load

Predict = Callable[[list[TokenPair]], object]
FIXED = 32  # pairs per batch of those that pad to a fixed length


@dataclass
class World:
    """What the contenders are made of."""

    run: Path
    loaded: Loaded
    exports: Path  # int8/ and float32/
    texts: list[tuple[str, str]]  # for those that tokenise by themselves
    encoder: Path  # as transformers loads it
    pad_id: int


def exported(precision: str) -> Callable[[World], Predict]:
    """The whole model, exported."""

    def make(world: World) -> Predict:
        _, _, engine = open_export(world.exports / precision)
        return lambda pairs: list(engine.predict(pairs))

    return make


def kit_in_torch(world: World) -> Predict:
    """The whole model, in torch."""
    return lambda pairs: list(world.loaded.predictor.predict(pairs))


def padded(world: World) -> Predict:
    """The run's model as others would call it: batches as they come, every post padded to the limit."""
    model = load(world.run, load_registry(), device="cpu").predictor.model
    for module in model.modules():
        if isinstance(module, PostEncoder):
            module.unpadded = False
    limit = world.loaded.tokenization.max_tokens

    def predict(pairs: list[TokenPair]) -> None:
        with torch.inference_mode():
            for batch in batches(pairs, FIXED):
                model(collate_texts(batch, world.pad_id, limit))

    return predict


def pipeline(world: World) -> Predict:
    """One classifier of transformers on a like encoder, both posts in one sequence: all three tasks would take three."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    model = AutoModelForSequenceClassification.from_pretrained(world.encoder, num_labels=3)
    tokenizer = AutoTokenizer.from_pretrained(world.encoder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    posts = [{"text": seeker, "text_pair": response} for seeker, response in world.texts]
    limit = 2 * world.loaded.tokenization.max_tokens

    def predict(pairs: list[TokenPair]) -> None:
        classify(posts[: len(pairs)], batch_size=FIXED, truncation=True, max_length=limit)

    return predict


def three_bi_encoders(world: World) -> Predict:
    """Sharma et al. (EMNLP 2020): two encoders per task, with the kit's batches and without padding."""
    from empathy_kit_biencoder.head import DenseHead
    from empathy_kit_biencoder.trunk import BiEncoder

    def make() -> Predictor:
        posts = PostEncoder(load_encoder(str(world.encoder), local=True, attention_dropout=0.0)[0])
        trunk = BiEncoder(posts, TaggedRationale(1, posts.width), 0.1)
        return Predictor(Model(trunk, {"task": DenseHead(posts.width, 3, 0.1)}), pad_id=world.pad_id)

    models = [make() for _ in range(3)]
    return lambda pairs: [list(model.predict(pairs)) for model in models]


def encoder_in_dynamic_int8(world: World) -> Predict:
    """The encoder alone, as sentence-transformers exports and quantises it: dynamic scales, posts sorted and padded."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    encoder, _ = load_encoder(str(world.encoder), local=True)

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            return found

    large, small = world.exports / "encoder.onnx", world.exports / "encoder-int8.onnx"
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shown = (torch.full((3, 9), 100), torch.ones(3, 9, dtype=torch.int64))
    settings: dict[str, Any] = {"dynamo": True, "input_names": ["ids", "mask"], "verbose": False, "dynamic_shapes": [sizes] * 2}
    torch.onnx.export(Bare().eval(), shown, **settings).save(large, external_data=False)
    quantize_dynamic(large, small, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(small), providers=["CPUExecutionProvider"])

    def predict(pairs: list[TokenPair]) -> None:
        posts = sorted((post for pair in pairs for post in (pair.seeker, pair.response)), key=len)
        for batch in batches(posts, 2 * FIXED):
            given = feed([TokenPair(post, post) for post in batch], world.pad_id)
            session.run(None, {"ids": given["seeker"], "mask": given["seeker_mask"].astype(np.int64)})

    return predict


def openvino(world: World) -> Predict:
    """The float32 graph, read by OpenVINO."""
    import openvino as ov

    core = ov.Core()
    model = core.compile_model(core.read_model(world.exports / "float32" / "model.onnx"), "CPU")

    def predict(pairs: list[TokenPair]) -> None:
        for batch in batches(sorted(pairs, key=lambda pair: pair.tokens), FIXED):
            model(feed(batch, world.pad_id))

    return predict


def in_dynamic_int8(world: World) -> Predict:
    """The kit's graph with onnxruntime's own quantisation: a scale per batch, so that a pair depends on its neighbours."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = world.exports / "dynamic.onnx"
    large = world.exports / "float32" / "model.onnx"
    quantize_dynamic(large, small, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
    session = open_session(small)
    pool = ThreadPoolExecutor(cores())

    def predict(pairs: list[TokenPair]) -> None:
        ordered = sorted(pairs, key=lambda pair: pair.tokens)
        list(pool.map(lambda batch: session.run(None, feed(batch, world.pad_id)), batches(ordered, 8)))

    return predict


OURS: dict[str, Callable[[World], Predict]] = {
    "exported, int8": exported("int8"),
    "exported, float32": exported("float32"),
    "kit in torch": kit_in_torch,
}
PEERS: dict[str, Callable[[World], Predict]] = {
    "same graph, dynamic int8": in_dynamic_int8,
    "same graph in OpenVINO": openvino,
    "same model, padded in fixed batches": padded,
    "transformers pipeline, one task": pipeline,
    "three bi-encoders": three_bi_encoders,
    "encoder alone, dynamic int8": encoder_in_dynamic_int8,
}


def batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """One after the other."""
    return (list(items[at : at + size]) for at in range(0, len(items), size))


def measured(contenders: dict[str, Predict], pairs: list[TokenPair], rounds: int) -> dict[str, list[float]]:
    """Pairs per second, one figure per round; before the first, each warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for predict in contenders.values():
        predict(pairs[:64])
    for number in range(rounds):
        for name, predict in contenders.items():
            started = time.perf_counter()
            predict(pairs)
            speeds[name].append(len(pairs) / (time.perf_counter() - started))
        told = ", ".join(f"{name} {each[-1]:.1f}" for name, each in speeds.items())
        print(f"round {number + 1}: {told}", file=sys.stderr)
    return speeds


def one_by_one(folder: Path, pairs: list[TokenPair]) -> dict[str, float]:
    """Milliseconds of one warm pair."""
    _, _, engine = open_export(folder)
    list(engine.predict(pairs[:64]))
    taken = []
    for pair in pairs[:300]:
        started = time.perf_counter()
        list(engine.predict([pair]))
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


def costs(runs: list[Path], scratch: Path) -> dict[str, Any]:
    """What int8 changes on each run's test part, in points; and their means over runs."""
    found: dict[str, Any] = {}
    for number, run in enumerate(runs):
        done = export(run, scratch / f"score-{number}", load_registry(), int8=True).description
        before, after = (done["scores"][name] for name in ("before", "after"))
        record = done["record"]
        found[f"{done['title']}, seed {record['config']['seed']}, split {record['config']['split_seed']}"] = {
            "in_int8": done["in_int8"],
            **{
                task: {
                    **{score: round(100 * (after[task][score] - was[score]), 2) for score in ("accuracy", "macro_f1")},
                    "recall": [
                        round(100 * (now - then), 2) for then, now in zip(was["recall"], after[task]["recall"], strict=True)
                    ],
                }
                for task, was in before.items()
            },
        }
    tasks = [task for task in next(iter(found.values())) if task != "in_int8"]
    scores = ("accuracy", "macro_f1")
    mean = {
        task: {each: round(statistics.mean(run[task][each] for run in found.values()), 2) for each in scores} for task in tasks
    }
    return {"points_after_minus_before": found, "mean": mean}


def versions() -> dict[str, str]:
    """Of what computes next to torch."""
    found = {}
    for name in ("onnx", "onnxruntime", "onnxscript", "openvino", "tokenizers", "numpy"):
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
    parser.add_argument("--scores", type=Path, nargs="*", default=[], metavar="RUN")
    arguments = parser.parse_args()
    torch.set_num_threads(cores())
    loaded = load(arguments.run, load_registry(), device="cpu")
    data = os.environ.get("EMPATHY_KIT_REDDIT") or loaded.record.config["data"]
    corpus = load_corpus(data, loaded.record.schema)
    shown = [corpus.pairs[at] for at in np.random.default_rng(0).permutation(len(corpus))[: arguments.pairs]]
    pairs = list(loaded.tokenization.encode(shown))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        checked = {}
        for precision in ("float32", "int8"):
            done = export(arguments.run, folder / precision, load_registry(), int8=precision == "int8").description
            size = (folder / precision / "model.onnx").stat().st_size
            checked[precision] = {"apart": done["apart"], "mebibytes": round(size / 2**20, 1), "in_int8": done.get("in_int8")}
        texts = [(pair.seeker, pair.response) for pair in shown]
        encoder = Path(encoder_source(loaded.record.config["encoder"]).location)
        world = World(arguments.run, loaded, folder, texts, encoder, loaded.tokenization.pad_id)
        contenders, missing = {}, {}
        for name, make in {**OURS, **({} if arguments.no_peers else PEERS)}.items():
            try:
                contenders[name] = make(world)
                contenders[name](pairs[:16])
            except Exception as error:  # a peer that is not installed, or does not know an operator
                contenders.pop(name, None)
                missing[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        before = os.getloadavg()[0]
        speeds = measured(contenders, pairs, arguments.rounds)
        result = {
            "what": f"pairs per second of {loaded.record.title} on {loaded.record.config['encoder']}, contenders in turn",
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
            "one_warm_pair_ms": one_by_one(folder / "int8", pairs),
            "cold_predict_of_10_pairs_s": cold(folder / "int8", texts),
            "exports": checked,
            "int8_scores": costs(arguments.scores, folder) if arguments.scores else {},
            "left_out": missing,
            "settings": {"pairs": len(pairs), "rounds": arguments.rounds, "max_tokens": loaded.tokenization.max_tokens},
            "machine": {**machine(), **versions(), "threads": cores(), "load_before": round(before, 1)},
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
