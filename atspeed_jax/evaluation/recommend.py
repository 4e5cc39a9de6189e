"""Lists for many users, from a file of histories to a file of recommendations, in order, across interruptions.

Input: see `evaluation.user_file`. Output: one JSON line {"user", "items", "scores"} per user, in the input's order, or
parquet with these columns. Lines are appended to OUTPUT.partial a chunk at a time; OUTPUT.partial.json says how many
users they are of, and what they were made from. A run started again goes on behind them, and the file gets its name
(and a parquet file is written from the lines) when it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from atspeed_jax import files
from atspeed_jax.data.batches import prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.evaluation.decode_users import find_ids, without_seen
from atspeed_jax.evaluation.decoders import Decoders, Setting
from atspeed_jax.evaluation.user_file import User
from atspeed_jax.items.filters import unseen_items
from atspeed_jax.processes import barrier, is_writer


class RecommendError(ValueError):
    """An output that cannot be written or gone on with."""


Lists = Callable[[list[User]], tuple[np.ndarray, np.ndarray]]


def lists_of(
    decoders: Decoders,
    setting: Setting,
    dataset: Dataset,
    *,
    history: int,
    buckets: tuple[int, ...],
    batch_size: int,
    exclude_seen: bool,
) -> Lists:
    """Users -> (items [N, K], -1 where there are no more; scores [N, K], log-probabilities of their ids).

    exclude_seen: never an item of the whole history, by the exact search over what is left (`FilteredTrie`). Raises
    DecodeError for a setting that cannot work, and naming the user, from the lists where scores are not finite.
    """
    catalog = dataset.catalog
    items_sorted, offsets = catalog.items_by_id(dataset.popularity)
    decode_all = decoders.build(setting)  # its complaints now, not when the first users are read

    def lists(users: list[User]) -> tuple[np.ndarray, np.ndarray]:
        histories, names = [user.items for user in users], np.array([user.user for user in users], object)
        batches = prompt_batches(catalog, histories, history=history, buckets=buckets, batch_size=batch_size)
        seen = [np.unique(items) if exclude_seen else items[:0] for items in histories]
        decoder_of = without_seen(decoders, setting, catalog, seen) if exclude_seen else lambda batch: decode_all
        return _items_of(*find_ids(decoder_of, batches, names), seen)

    def _items_of(ids, scores, seen):
        items = unseen_items(ids, seen, items_sorted, offsets)
        place = (ids[:, None] == np.where(items >= 0, catalog.id_of_item[items], -2)[:, :, None]).argmax(2)
        return items, np.where(items >= 0, np.take_along_axis(scores, place, 1), -np.inf)

    return lists


def recommend(
    users: Iterable[User], lists: Lists, output: Path, *, chunk: int, fingerprint: str, progress: tqdm
) -> int:
    """Writes one line per user, or parquet row if it is named *.parquet, to `output`; returns how many users it has.

    chunk: users decoded and written at a time. fingerprint: of whatever else decides the lists. progress: told of users
    as they are written; those of an earlier run do not count for its speed. Raises RecommendError if `output` exists,
    or its partial file was made from other histories or another fingerprint; nothing is overwritten.
    """
    partial, claim = (output.with_name(output.name + suffix) for suffix in (".partial", ".partial.json"))
    if output.exists():
        raise RecommendError(f"{output} exists; choose another --output, or delete it")
    if is_writer():
        _resume(partial, claim, fingerprint)
    barrier("what is already written")
    users, made_from = iter(users), json.loads(claim.read_text("utf-8"))
    digest, count = hashlib.sha256(), made_from["users"]
    _add(digest, itertools.islice(users, count))
    if digest.hexdigest() != made_from["histories"]:
        raise RecommendError(
            f"{partial} has lists of {count} users with whom, and whose histories, the input does not begin: give the "
            "--input it was made from, delete it, or choose another --output"
        )
    progress.update(count)
    progress.initial = count
    while group := list(itertools.islice(users, chunk)):
        found = zip(group, *lists(group), strict=True)
        count += len(group)
        _add(digest, group)
        with _written(partial):
            files.append_text(partial, "".join(_line(*one) for one in found))
            files.write_json(claim, made_from | {"users": count, "histories": digest.hexdigest()})
        progress.update(len(group))
    if is_writer():
        with _written(output):
            _finish(partial, claim, output, chunk)
    barrier("the finished file")  # a long conversion would outlast the wait of processes that end
    return count


def _add(digest, users: Iterable[User]) -> None:
    """Adds users and their histories, in order, to a hash of hashlib."""
    for user in users:
        digest.update(json.dumps([user.user, user.items.tolist()]).encode())


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """What is done in it may fail for want of space or rights."""
    try:
        yield
    except OSError as error:
        raise RecommendError(
            f"{path} cannot be written ({error}): free space there and run again, it goes on"
        ) from error


def _line(user: User, items: np.ndarray, scores: np.ndarray) -> str:
    """items, scores: one user's row of `Lists`."""
    shown = np.round(scores[items >= 0].astype(float), 5).tolist()
    return json.dumps({"user": user.user, "items": items[items >= 0].tolist(), "scores": shown}) + "\n"


