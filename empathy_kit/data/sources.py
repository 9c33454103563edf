"""What ``--data`` names: the bundled sample, the Reddit files (fetched once), a folder of the three files, or a table."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from empathy_kit.cache import cache_folder, private_folder
from empathy_kit.data.epitome import FILES, load_epitome
from empathy_kit.data.pairs import Corpus
from empathy_kit.data.readers import read_bytes
from empathy_kit.data.schema import EPITOME, Schema
from empathy_kit.data.tables import load_table
from empathy_kit.errors import KitError
from empathy_kit.files import write_whole

REDDIT_URL = "https://raw.githubusercontent.com/behavioral-data/Empathy-Mental-Health/master/dataset/"
REDDIT_PAGE = "https://github.com/behavioral-data/Empathy-Mental-Health/tree/master/dataset"
REDDIT_SHA256 = {
    "emotional-reactions-reddit.csv": "225b28ffdc257f8a997d557eb937e78b68235e6203c87c7e2203d00fef8545cc",
    "explorations-reddit.csv": "9efa1af8e0537c16894379598f2076cb380ae18aacd9a8d26ebd381f5b7f9645",
    "interpretations-reddit.csv": "2cedbe4252c919d22a6f46685afa16d3192a91e3306c2d4a386be12a30ad3f29",
}


def load_corpus(data: str, schema: Schema = EPITOME, *, flag: str = "--data", partial: bool = False) -> Corpus:
    """The pairs that ``--data`` names, with the labels of a schema's tasks.

    Args:
        data: sample, reddit, a folder, or a table.
        schema: its tasks.
        flag: what names the data, for messages.
        partial: take what the data has of these tasks. A table may lack columns; all other data has EPITOME's tasks.

    Raises:
        KitError: nothing by that name, a fault in its files, or a schema for data whose tasks are EPITOME's.
    """
    path = Path(data)
    folder = os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises where the name is too long
    if schema != EPITOME and not partial and (data in ("sample", "reddit") or folder):
        raise KitError(
            f"--schema: {flag} {data} has EPITOME's tasks {', '.join(EPITOME.names)}, expected a table of other tasks; "
            f"leave --schema out, or give a .csv, .jsonl or .parquet file as {flag}"
        )
    if data == "sample":
        with resources.as_file(resources.files("empathy_kit.data") / "sample" / "pairs.jsonl") as path:
            return load_table(path, name="sample")
    if data == "reddit":
        return load_epitome(fetch_reddit(), name="reddit")
    if folder:
        return load_epitome(path, name=path.resolve().name)
    if not os.path.exists(path):  # noqa: PTH110
        raise KitError(
            f"{flag} {data}: no such file or folder; expected sample, reddit, a folder or a .csv, .jsonl or .parquet file"
        )
    return load_table(path, schema, partial=partial)


def _download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as reply:  # noqa: S310 - always REDDIT_URL, which is https
        data: bytes = reply.read(64 * 1024 * 1024)
        return data


def fetch_reddit(download: Callable[[str], bytes] = _download) -> Path:
    """The folder with the three Reddit files of EPITOME, fetched from their authors where it does not hold them yet.

    Every file's sha256 is checked, the kept ones' too, and a file appears whole or not at all.

    Raises:
        KitError: no network, or a file that is not the one that its authors published.
    """
    folder = cache_folder() / "epitome-reddit"
    for file in FILES.values():
        path = folder / file
        if os.path.exists(path):  # noqa: PTH110 - Path.exists raises in a folder that may not be read
            _verify(str(path), read_bytes(path), file, "delete it and fetch again")
            continue
        try:
            data = download(REDDIT_URL + file)
        except (OSError, http.client.HTTPException) as error:  # a URLError is an OSError
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise KitError(
                f"--data reddit: {file} could not be fetched ({reason}); download the three files from {REDDIT_PAGE} "
                f"into one folder and give it as --data FOLDER, or put them into {folder}"
            ) from None
        _verify(REDDIT_URL + file, data, file, f"cut short or changed on the way, or changed at {REDDIT_PAGE}")
        try:
            private_folder(folder)
            write_whole(path, data)
        except OSError as error:
            raise KitError(f"--data reddit: {path} cannot be written: {error.strerror}") from None
    return folder


def _verify(where: str, data: bytes, file: str, advice: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != REDDIT_SHA256[file]:
        raise KitError(f"{where}: sha256 {found[:12]}... found, expected {REDDIT_SHA256[file][:12]}...; {advice}")
