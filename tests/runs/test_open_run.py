"""A trained run opened from a program: what it holds, recommends and refuses."""

import dataclasses
import itertools
import json
import logging
import re
import shutil

import jax
import numpy as np
import pytest

from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.runs import assets
from atspeed_jax.runs.experiment import ServeConfig
from atspeed_jax.runs.open_run import open_run
from atspeed_jax.runs.record import WorkdirError
from atspeed_jax.serving.recommender import HistoryError
from atspeed_jax.training.checkpoint import CheckpointError
from atspeed_jax.training.sharding import MeshConfig
from atspeed_jax.tuning.tune import TuneError
from small import snapshot

HISTORIES = [[12, 7, 30], [], [3]]


@pytest.fixture(scope="module")
def run(small_run):
    """The small run, opened by its directory alone."""
    return open_run(small_run.workdir)


@pytest.fixture(scope="module")
def found(run):
    return run.recommender(6, exclude_seen=True)(HISTORIES)


def test_a_run_is_opened_as_recorded(run, small_run):
    assert run.config == small_run.run.config
    assert run.serve == ServeConfig.of(run.config)
    assert run.workdir == small_run.workdir
    assert run.catalog.items == 40
    assert run.target_model == small_run.run.target_model
    assert run.draft_model == small_run.run.draft_model


def test_synthetic_data_are_not_made_again(small_run, monkeypatch):
    monkeypatch.setattr(assets, "synthesize", lambda config: pytest.fail("data are made again"))
    assert open_run(small_run.workdir).catalog.items == 40


def test_every_history_gets_a_list_without_what_was_seen(found):
    assert [len(items) for items in found.items] == [6, 6, 6]
    assert [len(scores) for scores in found.scores] == [6, 6, 6]
    for history, items, scores in zip(HISTORIES, found.items, found.scores, strict=True):
        assert not set(history) & set(items)
        assert len(set(items)) == 6
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("drafter", ["popularity", "none"])
def test_every_drafter_gives_the_same_lists(run, found, drafter):
    other = run.recommender(6, drafter=drafter, exclude_seen=True, batch_size=3)(HISTORIES)
    assert other.items == found.items
    np.testing.assert_allclose(np.array(other.scores), np.array(found.scores), atol=1e-4)


def test_the_newest_items_of_a_long_history_are_read(run):
    recommend = run.recommender(4, drafter="none")
    newest = [12, 7, 30, 3]
    assert len(newest) == run.config.data.history
    assert recommend([[1, 2, 5, *newest]]) == recommend([newest])
    assert recommend([[1, 2, 5, *newest[:3]]]) != recommend([newest])


def test_an_unknown_item_is_refused(run):
    with pytest.raises(HistoryError, match=r"histories\[1\] holds item 40, which is not in the catalog, whose items"):
        run.recommender(4, drafter="none")([[0], [40]])


def test_a_grown_catalog_compiles_nothing(run, found, tmp_path):
    """10 % more items, of which users get some; items 3 and 5 are gone, but read in histories."""
    codes, sizes = run.catalog.codes.tolist(), run.catalog.level_sizes
    free = [list(one) for one in itertools.product(*map(range, sizes)) if list(one) not in codes][:4]
    index = {str(item): one for item, one in enumerate([*codes, *free]) if item not in (3, 5)}
    (tmp_path / "new.json").write_text(json.dumps(index))
    recommend = run.recommender(6, exclude_seen=True)
    before, compiled = recommend(HISTORIES), []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    grown = recommend.with_catalog(tmp_path / "new.json")
    after = grown([*HISTORIES, [41, 3]])
    assert not compiled
    assert before == found
    assert not set().union(*after.items) & {3, 5}
    assert 41 not in after.items[3]
    every = (
        run.recommender(40, drafter="none")(HISTORIES),
        run.recommender(40, drafter="none", catalog=tmp_path / "new.json")(HISTORIES),
    )
    for trained, other in zip(every[0].items, every[1].items, strict=True):
        known = [item for item in other if item < 40]
        assert known == [item for item in trained if item not in (3, 5)][: len(known)]
    left = run.recommender(6, exclude_seen=True, catalog=tmp_path / "new.json", allow=[40, 41, 1, 7], exclude=[1])
    assert [sorted(items) for items in left(HISTORIES).items] == [[40, 41], [7, 40, 41], [7, 40, 41]]


