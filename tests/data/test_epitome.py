"""The three EPITOME files are aligned row by row, and checked to belong together."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest

from empathy_kit.data.epitome import COLUMNS, FILES, load_epitome
from empathy_kit.data.pairs import class_counts, duplicates
from empathy_kit.data.schema import EPITOME, MISSING
from empathy_kit.data.sources import REDDIT_SHA256
from empathy_kit.data.splits import leakage, make_split, take
from empathy_kit.errors import KitError

IDS = [("p1", "r1"), ("p1", "r2"), ("p1", "r1"), ("p2", "r3")]  # the third row is the first, labelled anew
POSTS = [("all &gt; bad", "So sorry. Why?"), ("all &gt; bad", "Same here."), ("all &gt; bad", "So sorry. Why?"), ("tired", "ok")]
LEVELS = {"ER": [2, 0, 1, 0], "EX": [2, 0, 2, 0], "IP": [0, 1, 0, 0]}
SPANS = {"ER": ["So sorry.", "", "sorry", ""], "EX": ["Why?", "", "Why?", ""], "IP": ["", "Same here.", "", ""]}


def table(mechanism: str) -> list[list[str]]:
    """The cells of one file, header first."""
    rows = zip(IDS, POSTS, LEVELS[mechanism], SPANS[mechanism], strict=True)
    return [list(COLUMNS), *([*ids, *posts, str(level), spans] for ids, posts, level, spans in rows)]


def write(folder: Path, **changed: list[list[str]]) -> None:
    for mechanism, file in FILES.items():
        out = io.StringIO(newline="")
        csv.writer(out).writerows(changed.get(mechanism, table(mechanism)))
        (folder / file).write_text(out.getvalue(), encoding="utf-8", newline="")


def test_repeated_id_pairs_stay_rows_and_are_never_joined(tmp_path: Path) -> None:
    write(tmp_path)
    corpus = load_epitome(tmp_path)
    assert [pair.row for pair in corpus.pairs] == [1, 2, 3, 4]
    assert [pair.pair_id for pair in corpus.pairs] == ["p1_r1", "p1_r2", "p1_r1", "p2_r3"]
    assert [pair.levels for pair in corpus.pairs] == [(2, 2, 0), (0, 0, 1), (1, 2, 0), (0, 0, 0)]
    assert corpus.pairs[0].seeker == "all > bad"
    spans = [[pair.response[span.start : span.end] for part in pair.spans for span in part] for pair in corpus.pairs]
    assert spans == [["So sorry.", "Why?"], ["Same here."], ["sorry", "Why?"], []]
    assert list(corpus.sources) == list(FILES.values())
    repeated = duplicates(corpus)
    assert (repeated.groups, repeated.surplus, repeated.conflicting) == (1, 1, 1)
    assert repeated.agreement == {"ER": 0.0, "EX": 1.0, "IP": 1.0}


def test_the_texts_are_those_of_the_explorations_file(tmp_path: Path) -> None:
    cut = table("ER")
    for row in cut[1:]:
        row[2:4] = "words were cut out of", "this"
    write(tmp_path, ER=cut)
    assert [pair.response for pair in load_epitome(tmp_path).pairs] == [response for _, response in POSTS]


def test_white_space_and_case_do_not_make_another_text(tmp_path: Path) -> None:
    spaced = table("IP")
    spaced[1][3] = "so  SORRY.\nWhy?"
    write(tmp_path, IP=spaced)
    assert len(load_epitome(tmp_path)) == 4


def test_a_span_that_is_not_in_its_response_is_counted_and_listed_by_row(tmp_path: Path) -> None:
    lost = table("ER")
    lost[3][5] = "a line of another post|sorry"
    write(tmp_path, ER=lost)
    corpus = load_epitome(tmp_path)
    assert corpus.placement.lost == ((3, "ER"),)
    assert corpus.pairs[2].unplaced == (1, 0, 0)
    assert len(corpus.pairs[2].spans[0]) == 1


ER, EX, IP = FILES.values()


@pytest.mark.parametrize(
    ("mechanism", "row", "column", "cell", "message"),
    [
        ("IP", 2, "sp_id", "p9", f"{IP}, row 2, column 'sp_id': another id than in row 2 of {EX}, expected the same pair"),
        ("ER", 4, "rp_id", "r1", f"{ER}, row 4, column 'rp_id': another id than in row 4 of {EX}, expected the same pair"),
        ("IP", 4, "seeker_post", "x",
         f"{IP}, row 4, column 'seeker_post': another text than in row 4 of {EX}, expected the same"),
        ("IP", 1, "response_post", "x",
         f"{IP}, row 1, column 'response_post': another text than in row 1 of {EX}, expected the same"),
        ("IP", 1, "response_post", "", f"{IP}, row 1, column 'response_post': empty, expected a post"),
        ("EX", 3, "seeker_post", " ", f"{EX}, row 3, column 'seeker_post': empty, expected a post"),
        ("EX", 3, "response_post", "a\0", f"{EX}, row 3, column 'response_post': a NUL byte found, expected text"),
        ("ER", 1, "level", "3", f"{ER}, row 1, column 'level': 3 found, expected 0, 1 or 2"),
        ("EX", 2, "level", "NA",
         f"{EX}, row 2, column 'level': 'NA' found, expected 0, 1 or 2, or an empty cell where the label is missing"),
        ("IP", 4, "rationales", "ok",
         f"{IP}, row 4, column 'rationales': a span found, expected none where the label is '0', the lowest"),
    ],
)  # fmt: skip
def test_a_bad_cell_is_named_by_file_row_and_column(
    tmp_path: Path, mechanism: str, row: int, column: str, cell: str, message: str
) -> None:
    bad = table(mechanism)
    bad[row][COLUMNS.index(column)] = cell
    write(tmp_path, **{mechanism: bad})
    with pytest.raises(KitError) as error:
        load_epitome(tmp_path)
    assert str(error.value) == message


def test_a_label_may_be_missing_in_one_of_the_files(tmp_path: Path) -> None:
    gap = table("EX")
    gap[1][4] = ""
    write(tmp_path, EX=gap)
    corpus = load_epitome(tmp_path)
    assert corpus.pairs[0].levels == (2, MISSING, 0)
    assert class_counts(corpus.pairs, EPITOME)["EX"] == (2, 0, 1)


def test_a_missing_file_or_column_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("posts")
    folder.mkdir()
    write(folder, EX=[row[:5] for row in table("EX")])
    with pytest.raises(KitError) as error:
        load_epitome(folder)
    assert str(error.value) == (
        f"{EX}: column 'rationales' is missing; there are sp_id, rp_id, seeker_post, response_post, level"
    )
    (folder / EX).unlink()
    there = f"there are '{ER}', '{IP}'"
    with pytest.raises(KitError) as error:
        load_epitome(folder)
    assert str(error.value) == f"posts: expected {ER}, {EX}, {IP}, or the three with one other word in place of reddit; {there}"


def test_the_same_three_files_of_another_forum_are_found_under_their_names(tmp_path: Path) -> None:
    write(tmp_path)
    corpus = load_epitome(tmp_path)
    for file in FILES.values():
        shutil.copy(tmp_path / file, tmp_path / file.replace("reddit", "talklife"))
    assert list(load_epitome(tmp_path).sources) == list(FILES.values())  # the Reddit part, where it is there
    for file in FILES.values():
        (tmp_path / file).unlink()
    found = load_epitome(tmp_path)
    assert found.pairs == corpus.pairs
    assert list(found.sources) == [file.replace("reddit", "talklife") for file in FILES.values()]
    for file in FILES.values():
        (tmp_path / file.replace("reddit", "talklife")).rename(tmp_path / file.replace("-", "_").replace("reddit", "TalkLife"))
    assert load_epitome(tmp_path).pairs == corpus.pairs


def test_files_of_different_length_are_refused_with_their_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(), IP=table("IP")[:-1])
    with pytest.raises(KitError) as error:
        load_epitome(Path())
    assert str(error.value) == (
        f".: the files differ in their number of rows ({ER} 4, {EX} 4, {IP} 3), expected the same pairs in each"
    )


def test_empty_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    header = [list(COLUMNS)]
    write(Path(), ER=header, EX=header, IP=header)
    with pytest.raises(KitError) as error:
        load_epitome(Path())
    assert str(error.value) == f".: no rows in {ER}, {EX}, {IP}, expected at least one pair"


@pytest.mark.reddit
def test_the_reddit_files_give_3084_pairs_and_every_span(reddit_folder: Path) -> None:
    corpus = load_epitome(reddit_folder)
    assert corpus.sources == REDDIT_SHA256
    assert len(corpus) == 3084
    assert class_counts(corpus.pairs, EPITOME) == {"ER": (2037, 895, 152), "EX": (2604, 104, 376), "IP": (1626, 114, 1344)}
    assert (len(corpus.placement.lost), corpus.placement.total, len(corpus.placement.bare)) == (0, 3382, 13)
    assert corpus.sha256() == "68e0182c6e3e9535612cc5f9a828117348e693c2c1a3384cadb720b3d9d921a1"  # recorded in finished runs
    assert len(make_split(corpus, "paper", 0).test) == 464
    assert make_split(corpus, "grouped", 0).sha256() == "d769965fbe681fbebfa1362ea45653f68b56082f3ca538d4e24704f55c461169"
    for seed in range(3):
        split = make_split(corpus, "grouped", seed)
        for part in ("validation", "test"):
            shared = leakage(corpus, split, part)
            assert (shared.pairs, shared.seekers) == (0, 0)
            assert abs(len(take(corpus, split.part(part))) - 0.15 * 3084) <= 2
