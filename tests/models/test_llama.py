import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.llama import LlamaConfig, LlamaStep, forward, init_params
from atspeed_jax.models.rotary import RopeScalingConfig
from atspeed_jax.models.unroll import unroll
from atspeed_jax.shapes import SlotMask, StepInput
from numpy_llama import numpy_llama, wide_params

CONFIG = LlamaConfig(
    vocab_size=19,
    hidden_size=16,
    intermediate_size=20,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=6,
    rope_theta=100.0,
    norm_eps=1e-5,
    tied_embeddings=False,
    dropout=0.0,
    dtype="float32",
    remat=False,
)
LENGTHS = (1, 4, 6)  # real tokens per row, of 6


@functools.cache
def params_of(config):
    return wide_params(config, seed=1)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, tokens, valid, dropout_key=None):
    return forward(config, params, tokens, valid, dropout_key=dropout_key)


@functools.cache
def step_of(config, unrolled=False):
    return jax.jit(LlamaStep(config, unrolled), static_argnames="n_out")


@pytest.fixture(params=[False, True], ids=["stacked", "side by side"])
def unrolled(request):
    return request.param


def ready(config, unrolled):
    """Parameters and empty cache of stacked layers, or of layers side by side."""
    params = params_of(config)
    return unroll(params) if unrolled else params, LlamaStep(config, unrolled).init_cache(3, SLOTS)


def ragged(width=6, padding=0):
    """Left-padded random rows of LENGTHS tokens; the padding may hold any token."""
    rng = np.random.default_rng(2)
    tokens, valid = np.full((len(LENGTHS), width), padding, np.int32), np.zeros((len(LENGTHS), width), bool)
    for row, length in enumerate(LENGTHS):
        tokens[row, width - length :] = rng.integers(1, 19, length)
        valid[row, width - length :] = True
    return jnp.asarray(tokens), jnp.asarray(valid)


VARIANTS = {
    "untied, two queries per key": {},
    "tied, one query per key": {"tied_embeddings": True, "kv_heads": 4},
    "four queries per key, one layer": {"kv_heads": 1, "layers": 1},
    "positions slowed as in Llama 3": {"rope_scaling": RopeScalingConfig("llama3", 8.0, 1.0, 4.0, 60)},
    "biases": {"attention_bias": True},
    "biases but of the output": {"model_type": "qwen2", "kv_heads": 1},
    "queries and keys normed": {"model_type": "qwen3", "tied_embeddings": True},
    "positions slowed alike": {"rope_scaling": RopeScalingConfig("linear", 2.5)},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_is_the_numpy_llama(variant):
    config = dataclasses.replace(CONFIG, **VARIANTS[variant])
    params = params_of(config)
    assert ("head" in params) is not config.tied_embeddings
    tokens, valid = ragged()
    logits, expected = run(config, params, tokens, valid), numpy_llama(config, params)
    assert (logits.shape, logits.dtype) == ((3, 6, 19), jnp.float32)
    for row, length in enumerate(LENGTHS):
        want = expected(tokens[row, 6 - length :].tolist())
        assert want.std() > 0.3  # else a wrong layer would hide below the tolerance
        np.testing.assert_allclose(logits[row, 6 - length :], want, rtol=0, atol=1e-4)


def test_float64_is_the_numpy_llama_to_eleven_digits():
    expected = numpy_llama(CONFIG, params_of(CONFIG))
    with jax.enable_x64(True):
        config, params, tokens, valid = float64_case()
        logits = run(config, params, tokens, valid)
    assert logits.dtype == jnp.float64
    np.testing.assert_allclose(logits[2], expected(tokens[2].tolist()), rtol=0, atol=1e-11)


# A tree of two children of the root (slots 6, 8), two grandchildren (9, 11) and one more (10); slot 7 stays unwritten.
NODES = [(6, [6], 3), (8, [8], 4), (9, [6, 9], 5), (11, [8, 11], 5), (10, [8, 10], 7)]
SLOTS = 12


def tree_call(nodes, valid):
    """The given nodes for every row: each sees the real prompt and its own path."""
    batch = len(valid)
    tokens = np.tile([token for _, _, token in nodes], (batch, 1))
    slots = np.tile([slot for slot, _, _ in nodes], (batch, 1))
    positions = np.asarray(valid).sum(1)[:, None] - 1 + [len(path) for _, path, _ in nodes]
    paths = np.full((batch, len(nodes), 2), -1)
    for node, (_, path, _) in enumerate(nodes):
        paths[:, node, : len(path)] = path
    width = valid.shape[1]
    begin = jnp.broadcast_to(width - valid.sum(1, keepdims=True), tokens.shape)
    mask = SlotMask(begin, jnp.full_like(begin, width), jnp.asarray(paths), width)
    return StepInput(*map(jnp.asarray, (tokens, positions, slots)), mask)


def join(prompt, nodes):
    """Prompt tokens, whose paths are empty, and nodes read in one call."""
    path = jnp.full((*prompt.tokens.shape, nodes.mask.path.shape[-1]), -1)
    prompt = prompt.replace(mask=prompt.mask.replace(path=path), first_slot=nodes.first_slot)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1), prompt, nodes)


