import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from atspeed_jax.data.prompts import prompt_width
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.planning import plan as planning
from atspeed_jax.planning.plan import PlanError, as_read, plan, with_batch
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.training.chips import CHIPS
from atspeed_jax.training.sharding import ShardingError, sharding
from configs import beauty_llama7b
from devices import ROOT, environment, whole_mesh
from launch.config import load
from small import changed

CATALOG = Catalog.random(40, (4,) * 3)
SEVEN_B = load(beauty_llama7b.get_config(), ExperimentConfig)


def check(row):
    """What holds of every step on one device."""
    assert row["devices"] == row["data"] == 1
    assert row["received_bytes"] == 0
    assert row["estimate"]["flops"] == pytest.approx(row["flops"], rel=0.15)
    assert row["peak_gib_per_device"] > row["parameters_gib"] + row["temporaries_gib"]
    assert row["roofline_seconds"] >= 6 * row["flops"] / CHIPS["v5e"].flops  # float32 at precision "highest"


def test_a_training_step_takes_six_flops_per_parameter_and_token(small_config):
    config = changed(changed(small_config, "train_target.average", 0.0), "train_target.shuffle", 0.0)
    (row,) = plan(config, CATALOG, CHIPS["v5e"], steps=("train",))
    check(row)
    assert row["step"] == "train target"
    assert row["flops"] == row["flops_least"]
    model = small_config.target.llama(CATALOG.vocab_size)
    matrices = 2 * 16 * 8 * 3 + 3 * 16 * 16 + model.vocab_size * 16  # attention, MLP, head
    tokens = 32 * (1 + 3 * 5)
    attention = 3 * 4 * tokens * 16 * 16  # forward once, backward twice
    assert row["flops"] == 6 * matrices * tokens + attention


@pytest.mark.slow
def test_alignment_and_decoding_as_compiled_and_as_estimated(small_config):
    align, decode = plan(small_config, CATALOG, CHIPS["v5e"], steps=("align", "decode"))
    check(align)
    check(decode)
    assert align["flops"] == align["flops_least"]
    assert decode["flops_least"] < decode["flops"]
    assert align["cache_gib"] == 0 < decode["cache_gib"]


def test_bytes_of_a_part():
    shape = jax.ShapeDtypeStruct((8, 3), jnp.bfloat16, sharding=sharding(whole_mesh(), "batch"))
    assert planning.bytes_on_device([shape]) == 48 / whole_mesh().size
    assert planning.whole_bytes([shape]) == 48
    assert planning.bytes_on_device(jax.ShapeDtypeStruct((5,), jnp.int32)) == 20


def test_batches_by_the_device(small_config):
    assert (
        with_batch(small_config, 3, 4).train_align.batch_size == with_batch(small_config, 3, 4).teacher.batch_size == 12
    )


def test_an_instruction_without_a_tokenizer_is_measured_by_its_letters():
    catalog = as_read(SEVEN_B, (), Catalog.random(30, (256,) * 4).behind(32_000, 1))
    prompt = SEVEN_B.data.prompt
    longest = len(prompt.template) / 3 + 20 * 4 + 19
    assert len(catalog.instruction.head) + len(catalog.instruction.tail) + 20 * 4 + 19 == pytest.approx(longest, abs=4)
    around = changed(changed(SEVEN_B, "data.prompt.before", 30 * "x"), "data.prompt.after", 60 * "x")
    widest = prompt_width(as_read(around, (), catalog), 20)
    assert widest - prompt_width(catalog, 20) == 20 * (10 + 20) + 10
    item = changed(changed(SEVEN_B, "data.prompt.kind", "item"), "data.history", 3)
    assert as_read(item, (), CATALOG) is CATALOG


@pytest.mark.parametrize(
    ("path", "value", "error", "message"),
    [
        (None, None, PlanError, "step 'rest' is unknown; expected some of train, align, decode"),
        ("mesh.fsdp", 3, ShardingError, "does not fit the 1 devices"),
        ("decode.widths", ("all",), DecodeError, "1 entries"),
    ],
)
def test_a_plan_that_cannot_be_made(small_config, path, value, error, message):
    config = changed(small_config, path, value) if path else small_config
    with pytest.raises(error, match=message):
        plan(config, CATALOG, CHIPS["v5e"], steps=("decode",) if path else ("rest",))


@pytest.mark.slow
def test_what_is_planned_is_what_training_takes():
    """A model of 115 M parameters, whole, in float32; each in a fresh process."""

    def said(what):
        command = [sys.executable, str(ROOT / "tests" / "helpers" / "resident.py"), what, "12", "768", "8"]
        run = subprocess.run(command, capture_output=True, text=True, env=environment(1), cwd=ROOT, check=True)
        return json.loads(run.stdout.splitlines()[-1])

    planned, measured = said("predict"), said("measure")
    assert 1.0e8 < measured["parameters"] < 1.2e8
    assert planned["peak_gib_per_device"] == pytest.approx(measured["peak"], rel=0.2)
