"""The whole pipeline at a size of seconds, run once in `small_run`: what it writes, repeats, resumes and refuses."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import small
from atspeed_jax.alignment import teacher, teacher_files
from atspeed_jax.reporting.report import validate_report
from atspeed_jax.runs.experiment import ServeConfig
from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.training.sharding import MeshConfig


@pytest.fixture
def copy(small_run, tmp_path):
    """A copy of the finished workdir, to be changed."""
    return shutil.copytree(small_run.workdir, tmp_path / "copy")


def test_the_report_is_whole(small_run):
    stored = json.loads((small_run.workdir / "report.json").read_text())
    validate_report(stored)
    assert stored == json.loads(json.dumps(small_run.report))
    dataset = small_run.run.dataset
    assert stored["config"] == "small"
    assert stored["dataset"] == {
        "name": "synthetic",
        "users": 60,
        "items": 40,
        "distinct_ids": len({tuple(row) for row in dataset.catalog.codes.tolist()}),
        "collisions": len(dataset.catalog.collisions),
    }
    assert stored["dataset"]["collisions"] > 0  # the small catalog does have some


def test_every_method_gives_the_lists_of_plain_beam_search(small_run):
    rows = small_run.report["decoding"]
    assert [(row["method"], row["drafter"]) for row in rows] == [
        ("beam_search", "none"),
        ("speculative", "draft"),
        ("speculative", "popularity"),
    ]
    users = sum(len(items) > 0 for items in small_run.run.dataset.test)
    for row in rows:
        assert row["mismatched_users"] == 0
        assert row["near_tie_users"] == 0
        assert (row["users"], row["K"], row["score_norm"]) == (users, small.BEAMS, "vocab")
        assert row["accept_steps_mean"] == pytest.approx(3 - row["target_calls_mean"])
    assert len({row["target_fingerprint"] for row in rows} | {small_run.report["quality"]["target_fingerprint"]}) == 1


def test_target_calls_are_consistent(small_run):
    beam_search, *speculative = small_run.report["decoding"]
    assert beam_search["target_calls_mean"] == 3  # one per level
    assert beam_search["one_call_share"] == 0
    assert beam_search["acceptance_by_level"] is beam_search["coverage_by_level"] is None
    for row in speculative:
        assert 1 <= row["target_calls_mean"] < 3
        first, second = row["acceptance_by_level"]
        assert first == row["coverage_by_level"][0] == 1  # a width of "all" cannot miss
        assert second < 1  # this width can, or the test would show little
        assert second <= row["coverage_by_level"][1] <= 1
        # Levels 1 and 2 accepted in round 1 are what one call needs; without level 2 it takes exactly two.
        assert row["one_call_share"] == pytest.approx(second)
        assert row["target_calls_mean"] == pytest.approx(2 - second)
        assert row["batch_rounds_mean"] == pytest.approx(row["target_calls_mean"])  # batches of one user


def test_times_are_measured(small_run):
    for row in small_run.report["decoding"]:
        assert 0 < row["latency_ms_p50"] <= row["latency_ms_p95"]
        assert row["users_per_s"] > 0
        assert row["ws_vs_beam_search"] > 0
        low, high = row["ws_interval"]
        assert 0 < low <= row["ws_vs_beam_search"] <= high
    assert small_run.report["decoding"][0]["ws_vs_beam_search"] == 1
    plain, draft, prior = (row.get("breakdown_ms") for row in small_run.report["decoding"])
    assert plain["target"] > 0 == plain["draft"]
    assert min(draft["target"], draft["draft"]) > 0
    assert prior is None


def test_quality_has_every_measure(small_run):
    quality, run = small_run.report["quality"], small_run.run
    for method in ("target", "popularity", "covisitation"):
        for entry in quality[method].values():
            for k in (1, 5, 10):
                low, high = entry["intervals"][f"ndcg@{k}"]
                assert 0 <= low <= entry[f"ndcg@{k}"] <= high <= 1
                assert 0 <= entry[f"id_recall@{k}"] <= 1
            assert entry["recall@1"] <= entry["recall@5"] <= entry["recall@10"]
            assert entry["truths"] == sum(len(set(items.tolist())) for items in run.dataset.test)
    assert set(quality["differences"]) == {"target - popularity", "target - covisitation"}


def test_seen_removed_fills_the_list_again(small_run):
    """Cut out of the list, seen items could only have lowered what the whole list holds."""
    kept, removed = (small_run.report["quality"]["target"][habit] for habit in ("seen_kept", "seen_removed"))
    assert kept["impossible"] == 0
    assert removed["hits"] <= removed["truths"] - removed["impossible"]
    assert removed["recall@10"] != kept["recall@10"]


def test_the_report_is_readable(small_run):
    text = (small_run.workdir / "report.md").read_text()
    plots = sorted(path.name for path in small_run.workdir.glob("*.png"))
    assert len(plots) >= 3
    assert all(f"({name})" in text for name in plots)
    for name in plots:
        assert (small_run.workdir / name).read_bytes().startswith(b"\x89PNG")
    assert "speculative, draft model" in text
    page = (small_run.workdir / "report.html").read_text()
    assert f"K = {small.BEAMS}: " in page
    assert page.count('<div class="person">') == 5
    assert page.count("<img") == len(plots)


def test_training_chose_the_best_evaluation(small_run):
    monitors = {"target": ("ndcg@10", max), "draft_sft": ("nats_per_item", min), "draft": ("target_calls", min)}
    for stage, (monitor, best) in monitors.items():
        metadata = json.loads((small_run.workdir / stage / "metadata.json").read_text())
        records = [json.loads(line) for line in (small_run.workdir / stage / "metrics.jsonl").read_text().splitlines()]
        seen = {record["step"]: record[monitor] for record in records if record["split"] == "valid"}
        assert len(seen) == 2
        assert metadata["metrics"][monitor] == best(seen.values()) == seen[metadata["step"]]


def test_a_second_run_does_nothing_again(small_run, small_config, copy):
    before = small.snapshot(copy)
    report = Run(small_config, copy, None).all()
    after = small.snapshot(copy)
    rewritten = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    plots = {path.name for path in copy.glob("*.png")}
    assert rewritten == {"report.html", "report.json", "report.md", *plots}
    assert report["decoding"] == small_run.report["decoding"]
    assert report["quality"] == small_run.report["quality"]


def test_an_interrupted_teacher_goes_on_where_it_stopped(small_run, small_config, copy, monkeypatch):
    monkeypatch.setattr(teacher, "BATCHES_PER_PART", 3)
    shutil.rmtree(copy / "teacher")
    real, decoded = teacher.beam_nodes, []

    def interrupted(*arguments, **keywords):
        decoded.append(1)
        if len(decoded) == 5:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(teacher, "beam_nodes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Run(small_config, copy, None).teacher()
    first = small.snapshot(copy / "teacher")
    assert "part-00000.parquet" in first
    assert "part-00001.parquet" not in first
    run = Run(small_config, copy, None)
    with pytest.raises(teacher_files.TeacherError, match=r"no complete teacher data.*launch\.make_teacher"):
        run.draft()
    assert not (copy / "teacher" / "complete.json").exists()
    run.teacher()
    assert len(decoded) == 5 + 12  # 15 batches in parts of 3: the first part is not decoded again
    assert small.snapshot(copy / "teacher").items() >= first.items()
    whole = teacher_files.load_teacher(
        small_run.workdir / "teacher", fingerprint=small_run.run.stage_fingerprint("teacher")
    )
    again = teacher_files.load_teacher(copy / "teacher", fingerprint=run.stage_fingerprint("teacher"))
    for name in ("beams", "log_probs", "start"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("data.synthetic.seed", 1, "data was built from other interactions or item codes than config.data.synthetic"),
        ("target.hidden_size", 8, "target holds a training of fingerprint.*use another directory"),
        ("train_target.seed", 1, "target holds a training of fingerprint.*use another directory"),
        ("teacher.beams", 4, "teacher holds beams of another target, data or setting .beams: 10 -> 4.: delete it"),
        ("draft.layers", 2, "draft_sft holds a training of fingerprint.*use another directory"),
        ("align.alpha", 0.5, "draft holds a training of fingerprint.*use another directory"),
        ("decode.gamma", 1, "draft holds a training of fingerprint.*use another directory"),
    ],
)
def test_a_finished_stage_refuses_another_config(small_run, small_config, path, value, message):
    with pytest.raises(ValueError, match=message):
        Run(small.changed(small_config, path, value), small_run.workdir, None).all()
    assert small.snapshot(small_run.workdir) == small_run.files


@pytest.mark.slow
def test_how_a_finished_run_is_served_changes_nothing_that_was_trained(small_run, small_config, copy):
    """Widths, gamma, norm, batch and K are chosen; narrow widths are raised; what is measured is remembered apart."""
    before = small.snapshot(copy)
    decode = dataclasses.replace(small_config.decode, widths=("all", 4), gamma=1, score_norm="trie", unroll=True)
    evaluate = dataclasses.replace(small_config.evaluate, beams=(12,), batch_size=16, drafters=("draft",))
    run = Run(small_config, copy, None, serve=ServeConfig(decode, evaluate, MeshConfig()))
    report = run.all()
    plain, drafted = report["decoding"]
    assert (drafted["K"], drafted["widths"], drafted["score_norm"]) == (12, ["all", 10], "trie")  # 10 are open
    assert plain["mismatched_users"] == drafted["mismatched_users"] == 0
    after = small.snapshot(copy)
    written = {name for name in after if before.get(name) != after[name]}
    assert all(
        name.startswith("evaluation/")
        for name in written - {"report.html", "report.json", "report.md"}
        if "png" not in name
    )
    assert after.keys() >= before.keys()
    assert len(list((copy / "evaluation").iterdir())) == 2


def test_evaluation_refuses_models_of_another_config(small_run, small_config):
    with pytest.raises(ValueError, match="target is a checkpoint of another configuration"):
        Run(small.changed(small_config, "target.heads", 1), small_run.workdir, None).evaluation()
    assert small.snapshot(small_run.workdir) == small_run.files


@pytest.mark.parametrize("stage", ["target", "teacher", "draft", "evaluation"])
def test_a_stage_without_the_one_before_says_so(small_config, data_only, tmp_path, stage):
    with pytest.raises(ValueError, match=r"no such dataset directory.*launch\.prepare_data"):
        Run(small_config, tmp_path, None).make(stage)
    assert not list(tmp_path.iterdir())
    if stage in ("teacher", "evaluation"):
        with pytest.raises(ValueError, match=r"target does not exist.*train it first"):
            Run(small_config, data_only, None).make(stage)


def test_a_data_directory_that_would_not_be_read_is_refused(small_config, tmp_path):
    with pytest.raises(ValueError, match=r"reads no directory, but .*leave --data_dir out"):
        Run(small_config, tmp_path / "run", tmp_path)


def test_any_data_directory_runs(real_data, tmp_path):
    config, source, directory = real_data.config, real_data.source, real_data.directory
    Run(config, tmp_path / "run", directory).data()
    before = small.snapshot(tmp_path / "run")
    for again in (directory, None):  # stored data need no directory
        run = Run(config, tmp_path / "run", again)
        run.data()
        assert run.dataset.name == "shop"
        np.testing.assert_array_equal(run.dataset.catalog.codes, source.codes)
    assert small.snapshot(tmp_path / "run") == before


def test_data_that_is_not_there(real_data, tmp_path):
    config = real_data.config
    workdir = tmp_path / "run"
    with pytest.raises(ValueError, match=r"give --data_dir=DIR with sequential_\{train,valid,test\}.txt"):
        Run(config, workdir, None).all()
    with pytest.raises(ValueError, match="nowhere: no such data directory; give --data_dir"):
        Run(config, workdir, tmp_path / "nowhere").all()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="the data directory is empty; put the data there or give --data_dir another"):
        Run(config, workdir, tmp_path / "empty").all()
    assert not workdir.exists()


def test_fingerprint_changes_with_every_field(small_config):
    fields = ("target.dropout", 0.25), ("decode.widths", ("all", 11)), ("data.synthetic.seed", 7)
    prints = [fingerprint(small.changed(small_config, *field)) for field in fields]
    assert len({*prints, fingerprint(small_config)}) == 4
    assert fingerprint(small_config) == fingerprint(dataclasses.replace(small_config))


def test_the_draft_is_not_the_target(small_run):
    assert fingerprint_of(small_run.run.draft_params) != fingerprint_of(small_run.run.target_params)
    assert small_run.run.draft_model.hidden_size == 8