def tokens_of(path):
    return [next(token for slot, _, token in NODES if slot == one) for one in path]


@pytest.mark.parametrize("calls", ["one", "per level", "per node"])
def test_tree_nodes_equal_whole_sequences(calls, unrolled):
    """However a tree is cut into calls, a node's logits are those of its whole sequence without a cache."""
    params, cache = ready(CONFIG, unrolled)
    tokens, valid = ragged()
    prompt = StepInput.causal(tokens, valid)
    parts = {"one": [NODES], "per level": [NODES[:2], NODES[2:]], "per node": [[node] for node in NODES]}[calls]
    outputs = []
    for index, nodes in enumerate(parts):
        call = tree_call(nodes, valid)
        joined = join(prompt, call) if index == 0 else call
        n_out = len(nodes) + (index == 0)
        logits, cache = step_of(CONFIG, unrolled)(params, joined, cache, n_out=n_out)
        assert logits.shape == (3, n_out, 19)
        outputs.append(logits)
    logits = jnp.concatenate(outputs, 1)
    expected = numpy_llama(CONFIG, params_of(CONFIG))
    for row, length in enumerate(LENGTHS):
        own = tokens[row, 6 - length :].tolist()
        for node, path in enumerate([[]] + [path for _, path, _ in NODES]):
            want = expected(own + tokens_of(path))[-1]
            np.testing.assert_allclose(logits[row, node], want, rtol=0, atol=1e-4)


def test_rewritten_slots_forget_what_they_held(unrolled):
    """A rejected level is overwritten, never rolled back."""
    (params, empty), step = ready(CONFIG, unrolled), step_of(CONFIG, unrolled)
    tokens, valid = ragged()
    both = join(StepInput.causal(tokens, valid), tree_call(NODES, valid))
    _, cache = step(params, both, empty, n_out=6)
    other = [(6, [6], 11), (8, [8], 12), (9, [8, 9], 13), (11, [6, 11], 14), (10, [6, 10], 15)]
    logits, _ = step(params, tree_call(other, valid), cache, n_out=5)
    want = numpy_llama(CONFIG, params_of(CONFIG))([*tokens[2].tolist(), 12, 13])[-1]
    np.testing.assert_allclose(logits[2, 2], want, rtol=0, atol=1e-4)


def test_slot_beyond_the_cache_writes_nothing():
    params, step = params_of(CONFIG), step_of(CONFIG)
    tokens, valid = ragged()
    _, cache = step(params, StepInput.causal(tokens, valid), LlamaStep(CONFIG).init_cache(3, SLOTS), n_out=1)
    nodes = tree_call(NODES, valid)
    _, same = step(params, nodes.replace(slots=jnp.full_like(nodes.slots, SLOTS)), cache, n_out=5)
    jax.tree.map(np.testing.assert_array_equal, same, cache)
    _, half = step(params, nodes.replace(slots=nodes.slots.at[0].set(SLOTS)), cache, n_out=5)
    np.testing.assert_array_equal(half.keys[:, 0], cache.keys[:, 0])
    changed = (half.keys[:, 1] != cache.keys[:, 1]).any((0, 1, 3))
    assert np.flatnonzero(changed).tolist() == [6, 8, 9, 10, 11]


def test_padding_changes_nothing():
    params = params_of(CONFIG)
    narrow, wide = run(CONFIG, params, *ragged()), run(CONFIG, params, *ragged(width=9, padding=13))
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(wide[row, 9 - length :], narrow[row, 6 - length :], rtol=0, atol=1e-5)


def test_a_later_token_changes_no_earlier_logits():
    params, (tokens, valid) = params_of(CONFIG), ragged()
    before, after = run(CONFIG, params, tokens, valid), run(CONFIG, params, tokens.at[:, 5].add(1), valid)
    np.testing.assert_array_equal(after[2, :5], before[2, :5])
    assert not np.allclose(after[:, 5], before[:, 5], atol=1e-2)


def test_a_row_that_sees_nothing_stays_finite_and_harmless():
    params, (tokens, valid) = params_of(CONFIG), ragged()
    logits = run(CONFIG, params, tokens, valid.at[1].set(False))
    assert np.isfinite(logits).all()
    np.testing.assert_array_equal(logits[2], run(CONFIG, params, tokens, valid)[2])
    cached, cache = step_of(CONFIG)(
        params, StepInput.causal(tokens, valid.at[1].set(False)), LlamaStep(CONFIG).init_cache(3, SLOTS), n_out=6
    )
    assert all(np.isfinite(x).all() for x in (cached, cache.keys, cache.values))


