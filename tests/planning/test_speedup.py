import dataclasses
import json

import pytest

from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.wide_shapes import WidenError
from atspeed_jax.planning import speedup
from atspeed_jax.planning.decode_passes import plain_search
from atspeed_jax.planning.rounds import DecodeTimes
from atspeed_jax.planning.speedup import SpeedupConfig, least_seconds, predict, speedup_table
from atspeed_jax.training.chips import CHIPS, ChipError

SEVEN_B = LlamaConfig(1026, 4096, 11_008, 32, 32, 32, 128, 1e4, 1e-6, False, 0.0, "bfloat16", False)
CONFIG = SpeedupConfig(
    chips=("v5e", "h100"),
    shapes=("pair",),
    beams=(2,),
    batches=(1,),
    widths=((2, 2), ("all", 10), (1, 1)),
    prompt=13,
    dtype="bfloat16",
    users=4,
    compiler=False,
)


def test_plain_search_reads_all_weights_once_per_level():
    """On a chip whose products take no time."""
    parameters = 32 * (4 * 4096**2 + 3 * 4096 * 11_008) + 1026 * 4096
    weights = 4 * 2 * parameters / CHIPS["h200"].hbm_bytes
    found = least_seconds(plain_search(SEVEN_B, 5, 4, 100, 1), CHIPS["h200"]._replace(flops=1e30))
    assert weights < found < 1.1 * weights


def test_a_float32_target_takes_as_long_as_its_products():
    wide = dataclasses.replace(SEVEN_B, dtype="float32")
    passes = plain_search(wide, 20, 4, 100, 64)
    flops = sum(one.flops() for one in passes)
    least = 6 * flops / CHIPS["v5e"].flops  # and no more where every pass is bound by its products
    assert least_seconds(passes, CHIPS["v5e"]) >= least * (1 - 1e-12)


@pytest.fixture(scope="module")
def predicted(small_run, tmp_path_factory):
    """Rows of two calls with a compiler that is stubbed, what the file holds, and what was compiled."""
    compiled, path = [], tmp_path_factory.mktemp("speedup") / "predicted.json"

    class Programs:
        def __init__(self, target, draft, search, *_, **__):
            compiled.append((target, search))

        def times(self):
            return DecodeTimes(8e-3, 3e-3, 2e-3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speedup, "Programs", Programs)
        patch.setattr(speedup, "tpu_devices", lambda chip, count: [chip])
        config = dataclasses.replace(CONFIG, compiler=True)
        rows, again = (predict(small_run.run, config, path, lambda text: None) for _ in range(2))
    return rows, again, json.loads(path.read_text())["rows"], compiled


def test_rounds_are_measured_and_their_times_predicted(predicted):
    tpu, gpu = predicted[0]
    assert (tpu["chip"], gpu["chip"], tpu["shape"], tpu["K"]) == ("v5e", "h100", "pair", 2)
    assert 1 <= tpu["target_calls"] <= 3
    assert tpu["rounds"] == tpu["target_calls"], "a batch of one user has the rounds of the user"
    assert tpu["compiler_ms"] == pytest.approx(3 + 2 * (tpu["rounds"] - 1))
    assert tpu["compiler_speedup"] == pytest.approx(8 / tpu["compiler_ms"])
    assert gpu["compiler_ms"] is None
    assert gpu["roofline_ms"] < tpu["roofline_ms"]


def test_what_was_compiled_is_kept_and_not_compiled_again(predicted):
    rows, again, written, compiled = predicted
    assert len(compiled) == 1
    assert compiled[0][0].dtype == "bfloat16"
    assert list(compiled[0][1].widths) == rows[0]["widths"]
    assert [row["compiler_ms"] for row in again] == [pytest.approx(rows[0]["compiler_ms"]), None]
    assert written == again


def test_the_table_says_that_it_is_predicted(predicted):
    table = speedup_table(predicted[0])
    assert table.title == "Predicted, not measured"
    assert [len(row) for row in table.rows] == [len(table.header)] * 2
    assert table.rows[1][-1] == "–"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"head": 13}, ValueError, "head=13 with prompt=13: expected fewer tokens"),
        ({"chips": ("v9",)}, ChipError, "chip 'v9' is unknown"),
        ({"shapes": ("8m",)}, WidenError, "8m"),
        ({"widths": ((1, 1),)}, DecodeError, "K=2: none of the widths holds it; width 1 of level 1"),
    ],
)
def test_a_prediction_that_cannot_be_made(small_run, changes, error, message):
    with pytest.raises(error, match=message):
        predict(small_run.run, dataclasses.replace(CONFIG, **changes), None, lambda text: None)
