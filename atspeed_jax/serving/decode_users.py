"""Decodes many users, and once more those whose lists differ between decoders."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Key

from atspeed_jax.decoding.base import Prompt, Result, check_finite
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.filters import FilteredTrie, id_lists
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import Setting
from atspeed_jax.utils.distributed import gather

Keys = Key[Array, " N"]


_PLAIN = "plain beam search drafts no level"


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """Lists and statistics of N users as NumPy arrays, in the users' order.

    Attributes:
      ids: [N, K] rows of the sorted distinct ids; -1 where invalid, `decoders.NO_ITEM`
        where no item has the codes.
      tokens: [N, K, L], the codes of the lists.
      score: [N, K].
      calls: [N], target calls.
      given_up: [N], see `Result`.
      batch_rounds: target calls of all batches together.
      batches: number of batches.
      seconds: spent on all batches after a warm-up, from tokens on the host to lists on
        the host.
      reached, accepted, coverage: [N, L-1], round 1 of a speculative decode; None for
        plain beam search.
    """

    ids: np.ndarray
    tokens: np.ndarray
    score: np.ndarray
    calls: np.ndarray
    given_up: np.ndarray
    batch_rounds: int
    batches: int
    seconds: float
    reached: np.ndarray | None
    accepted: np.ndarray | None
    coverage: np.ndarray | None

    @property
    def acceptance_by_level(self) -> list[float | None]:
        """Of the users who reached a level in round 1, the share that went on; None
        where no user reached it.
        """
        assert self.accepted is not None, _PLAIN
        assert self.reached is not None, _PLAIN
        return _shares(self.accepted.sum(0), self.reached.sum(0))

    @property
    def coverage_by_level(self) -> list[float | None]:
        """Mean coverage of a level over the users who reached it in round 1; None where
        no user did.
        """
        assert self.coverage is not None, _PLAIN
        assert self.reached is not None, _PLAIN
        return _shares((self.coverage * self.reached).sum(0), self.reached.sum(0))

    @property
    def valid(self) -> np.ndarray:
        """[N, K] bool: entries that hold an id or codes."""
        return self.ids != -1


def prompt_of(batch: Mapping[str, Any], keys: Keys | None = None) -> Prompt:
    """Puts a batch of `data.batches.prompt_batches` on the device.

    Args:
      batch: as `prompt_batches` gives it.
      keys: one per user (`noise.user_keys`), for the modes that draw; None for strict
        mode.
    """
    row_keys = None if keys is None else keys[jnp.asarray(np.maximum(batch["row"], 0))]
    return Prompt(jnp.asarray(batch["tokens"]), jnp.asarray(batch["valid"]), row_keys)


def decode_users(
    decode: Callable[[Prompt], Result], batches: Iterable[dict], users: int, keys: Keys | None = None
) -> Decoded:
    """Decodes every row of some batches, and measures the time.

    Args:
      decode: the decoder; it is run once more for each new shape of a batch, untimed.
      batches: `data.batches.prompt_batches` of the users' histories.
      users: N, the number of histories.
      keys: see `prompt_of`.

    Raises:
      DecodeError: scores of a user that are not finite (`check_finite`).
      ValueError: batches that do not hold each of the N rows once.
    """
    rows, results, warm, seconds = [], [], set(), 0.0
    for batch in batches:
        if batch["tokens"].shape not in warm:  # the first batch of a shape would be timed with its compilation
            warm.add(batch["tokens"].shape)
            jax.block_until_ready(decode(prompt_of(batch, keys)))
        start = time.perf_counter()
        result = gather(decode(prompt_of(batch, keys)))
        seconds += time.perf_counter() - start
        real = batch["row"] >= 0
        check_finite(result.faulty[real], batch["row"][real])
        rows.append(batch["row"][real])
        results.append((result, real))
    order = np.concatenate(rows)
    if sorted(order.tolist()) != list(range(users)):
        raise ValueError(f"the batches hold rows {sorted(order.tolist())[:5]}..., expected each of 0..{users - 1} once")

    def in_order(pick):
        values = np.concatenate([pick(result)[real] for result, real in results])
        placed = np.empty_like(values)
        placed[order] = values
        return placed

    first = None if results[0][0].round_one is None else True
    return Decoded(
        ids=in_order(lambda r: np.where(r.valid, r.ids, -1)),
        tokens=in_order(lambda r: r.tokens),
        score=in_order(lambda r: r.score),
        calls=in_order(lambda r: r.target_calls),
        given_up=in_order(lambda r: r.given_up),
        batch_rounds=int(sum(result.rounds for result, _ in results)),
        batches=len(results),
        seconds=seconds,
        reached=first and in_order(lambda r: r.round_one.reached),
        accepted=first and in_order(lambda r: r.round_one.accepted),
        coverage=first and in_order(lambda r: r.round_one.coverage),
    )


def find_ids(
    decoder_of: Callable[[dict], Callable[[Prompt], Result]], batches: Sequence[dict], names: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes every row of some batches, where each batch has a decoder of its own.

    Args:
      decoder_of: batch -> its decoder.
      batches: `data.batches.prompt_batches` of N histories.
      names: [N], what messages call the users.

    Returns:
      ids [N, K], -1 where invalid, and scores [N, K].

    Raises:
      DecodeError: scores that are not finite; it names the user.
    """
    found = []
    for batch in batches:
        result, real = gather(decoder_of(batch)(prompt_of(batch))), batch["row"] >= 0
        check_finite(result.faulty[real], names[batch["row"][real]])
        found.append((batch["row"][real], np.where(result.valid, result.ids, -1)[real], result.score[real]))
    rows, ids, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(rows)
    return ids[order], scores[order]


