import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models import attention as module
from atspeed_jax.shapes import SlotMask


def reference(query, keys, values, seen):
    """[B, T, H * d] by the definition: query heads 0 and 1 read key head 0, and so on."""
    keys, values = np.repeat(keys, 2, 1), np.repeat(values, 2, 1)
    logits = np.where(seen[:, None], np.einsum("bthd,bhsd->bhts", query, keys) / 6**0.5, -np.inf)
    with np.errstate(invalid="ignore"):
        weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("bhts,bhsd->bthd", weights, values).reshape(2, 5, -1)


@pytest.mark.parametrize("head", [0, 1])
@pytest.mark.parametrize(("most_slots", "most_bytes"), [(0, 1 << 30), (5, 1 << 30), (0, 1200), (5, 1200), (5, 1)])
def test_attention_over_prompt_and_path_is_attention_over_the_whole_mask(monkeypatch, most_slots, most_bytes, head):
    """Whether paths are gathered or not, and in one block or in two (2 * 4 heads * 5 * 9 logits) or 5."""
    monkeypatch.setattr(module, "MOST_SLOTS", most_slots)
    monkeypatch.setattr(module, "MOST_SLOTS_CPU", most_slots)
    monkeypatch.setattr(module, "MOST_BYTES", most_bytes)
    rng = np.random.default_rng(4)
    query = rng.normal(size=(2, 5, 4, 6)).astype(np.float32)
    keys, values = rng.normal(size=(2, 2, 2, 9, 6)).astype(np.float32)
    paths = [[-1, -1], [4, -1], [5, -1], [4, 7], [8, 5]]
    begin, end = (jnp.asarray(rng.integers(low, 5, (2, 5))) for low in (0, 1))
    mask = SlotMask(begin, end, jnp.asarray([paths, paths[::-1]]), 4, head)
    found, want = module.attend(query, keys, values, mask, None), reference(query, keys, values, mask.dense(9))
    seen = np.asarray(mask.dense(9)).any(-1)  # what sees nothing means nothing
    assert seen.sum() >= 9
    np.testing.assert_allclose(found[seen], want[seen], atol=1e-6)


def test_slots_lie_side_by_side_in_the_logits_of_a_decode():
    """Then a GPU computes the softmax in one kernel. Training keeps the order of its sums, and finds the same."""
    rng = np.random.default_rng(4)
    query = rng.normal(size=(2, 5, 4, 6)).astype(np.float32)
    keys, values = rng.normal(size=(2, 2, 2, 9, 6)).astype(np.float32)
    end = jnp.broadcast_to(jnp.arange(5, 10), (2, 5))
    mask = SlotMask(jnp.zeros((2, 5), int), end, jnp.zeros((2, 5, 0), int), 9)
    decoded, trained = (module.attend(query, keys, values, mask, None, trains=trains) for trains in (False, True))
    np.testing.assert_allclose(decoded, trained, atol=1e-6)
    traced = jax.make_jaxpr(lambda *given: module.attend(*given, mask, None))(query, keys, values)
    logits = next(one for one in traced.eqns if one.primitive.name == "dot_general")
    assert logits.outvars[0].aval.shape == (2, 2, 2 * 5, 9)


@pytest.mark.parametrize(
    ("slots", "platform", "trains", "gathers"),
    [
        (64, "cpu", False, False),
        (64, "cpu", True, True),
        (65, "cpu", False, True),
        (256, "cuda", False, False),
        (256, "cuda", True, True),
        (257, "cuda", False, True),
    ],
)
def test_paths_are_gathered_in_wide_trees_alone(slots, platform, trains, gathers):
    """Where the tree is wider, a product with all of its slots takes longer than a gather."""
    query, store = jnp.zeros((1, 2, 2, 4)), jnp.zeros((1, 1, 3 + slots, 4))
    mask = SlotMask(jnp.zeros((1, 2), int), jnp.full((1, 2), 3), jnp.full((1, 2, 1), 3), 3)
    attend = jax.jit(module.attend, static_argnames=("precision", "trains"))
    traced = attend.trace(query, store, store, mask, precision=None, trains=trains)
    assert ("gather" in traced.lower(lowering_platforms=(platform,)).as_text()) == gathers


def temporaries(length, trains=False):
    """Bytes that attention over a prompt of so many tokens takes beside its arguments."""
    query, store = (jax.ShapeDtypeStruct(size, jnp.float32) for size in ((1, length, 8, 4), (1, 8, length, 4)))
    mask = jax.eval_shape(lambda: SlotMask.causal(jnp.ones((1, length), bool)))
    attend = jax.jit(module.attend, static_argnames=("precision", "trains"))
    compiled = attend.lower(query, store, store, mask, precision=None, trains=trains).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_a_long_prompt_grows_with_its_length(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1 << 20)
    assert temporaries(2048) < 4 * temporaries(1024)
    assert temporaries(2048, trains=True) > 8 * temporaries(2048)
