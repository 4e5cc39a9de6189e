"""The next-item loss against sums done by hand, and that padding never counts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.models.llama import LlamaConfig, forward, init_params
from atspeed_jax.training import next_item
from devices import whole_mesh

BOS, VOCAB = 1, 8
MODEL = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=8,
    intermediate_size=8,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=4,
    rope_theta=10_000.0,
    norm_eps=1e-6,
    tied_embeddings=False,
    dropout=0.5,
    dtype="float32",
    remat=False,
)
TOKENS = np.array([[0, 0, BOS, 2, 5], [BOS, 3, 6, 4, 7], [0, 0, 0, 0, 0]], np.int32)
BATCH = {"tokens": TOKENS, "valid": TOKENS != 0, "predict": TOKENS >= 2}
LATEST = {**BATCH, "predict": np.array([[0, 0, 0, 1, 1], [0, 0, 0, 1, 1], [0] * 5], bool)}


@pytest.fixture(scope="module")
def params():
    """Large enough to tell tokens apart, small enough that attention looks at all of them."""

    def make(key):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf if "scale" in jax.tree_util.keystr(path) else 15 * leaf, init_params(MODEL, key)
        )

    return jax.jit(make)(jax.random.key(0))


@pytest.fixture(scope="module")
def measure():
    return jax.jit(lambda params, batch: next_item.next_item_loss(MODEL, params, batch, None))


@pytest.fixture
def bigram(monkeypatch):
    """A model whose logits are a row of a table [V, V], that of the token just read: sums by hand are easy."""

    def lookup(model, table, tokens, valid, *, dropout_key, adapter=None):
        return jnp.asarray(table)[tokens]

    monkeypatch.setattr(next_item, "forward", lookup)
    return np.random.default_rng(0).normal(0, 3, (VOCAB, VOCAB)).astype(np.float32)


def nats(table, read: int, then: int) -> float:
    row = table[read].astype(np.float64)
    return float(np.log(np.exp(row).sum()) - row[then])


@pytest.mark.parametrize(
    ("batch", "pairs"),
    [
        (BATCH, [(BOS, 2), (2, 5), (BOS, 3), (3, 6), (6, 4), (4, 7)]),
        (LATEST, [(BOS, 2), (2, 5), (6, 4), (4, 7)]),
    ],
    ids=["all items", "last items"],
)
def test_the_loss_by_hand(bigram, batch, pairs):
    total, count = next_item.next_item_loss(MODEL, bigram, batch, None)
    by_hand = [nats(bigram, *pair) for pair in pairs]
    assert int(count) == len(pairs)
    assert float(total) == pytest.approx(sum(by_hand), rel=1e-5)
    mean, metrics = next_item.training_loss(MODEL, 2, 0.0)(bigram, batch, None)
    assert float(mean) == pytest.approx(np.mean(by_hand), rel=1e-5)
    assert metrics == {"weight": len(pairs)}


def test_nats_per_item_is_the_length_times_the_mean_over_all_batches(bigram):
    """Batches of unequal counts: each code weighs the same, not each batch."""
    evaluate = next_item.validation(MODEL, [BATCH, LATEST], 2, whole_mesh())
    every = [(BOS, 2), (2, 5), (BOS, 3), (3, 6), (6, 4), (4, 7), (BOS, 2), (2, 5), (6, 4), (4, 7)]
    mean = np.mean([nats(bigram, *pair) for pair in every])
    assert evaluate(bigram) == {"nats_per_item": pytest.approx(2 * mean, rel=1e-5)}


def test_the_loss_of_the_llama_is_that_of_each_row_alone(params, measure):
    """Row 0 without its padding, as a sequence of its own."""
    whole = jax.jit(lambda params: forward(MODEL, params, TOKENS[:1, 2:], BATCH["valid"][:1, 2:]))
    logits = np.asarray(whole(params), np.float64)[0]
    by_hand = sum(np.log(np.exp(row).sum()) - row[then] for row, then in zip(logits, (2, 5), strict=False))
    alone = {name: np.concatenate([values[:1], values[2:], values[2:]]) for name, values in BATCH.items()}
    total, count = measure(params, alone)
    assert (float(total), int(count)) == (pytest.approx(by_hand, rel=1e-5), 2)


def test_padding_never_counts(params, measure):
    total, count = measure(params, BATCH)
    junk = np.where(BATCH["valid"], TOKENS, np.arange(15).reshape(3, 5) % VOCAB).astype(np.int32)
    assert (junk != TOKENS).sum() > 4
    other_total, other_count = measure(params, {**BATCH, "tokens": junk})
    assert float(other_total) == float(total)
    assert int(other_count) == int(count) == 6
    rolled, _ = measure(params, {name: np.roll(values, 1, 0) for name, values in BATCH.items()})
    assert float(rolled) == pytest.approx(float(total), rel=1e-6)  # the row of padding may stand anywhere


def test_padding_moves_no_parameter(params):
    loss = next_item.training_loss(MODEL, 2, 0.0)
    gradient = jax.jit(jax.grad(lambda params, batch: loss(params, batch, None)[0]))
    junk = np.where(BATCH["valid"], TOKENS, 3).astype(np.int32)
    for a, b in zip(
        jax.tree.leaves(gradient(params, BATCH)),
        jax.tree.leaves(gradient(params, {**BATCH, "tokens": junk})),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_a_batch_of_padding_alone_is_harmless(params, measure):
    nothing = {name: np.zeros_like(values) for name, values in BATCH.items()}
    assert [float(x) for x in measure(params, nothing)] == [0, 0]


def test_dropout_acts_while_training_only(params, measure):
    loss = jax.jit(next_item.training_loss(MODEL, 2, 0.0))
    values = [float(loss(params, BATCH, jax.random.key(seed))[0]) for seed in (0, 0, 1)]
    plain = float(measure(params, BATCH)[0]) / 6
    assert values[0] == values[1] != values[2]
    assert min(abs(value - plain) for value in values) > 1e-3


def items_of(row, length: int) -> list[tuple[int, ...]]:
    """The items of a row of tokens, after checking that padding, BOS and whole items follow one another."""
    start = list(row).index(BOS)
    assert not row[:start].any()
    assert (row[start + 1 :] >= 2).all()
    assert (len(row) - start - 1) % length == 0
    return [tuple(row[at : at + length].tolist()) for at in range(start + 1, len(row), length)]


def rows_of_items(rng, rows: int, length: int, most: int) -> dict:
    tokens = np.zeros((rows, 1 + length * most), np.int32)
    for row, count in zip(tokens, rng.integers(0, most + 1, rows), strict=True):
        row[len(row) - length * count - 1 :] = [BOS, *rng.integers(2, 1000, length * count)]
    return {"tokens": tokens, "valid": tokens > 0, "predict": tokens >= 2}


def shuffled_items(batch, length: int, rate: float) -> np.ndarray:
    shuffled = jax.jit(next_item.shuffle_items, static_argnums=(1, 2))(batch, length, rate, jax.random.key(0))
    assert all(shuffled[name] is batch[name] or (shuffled[name] == batch[name]).all() for name in ("valid", "predict"))
    return np.asarray(shuffled["tokens"])


@pytest.mark.parametrize("length", [1, 3])
def test_shuffled_rows_hold_the_same_whole_items(length):
    batch = rows_of_items(np.random.default_rng(0), 400, length, 6)
    moved = 0
    for before, after in zip(batch["tokens"], shuffled_items(batch, length, 0.5), strict=True):
        before, after = items_of(before, length), items_of(after, length)
        assert sorted(before) == sorted(after)
        moved += before != after
    expected = 0.5 * sum(1 - 1 / math.factorial(len(items_of(row, length))) for row in batch["tokens"])
    assert moved == pytest.approx(expected, rel=0.15)


def test_rows_that_do_not_begin_with_bos_are_shuffled_by_whole_items():
    """The first code of a full row is not predicted, and its item stays."""
    full = np.array([[10, 11, 20, 21, 30, 31], [0, 0, 10, 11, 20, 21]], np.int32)
    predict = np.array([[0, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]], bool)
    batch = {
        "tokens": np.repeat(full, 50, 0),
        "valid": np.repeat(full > 0, 50, 0),
        "predict": np.repeat(predict, 50, 0),
    }
    shuffled = shuffled_items(batch, 2, 1.0)
    assert {tuple(row) for row in shuffled[:50].tolist()} == {(10, 11, 20, 21, 30, 31), (10, 11, 30, 31, 20, 21)}
    assert {tuple(row) for row in shuffled[50:].tolist()} == {(0, 0, 10, 11, 20, 21)}


def test_every_order_of_a_shuffled_row_is_as_likely():
    row = rows_of_items(np.random.default_rng(1), 1, 2, 3)
    row["tokens"][0, 1:] = [10, 11, 20, 21, 30, 31]
    row["tokens"][0, 0] = BOS
    batch = {name: np.repeat(values, 6000, 0) for name, values in row.items()}
    batch["valid"], batch["predict"] = batch["tokens"] > 0, batch["tokens"] >= 2
    orders, counts = np.unique(shuffled_items(batch, 2, 1.0), axis=0, return_counts=True)
    assert len(orders) == 6
    assert abs(counts - 1000).max() < 150, "five standard deviations"


def test_nothing_is_shuffled_at_rate_zero():
    batch = rows_of_items(np.random.default_rng(2), 50, 3, 4)
    np.testing.assert_array_equal(shuffled_items(batch, 3, 0.0), batch["tokens"])


def test_the_training_loss_shuffles_by_its_key(bigram):
    batch = {name: np.repeat(values, 50, 0) for name, values in BATCH.items()}
    loss = next_item.training_loss(MODEL, 2, 0.5)
    values = [float(loss(bigram, batch, jax.random.key(seed))[0]) for seed in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
