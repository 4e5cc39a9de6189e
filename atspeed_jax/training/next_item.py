"""Next-item training: the target from scratch, and the draft's supervised start (SFT)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax

from atspeed_jax.items.catalog import PAD
from atspeed_jax.models.llama import LlamaConfig, forward


def next_item_loss(model: LlamaConfig, params, batch, dropout_key):
    """(sum, count) of the cross-entropy over the vocabulary of every token marked "predict", given all before it.

    batch: "tokens", "valid", "predict" [B, T] (`data.batches.train_batches`). Padding never counts: it is never marked.
    """
    logits = forward(model, params, batch["tokens"], batch["valid"], dropout_key=dropout_key)
    # Targets are shifted, not the logits: slicing logits [B, T, V] costs a padded copy of them in the gradient.
    target = jnp.roll(batch["tokens"], -1, 1)
    counted = jnp.roll(batch["predict"], -1, 1).at[:, -1].set(False)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return jnp.where(counted, loss, 0.0).sum(), counted.sum()


def drop_items(batch, length: int, rate: float, key):
    """The batch with each item left out of its row with probability `rate`; what stays moves right, still left-padded.

    Another history and other neighbours every epoch, where few users have many items. length: tokens per item, L.
    """
    rows, tokens = batch["tokens"].shape
    dropped = jax.random.bernoulli(key, rate, (rows, tokens // length))
    dropped = jnp.pad(jnp.repeat(dropped, length, 1), ((0, 0), (1, 0)))  # column 0 is before every item
    kept = batch["valid"] & ~(dropped & batch["predict"])  # BOS stays
    order = jnp.argsort(kept, axis=1, stable=True)
    moved = {name: jnp.take_along_axis(batch[name], order, 1) for name in ("tokens", "predict")}
    kept = jnp.take_along_axis(kept, order, 1)
    return {"tokens": jnp.where(kept, moved["tokens"], PAD), "valid": kept, "predict": moved["predict"] & kept}


def training_loss(model: LlamaConfig, length: int, item_dropout: float):
    """The loss for `fit`: mean nats per code token; each item of a row is left out with probability item_dropout."""

    def loss(params, batch, key):
        if item_dropout:
            batch = drop_items(batch, length, item_dropout, jax.random.fold_in(key, 0))
        total, count = next_item_loss(model, params, batch, key)
        return total / jnp.maximum(count, 1), {}

    return loss


def validation(model: LlamaConfig, batches: list[dict], length: int):
    """The `evaluate` of `fit`: params -> {"nats_per_item"}, L times the mean loss per code of the validation items.

    The first code of a row's first token cannot be predicted from nothing, so every row starts with BOS.
    """
    measure = jax.jit(functools.partial(next_item_loss, model))

    def evaluate(params) -> dict[str, float]:
        sums = [measure(params, batch, None) for batch in batches]
        return {"nats_per_item": length * float(sum(t for t, _ in sums)) / float(sum(c for _, c in sums))}

    return evaluate