@pytest.mark.parametrize("k", [0, 41, -1, 2.0, True, "5"])
def test_a_list_is_no_longer_than_the_catalog(run, k):
    with pytest.raises(ValueError, match=f"^k={re.escape(repr(k))}: expected a whole number from 1 to 40, the"):
        run.recommender(k)


def test_an_unknown_drafter_is_refused(run):
    with pytest.raises(ValueError, match="drafter='best': expected one of 'draft', 'popularity', 'none', 'tuned'"):
        run.recommender(4, drafter="best")


def test_what_was_not_tuned_is_refused(run):
    with pytest.raises(TuneError, match=r"there is no .*tuned.json"):
        run.recommender(4, drafter="tuned")


def test_a_run_is_served_otherwise(run, small_run, caplog):
    """Widths too small for K are raised, and a log says so."""
    serve = dataclasses.replace(run.serve, decode=dataclasses.replace(run.serve.decode, widths=("all", 9)))
    other = open_run(small_run.workdir, serve=serve)
    assert other.config == run.config
    assert other.serve.decode.widths == ("all", 9)
    with caplog.at_level(logging.WARNING):
        other.recommender(11)
    assert "raised to what K=11 needs: widths ('all', 9) -> ('all', 11)" in caplog.text


def test_settings_that_do_not_fit_the_catalog_are_refused(run, small_run):
    serve = dataclasses.replace(run.serve, decode=dataclasses.replace(run.serve.decode, widths=("all",)))
    with pytest.raises(DecodeError, match=r"config.decode.widths"):
        open_run(small_run.workdir, serve=serve).recommender(4)


def test_a_mesh_of_more_devices_is_fitted_to_those_here(run, small_run, caplog):
    serve = dataclasses.replace(run.serve, mesh=MeshConfig(data=None, fsdp=1000, tensor=1))
    with caplog.at_level(logging.WARNING):
        opened = open_run(small_run.workdir, serve=serve)
    assert opened.serve.mesh.fsdp < 1000
    assert "the run's mesh does not fit" in caplog.text


def test_nothing_is_written(run, found, small_run):
    assert len(found.items) == len(HISTORIES)
    assert snapshot(small_run.workdir) == small_run.files


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(WorkdirError, match=r"there is no run in .*nothing \(no experiment.json\)"):
        open_run(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("removed", "told"),
    [(["target"], "target missing or unfinished"), (["data", "target"], "data and target missing or unfinished")],
)
def test_an_untrained_run_is_refused(small_run, tmp_path, removed, told):
    shutil.copytree(small_run.workdir, tmp_path / "run")
    for stage in removed:
        shutil.rmtree(tmp_path / "run" / stage)
    with pytest.raises(WorkdirError, match=f"is not trained yet .{told}.; finish it in the checkout with python -m"):
        open_run(tmp_path / "run")


def test_without_a_draft_the_target_recommends_alone(small_run, tmp_path, found):
    shutil.copytree(small_run.workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "draft")
    run = open_run(tmp_path / "run")
    with pytest.raises(CheckpointError, match="draft does not exist"):
        run.recommender(6)
    assert run.recommender(6, drafter="none", exclude_seen=True)(HISTORIES).items == found.items


def test_a_path_keeps_its_meaning(small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(small_run.workdir.parent)
    run = open_run(small_run.workdir.name)
    monkeypatch.chdir(tmp_path)
    assert run.catalog.items == 40
