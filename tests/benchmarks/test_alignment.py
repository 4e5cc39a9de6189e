"""The same loss and gradient with copies of the prompt and with a tree, and the rows of the benchmark."""

import jax
import numpy as np
import pytest

from atspeed_jax.alignment.align import Alignment, align_loss
from atspeed_jax.alignment.batches import alignment_batches
from atspeed_jax.alignment.teacher_files import load_teacher
from atspeed_jax.benchmarks import alignment as benchmark
from atspeed_jax.data.batches import BatchShape


@pytest.fixture(scope="module")
def world(small_run):
    run, c = small_run.run, small_run.run.config
    teacher = load_teacher(small_run.workdir / "teacher", fingerprint=run.stage_fingerprint("teacher"))
    shape = BatchShape(c.data.history, (4,), 8)
    batches = alignment_batches(run.dataset, run.trie, teacher, shape, prompts=c.teacher.prompts, seed=0)
    return run.draft_model, run.draft_params, run.tree_context, [batches[0], batches[1]]


def test_loss_and_gradient_are_the_same(world):
    model, params, context, batches = world
    batch = {name: x for name, x in batches[0].items() if name != "log_probs"}
    assert (batch["list"] >= 0).any()
    copies = jax.jit(jax.value_and_grad(lambda p: benchmark.copies_loss(model, p, context, batch)))(params)
    alignment = Alignment(benchmark.SEQ_KD, model, model)
    tree = jax.jit(jax.value_and_grad(lambda p: align_loss(alignment, p, p, context, batch, None)[0]))(params)
    np.testing.assert_allclose(copies[0], tree[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), copies[1], tree[1])


def test_rows(world):
    copies, tree = benchmark.alignment_steps(*world, repeats=1)
    assert (copies["way"], tree["way"]) == ("copies", "tree")
    assert copies["ratio"] == copies["memory_ratio"] == 1
    assert tree["samples_per_s"] > 0
    assert tree["ratio"] > 0
    assert tree["temporary_mib"] > 0
    assert tree["batch"] == 8
    assert tree["prompt"] == 13
    assert tree["beams"] == 10


def test_losses_that_differ_are_not_compared(world, monkeypatch):
    monkeypatch.setattr(benchmark, "copies_loss", lambda *_: 7.0 + 0 * jax.tree.leaves(world[1])[0].sum())
    with pytest.raises(ValueError, match=r"the losses differ, 7\.0 with copies"):
        benchmark.alignment_steps(*world, repeats=1)
