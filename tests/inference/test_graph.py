"""An exported model at work: it reads posts as the run did, answers each pair by itself, and refuses what was changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folders import altered
from transformers import AutoTokenizer

import empathy_kit
from empathy_kit import KitError
from empathy_kit.core.scored import MEND
from empathy_kit.core.tokens import Tokenization
from empathy_kit.data.sources import load_corpus
from empathy_kit.encoders import encoder_source
from empathy_kit.inference import graph
from empathy_kit.inference.export import largest_difference
from empathy_kit.inference.graph import MOST_BYTES, GraphTokenizer, open_export, open_session
from empathy_kit.inference.prediction import Prediction
from empathy_kit.inference.saturation import DEPTH, WIDTH, product, saturates

pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

HOSTILE = (
    "</s> and <s>, <pad> <mask> <unk>",
    "[CLS] [SEP] [PAD] [MASK]",
    "  leading and trailing  ",
    "naïve café \u200b\ufeff \u00a0 \u2028",
    "👩‍👩‍👧 漢字 مرحبا",
    "a" * 3000,
    "\r\n\t\x01 tab",
    "</s>",
    "it's don't I'LL",
    ".",
)


def pairs(number: int = 40) -> list[tuple[str, str]]:
    return [(pair.seeker, pair.response) for pair in load_corpus("sample").pairs[:number]]


@pytest.mark.parametrize("encoder", ["roberta", pytest.param("minilm", marks=pytest.mark.minilm)])
def test_hostile_posts_get_the_ids_and_places_that_transformers_gives_them(
    tiny_roberta: Path, tmp_path: Path, encoder: str, request: pytest.FixtureRequest
) -> None:
    if encoder == "minilm":
        request.getfixturevalue("minilm")
    folder = tiny_roberta if encoder == "roberta" else Path(encoder_source("minilm").location)
    theirs = AutoTokenizer.from_pretrained(folder)
    (tmp_path / "tokenizer.json").write_text(theirs.backend_tokenizer.to_str(), encoding="utf-8")
    ours = GraphTokenizer(tmp_path / "tokenizer.json", theirs.pad_token_id)
    posts = [*HOSTILE, *(post for pair in pairs() for post in pair)]
    shown = {"add_special_tokens": False, "split_special_tokens": True, "return_offsets_mapping": True, "verbose": False}
    expected, found = theirs(posts, **shown), ours(posts, **shown)
    assert found["input_ids"] == expected["input_ids"]
    assert found["offset_mapping"] == [list(map(tuple, each)) for each in expected["offset_mapping"]]
    assert Tokenization(ours, 12, "head").empty == Tokenization(theirs, 12, "head").empty


def test_nothing_of_a_tokenizer_is_set_once_threads_share_it(marking_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, tokenization, _ = open_export(marking_export)
    ours: Any = tokenization._tokenizer
    theirs = ours._tokenizer

    class Borrowed:
        """What older versions of the library do while another thread encodes."""

        def __getattr__(self, name: str) -> Any:
            return getattr(theirs, name)

        def __setattr__(self, name: str, value: object) -> None:
            raise RuntimeError("Already borrowed")

    expected = list(tokenization.read([_Posts("I am sad", "</s> so sorry")]))
    monkeypatch.setattr(ours, "_tokenizer", Borrowed())
    assert list(tokenization.read([_Posts("I am sad", "</s> so sorry")])) == expected


def test_a_pair_is_answered_the_same_alone_and_among_others_by_any_number_of_threads(marking_export: Path) -> None:
    description, tokenization, engine = open_export(marking_export, threads=3)
    assert description["precision"] == "int8"
    posts = [each.tokens for each in tokenization.read(_Posts(*pair) for pair in pairs())]
    together = list(engine.predict(posts))
    alone = [next(iter(engine.predict([post]))) for post in posts]
    assert largest_difference(alone, together) < 1e-5
    _, _, single = open_export(marking_export, threads=1)
    assert largest_difference(single.predict(posts), together) == 0
    single.window = 7
    assert largest_difference(single.predict(iter(posts)), together) < 1e-5
    assert list(engine.predict([])) == []


class _Posts:
    def __init__(self, seeker: str, response: str) -> None:
        self.seeker, self.response = seeker, response


def test_it_predicts_as_the_run_does_with_its_evidence_and_calibration(marking_run: Path, marking_export: Path) -> None:
    ours, theirs = empathy_kit.load(marking_export), empathy_kit.load(marking_run)
    assert (ours.schema, ours.temperatures) == (theirs.schema, theirs.temperatures)
    assert ours.seen == theirs.seen
    shown = [*pairs(), *((post, post) for post in HOSTILE)]
    for one, other in zip(ours.predict(shown), theirs.predict(shown), strict=True):
        assert apart(one, other) < 0.05  # int8
        assert (one.seeker_truncated, one.response_truncated) == (other.seeker_truncated, other.response_truncated)


def apart(one: Prediction, other: Prediction) -> float:
    found = (
        abs(share - other.tasks[task].probabilities[label])
        for task, said in one.tasks.items()
        for label, share in said.probabilities.items()
    )
    return max(found)


def test_weights_are_made_uint8_where_int8_sums_saturate_and_nowhere_else(
    marking_export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "session.x64quantprecision"
    for found in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(graph, "saturates", lambda runtime, found=found: found)
            settings = open_session(marking_export / "model.onnx").get_session_options()
            with nullcontext() if found else pytest.raises(RuntimeError):
                assert settings.get_session_config_entry(entry) == "1"


@pytest.mark.parametrize(("largest", "found"), [(32 * 255 * 127, False), (16 * 32767, True)])
def test_sums_saturate_where_a_product_is_too_small(largest: int, found: bool) -> None:
    session = SimpleNamespace(run=lambda outputs, inputs: [np.full((8, 16), largest, np.float32)])
    assert saturates.__wrapped__(SimpleNamespace(InferenceSession=lambda *_, **__: session)) == found


def test_the_product_that_shows_it_is_the_operator_of_an_export() -> None:
    from onnx import ModelProto, numpy_helper

    model = ModelProto.FromString(product())
    (node,) = model.graph.node
    assert (node.domain, node.op_type, list(node.input)) == ("com.microsoft", "MatMulIntegerToFloat", ["a", "b", "s", "s", "z"])
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    assert (held["b"].dtype, held["b"].shape, set(held["b"].ravel().tolist())) == (np.int8, (DEPTH, WIDTH), {127})
    assert (held["s"].item(), held["z"].item(), held["z"].dtype) == (1.0, 0, np.uint8)
    import onnxruntime

    session = onnxruntime.InferenceSession(product(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"a": np.ones((8, DEPTH), np.uint8)})
    assert (found == DEPTH * 127).all()  # which saturates nowhere


def test_where_the_operator_is_missing_a_graph_in_float32_still_opens() -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("com.microsoft:MatMulIntegerToFloat is not registered")

    assert not saturates.__wrapped__(SimpleNamespace(InferenceSession=refuse))


def test_a_graph_whose_probabilities_are_no_numbers_says_so_and_gives_no_label(marking_export: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    def divide(folder: Path) -> None:
        """By 0 where a response is longer than four tokens."""
        made = onnx.load(folder / "model.onnx")
        (last,) = [node for node in made.graph.node if "p_EX" in node.output]
        last.output[list(last.output).index("p_EX")] = "whole_EX"
        made.graph.initializer.extend(
            [numpy_helper.from_array(np.array([1]), "side"), numpy_helper.from_array(np.array([4.5], np.float32), "most")]
        )
        made.graph.node.extend(
            [
                helper.make_node("Cast", ["response_mask"], ["numbers"], to=onnx.TensorProto.FLOAT),
                helper.make_node("ReduceSum", ["numbers", "side"], ["lengths"], keepdims=1),
                helper.make_node("Less", ["lengths", "most"], ["short"]),
                helper.make_node("Cast", ["short"], ["divisor"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", ["whole_EX", "divisor"], ["share"]),
                helper.make_node("Div", ["share", "divisor"], ["p_EX"]),
            ]
        )
        onnx.save(made, folder / "model.onnx")

    model = empathy_kit.load(altered(marking_export, tmp_path / "divides", divide))
    short, long = ("I am sad", "so"), ("I am sad", "so sorry to hear that")
    said, known = (each.predict([short])[0]["EX"].probabilities for each in (model, empathy_kit.load(marking_export)))
    assert said == known
    with pytest.raises(KitError) as error:
        model.predict([short, long, short])
    assert str(error.value) == f"EX: the probabilities of 1 of 3 pairs are no finite numbers; {MEND}"


def test_nothing_is_left_in_the_users_home_and_nothing_is_reported(marking_export: Path, tmp_path: Path) -> None:
    # Onnxruntime keeps an identifier and a queue of events there, to send them.
    code = f"import empathy_kit; empathy_kit.load({str(marking_export)!r}).predict([('I am sad', 'so sorry')])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_a_changed_byte_is_noticed_wherever_it_is(marking_export: Path, tmp_path: Path) -> None:
    copied = altered(marking_export, tmp_path / "copy", lambda folder: None)
    for path in sorted(copied.iterdir()):
        whole = path.read_bytes()
        if path.name == "manifest.json":
            continue
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        with pytest.raises(KitError) as error:
            open_export(copied)
        assert str(error.value) == f"{path}: changed after the run (sha256 differs from the manifest)"
        path.write_bytes(whole)
    assert open_export(copied)


def described(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        told = json.loads((folder / "export.json").read_text())
        (folder / "export.json").write_text(json.dumps({**told, **changes}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (described(format=2), "export.json: format 2 found, expected 1; export the run again with this version of the kit"),
        (described(max_tokens=10**9), "export.json: max_tokens '1000000000' found, which no export has; export the run again"),
        (described(max_tokens=3), "export.json: 3 tokens leave no room for text"),
        (described(pad_id=-1), "export.json: pad_id '-1' found, which no export has; export the run again"),
        (described(truncate="tail"), "export.json: truncate 'tail' found, which no export has; export the run again"),
        (
            lambda folder: (folder / "export.json").write_text("[]"),
            "export.json: unreadable, expected the description of an exported model",
        ),
        (
            lambda folder: (folder / "model.onnx").unlink(),
            "model.onnx: missing, expected an exported model; export the run again",
        ),
    ],
)
def test_a_folder_that_no_export_wrote_is_one_line(
    marking_export: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    with pytest.raises(KitError) as error:
        open_export(altered(marking_export, tmp_path / "made", change))
    assert str(error.value) == f"{tmp_path / 'made'}/{message}"


def test_a_graph_or_a_tokenizer_that_is_none_is_one_line(marking_export: Path, tmp_path: Path) -> None:
    for name, start in (("model.onnx", "onnxruntime "), ("tokenizer.json", "not a tokenizer: ")):
        made = altered(marking_export, tmp_path / name, lambda folder, name=name: (folder / name).write_bytes(b"{}"))
        with pytest.raises(KitError) as error:
            open_export(made)
        assert str(error.value).startswith(f"{made / name}: {start}")
        assert "\n" not in str(error.value)


def test_sizes_that_no_export_has_are_refused_before_anything_is_read(
    marking_export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (marking_export / "model.onnx").stat().st_size
    monkeypatch.setitem(MOST_BYTES, "model.onnx", size - 1)
    with pytest.raises(KitError) as error:
        open_export(marking_export)
    assert str(error.value) == f"{marking_export / 'model.onnx'}: {size:,} bytes found, expected at most {size - 1:,}"


def test_a_missing_onnxruntime_is_one_line(marking_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(KitError) as error:
        open_export(marking_export)
    assert str(error.value) == "onnxruntime is not installed: pip install 'empathy-kit[light]' to predict with exported models"


def test_the_arithmetic_of_whoever_uses_it_stays_as_it_was(marking_export: Path) -> None:
    empathy_kit.load(marking_export, threads=1).predict(pairs(4))
    smallest = np.float64(2.0) ** -1022
    assert smallest / 2 > 0  # onnxruntime can set a thread to take such numbers for 0
