"""The stage "tune" of a run: skipped, resumed, made anew; the search itself is a stand-in."""

import dataclasses
import shutil
from types import SimpleNamespace

import pytest

import small
from atspeed_jax.runs import tuning as T
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.serving.settings import Setting
from atspeed_jax.training.preemption import Preempted
from atspeed_jax.tuning.tune import TuneConfig
from atspeed_jax.tuning.tuned_file import Tuning

CONFIG = TuneConfig(beams=(5, 1), batch_sizes=(1,), drafters=("popularity",))


def made_row(beams, batch):
    setting = Setting.beam_search(beams, "vocab")
    entry = {"label": setting.label, "setting": setting.row, "target_calls": 3.0, "one_call_share": 0.0, "time_ms": 1.0}
    entry |= dict.fromkeys(("expected_ms", "ratio", "ratio_low", "ratio_high"), 1.0)
    return {
        "K": beams,
        "batch": batch,
        "choice": entry["label"],
        "reason": "so it is",
        "slower_than_best": 0.0,
        "settings": [entry],
    }


@pytest.fixture
def made(monkeypatch):
    """What is tuned, (K, batch) by (K, batch), without the work."""
    made = []

    def choose(decoders, batches, beams, score_norm, config, *, times, say):
        assert times == "measured once"
        made.append((beams, len(batches[0]["row"])))
        return SimpleNamespace(row=made_row(*made[-1]))

    monkeypatch.setattr(T, "measured", lambda *given: "measured once")
    monkeypatch.setattr(T, "choose", choose)
    return made


@pytest.fixture
def run(small_run, small_config, tmp_path):
    copy = shutil.copytree(small_run.workdir, tmp_path / "copy")
    return Run(small.changed(small_config, "evaluate.tune", (5, 1)), copy, None)


def test_every_choice_is_written_and_made_once(run, made, capsys):
    run.tune()
    assert made == [(5, 1), (1, 1)]
    found = Tuning.read(run.workdir)
    assert found.beams == [1, 5]
    assert found.unfit(T.tuned_for(run)) is None
    assert "[tune] K=5, batch 1: so it is" in capsys.readouterr().out
    assert "Tuned decoding" in (run.workdir / "tuned.md").read_text()
    run.tune()
    assert len(made) == 2
    T.tune_run(run, dataclasses.replace(CONFIG, beams=(5,), batch_sizes=(1, 64)), print, again=True)
    assert made[2:] == [(5, 1), (5, 64)]
    assert [(row["K"], row["batch"]) for row in Tuning.read(run.workdir).rows] == [(5, 1), (1, 1), (5, 64)]


def test_an_interrupted_stage_keeps_its_choices(run, made, monkeypatch):
    stops = iter([None] * 3)  # a line before all and one per choice

    def stop(stage):
        if reason := next(stops):
            raise reason

    monkeypatch.setattr(T, "stop_after_sigterm", stop)
    run.tune()
    (run.workdir / "tuned.json").unlink()
    stops = iter([None, Preempted("tune")])
    with pytest.raises(Preempted):
        run.tune()
    assert Tuning.read(run.workdir).beams == [5]
    stops = iter([None] * 2)
    run.tune()
    assert made == [(5, 1), (1, 1), (5, 1), (1, 1)]


def test_choices_for_another_pair_are_made_anew(run, made):
    run.tune()
    changed = dataclasses.asdict(T.tuned_for(run)) | {"draft": "another draft", "rows": [made_row(9, 1)]}
    T.write_json(run.workdir / "tuned.json", changed)
    said = []
    T.tune_run(run, CONFIG, said.append, again=False)
    assert said[0].startswith(f"{run.workdir / 'tuned.json'} was made for draft='another draft', not ")
    assert said[0].endswith(": it is made anew")
    assert Tuning.read(run.workdir).beams == [1, 5]


@pytest.mark.parametrize(("asked", "beams", "stages"), [(True, (5, 1), 1), (False, (5, 1), 0), (True, (), 0)])
def test_the_pipeline_tunes_where_a_config_asks_for_it(small_run, small_config, asked, beams, stages, monkeypatch):
    run = Run(small.changed(small_config, "evaluate.tune", beams), small_run.workdir, None)
    made = []
    monkeypatch.setattr(run, "make", made.append)
    monkeypatch.setattr(run, "evaluation", lambda: made.append("evaluation") or {})
    run.all(tune=asked)
    assert made == ["data", "target", "teacher", "draft", *["tune"] * stages, "evaluation"]


def test_several_processes_do_not_tune(run, made, monkeypatch, capsys):
    monkeypatch.setattr(T.jax, "process_count", lambda: 2)
    run.tune()
    assert not made
    assert "left out: it times one process" in capsys.readouterr().out
