import numpy as np
import pytest

from atspeed_jax.benchmarks.trie import TrieBenchmark, measure_build, measure_steps, random_ids

SMALL = TrieBenchmark(length=3, codes=8, beams=2, batch=2, repeats=2)


def test_random_ids_are_distinct_sorted_and_of_their_levels():
    ids = random_ids(SMALL, 100)
    assert ids.shape == (100, 3)
    assert len(np.unique(ids, axis=0)) == 100
    assert (np.lexsort(ids.T[::-1]) == np.arange(100)).all()
    for level in range(3):
        assert set(ids[:, level]) == set(range(2 + 8 * level, 10 + 8 * level))
    with pytest.raises(ValueError, match="300 items: expected at most half of the 8\\^3 ids"):
        random_ids(SMALL, 300)


def test_a_row_holds_what_is_measured(tmp_path):
    sizes = {100: tmp_path / "a", 200: tmp_path / "b"}
    rows = [measure_build(SMALL, items, directory) for items, directory in sizes.items()]
    steps = measure_steps(SMALL, list(sizes.values()))
    for items, row, step in zip(sizes, rows, steps, strict=True):
        assert set(row) == {"items", "build_s", "peak_gib", "bytes_per_item", "save_s", "load_s"}
        assert set(step) == {"step_us", "unconstrained_topk_us"}
        assert row["items"] == items
        assert all(value > 0 for value in (row | step).values())
        ids = random_ids(SMALL, items)
        depth = [len(np.unique(ids[:, :level], axis=0)) for level in (1, 2, 3)]
        padded = [2 ** int(np.ceil(np.log2(count))) for count in depth]
        entries = sum(padded) + (1 + 1) + sum(count + 1 for count in padded[:2])  # tokens; rows of depth 0, 1, 2
        assert row["bytes_per_item"] == 4 * entries / items
