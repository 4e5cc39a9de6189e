"""RQ-VAE: an autoencoder whose latent vectors are quantized level by level.

Encoder and decoder are small networks. The gradient passes the quantizer as if the
latent vector had not been rounded (straight-through). The centers are trained with them
(Lee et al., 2022; Rajput et al., 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from atspeed_jax.ids.balance import Balanced, balanced_codes, balanced_prices
from atspeed_jax.ids.codebooks import Codebooks, as_host, distinct_rows, shuffled
from atspeed_jax.ids.kmeans import nearest_codes, scores, smallest
from atspeed_jax.ids.points import Points, data_mesh, place, unblocked
from atspeed_jax.ids.residual import residual_kmeans
from atspeed_jax.utils.ranges import Range, check_ranges

_START = 20_000  # vectors that the first directions are taken from
_PREFIX = "rqvae."
_LAYERS = ("hidden", "out", "straight")


@dataclass(frozen=True)
class RqvaeConfig:
    """How the autoencoder is trained.

    Attributes:
      hidden: width of the hidden layer of encoder and decoder.
      latent: width of what is quantized.
      commitment: weight of the distance from a latent vector to its centers.
      learning_rate: of Adam, after a linear warm-up and with a cosine decay.
      steps: of training.
      batch: vectors per step.
      sinkhorn: temperature of the balanced last level in training, by the mean squared
        distance of a batch.
      revive_every: steps after which dead codes get vectors of the batch; none in the
        last fifth of the training.
    """

    hidden: Annotated[int, Range(1, 65_536)] = 256
    latent: Annotated[int, Range(1, 4_096)] = 32
    commitment: Annotated[float, Range(0, 100)] = 0.25
    learning_rate: Annotated[float, Range(0, 1, "(]")] = 1e-3
    steps: Annotated[int, Range(1, 10_000_000)] = 2_000
    batch: Annotated[int, Range(1, 1 << 20)] = 1_024
    sinkhorn: Annotated[float, Range(0, 10, "(]")] = 0.05
    revive_every: Annotated[int, Range(1, 1_000_000)] = 100

    def __post_init__(self):
        check_ranges(self)


class Network(nn.Module):
    """A hidden layer with a nonlinearity, beside a linear map.

    Attributes:
      hidden: width of the hidden layer.
      out: M, width of the result.
    """

    hidden: int
    out: int

    @nn.compact
    def __call__(self, inputs: Float[Array, "B D"]) -> Float[Array, "B M"]:
        bent = nn.Dense(self.out, name="out", kernel_init=nn.initializers.zeros)(
            nn.gelu(nn.Dense(self.hidden, name="hidden")(inputs))
        )
        return bent + nn.Dense(self.out, name="straight", kernel_init=nn.initializers.orthogonal())(inputs)


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A trained encoder and decoder.

    Attributes:
      encoder, decoder: parameters of `Network`, {"params": {layer: {name: array}}}.
      mean: [D] of the vectors.
      scale: standard deviation of the vectors, a number.
    """

    encoder: Any
    decoder: Any
    mean: np.ndarray
    scale: np.floating

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Returns latent vectors [N, latent] float32 of vectors [N, D]."""
        distinct, place_of = distinct_rows(vectors)
        return _applied(self.encoder, (distinct - self.mean) / self.scale)[place_of]

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Returns vectors [N, D] float32 of latent vectors [N, latent]."""
        return _applied(self.decoder, latents) * self.scale + self.mean

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Returns all arrays by name, for a file."""
        found = {f"{_PREFIX}mean": self.mean, f"{_PREFIX}scale": np.asarray([self.scale], np.float32)}
        for name in ("encoder", "decoder"):
            for layer, arrays in getattr(self, name)["params"].items():
                found |= {f"{_PREFIX}{name}.{layer}.{kind}": np.asarray(array) for kind, array in arrays.items()}
        return found

    @staticmethod
    def of_tensors(tensors: Mapping[str, np.ndarray]) -> Autoencoder:
        """Returns the autoencoder that `to_tensors` has named, among other tensors.

        Raises:
          KeyError: an array is missing.
        """
        params: dict[str, dict] = {"encoder": {}, "decoder": {}}
        for name in params:
            for layer in _LAYERS:
                kinds = ("kernel", "bias")
                params[name][layer] = {kind: tensors[f"{_PREFIX}{name}.{layer}.{kind}"] for kind in kinds}
        mean, scale = tensors[f"{_PREFIX}mean"], tensors[f"{_PREFIX}scale"][0]
        return Autoencoder({"params": params["encoder"]}, {"params": params["decoder"]}, mean, scale)


def _network(params: Any) -> Network:
    layers = params["params"]
    return Network(layers["hidden"]["bias"].shape[0], layers["out"]["bias"].shape[0])


def _applied(params: Any, inputs: np.ndarray) -> np.ndarray:
    apply = jax.jit(_network(params).apply)
    step = 65_536
    parts = [np.asarray(apply(params, inputs[start : start + step])) for start in range(0, len(inputs), step)]
    return np.concatenate(parts)


def train_rqvae(
    vectors: np.ndarray,
    sizes: Sequence[int],
    *,
    seed: int,
    config: RqvaeConfig | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Autoencoder, Codebooks, np.ndarray]:
    """Trains an RQ-VAE on vectors, and gives them codes.

    Args:
      vectors: [N, D] finite floats. Equal vectors count once and have equal codes.
      sizes: codes of each level.
      seed: of parameters, order and first centers.
      config: of the training.
      say: takes a line now and then.

    Returns:
      autoencoder, codebooks of its latent vectors, and codes [N, L] int32. Codes of the
      last level are of about equal size (`balance`).
    """
    config = config or RqvaeConfig()
    distinct, place_of = distinct_rows(vectors)
    mean = distinct.mean(axis=0)
    scale = np.float32(max(float((distinct - mean).std()), 1e-12))
    scaled = (distinct - mean) / scale
    width, latent = scaled.shape[1], min(config.latent, scaled.shape[1])
    encoder, decoder = Network(config.hidden, latent), Network(config.hidden, width)
    keys = jax.random.split(jax.random.key(seed), 2)
    params: dict[str, Any] = {
        "encoder": encoder.init(keys[0], scaled[:1]),
        "decoder": decoder.init(keys[1], jnp.zeros((1, latent))),
    }
    # At first both are the principal directions, so training starts from residual k-means.
    directions = np.linalg.svd(scaled[shuffled(len(scaled), seed)[:_START]], full_matrices=False)[2][:latent]
    if len(directions) == latent:
        params["encoder"]["params"]["straight"]["kernel"] = jnp.asarray(directions.T)
        params["decoder"]["params"]["straight"]["kernel"] = jnp.asarray(directions)
    start = np.asarray(encoder.apply(params["encoder"], scaled))
    first, _ = residual_kmeans(start, sizes, seed=seed)
    params["centers"] = [jnp.asarray(centers) for centers in first.centers]
    params = _trained(params, (encoder, decoder), scaled, config, seed, say)
    made = Autoencoder(jax.device_get(params["encoder"]), jax.device_get(params["decoder"]), mean, scale)
    codebooks, codes = _quantized(made.encode(distinct), params["centers"], seed)
    error = ((made.decode(codebooks.reconstruct(codes)) - distinct) ** 2).sum(axis=1).mean()
    say(f"rqvae: mean squared error {float(error):.4g}")
    return made, codebooks, codes[place_of]


def _quantized(latents: np.ndarray, centers: Sequence[Array], seed: int) -> tuple[Codebooks, np.ndarray]:
    """Gives latent vectors codes; prices balance the last level."""
    count, order = len(latents), shuffled(len(latents), seed)
    points = place(latents[order], max(map(len, centers)), data_mesh())
    codes, prices = np.zeros((count, len(centers)), np.int32), [jnp.zeros(len(one)) for one in centers]
    for level, one in enumerate(centers):
        if level == len(centers) - 1:
            balanced = balanced_prices(points, one, moving=False)
            prices[level] = balanced.prices
            codes[order, level], _ = balanced_codes(points, Balanced(one, balanced.prices), count)
        else:
            nearest, left = nearest_codes(points, one, prices[level])
            codes[order, level] = unblocked(nearest, count)
            points = Points(left, points.weight)
    return Codebooks(as_host(centers), as_host(prices)), codes


def quantize(
    latents: Float[Array, "B D"], centers: Sequence[Float[Array, "K D"]], sinkhorn: float
) -> tuple[Float[Array, "B D"], Float[Array, ""], list[Int[Array, "B"]]]:
    """Rounds latent vectors to the sum of their centers.

    Args:
      latents: of a batch.
      centers: of each level.
      sinkhorn: temperature of the balanced last level.

    Returns:
      the sums; the mean squared distance that moves centers, plus 0 in value that moves
      nothing else; and the codes per level.
    """
    left, total, codes = lax.stop_gradient(latents), jnp.zeros_like(latents), []
    for level, one in enumerate(centers):
        fixed = lax.stop_gradient(one)
        cost = scores(left, fixed)
        if level == len(centers) - 1:
            cost = cost + balancing_prices(cost + (left**2).sum(axis=1, keepdims=True), sinkhorn)
        code, _ = smallest(cost)
        codes.append(code)
        total = total + one[code]
        left = left - fixed[code]
    return total, ((lax.stop_gradient(latents) - total) ** 2).sum(axis=1).mean(), codes


def balancing_prices(distance: Float[Array, "B K"], temperature: float) -> Float[Array, "K"]:
    """Returns prices of codes by a few updates of Sinkhorn's algorithm on a batch."""
    heat = temperature * jnp.maximum(distance.min(axis=1).mean(), 1e-12)
    prices = jnp.zeros(distance.shape[1])
    for _ in range(5):
        weight = jax.nn.softmax(-(distance + prices) / heat, axis=1).mean(axis=0) * distance.shape[1]
        prices = prices + heat * jnp.log(jnp.maximum(weight, 1e-6))
    return prices


