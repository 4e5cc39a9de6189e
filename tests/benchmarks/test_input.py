from atspeed_jax.benchmarks import input as input_benchmark
from atspeed_jax.benchmarks.input import input_row
from atspeed_jax.training.initialization import Initialization
from devices import whole_mesh
from tests.training import toy

START = Initialization(None, toy.init_params, None, None, lambda params: params)


def test_what_the_batches_take_is_told_apart_from_the_step(clock, monkeypatch):
    class Slow(toy.ToyBatches):
        def __init__(self):
            super().__init__()
            clock.seconds += 2

        def __getitem__(self, number):
            clock.seconds += 0.5
            return super().__getitem__(number)

    step = input_benchmark.make_train_step

    def slow_step(*arguments):
        made = step(*arguments)

        def dispatch(state, batch):
            clock.seconds += 4
            return made(state, batch)

        return dispatch

    monkeypatch.setattr(input_benchmark, "make_train_step", slow_step)
    row = input_row(Slow, START, toy.loss, toy.toy_config(), whole_mesh(), batches=6, steps=4)
    assert row == {"start_up_s": 2.5, "feed_samples_per_s": 16.0, "step_samples_per_s": 2.0, "ratio": 8.0}
