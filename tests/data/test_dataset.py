import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from atspeed_jax.data import dataset as dataset_module
from atspeed_jax.data.dataset import Dataset, DatasetError, build_dataset, load_dataset
from atspeed_jax.data.sources import SPLITS, Source, read_atspeed
from atspeed_jax.items.catalog import Catalog, CatalogError

ROOT = Path(__file__).resolve().parents[2]


def make_source(users=40, items=30, length=3, seed=0):
    rng = np.random.default_rng(seed)

    def split(most):
        return tuple(rng.integers(items, size=rng.integers(most)).astype(np.int32) for _ in range(users))

    return Source("little shop", rng.integers(5, size=(items, length)), split(30), split(3), split(4))


def assert_holds(dataset, source):
    assert dataset.name == source.name
    assert dataset.users == len(source.train)
    np.testing.assert_array_equal(dataset.catalog.codes, source.codes)
    for split in SPLITS:
        for got, expected in zip(getattr(dataset, split), getattr(source, split), strict=True):
            np.testing.assert_array_equal(got, expected)
            assert got.dtype == np.int32


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "deep" / "shop"
    build_dataset(make_source(), directory)
    return directory


@pytest.fixture
def copy(built, tmp_path):
    """A copy of a built dataset, to be damaged."""
    directory = tmp_path / "copy"
    for file in built.rglob("*"):
        if file.is_file():
            target = directory / file.relative_to(built)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return directory


def test_comes_back_as_it_was(built):
    assert_holds(load_dataset(built), make_source())
    assert any(".array_record" in file.name for file in built.rglob("*"))
    assert [file.name for file in built.parent.iterdir()] == ["shop"]  # nothing is left beside it


@pytest.mark.parametrize("length", [1, 8])
def test_other_id_lengths_and_users_without_anything(tmp_path, length):
    source = make_source(users=3, length=length)
    source = dataclasses.replace(source, train=(source.train[0], np.zeros(0, np.int32), source.train[2]))
    build_dataset(source, tmp_path / "it")
    assert_holds(load_dataset(tmp_path / "it"), source)


def test_catalog_keeps_levels_with_unused_codes(tmp_path):
    source = dataclasses.replace(make_source(), codes=np.array([[9, 0, 3]] * 30))
    build_dataset(source, tmp_path / "it")
    catalog = load_dataset(tmp_path / "it").catalog
    assert catalog.level_sizes == (10, 1, 4)
    assert catalog.collisions == [tuple(range(30))]


