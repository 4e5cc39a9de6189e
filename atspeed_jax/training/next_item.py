"""Next-item training: of the target, and of the draft before its alignment (SFT)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from atspeed_jax.data.prompts import next_codes
from atspeed_jax.models.llama import LlamaConfig, forward
from atspeed_jax.models.lora import LoraConfig, scale_adapter
from atspeed_jax.training.sharding import logical_rules, shard_batch


def next_item_loss(model: LlamaConfig, params, batch, dropout_key, adapter=None):
    """Cross-entropy over the vocabulary of the tokens marked "predict", given all
    tokens before.

    Args:
      batch: "tokens", "valid", "predict" [B, T] (`data.batches.train_batches`).
      dropout_key: None for no dropout.
      adapter: see `llama.forward`.

    Returns:
      (sum in nats, number of tokens), two scalars.
    """
    logits = forward(model, params, batch["tokens"], batch["valid"], dropout_key=dropout_key, adapter=adapter)
    target, counted = next_codes(batch)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return jnp.where(counted, loss, 0.0).sum(), counted.sum()


def shuffle_items(batch, length: int, rate: float, key):
    """Puts the items of a share of the rows in random order.

    Items that a user chose on one day have no order, and items that go together do so
    in both
    directions: this lets a causal model learn both.

    Args:
      batch: rows of items alone, left-padded, T = 1 + L * bucket; or L * bucket where
        rows do not begin with BOS, and then the first item of a full row stays.
      length: codes per item, L.
      rate: the share of the rows.
      key: the random key.
    """
    which, order = jax.random.split(key)
    rows, width = batch["tokens"].shape
    first = 1 if (width - 1) % length == 0 else 0  # column of the first item
    items = batch["tokens"][:, first:].reshape(rows, (width - first) // length, length)
    is_item = batch["predict"][:, first:].reshape(items.shape).all(-1)
    shuffled = jax.random.bernoulli(which, rate, (rows, 1))
    place = jnp.where(is_item, shuffled * jax.random.uniform(order, is_item.shape), -1.0)  # padding stays in front
    items = jnp.take_along_axis(items, jnp.argsort(place, axis=1, stable=True)[..., None], 1)
    return batch | {"tokens": jnp.concatenate((batch["tokens"][:, :first], items.reshape(rows, -1)), 1)}


def training_loss(model: LlamaConfig, length: int, shuffle: float, lora: LoraConfig | None = None):
    """The loss of next-item training: mean nats per code token.

    Args:
      length: codes per item, L.
      shuffle: share of the rows whose items come in random order.
      lora: if given, an adapter is trained, and `frozen` is its base.

    Returns:
      a loss as `TrainingTask` takes it, with the metric "weight"
      (`step.make_train_step`).
    """

    def loss(params, batch, key, frozen=None):
        if shuffle:
            batch = shuffle_items(batch, length, shuffle, jax.random.fold_in(key, 0))
        if lora is None:
            total, count = next_item_loss(model, params, batch, key)
        else:
            total, count = next_item_loss(model, frozen, batch, key, scale_adapter(params, lora, model.tied_embeddings))
        return total / jnp.maximum(count, 1), {"weight": count}

    return loss


def validation(model: LlamaConfig, batches: list[dict], length: int, mesh: Mesh):
    """Measures the validation loss.

    Args:
      batches: as `data.batches.valid_batches` gives them.
      length: codes per item, L.

    Returns:
      params -> {"nats_per_item"}: L times the mean loss per code of the validation
      items.
    """

    @jax.jit
    def measure(params, batch):
        with logical_rules(mesh):
            return next_item_loss(model, params, batch, None)

    def evaluate(params) -> dict[str, float]:
        sums = [measure(params, shard_batch(batch, mesh)) for batch in batches]
        return {"nats_per_item": length * float(sum(t for t, _ in sums)) / float(sum(c for _, c in sums))}

    return evaluate
