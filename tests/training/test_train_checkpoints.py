import shutil

import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.training.checkpoint import CheckpointError, fingerprint_of
from atspeed_jax.training.train_checkpoints import TrainCheckpoints
from tests.training.test_checkpoint import DAMAGES, abstract_of, damage, params_of, placed_like


def state_of(step):
    return {
        "params": params_of(float(step)),
        "opt_state": ({"mu": jnp.full((2, 2), -float(step))}, ()),
        "step": jnp.int32(step),
        "key": jax.random.key(step),
    }


def steps_in(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def resumed(directory, say=pytest.fail):
    """(step, progress) to go on from, and the parameters' fingerprint."""
    with TrainCheckpoints(directory) as checkpoints:
        found = checkpoints.resume(placed_like(state_of(0)), say)
    return None if found is None else (*found[:2], fingerprint_of(found[2]["params"]))


def saved(directory, best):
    """Of each step, and of the best it knows of, one after the other."""
    with TrainCheckpoints(directory) as checkpoints:
        for step, best_step in best.items():
            checkpoints.save(step, state_of(step), {"at": step}, best_step)
    return directory


@pytest.fixture(scope="module")
def best_and_newest(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("states"), {1: 1, 2: 1})


def at(step):
    return step, {"at": step}, fingerprint_of(params_of(float(step)))


@pytest.mark.parametrize("how", DAMAGES)
def test_every_damaged_file_of_the_newest_state_is_named_and_the_one_before_taken(best_and_newest, tmp_path, how):
    names = [path.relative_to(best_and_newest) for path in (best_and_newest / "2").rglob("*") if path.is_file()]
    assert len(names) > 8
    for number, name in enumerate(names):
        copy = tmp_path / str(number)
        shutil.copytree(best_and_newest, copy)
        damage(copy / name, how)
        said = []
        assert resumed(copy, said.append) == at(1)
        assert len(said) == 1
        assert f"{copy / name} " in said[0]
        assert said[0].endswith("; going on from step 1")
        assert (copy / "damaged-2").is_dir()
        assert steps_in(copy) == [1]


def test_after_a_damaged_state_its_step_is_saved_again(best_and_newest, tmp_path):
    shutil.copytree(best_and_newest, tmp_path / "states")
    damage(tmp_path / "states" / "2" / "_CHECKPOINT_METADATA", "deleted")
    with TrainCheckpoints(tmp_path / "states") as checkpoints:
        assert checkpoints.resume(placed_like(state_of(0)), [].append)[0] == 1
        checkpoints.save(2, state_of(2), {"at": 2}, 1)
    assert resumed(tmp_path / "states") == at(2)


def test_a_newest_state_that_is_gone_is_missed(best_and_newest, tmp_path):
    shutil.copytree(best_and_newest, tmp_path / "states")
    shutil.rmtree(tmp_path / "states" / "2")
    said = []
    assert resumed(tmp_path / "states", said.append) == at(1)
    assert "states/2 is missing" in said[0]


@pytest.mark.parametrize("lost", ["_CHECKPOINT_METADATA", "params/_METADATA", "params"])
def test_a_damaged_state_whose_sizes_nobody_recorded_is_found_out_when_it_is_read(best_and_newest, tmp_path, lost):
    copy = tmp_path / "states"
    shutil.copytree(best_and_newest, copy)
    (copy / "files.json").write_text("{")
    shutil.rmtree(copy / "2" / lost) if (copy / "2" / lost).is_dir() else damage(copy / "2" / lost, "cut")
    said = []
    assert resumed(copy, said.append) == at(1)
    assert f"step 2 is damaged ({copy / '2'} is missing or damaged" in said[0]


@pytest.mark.parametrize(
    "recorded",
    [
        "[]",
        "3",
        "[" * 100_000,
        '{"a": 1}',
        '{"3": {"files": {}, "best": 1}, "\u00b2": {"files": {}, "best": null}}',
        '{"2": 1}',
        '{"2": {}}',
        '{"2": {"files": [], "best": 1}}',
        '{"2": {"files": {"_CHECKPOINT_METADATA": "1"}, "best": 1}}',
        '{"2": {"files": {}, "best": "1"}}',
        '{"1": {"files": {}, "best": 2}, "2": {"files": {}, "best": 1}}',
    ],
    ids=range(11),
)
def test_a_record_of_sizes_that_is_damaged_is_passed_over(best_and_newest, tmp_path, recorded):
    copy = tmp_path / "states"
    shutil.copytree(best_and_newest, copy)
    (copy / "files.json").write_text(recorded)
    assert resumed(copy, [].append) == at(2)


def test_with_no_whole_state_nothing_begins_again_silently(tmp_path):
    saved(tmp_path / "one", {1: 1})
    damage(tmp_path / "one" / "1" / "params" / "_METADATA", "cut")
    with pytest.raises(CheckpointError, match=f"1/params/_METADATA has .* bytes.*delete {tmp_path} to train from the"):
        resumed(tmp_path / "one")
    assert steps_in(tmp_path / "one") == [1]


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_what_is_no_directory_is_refused_before_the_first_step(tmp_path, kind):
    """The first save would fail on it, after the steps before."""
    path = tmp_path / "states"
    path.write_text("") if kind == "file" else path.symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=f"{path} is no directory; put the directory .*, or remove {path} to tr"):
        resumed(path)


