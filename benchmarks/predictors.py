"""Ways to predict the same pairs with the same weights: the kit's own, and what others would use. Read by inference.py."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import empathy_kit
from empathy_kit.core.batch import collate_texts
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.model import Model
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.predictor import Predictor
from empathy_kit.core.rationales import TaggedRationale
from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import TokenPair
from empathy_kit.inference.graph import BATCH, feed, open_export, open_session
from empathy_kit.plugins import load_registry
from empathy_kit.processor import cores
from empathy_kit.runs.load import Loaded, load

Predict = Callable[[list[TokenPair]], object]
FIXED = 32  # pairs per batch of those that do not choose for themselves
SEEN = 256  # pairs that show NNCF the ranges of states


@dataclass
class World:
    """What the contenders are made of."""

    run: Path
    loaded: Loaded
    exports: Path  # int8/ and float32/
    texts: list[tuple[str, str]]  # for those that tokenise by themselves
    shown: list[TokenPair]  # the same pairs, in tokens
    encoder: Path  # as transformers loads it
    pad_id: int


def exported(precision: str) -> Callable[[World], Predict]:
    """The whole model, exported."""

    def make(world: World) -> Predict:
        _, _, engine = open_export(world.exports / precision)
        return lambda pairs: list(engine.predict(pairs))

    return make


def from_texts(world: World) -> Predict:
    """The same from the posts to labels and marked evidence, as `empathy_kit.load` gives them."""
    model = empathy_kit.load(world.exports / "int8")
    return lambda pairs: model.predict(world.texts[: len(pairs)])


def kit_in_torch(world: World) -> Predict:
    """The whole model, in torch."""
    return lambda pairs: list(world.loaded.predictor.predict(pairs))


def in_bfloat16(world: World) -> Predict:
    """The whole model, in torch, in mixed precision."""
    predictor = Predictor(world.loaded.predictor.model, pad_id=world.pad_id, precision="bf16")
    return lambda pairs: list(predictor.predict(pairs))


def in_torchao(world: World) -> Predict:
    """The kit in torch, its linear layers in torchao's int8, a scale per token; not compiled, as lengths vary."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    model = copy.deepcopy(world.loaded.predictor.model)
    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    predictor = Predictor(model, pad_id=world.pad_id)
    return lambda pairs: list(predictor.predict(pairs))


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


def bare_encoder_in_int8(world: World) -> Path:
    """The encoder alone as sentence-transformers quantises its exports: a scale per batch, per channel of the weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = world.exports / "encoder" / "model.onnx"
    if small.exists():
        return small
    encoder, _ = load_encoder(str(world.encoder), local=True)

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            return found

    small.parent.mkdir()
    large = world.exports / "encoder.onnx"
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    shown = (torch.full((3, 9), 100), torch.ones(3, 9, dtype=torch.int64))
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["last_hidden_state"]}
    settings: dict[str, Any] = {"dynamo": True, "verbose": False, "dynamic_shapes": [sizes] * 2}
    torch.onnx.export(Bare().eval(), shown, **names, **settings).save(large, external_data=False)
    quantize_dynamic(large, small, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
    return small


def encoder_in_dynamic_int8(world: World) -> Predict:
    """The encoder alone, in int8, posts sorted and padded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(str(bare_encoder_in_int8(world)), options, providers=["CPUExecutionProvider"])

    def predict(pairs: list[TokenPair]) -> None:
        posts = sorted((post for pair in pairs for post in (pair.seeker, pair.response)), key=len)
        for batch in batches(posts, 2 * FIXED):
            given = feed([TokenPair(post, post) for post in batch], world.pad_id)
            session.run(None, {"input_ids": given["seeker"], "attention_mask": given["seeker_mask"].astype(np.int64)})

    return predict


def in_fastembed(world: World) -> Predict:
    """The same file of the encoder alone, in fastembed, which tokenises and averages the states."""
    import shutil

    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    folder = bare_encoder_in_int8(world).parent
    for path in world.encoder.glob("*.json"):
        shutil.copy(path, folder)
    settings = folder / "tokenizer_config.json"
    told = json.loads(settings.read_text("utf-8"))
    settings.write_text(json.dumps({**told, "model_max_length": world.loaded.tokenization.max_tokens}), "utf-8")
    name = "the/encoder"
    source = ModelSource(hf=name)
    if not any(each["model"] == name for each in TextEmbedding.list_supported_models()):
        width = next(each.width for each in world.loaded.predictor.model.modules() if isinstance(each, PostEncoder))
        TextEmbedding.add_custom_model(
            model=name, pooling=PoolingType.MEAN, normalization=True, sources=source, dim=width, model_file="model.onnx"
        )
    model = TextEmbedding(name, specific_model_path=str(folder), cuda=False, threads=cores())
    posts = [post for pair in world.texts for post in pair]
    return lambda pairs: list(model.embed(sorted(posts[: 2 * len(pairs)], key=len), batch_size=2 * FIXED))