def _finish(partial: Path, claim: Path, output: Path, chunk: int) -> None:
    """Gives the lines their name; writes them as parquet first where that is asked for."""
    if output.suffix == ".parquet":
        _as_parquet(partial, output, chunk)
        partial.unlink()
    else:
        os.replace(partial, output)
    claim.unlink()


def _as_parquet(lines: Path, output: Path, chunk: int) -> None:
    """A parquet file of JSON lines {"user", "items", "scores"}, `chunk` lines at a time; whole or not there at all."""
    types = {"items": pa.list_(pa.int64()), "scores": pa.list_(pa.float64())}
    unfinished, schema = output.with_name(f".{output.name}.partial"), None
    try:
        with open(lines, encoding="utf-8") as file, contextlib.ExitStack() as stack:
            while schema is None or group:
                group = [json.loads(line) for line in itertools.islice(file, chunk)]
                columns = {name: [line[name] for line in group] for name in ("user", *types)}
                if schema is None:
                    schema = pa.schema({"user": pa.array(columns["user"]).type} | types)
                    writer = stack.enter_context(pq.ParquetWriter(unfinished, schema))
                writer.write_table(pa.table(columns, schema=schema))
        os.replace(unfinished, output)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise RecommendError(
            f"{output}: these users cannot share a parquet column ({error}); run again with an --output "
            f"ending in .jsonl, or take the lines from {lines}"
        ) from error


def _resume(partial: Path, claim: Path, fingerprint: str) -> None:
    """Leaves the lines of the users that are done and cuts off what a kill left behind them; claims a new file."""
    try:
        if not partial.exists() or not partial.stat().st_size:
            nobody = {"users": 0, "histories": hashlib.sha256().hexdigest()}
            files.write_json(claim, {"fingerprint": fingerprint} | nobody)
            partial.write_bytes(b"")
            return
        made_from = json.loads(claim.read_text("utf-8")) if claim.exists() else {}
        if made_from.get("fingerprint") != fingerprint:
            raise RecommendError(
                f"{partial} was begun with another model, list size or decoder; delete it, or choose another --output"
            )
        with open(partial, "rb+") as file:
            whole = sum(line.endswith(b"\n") for line in itertools.islice(file, made_from["users"]))
            if whole < made_from["users"]:
                raise RecommendError(
                    f"{partial} has {whole} lines, where {claim.name} counts {made_from['users']}: it was changed; "
                    "delete it, or choose another --output"
                )
            file.truncate(file.tell())
    except OSError as error:
        raise RecommendError(f"{partial} cannot be written ({error}); choose another --output") from error