def test_a_state_whose_best_parameters_are_damaged_is_refused_before_more_steps(best_and_newest, tmp_path):
    shutil.copytree(best_and_newest, tmp_path / "states")
    damage(tmp_path / "states" / "1" / "params" / "manifest.ocdbt", "cut")
    with pytest.raises(CheckpointError, match=r"states/1/params/manifest.ocdbt has .* bytes, not the"):
        resumed(tmp_path / "states")


def test_training_states_keep_the_newest_and_the_best(tmp_path):
    with TrainCheckpoints(tmp_path) as checkpoints:
        assert resumed(tmp_path) is None
        for step, best in [(1, 1), (2, 2), (3, 2), (4, 2), (5, 2)]:
            checkpoints.save(step, state_of(step), {"best_step": best, "value": 0.1 + 0.2}, best)
        best_params = checkpoints.restore_params(2, placed_like(params_of()))
        assert fingerprint_of(best_params) == fingerprint_of(params_of(2.0))
    assert steps_in(tmp_path) == [2, 5]
    with TrainCheckpoints(tmp_path) as checkpoints:
        step, progress, restored = checkpoints.resume(placed_like(state_of(0)), pytest.fail)
        assert (step, progress) == (5, {"best_step": 2, "value": 0.1 + 0.2})
    expected = state_of(5)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    assert jax.random.key_data(restored.pop("key")).tolist() == jax.random.key_data(expected.pop("key")).tolist()
    assert fingerprint_of(restored) == fingerprint_of(expected)


def test_the_params_being_saved_can_be_asked_for_at_once(tmp_path):
    with TrainCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_of(1), {"at": 1}, 1)
        restored = checkpoints.restore_params(1, placed_like(params_of()))
    assert fingerprint_of(restored) == fingerprint_of(params_of(1.0))


def test_leftovers_of_a_kill_do_no_harm(tmp_path):
    with TrainCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(2, state_of(2), {"at": 2}, 2)
    shutil.copytree(tmp_path / "2", tmp_path / "1")  # a deletion cut short
    shutil.rmtree(tmp_path / "1" / "rest")
    (tmp_path / "1" / "_CHECKPOINT_METADATA").unlink()
    shutil.copytree(tmp_path / "2", tmp_path / "3.orbax-checkpoint-tmp")  # a save cut short
    (tmp_path / "files.json").unlink()  # killed before the sizes were recorded
    with TrainCheckpoints(tmp_path) as checkpoints:
        assert checkpoints.resume(placed_like(state_of(0)), pytest.fail)[:2] == (2, {"at": 2})
        checkpoints.save(3, state_of(3), {"at": 3}, 3)
    assert steps_in(tmp_path) == [3]
    assert not list(tmp_path.glob("*tmp*"))


def test_a_training_state_of_another_model_names_the_leaves(tmp_path):
    with TrainCheckpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state_of(1), {"at": 1}, 1)
    other = abstract_of(state_of(1))
    other["params"]["embed"] = jax.ShapeDtypeStruct((4, 2), jnp.float32)
    with (
        TrainCheckpoints(tmp_path) as checkpoints,
        pytest.raises(CheckpointError, match=r"embed: stored float32\[3, 2\]"),
    ):
        checkpoints.resume(other, pytest.fail)
