import json
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from atspeed_jax.training.metrics_log import read_metrics
from atspeed_jax.training.speed import Profile, StepTimes, flops_per_token
from tests.training import toy


def device(kind="cpu", memory=None):
    return SimpleNamespace(device_kind=kind, process_index=jax.process_index(), memory_stats=lambda: memory)


def pass_two_steps(times, clock):
    for _ in range(2):
        with times.of("data"):
            clock.seconds += 1
        clock.seconds += 4
        times.count(tokens=100)
    with times.of("checkpoint"):
        clock.seconds += 2


def test_a_step_is_the_sum_of_its_parts(clock):
    times = StepTimes([device()] * 2, flops=60.0)
    pass_two_steps(times, clock)
    found = times.figures()
    assert found == {
        "data_s": 1.0, "checkpoint_s": 1.0, "evaluation_s": 0.0, "compute_s": 4.0, "step_s": 6.0,
        "tokens_per_s_per_device": 200 / 10 / 2,
    }  # fmt: skip
    clock.seconds += 3
    times.count(tokens=0)
    assert times.figures()["step_s"] == 3.0  # begins anew


def test_a_known_device_has_its_share_of_the_peak_and_its_memory(clock):
    memory = {"bytes_in_use": 2**30, "peak_bytes_in_use": 3 * 2**29}
    times = StepTimes([device("TPU v5 lite", memory)], flops=6e12)
    pass_two_steps(times, clock)
    found = times.figures()
    assert found["mfu"] == pytest.approx(6 * 10**12 * 20 / 197e12)
    assert (found["memory_gib"], found["memory_peak_gib"]) == (1.0, 1.5)
    times = StepTimes([device("TPU v5 lite", memory)], flops=None)
    pass_two_steps(times, clock)
    assert "mfu" not in times.figures()


def test_flops_are_those_of_what_a_token_meets():
    params, frozen = {"a": np.zeros((2, 3)), "b": np.zeros(4)}, {"base": np.zeros(100)}
    assert flops_per_token(params, None, None) == 60
    assert flops_per_token(params, frozen, 4.0) == 60 + 400, "an adapter: forward, and the gradient of the activations"
    assert flops_per_token(params, frozen, 0.0) == 60, "trained whole: the base is where it began"
    assert flops_per_token(params, frozen, None) is None, "alignment: tokens meet trees and tables as well"


def test_training_logs_its_speed_and_traces_the_steps_asked_for(tmp_path):
    toy.fit_toy(tmp_path / "run", toy.toy_config(steps=6, eval_every=3, log_every=2), profile_steps=(3, 4))
    records = read_metrics(tmp_path / "run" / "speed" / "metrics.jsonl")
    assert [(record["step"], record["split"]) for record in records] == [(2, "speed"), (4, "speed"), (6, "speed")]
    for record in records:
        parts = sum(record[name] for name in ("data_s", "checkpoint_s", "evaluation_s", "compute_s"))
        assert record["step_s"] == pytest.approx(parts)
        assert record["data_s"] > 0
    assert records[1]["evaluation_s"] > 0
    (trace,) = (tmp_path / "run" / "profile").rglob("perfetto_trace.json.gz")
    assert trace.stat().st_size > 1000
    assert not any("speed" in json.dumps(record) for record in read_metrics(tmp_path / "run" / "metrics.jsonl"))


@pytest.mark.slow
def test_a_trace_is_not_left_open(tmp_path, capsys):
    toy.fit_toy(tmp_path / "run", toy.toy_config(steps=4, eval_every=2), profile_steps=(4, 9))
    assert "toy: profile_steps=4:9: the trace will end with step 4, the last\n" in capsys.readouterr().err
    assert list((tmp_path / "run" / "profile").rglob("perfetto_trace.json.gz"))
    with pytest.raises(ValueError, match="profile_steps=3:2: expected FIRST:LAST"):
        Profile(tmp_path, (3, 2))


@pytest.mark.parametrize(("steps", "done"), [((7, 9), 0), ((2, 3), 2), ((1, 5), 3)])
def test_steps_that_a_training_does_not_reach_are_named_before_it_begins(tmp_path, steps, done):
    assert Profile(tmp_path, steps).missed(done, 6) == (
        f"profile_steps={steps[0]}:{steps[1]}: nothing will be traced, training goes from step {done + 1} to 6"
    )


def test_steps_that_a_training_reaches_need_no_word(tmp_path):
    assert Profile(tmp_path, None).missed(0, 6) is None
    assert Profile(tmp_path, (1, 6)).missed(0, 6) is None
    assert Profile(tmp_path, (3, 6)).missed(2, 6) is None


def test_the_first_of_several_processes_traces_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    profile = Profile(tmp_path, (1, 1))
    profile.before(1)
    profile.after(1, ())
    assert not list(tmp_path.rglob("*"))


def test_time_passes():
    times = StepTimes([device()], flops=None)
    with times.of("data"):
        time.sleep(0.01)
    assert times.figures()["data_s"] >= 0.01
