import dataclasses
import json
import time

import numpy as np
import pytest

from atspeed_jax.data.simulate import SyntheticConfig
from atspeed_jax.data.sources import SourceError, read_atspeed, synthesize
from atspeed_jax.items.catalog import Catalog

CODES = [[3, 0], [1, 2], [3, 0], [0, 1]]
USERS = {1: ([0, 1, 0], [2], []), 2: ([], [], [3]), 3: ([3], [], [1, 2])}
QUICKSTART = SyntheticConfig(
    users=600, item_count=400, clusters=20, dimensions=16, spread=0.4, twins=6, levels=4, codes_per_level=16,
    kmeans_iterations=25, zipf=0.6, events=16, drift=0.15, noise=0.1, days=365, active_share=0.5, min_rating=4, core=5,
    valid_share=0.1, test_share=0.1, seed=0,
)  # fmt: skip


@pytest.fixture
def layout(tmp_path, write_layout):
    return write_layout(tmp_path / "shop", CODES, USERS)


def replace_index(layout, change):
    file = layout / "index.json"
    index = json.loads(file.read_text())
    change(index)
    file.write_text(json.dumps(index))


def test_reads_what_was_written(layout):
    source = read_atspeed(layout)
    assert source.name == "shop"
    np.testing.assert_array_equal(source.codes, CODES)
    for place, split in enumerate(("train", "valid", "test")):
        rows = getattr(source, split)
        assert [row.tolist() for row in rows] == [user[place] for user in USERS.values()]
        assert all(row.dtype == np.int32 for row in rows)


def test_user_order_comes_from_train_and_blank_lines_do_not_count(layout):
    file = layout / "sequential_test.txt"
    file.write_text("\n" + "\n".join(reversed(file.read_text().splitlines())) + "\n\n")
    assert [row.tolist() for row in read_atspeed(layout).test] == [[], [3], [1, 2]]


@pytest.mark.parametrize("length", [1, 3, 8])
def test_other_sizes(tmp_path, write_layout, length):
    rng = np.random.default_rng(length)
    codes = rng.integers(1, 90, size=(500, length))
    codes[:248, 0], codes[248:, 0] = rng.permutation(248), rng.integers(248, size=252)
    users = {user: tuple(rng.integers(500, size=rng.integers(9)).tolist() for _ in range(3)) for user in range(5, 75)}
    source = read_atspeed(write_layout(tmp_path / "other", codes, users))
    catalog = Catalog.from_codes(source.codes)
    np.testing.assert_array_equal(source.codes, codes)
    assert len(np.unique(catalog.ids[:, 0])) == catalog.level_sizes[0] == 248
    assert catalog.length == length
    assert [row.tolist() for row in source.train] == [rows[0] for rows in users.values()]


def test_missing_or_empty_directory(tmp_path):
    with pytest.raises(SourceError, match="nowhere: no such data directory; give --data_dir"):
        read_atspeed(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="the data directory is empty; put the data there"):
        read_atspeed(tmp_path)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_missing_split(layout, split):
    (layout / f"sequential_{split}.txt").unlink()
    with pytest.raises(SourceError, match=f"sequential_{split}.txt: no such file; all three"):
        read_atspeed(layout)


def test_no_or_several_indices(layout):
    (layout / "more.json").write_text("{}")
    with pytest.raises(SourceError, match=r"found: index\.json, more\.json\. .*exactly one"):
        read_atspeed(layout)
    (layout / "more.json").unlink()
    (layout / "index.json").unlink()
    with pytest.raises(SourceError, match="found: none"):
        read_atspeed(layout)


def test_index_with_a_missing_item(layout):
    replace_index(layout, lambda index: index.pop("1"))
    with pytest.raises(
        SourceError, match=r"index\.json: item 1 is missing; 3 entries must be the items 0\.\.2\. Add it"
    ):
        read_atspeed(layout)


def test_index_with_uneven_lengths(layout):
    replace_index(layout, lambda index: index["2"].append("<c_1>"))
    with pytest.raises(SourceError, match=r"index\.json: item 2 has 3 codes, item 0 has 2; all ids must have the same"):
        read_atspeed(layout)


@pytest.mark.parametrize("token", ["a_1", "<a1>", "<a_>", "<_1>", "<a_-1>", "<a_1.0>", "<a_65536>", "<a_1> ", 7, None])
def test_index_with_a_malformed_token(layout, token):
    replace_index(layout, lambda index: index["3"].__setitem__(0, token))
    with pytest.raises(
        SourceError, match=r"index\.json: item 3, position 1: malformed token .*; expected <letter_number>"
    ):
        read_atspeed(layout)


def test_index_with_levels_in_another_order(layout):
    replace_index(layout, lambda index: index["3"].reverse())
    with pytest.raises(SourceError, match="item 3, token '<b_1>' at position 1 begins with 'b' where item 0 has 'a'"):
        read_atspeed(layout)


def test_index_with_two_spellings_of_one_code(layout):
    replace_index(layout, lambda index: index["2"].__setitem__(0, "<a_03>"))
    with pytest.raises(
        SourceError, match=r"index\.json: item 2, position 1: '<a_03>' has a leading zero, .* expected '<a_3>'"
    ):
        read_atspeed(layout)