def test_bfloat16_is_near_float32(unrolled):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    (params, empty), (tokens, valid) = ready(config, unrolled), ragged()
    logits, cache = step_of(config, unrolled)(params, StepInput.causal(tokens, valid), empty, n_out=6)
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()
    assert {x.dtype for x in jax.tree.leaves(cache)} == {jnp.dtype("bfloat16")}
    difference = np.abs(logits - run(CONFIG, params_of(CONFIG), tokens, valid))[np.asarray(valid)]
    assert 0 < difference.max() < 0.15


@functools.partial(jax.jit, static_argnums=0)
def loss_and_grads(config, params, tokens, valid):
    return jax.value_and_grad(lambda p: jnp.sin(forward(config, p, tokens, valid) * valid[..., None]).sum())(params)


def float64_case(config=CONFIG):
    """(config, params, tokens, valid); call it under enable_x64."""
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params_of(config))
    return dataclasses.replace(config, dtype="float64"), params, *ragged()


@pytest.mark.parametrize("kind", [{}, {"model_type": "qwen3", "attention_bias": True}], ids=["llama", "qwen3"])
def test_remat_changes_no_value_and_no_gradient(kind):
    with jax.enable_x64(True):
        config, *rest = float64_case(dataclasses.replace(CONFIG, **kind))
        plain, remat = (loss_and_grads(dataclasses.replace(config, remat=r), *rest) for r in (False, True))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), plain, remat)


def test_gradients_are_slopes():
    """Along random directions, in float64, against central differences: projections have a hand-written gradient."""
    with jax.enable_x64(True):
        config, params, tokens, valid = float64_case()
        _, grads = loss_and_grads(config, params, tokens, valid)
        rng = np.random.default_rng(3)
        leaves = jax.tree.leaves(jax.tree.map(lambda x: float(jnp.abs(x).max()), grads))
        assert min(leaves) > 1e-3
        for index in range(len(leaves)):  # one leaf at a time
            sizes = [x.shape for x in jax.tree.leaves(params)]
            parts = [rng.normal(size=s) if i == index else np.zeros(s) for i, s in enumerate(sizes)]
            direction = jax.tree.unflatten(jax.tree.structure(params), parts)
            ahead, behind = (
                loss_and_grads(config, jax.tree.map(lambda p, d, e=e: p + e * d, params, direction), tokens, valid)[0]
                for e in (1e-5, -1e-5)
            )
            slope = sum((g * d).sum() for g, d in zip(jax.tree.leaves(grads), parts, strict=True))
            np.testing.assert_allclose((ahead - behind) / 2e-5, slope, rtol=1e-5, atol=1e-6)


def test_dropout_only_with_a_key():
    config = dataclasses.replace(CONFIG, dropout=0.3)
    params, (tokens, valid) = params_of(CONFIG), ragged()
    still = run(config, params, tokens, valid)
    np.testing.assert_array_equal(still, run(CONFIG, params, tokens, valid))
    first, second = (run(config, params, tokens, valid, jax.random.key(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(first, run(config, params, tokens, valid, jax.random.key(0)))
    assert not np.allclose(first, still, atol=0.1)
    assert not np.allclose(first, second, atol=0.1)


def test_step_is_a_value():
    """A static jit argument: equal configs must be the same key, others another."""
    same = LlamaStep(dataclasses.replace(CONFIG))
    assert LlamaStep(CONFIG) == same
    assert hash(LlamaStep(CONFIG)) == hash(same)
    assert LlamaStep(CONFIG) != LlamaStep(dataclasses.replace(CONFIG, layers=3))
    assert LlamaStep(CONFIG) != LlamaStep(CONFIG, unrolled=True)


def test_parameters_are_float32_and_layers_are_stacked_and_differ():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    init = jax.jit(lambda key: init_params(config, key))
    first, second = (init(jax.random.key(seed)) for seed in (0, 1))
    assert {x.dtype for x in jax.tree.leaves(first)} == {jnp.dtype("float32")}
    assert {x.shape[0] for x in jax.tree.leaves(first["layers"])} == {config.layers}
    kernel = first["layers"]["attention"]["query"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])
    assert not np.allclose(first["embedding"], second["embedding"])


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_without_the_first_tokens_gives_the_logits_of_the_others(tied):
    config = dataclasses.replace(CONFIG, tied_embeddings=tied, layers=1)
    (params, cache), inputs = ready(config, False), StepInput.causal(*ragged())
    whole, kept = step_of(config)(params, inputs, cache, n_out=2)
    cut, same = jax.jit(LlamaStep(config, first_token=12), static_argnames="n_out")(params, inputs, cache, n_out=2)
    assert cut.shape == (3, 2, 7)
    np.testing.assert_allclose(cut, whole[..., 12:], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(same.keys, kept.keys)
