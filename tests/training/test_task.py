import pytest

from atspeed_jax.training.fit_config import FitConfigError
from atspeed_jax.training.task import TrainingTask


def task(mode):
    return TrainingTask(
        name="toy",
        fingerprint="toy-1",
        init_params=None,
        loss=None,
        batches=None,
        evaluate=None,
        monitor="mse",
        mode=mode,
    )


@pytest.mark.parametrize(("mode", "better", "worse"), [("min", 1.0, 3.0), ("max", 3.0, 1.0)])
def test_a_tie_is_no_improvement(mode, better, worse):
    made = task(mode)
    assert made.improves(better, 2.0)
    assert not made.improves(worse, 2.0)
    assert not made.improves(2.0, 2.0)


def test_another_mode_is_refused():
    with pytest.raises(FitConfigError, match="mode = 'biggest', expected 'min' or 'max'"):
        task("biggest")