def test_files_that_begin_with_a_byte_order_mark(layout):
    for file in layout.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    source = read_atspeed(layout)
    assert source.codes.tolist() == CODES
    assert [row.tolist() for row in source.train] == [[0, 1, 0], [], [3]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "expected a non-empty JSON object"),
        ("[[1]]", "expected a non-empty JSON object"),
        ('{"0": ', "not a JSON text"),
        ("\xff", "not a JSON text"),
        pytest.param("[" * 100_000, "not a JSON text", id="deep"),
        pytest.param('{"0": ' + "9" * 5000, "not a JSON text", id="a long number"),
        ('{"0": ["<a_1>"], "0": ["<a_2>"]}', "item 0 has two entries"),
        ('{"0": ["<a_1>"], "one": ["<a_2>"]}', "key 'one' is not an item number"),
        ('{"0": ["<a_1>"], "01": ["<a_2>"]}', "key '01' is not an item number"),
        ('{"0": "<a_1>"}', "item 0 has '<a_1>'; expected a list of 1 to 8"),
        ('{"0": []}', "item 0 has .*expected a list of 1 to 8"),
    ],
)
def test_index_of_another_kind(layout, text, message):
    (layout / "index.json").write_text(text, encoding="latin-1")
    with pytest.raises(SourceError, match=f"index.json: {message}"):
        read_atspeed(layout)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("9 1 5", "item 5 is unknown; the index has 4 items, written 1..4.*Correct the line"),
        ("9 0", "item 0 is unknown; .*if this file counts items from 0, add 1 to all of them"),
        ("9 99999999999", "item 99999999999 is unknown"),
        ("9 1 two", "'two' is not a number"),
        ("9 -1", "'-1' is not a number"),
        ("9 1.0", "'1.0' is not a number"),
        ("x", "'x' is not a number; expected `user item item"),
        ("0 1", "user 0, but numbers start at 1.*add 1 to all"),
        ("2 1", "user 2 again, first on line 2; join"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_bad_line(layout, split, line, message):
    with (layout / f"sequential_{split}.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SourceError, match=f"sequential_{split}.txt, line 4: {message}"):
        read_atspeed(layout)


def test_user_that_a_split_lacks(layout):
    with (layout / "sequential_train.txt").open("a") as file:
        file.write("9 1\n")
    with pytest.raises(
        SourceError, match=r"sequential_valid\.txt: user 9 has no line here but one in sequential_train"
    ):
        read_atspeed(layout)
    with (layout / "sequential_valid.txt").open("a") as file:
        file.write("9\n8\n")
    with pytest.raises(
        SourceError, match=r"sequential_train\.txt: user 8 has no line here but one in sequential_valid"
    ):
        read_atspeed(layout)


def test_nothing_to_train_on(tmp_path, write_layout):
    layout = write_layout(tmp_path / "idle", CODES, {1: ([], [0], [1])})
    with pytest.raises(SourceError, match=r"sequential_train\.txt: no interactions at all"):
        read_atspeed(layout)


def test_beauty(beauty_dir):
    source = read_atspeed(beauty_dir)
    catalog = Catalog.from_codes(source.codes)
    assert (catalog.items, len(catalog.ids), catalog.length) == (12035, 12023, 4)
    assert [len(np.unique(catalog.ids[:, : level + 1], axis=0)) for level in range(4)] == [91, 6539, 11172, 12023]
    assert sum(len(group) - 1 for group in catalog.collisions) == 12035 - 12023
    assert len(source.train) == len(source.valid) == len(source.test) == 19383
    assert [sum(map(len, split)) for split in (source.train, source.valid, source.test)] == [122241, 9316, 7313]
    assert sum(len(items) > 0 for items in source.test) == 3553


def test_synthetic_is_quick_and_of_the_size_asked_for():
    start = time.perf_counter()
    source = synthesize(QUICKSTART)
    assert time.perf_counter() - start < 3
    catalog = Catalog.from_codes(source.codes)
    assert 350 < catalog.items <= 400
    assert 500 < len(source.train) <= 600
    assert catalog.length == 4
    assert max(catalog.level_sizes) <= 16
    assert sum(map(len, source.train)) > 6000
    assert sum(len(items) > 0 for items in source.valid) > 150 < sum(len(items) > 0 for items in source.test)


def test_synthetic_leaves_a_few_collisions_in():
    catalog = Catalog.from_codes(synthesize(QUICKSTART).codes)
    assert 3 <= len(catalog.collisions) <= 20


def test_synthetic_depends_on_its_config_alone():
    first, again = synthesize(QUICKSTART), synthesize(dataclasses.replace(QUICKSTART))
    other = synthesize(dataclasses.replace(QUICKSTART, seed=1))
    np.testing.assert_array_equal(first.codes, again.codes)
    for one, two in zip((*first.train, *first.test), (*again.train, *again.test), strict=True):
        np.testing.assert_array_equal(one, two)
    assert first.codes.shape != other.codes.shape or (first.codes != other.codes).any()


def test_a_sequence_can_beat_popularity_on_synthetic():
    """A crude reader of the last items finds the next ones several times as often as popularity does."""
    source = synthesize(QUICKSTART)
    items = len(source.codes)
    popularity = np.bincount(np.concatenate(source.train), minlength=items).astype(float)
    together = np.zeros((items, items))
    for sequence in source.train:
        for place in range(1, len(sequence)):
            together[sequence[max(0, place - 3) : place], sequence[place]] += 1
    hits = {"popularity": [], "sequence": []}
    for user, truth in enumerate(source.test):
        history = np.concatenate((source.train[user], source.valid[user]))
        if len(truth) and len(history):
            scores = {"popularity": popularity.copy(), "sequence": together[history[-3:]].sum(axis=0)}
            for name, score in scores.items():
                score[history] = -1
                hits[name].append(np.isin(np.argsort(-score, kind="stable")[:10], truth).sum() / len(truth))
    assert np.mean(hits["sequence"]) > 2.5 * np.mean(hits["popularity"])


def test_synthetic_that_leaves_nothing():
    with pytest.raises(SourceError, match=r"left with \[0, 0, 0\] events; raise users.*core \(50\)"):
        synthesize(dataclasses.replace(QUICKSTART, core=50))
