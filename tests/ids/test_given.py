from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from atspeed_jax.ids.errors import IdsError
from atspeed_jax.ids.given import column_vectors, file_vectors
from atspeed_jax.ids.tables import item_table

VECTORS = np.arange(6, dtype=np.float32).reshape(3, 2)


def items(**columns):
    return item_table(Path("items.parquet"), pa.table({"name": ["a", "b", "c"], **columns}))


def test_every_form_of_file_gives_the_same(tmp_path):
    np.save(tmp_path / "v.npy", VECTORS)
    save_file({"emb": VECTORS}, tmp_path / "v.safetensors")
    save_file({"emb": VECTORS, "other": VECTORS[:1]}, tmp_path / "two.safetensors")
    pq.write_table(pa.table({"vector": VECTORS.tolist()}), tmp_path / "v.parquet")
    pq.write_table(pa.table({"name": ["c", "b", "a"], "emb": VECTORS[::-1].tolist()}), tmp_path / "named.parquet")
    for file in ("v.npy", "v.safetensors", "two.safetensors:emb", "v.parquet", "named.parquet:emb"):
        np.testing.assert_array_equal(file_vectors(tmp_path / file, items()), VECTORS)
    np.testing.assert_array_equal(column_vectors(items(vector=VECTORS.tolist())), VECTORS)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 2.0], [float("nan"), 1.0], [0.0, 1.0]], r"item 'b' \(row 1\) has a number that is not finite"),
        ([[1.0, 2.0], [1.0], [0.0, 1.0]], "the vector of item 'b' has 1 numbers, that of item 'a' has 2"),
        ([[1.0, 2.0], None, [0.0, 1.0]], "item 'b' has no vector"),
        ([[1.0, 2.0], [1.0, None], [0.0, 1.0]], "item 'b' has a number missing"),
        ([1.0, 2.0, 3.0], "expected lists of numbers"),
    ],
)
def test_a_column_that_cannot_be_used_names_its_item(vectors, message):
    with pytest.raises(IdsError, match=message):
        column_vectors(items(vector=vectors))


def test_files_that_cannot_be_used(tmp_path):
    np.save(tmp_path / "few.npy", VECTORS[:2])
    np.save(tmp_path / "flat.npy", VECTORS[0])
    np.save(tmp_path / "pickled.npy", np.array([{}, 1, 2], object))
    (tmp_path / "v.txt").write_text("1 2")
    save_file({"one": VECTORS, "two": VECTORS}, tmp_path / "two.safetensors")
    pq.write_table(pa.table({"name": ["a", "b"], "vector": VECTORS[:2].tolist()}), tmp_path / "two.parquet")
    for file, message in {
        "few.npy": "2 vectors for 3 items",
        "flat.npy": r"vectors of shape \(2,\)",
        "pickled.npy": "cannot be read",
        "v.txt": "unknown form",
        "gone.npy": "no such file of vectors",
        "two.safetensors": r"holds \['one', 'two'\]; name one tensor",
        "two.safetensors:three": "but not 'three'",
        "two.parquet": "item 'c' has no vector",
        "two.parquet:emb": r"but not \['emb'\]",
    }.items():
        with pytest.raises(IdsError, match=message):
            file_vectors(tmp_path / file, items())
    with pytest.raises(IdsError, match="has no column vector"):
        column_vectors(items())