def test_spelling_is_stored_unless_it_is_the_default(built, tmp_path):
    assert "spelling" not in json.loads((built / "catalog.json").read_text())
    source = make_source()
    spelled = dataclasses.replace(source, spelling=("<s_a_{}>", "<s_b_{}>", "<s_c_{}>"))
    build_dataset(spelled, tmp_path / "it")
    assert load_dataset(tmp_path / "it").catalog.spelling == spelled.spelling
    plain = dataclasses.replace(source, spelling=("<a_{}>", "<b_{}>", "<c_{}>"))
    fingerprints = [Dataset.of(one).fingerprint for one in (source, plain, spelled)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_fingerprint_of_runs_that_are_stored(built):
    assert load_dataset(built).fingerprint == "7450f20731d35ba0"  # that of the release before spellings


def test_popularity_counts_train_only(built):
    source = make_source()
    expected = np.zeros(30, int)
    for items in source.train:
        for item in items:
            expected[item] += 1
    np.testing.assert_array_equal(load_dataset(built).popularity, expected)


def test_fingerprint_is_of_the_content(built):
    source = make_source()

    def fingerprint(**change):
        values = {"name": "a", "train": source.train, "valid": source.valid, "test": source.test, **change}
        return Dataset(catalog=values.pop("catalog", Catalog.from_codes(source.codes)), **values).fingerprint

    same = load_dataset(built).fingerprint
    assert len(same) == 16
    assert fingerprint() == same == fingerprint(name="b")
    moved = (np.concatenate((source.train[0], source.train[1][:1])), source.train[1][1:], *source.train[2:])
    codes = source.codes.copy()
    codes[3, 1] = (codes[3, 1] + 1) % 5
    others = [
        fingerprint(train=moved),
        fingerprint(valid=source.test, test=source.valid),
        fingerprint(catalog=Catalog.from_codes(codes)),
    ]
    assert len({same, *others}) == 4


def test_history(built):
    dataset, source = load_dataset(built), make_source()
    user = next(user for user in range(40) if len(source.valid[user]) and len(source.train[user]))
    np.testing.assert_array_equal(dataset.history(user, "valid"), source.train[user])
    np.testing.assert_array_equal(dataset.history(user, "test"), [*source.train[user], *source.valid[user]])
    with pytest.raises(ValueError, match="split is 'train'"):
        dataset.history(user, "train")


def test_tensorflow_is_never_imported(tmp_path):
    """A stand-in tensorflow lies on the path, so that any import of it would succeed and be seen."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("__version__ = '2.99.0'\n")
    script = (
        "import sys, numpy as np\n"
        "from atspeed_jax.data.sources import Source\n"
        "from atspeed_jax.data.dataset import build_dataset, load_dataset\n"
        "rows = (np.arange(3, dtype=np.int32), np.zeros(0, np.int32))\n"
        "build_dataset(Source('s', np.arange(6).reshape(3, 2), rows, rows, rows), sys.argv[1])\n"
        "assert load_dataset(sys.argv[1]).train[0].tolist() == [0, 1, 2]\n"
        "import atspeed_jax.data.batches\n"
        "print('tensorflow' in sys.modules)\n"
        "import tensorflow; print('tensorflow' in sys.modules)\n"
    )
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    answer = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == ["False", "True"]


def test_killed_build_leaves_nothing_half_made(tmp_path):
    script = (
        "import os, signal, sys, numpy as np\n"
        "from atspeed_jax.data import dataset\n"
        "from atspeed_jax.data.sources import Source\n"
        "class Rows(tuple):\n"
        "    def __iter__(self):\n"
        "        yield self[0]\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "rows = (np.arange(3, dtype=np.int32),) * 4\n"
        "dataset._check_interactions = lambda source, items: None\n"
        "dataset.build_dataset(Source('s', np.arange(6).reshape(3, 2), rows, rows, Rows(rows)), sys.argv[1])\n"
    )
    target = tmp_path / "shop"
    answer = subprocess.run(
        [sys.executable, "-c", script, str(target)], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert answer.returncode == -9
    assert not target.exists()
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(
        DatasetError, match=r"no such dataset directory\. Build it in the checkout with `python -m launch\.prepare_data"
    ):
        load_dataset(target)
    build_dataset(make_source(), target)
    assert_holds(load_dataset(target), make_source())
    assert list(tmp_path.iterdir()) == [target]


def test_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def fail(self):
        yield 0, {"user": 0, **{split: np.zeros(2, np.int32) for split in SPLITS}}
        raise RuntimeError("disk full")

    monkeypatch.setattr(dataset_module.Interactions, "_generate_examples", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        build_dataset(make_source(), tmp_path / "shop")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    target = tmp_path / "shop"
    target.mkdir()
    build_dataset(make_source(), target)  # an empty directory may be there
    before = {file: file.read_bytes() for file in target.rglob("*") if file.is_file()}
    with pytest.raises(DatasetError, match=r"shop exists and is kept: give another"):
        build_dataset(make_source(seed=1), target)
    assert before == {file: file.read_bytes() for file in target.rglob("*") if file.is_file()}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DatasetError, match="file exists and is kept"):
        build_dataset(make_source(), tmp_path / "file")
    with pytest.raises(DatasetError, match=r"below: cannot be written .*; give a directory you may write to"):
        build_dataset(make_source(), tmp_path / "file" / "below")


def test_what_another_build_stored_meanwhile_is_kept(tmp_path, monkeypatch):
    target, prepare = tmp_path / "shop", dataset_module.Interactions.download_and_prepare

    def overtaken(self):
        monkeypatch.undo()
        build_dataset(make_source(seed=1), target)
        return prepare(self)

    monkeypatch.setattr(dataset_module.Interactions, "download_and_prepare", overtaken)
    with pytest.raises(DatasetError, match="shop exists and is kept"):
        build_dataset(make_source(), target)
    assert_holds(load_dataset(target), make_source(seed=1))
    assert list(tmp_path.iterdir()) == [target]


def test_bad_source(tmp_path):
    source = make_source()
    train = (*source.train[:7], np.array([0, 30], np.int32), *source.train[8:])
    with pytest.raises(DatasetError, match=r"train, user 7: an item outside 0\.\.29"):
        build_dataset(dataclasses.replace(source, train=train), tmp_path / "it")
    with pytest.raises(DatasetError, match=r"'test': 39.*every split needs an entry for every user"):
        build_dataset(dataclasses.replace(source, test=source.test[1:]), tmp_path / "it")
    with pytest.raises(CatalogError, match="item 0 has code -1"):
        build_dataset(dataclasses.replace(source, codes=np.array([[-1]])), tmp_path / "it")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["catalog.json", "features.json", "dataset_info.json"])
def test_incomplete_dataset(copy, name):
    next(copy.rglob(name)).unlink()
    with pytest.raises(DatasetError, match=f"{name}: missing, so the dataset is incomplete.*python -m launch.prepare"):
        load_dataset(copy)


def test_damaged_catalog(copy):
    file = copy / "catalog.json"
    entries = json.loads(file.read_text())
    for text in ("{", "[]", json.dumps({**entries, "level_sizes": [1, 2]}), json.dumps({**entries, "codes": [[1], 2]})):
        file.write_text(text)
        with pytest.raises(DatasetError, match=r"catalog\.json: damaged .*remove .* and build it again"):
            load_dataset(copy)


def test_damaged_records(copy, tmp_path):
    file = next(copy.rglob("*.array_record*"))
    content = file.read_bytes()
    for damage in (b"", content[: len(content) // 2], content[:100] + b"\0" * 400 + content[500:]):
        file.write_bytes(damage)
        with pytest.raises(DatasetError, match=r"1\.0\.0: cannot be read .*remove .* and build it again"):
            load_dataset(copy)
    build_dataset(make_source(seed=1), tmp_path / "other")
    file.write_bytes(next((tmp_path / "other").rglob("*.array_record*")).read_bytes())
    with pytest.raises(DatasetError, match=r"cannot be read \(content [0-9a-f]{16} differs from"):
        load_dataset(copy)
    file.unlink()
    with pytest.raises(DatasetError, match=r"1\.0\.0: cannot be read"):
        load_dataset(copy)


@pytest.mark.parametrize("error", [ImportError("no array_record"), MemoryError()])
def test_what_is_no_fault_of_the_files_is_not_blamed_on_them(copy, monkeypatch, error):
    def fails(_):
        raise error

    monkeypatch.setattr(dataset_module, "read_interactions", fails)
    with pytest.raises(type(error)):
        load_dataset(copy)


def test_beauty(beauty_dir, tmp_path):
    source = read_atspeed(beauty_dir)
    build_dataset(source, tmp_path / "beauty")
    dataset = load_dataset(tmp_path / "beauty")
    assert_holds(dataset, source)
    assert (dataset.catalog.items, len(dataset.catalog.ids), dataset.users) == (12035, 12023, 19383)
    assert dataset.popularity.sum() == 122241