def _trained(params, networks, scaled: np.ndarray, config: RqvaeConfig, seed: int, say):
    """Trains parameters of encoder, decoder and centers."""
    encoder, decoder = networks
    batch = min(config.batch, len(scaled))
    warmup = min(50, config.steps // 10)
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, config.steps)
    optimizer = optax.adam(rate)

    def loss(params, vectors):
        latents = encoder.apply(params["encoder"], vectors)
        rounded, distance, codes = quantize(latents, params["centers"], config.sinkhorn)
        commitment = ((latents - lax.stop_gradient(rounded)) ** 2).sum(axis=1).mean()
        through = latents + lax.stop_gradient(rounded - latents)
        error = ((decoder.apply(params["decoder"], through) - vectors) ** 2).sum(axis=1).mean()
        return error + distance + config.commitment * commitment, (error, latents, codes)

    @jax.jit
    def step(params, state, used, vectors):
        (_, (error, _, codes)), gradient = jax.value_and_grad(loss, has_aux=True)(params, vectors)
        updates, state = optimizer.update(gradient, state, params)
        used = [count.at[code].add(1) for count, code in zip(used, codes, strict=True)]
        return optax.apply_updates(params, updates), state, used, error

    @jax.jit
    def revive(params, used, vectors, key):
        left, centers = encoder.apply(params["encoder"], vectors), []
        for one, count in zip(params["centers"], used, strict=True):
            key, draw = jax.random.split(key)
            drawn = left[jax.random.randint(draw, (len(one),), 0, len(left))]
            one = jnp.where((count == 0)[:, None], drawn, one)
            left = left - one[smallest(scores(left, one))[0]]
            centers.append(one)
        return {**params, "centers": centers}

    rng, state, data = np.random.default_rng(seed), optimizer.init(params), jnp.asarray(scaled)
    unused = [jnp.zeros(len(one), jnp.int32) for one in params["centers"]]
    used, error = unused, jnp.zeros(())
    for number in range(1, config.steps + 1):
        vectors = data[rng.integers(len(scaled), size=batch)]
        params, state, used, error = step(params, state, used, vectors)
        if number % config.revive_every == 0:
            if number <= 0.8 * config.steps:
                params = revive(params, used, vectors, jax.random.fold_in(jax.random.key(seed), number))
            used = unused
        if number % max(config.steps // 4, 1) == 0:
            say(f"rqvae: step {number} of {config.steps}, error {float(error):.4g} of {scaled.shape[1]} at first")
    return params