def without_seen(
    decoders: Decoders, setting: Setting, catalog: Catalog, seen: Sequence[np.ndarray]
) -> Callable[[dict], Callable[[Prompt], Result]]:
    """Excludes what users have seen: see `filtered`."""
    return filtered(decoders, setting, catalog, seen, allow=False)


def filtered(
    decoders: Decoders, setting: Setting, catalog: Catalog, listed: Sequence[np.ndarray], *, allow: bool
) -> Callable[[dict], Callable[[Prompt], Result]]:
    """Searches exactly over what each user may get (`FilteredTrie`).

    Args:
      decoders: of the whole catalog.
      setting: how lists are decoded.
      catalog: of the items.
      listed: per user, the distinct items of the user's list.
      allow: whether the lists say what a user may get; else what it may not.

    Returns:
      batch -> its decoder, for `find_ids`.
    """
    # A power of two: longer lists compile again only when they double.
    capacity = 1 << max(5, (max(map(len, listed), default=0) - 1).bit_length())

    nothing = np.empty(0, np.int64)

    def decoder_of(batch: dict) -> Callable[[Prompt], Result]:
        of_batch = [listed[row] if row >= 0 else nothing for row in batch["row"]]
        trie = FilteredTrie(decoders.trie, id_lists(catalog, of_batch, capacity, allow=allow), allow=allow)
        return dataclasses.replace(decoders, trie=trie).build(setting)

    return decoder_of


def count_differences(
    decoders: Decoders,
    setting: Setting,
    baseline: Setting,
    a: Decoded,
    b: Decoded,
    batches: Sequence[dict],
    keys: Keys | None = None,
) -> tuple[int, int]:
    """Counts the users whose lists differ between two settings, and why they differ.

    A user whose lists differ is decoded again by both settings in float64. Equal lists
    there mean a near tie: two batch shapes of one model round differently. All else is
    a mismatch. Source: ALGORITHM.md section 5.

    Args:
      decoders: build both settings.
      setting, baseline: the two settings.
      a, b: what they decoded, in this order.
      batches: of the users.
      keys: see `prompt_of`.

    Returns:
      (mismatched users, near-tie users).
    """
    different = differing(a, b)
    if not different.any():
        return 0, 0
    near = 0
    with jax.enable_x64(True):
        wide = decoders.in_float64()
        first, second = wide.build(setting), wide.build(baseline)
        for batch in batches:
            for row in np.flatnonzero((batch["row"] >= 0) & different[batch["row"]]):
                user = batch["row"][row]
                one = [{"row": np.zeros(1, np.int32)} | {k: batch[k][row : row + 1] for k in ("tokens", "valid")}]
                key = None if keys is None else keys[user : user + 1]
                near += not differing(decode_users(first, one, 1, key), decode_users(second, one, 1, key)).any()
    return int(different.sum()) - near, near


def _shares(part: np.ndarray, whole: np.ndarray) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(part, whole, strict=True)]
