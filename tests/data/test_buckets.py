from collections import Counter

import numpy as np
import pytest

from atspeed_jax.data.buckets import bucket_lengths, bucketed_batches


def numbered(sizes, batch_size, seed=0):
    """Batches of plain numbers; example n of a bucket has the length of its bucket."""
    lengths = np.concatenate([np.full(size, bucket) for bucket, size in sizes.items()])
    return bucketed_batches(
        range(len(lengths)),
        lengths,
        buckets=tuple(sizes),
        batch_size=batch_size,
        seed=seed,
        collate=lambda examples, bucket: {"rows": np.array(examples), "bucket": np.array(bucket)},
    )


def test_bucket_lengths():
    assert bucket_lengths((3, 6), 8) == (3, 6, 8)
    assert bucket_lengths((3, 8), 8) == (3, 8)
    assert bucket_lengths((3, 6, 20), 8) == (3, 6, 8)
    assert bucket_lengths((3,), 0) == (0,)
    for buckets in ((), (0, 3), (6, 3), (3, 3)):
        with pytest.raises(ValueError, match="expected increasing numbers of items"):
            bucket_lengths(buckets, 8)
    with pytest.raises(ValueError, match="history is -1"):
        bucket_lengths((3,), -1)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_every_example_comes_once_per_epoch_of_its_bucket(batch_size):
    sizes = {2: 10, 5: 37, 9: 23}
    batches = numbered(sizes, batch_size)
    drawn = {bucket: [] for bucket in sizes}
    for step in range(3 * 70 // batch_size + 20):
        drawn[int(batches[step]["bucket"])] += batches[step]["rows"].tolist()
    start = 0
    for bucket, size in sizes.items():
        epochs = [drawn[bucket][epoch * size : (epoch + 1) * size] for epoch in range(2)]
        for epoch in epochs:
            assert sorted(epoch) == list(range(start, start + size))
        assert epochs[0] != epochs[1]
        assert epochs[0] != sorted(epochs[0])
        start += size


def test_buckets_take_turns_in_proportion():
    sizes = {2: 100, 5: 700, 9: 200}
    batches = numbered(sizes, 10)
    for until in (100, 1000):
        counts = Counter(int(batches[step]["bucket"]) for step in range(until))
        for bucket, size in sizes.items():
            assert abs(counts[bucket] - until * size / 1000) <= 2


def test_a_bucket_smaller_than_the_batch_repeats():
    rows = numbered({4: 3}, 7)[0]["rows"]
    assert len(rows) == 7
    assert sorted(rows[:3]) == sorted(rows[3:6]) == [0, 1, 2]


def test_an_example_goes_to_the_smallest_bucket_that_holds_it():
    batches = bucketed_batches(
        "abcdef", [0, 1, 2, 3, 6, 6], buckets=(2, 4, 5, 6), batch_size=2, seed=0, collate=lambda rows, at: {at: rows}
    )
    seen = {bucket: set(rows) for step in range(40) for bucket, rows in batches[step].items()}
    for step in range(40):
        for bucket, rows in batches[step].items():
            seen[bucket] |= set(rows)
    assert seen == {2: set("abc"), 4: set("d"), 6: set("ef")}


def test_bad_examples():
    settings = dict(batch_size=2, seed=0, collate=lambda rows, bucket: {})
    with pytest.raises(ValueError, match="no examples to make batches of"):
        bucketed_batches([], [], buckets=(2,), **settings)
    with pytest.raises(ValueError, match=r"example 1 has length 5, longer than the largest of the buckets \(2, 4\)"):
        bucketed_batches("ab", [1, 5], buckets=(2, 4), **settings)
    with pytest.raises(ValueError, match="2 examples but 1 lengths"):
        bucketed_batches("ab", [1], buckets=(2, 4), **settings)
    with pytest.raises(ValueError, match="expected increasing lengths"):
        bucketed_batches("ab", [1, 1], buckets=(4, 2), **settings)
    with pytest.raises(ValueError, match="batch_size is 0"):
        bucketed_batches("ab", [1, 1], buckets=(4,), **(settings | {"batch_size": 0}))
