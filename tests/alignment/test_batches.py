"""Batches of alignment: prompt, beams and next item belong together, and every prompt comes."""

import numpy as np
import pytest

from atspeed_jax.alignment.batches import alignment_batches
from atspeed_jax.alignment.teacher_files import TeacherData
from atspeed_jax.alignment.teacher_prompts import teacher_prompts
from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.prompts import prompt_tokens
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.trie import build_trie

HISTORY = 4


def small_dataset():
    """Nine training users, the first without an item."""
    rng = np.random.default_rng(0)
    catalog = Catalog.from_codes(rng.integers(0, 4, (30, 3)))
    train = tuple(rng.integers(0, 30, size).astype(np.int32) for size in (0, 1, 2, 3, 7, 5, 1, 4, 2))
    empty = tuple(np.zeros(0, np.int32) for _ in train)
    return Dataset("toy", catalog, train, empty, empty)


@pytest.mark.parametrize("prompts", [1, 2])
def test_batches_hold_prompt_beams_and_next_item_of_one_example(prompts):
    dataset = small_dataset()
    histories, next_items = teacher_prompts(dataset, prompts)
    count = len(histories)
    beams = np.arange(count * 3 * 3, dtype=np.int32).reshape(count, 3, 3)
    assert len(dataset.train[0]) == 0
    assert [len(one) for one in histories[:2]] == ([1, 2], [1, 2])[prompts - 1]
    teacher = TeacherData(beams, None, None)
    batches = alignment_batches(
        dataset, build_trie(dataset.catalog.id_tokens), teacher, BatchShape(HISTORY, (1, 2), 2), prompts=prompts, seed=0
    )
    seen = set()
    for step in range(80):
        batch = batches[step]
        for row in range(2):
            example = int(batch["beams"][row, 0, 0]) // 9
            seen.add(example)
            np.testing.assert_array_equal(batch["beams"][row], beams[example, :1])  # depth 1..L-2
            item = next_items[example]
            assert batch["next_id"][row] == (-1 if item < 0 else dataset.catalog.id_of_item[item])
            expected = prompt_tokens(dataset.catalog, histories[example], HISTORY)
            np.testing.assert_array_equal(batch["tokens"][row][batch["valid"][row]], expected)
    assert seen == set(range(count))