def openvino(precision: str) -> Callable[[World], Predict]:
    """The float32 graph, read by OpenVINO and computed as it is, in bfloat16, or in NNCF's int8.

    OpenVINO 2026.4 runs a GRU to the end of its batch, whatever `sequence_lens` says, so that padded pairs get wrong answers.
    So every pair is a batch of its own, and all cores compute pairs at once.
    """

    def make(world: World) -> Predict:
        import openvino as ov

        core = ov.Core()
        graph = core.read_model(world.exports / "float32" / "model.onnx")
        if precision == "int8":
            import nncf

            seen = nncf.Dataset([feed(batch, world.pad_id) for batch in batches(world.shown[:SEEN], FIXED)])
            graph = nncf.quantize(graph, seen, model_type=nncf.ModelType.TRANSFORMER, subset_size=SEEN // FIXED)
        # Without the hint, OpenVINO computes in bfloat16 wherever the processor has AMX.
        hints = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
        model = core.compile_model(graph, "CPU", {**hints, "NUM_STREAMS": cores()})
        names = [found.any_name for found in model.outputs]

        def run(chosen: Iterable[list[TokenPair]]) -> list[Outputs]:
            found: dict[int, Outputs] = {}
            waiting = ov.AsyncInferQueue(model, cores())
            waiting.set_callback(lambda done, at: found.update({at: {name: done.get_tensor(name).data.copy() for name in names}}))
            for at, batch in enumerate(chosen):
                waiting.start_async(feed(batch, world.pad_id), at)
            waiting.wait_all()
            return [found[at] for at in range(len(found))]

        return lambda pairs: in_order(pairs, 1, run)

    return make


def in_dynamic_int8(world: World) -> Predict:
    """The kit's graph with onnxruntime's own quantisation: a scale per batch, so that a pair depends on its neighbours."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = world.exports / "dynamic.onnx"
    large = world.exports / "float32" / "model.onnx"
    quantize_dynamic(large, small, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)
    session = open_session(small)
    names = [each.name for each in session.get_outputs()]
    pool = ThreadPoolExecutor(cores())

    def run(batch: list[TokenPair]) -> dict[str, Any]:
        return dict(zip(names, session.run(None, feed(batch, world.pad_id)), strict=True))

    return lambda pairs: in_order(pairs, BATCH, lambda each: pool.map(run, each))


Outputs = dict[str, Any]


def in_order(pairs: list[TokenPair], size: int, run: Callable[[Iterator[list[TokenPair]]], Iterable[Outputs]]) -> list[Scored]:
    """A graph's probabilities in the pairs' order; pairs of like length are computed together."""
    order = sorted(range(len(pairs)), key=lambda at: pairs[at].tokens)
    chosen = list(batches(order, size))
    found: dict[int, Scored] = {}
    for rows, outputs in zip(chosen, run([pairs[at] for at in rows] for rows in chosen), strict=True):
        tasks = {name.removeprefix("p_"): values for name, values in outputs.items() if name.startswith("p_")}
        for row, at in enumerate(rows):
            found[at] = Scored({name: values[row] for name, values in tasks.items()}, None)
    return [found[at] for at in range(len(pairs))]


def batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """One after the other."""
    return (list(items[at : at + size]) for at in range(0, len(items), size))


OURS: dict[str, Callable[[World], Predict]] = {
    "exported, int8": exported("int8"),
    "exported, int8, from texts": from_texts,
    "exported, float32": exported("float32"),
    "kit in torch": kit_in_torch,
    "kit in torch, bfloat16": in_bfloat16,
}
PEERS: dict[str, Callable[[World], Predict]] = {
    "same graph, dynamic int8": in_dynamic_int8,
    "same graph in OpenVINO": openvino("float32"),
    "same graph in OpenVINO, bfloat16": openvino("bfloat16"),
    "same graph in OpenVINO, NNCF int8": openvino("int8"),
    "kit in torch, torchao int8": in_torchao,
    "same model, padded in fixed batches": padded,
    "transformers pipeline, one task": pipeline,
    "three bi-encoders": three_bi_encoders,
    "encoder alone, dynamic int8": encoder_in_dynamic_int8,
    "encoder alone, fastembed": in_fastembed,
}
