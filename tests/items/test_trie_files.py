import json

import jax
import numpy as np
import pytest

from atspeed_jax.items.trie import TrieError, build_trie
from atspeed_jax.items.trie_files import load_trie, save_trie
from cases import make_ids


@pytest.fixture
def stored(tmp_path):
    trie = build_trie(np.array(make_ids((5, 3, 4), "some", 4, np.random.default_rng(0))))
    save_trie(tmp_path / "trie", trie)
    return trie, tmp_path / "trie"


def test_what_is_loaded_is_what_was_saved(stored):
    trie, directory = stored
    loaded = load_trie(directory)
    assert jax.tree.structure(loaded) == jax.tree.structure(trie)
    for mine, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(trie), strict=True):
        assert isinstance(mine, np.memmap)
        assert mine.dtype == other.dtype
        np.testing.assert_array_equal(mine, other)
    nodes = np.arange(3)[None]
    for mine, other in zip(loaded.edges(1, nodes), trie.edges(1, nodes), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_stored_trie_is_never_overwritten(stored):
    trie, directory = stored
    with pytest.raises(TrieError, match="exists: a stored trie is never overwritten"):
        save_trie(directory, trie)
    load_trie(directory)


def test_an_interrupted_save_leaves_nothing_and_does_not_block_the_next(stored, tmp_path, monkeypatch):
    trie, _ = stored
    with monkeypatch.context() as broken:
        broken.setattr("atspeed_jax.utils.files.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            save_trie(tmp_path / "other", trie)
    assert not (tmp_path / "other").exists()
    save_trie(tmp_path / "other", trie)
    load_trie(tmp_path / "other")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, r"token_1.npy is not as it was written \(checksum\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4]), r"token_1.npy is not as it was written"),
        (lambda path: path.unlink(), "token_1.npy cannot be read"),
    ],
    ids=["corrupt", "truncated", "missing"],
)
def test_damaged_files_are_named(stored, damage, message):
    damage(stored[1] / "token_1.npy")
    with pytest.raises(TrieError, match=message):
        load_trie(stored[1])


def test_another_version_and_no_trie_at_all(stored, tmp_path):
    path = stored[1] / "trie.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    with pytest.raises(
        TrieError, match=r"of version 1, expected 'atspeed_jax\.trie' of version 2: build the trie again"
    ):
        load_trie(stored[1])
    with pytest.raises(TrieError, match="holds no stored trie"):
        load_trie(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda description: description["row_width"].__setitem__(0, 1),
        lambda description: description.pop("row_width"),
        lambda description: description.pop("sha256"),
        lambda description: description["sha256"].pop("token_1.npy"),
        lambda description: description.pop("description_sha256"),
    ],
    ids=["narrower", "no widths", "no digests", "an array less", "no digest of its own"],
)
def test_a_changed_description_is_refused(stored, change):
    path = stored[1] / "trie.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))
    with pytest.raises(TrieError, match=r"trie.json is not as it was written \(checksum\)"):
        load_trie(stored[1])


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"format": "atspeed_jax.trie"}'])
def test_a_description_of_nothing(stored, text):
    (stored[1] / "trie.json").write_text(text)
    with pytest.raises(TrieError, match="holds no stored trie"):
        load_trie(stored[1])
