"""Lists for many users, from a file of histories to a file of recommendations, in order, across interruptions.

Input: JSON lines {"user": ..., "items": [...]} (oldest item first) or parquet with these columns. Output: one JSON line
{"user", "items", "scores"} per user, in the input's order, or parquet with these columns. Lines are appended to
OUTPUT.partial a chunk at a time; a run started again goes on after the last whole line, and the file gets its name (and
a parquet file is written from the lines) when it is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax import files
from atspeed_jax.data.batches import prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.decoding.base import check_finite
from atspeed_jax.evaluation.decode_users import prompt_of
from atspeed_jax.evaluation.decoders import Decoders, Setting
from atspeed_jax.items.catalog import expand_ids
from atspeed_jax.items.filters import FilteredTrie, id_lists
from atspeed_jax.processes import barrier, gather, is_writer

OnBad = Literal["error", "skip"]


class RecommendError(ValueError):
    """An input that cannot be read, or an output that cannot be written."""


@dataclasses.dataclass(frozen=True)
class User:
    """One line of the input. user: a string, number, bool or None, given back as it came."""

    user: object
    items: np.ndarray


Lists = Callable[[list[User]], tuple[np.ndarray, np.ndarray]]


def read_users(path: Path, items: int, on_bad: OnBad, report: Callable[[str], None]) -> Iterator[User]:
    """The users of a JSON lines or parquet file, one by one, whatever its size.

    items: size of the catalogue. A line that is no user, or names an item outside 0..items-1, raises RecommendError
    with its number and content, or, with on_bad "skip", is left out and reported.
    """
    if not path.is_file():
        raise RecommendError(f"there is no input file {path}; give JSON lines or parquet with user and items")
    for number, line in _parquet_rows(path) if path.suffix == ".parquet" else _json_lines(path):
        try:
            yield _user_of(line, items)
        except (ValueError, RecursionError) as error:  # RecursionError: of lists in lists in lists
            shown = line.decode("utf-8", "replace") if isinstance(line, bytes) else json.dumps(line, default=str)
            message = f"{path}, line {number}: {error}; it reads {shown.strip()[:120]!r}"
            if on_bad == "error":
                raise RecommendError(f"{message}; correct it, or leave such lines out with --on_bad=skip") from error
            report(f"left out: {message}")


def count_users(path: Path) -> int | None:
    """Lines or rows of the input, for a progress bar; None where they cannot be counted."""
    try:
        return pq.read_metadata(path).num_rows if path.suffix == ".parquet" else sum(1 for _ in _json_lines(path))
    except (OSError, pa.ArrowException):
        return None  # reading will say what is wrong


def _json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with open(path, "rb") as file:  # bytes: one line that is not UTF-8 is a bad line, not the end of the file
        yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict]]:
    try:
        with pq.ParquetFile(path) as file:
            if missing := {"user", "items"} - set(file.schema_arrow.names):
                raise pa.ArrowKeyError(f"it lacks {', '.join(sorted(missing))}")
            batches = file.iter_batches(batch_size=4096, columns=["user", "items"])
            yield from enumerate(itertools.chain.from_iterable(batch.to_pylist() for batch in batches), start=1)
    except pa.ArrowException as error:
        raise RecommendError(f"{path} cannot be read as parquet with columns user and items ({error})") from error


def _user_of(line: bytes | dict, items: int) -> User:
    value = json.loads(line.decode("utf-8")) if isinstance(line, bytes) else line
    if not isinstance(value, dict) or "user" not in value or not isinstance(value.get("items"), list):
        raise ValueError('expected {"user": ..., "items": [...]}')
    user = value["user"]
    if not isinstance(user, str | int | float | None) or isinstance(user, float) and not math.isfinite(user):
        raise ValueError(f"user {user!r} ({type(user).__name__}) is not a string, finite number, bool or null")
    for item in value["items"]:
        if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < items:
            raise ValueError(f"item {item!r} is not in the catalogue, whose items are 0 to {items - 1}")
    return User(user, np.array(value["items"], np.int64))


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
    most = int(np.diff(offsets).max()) * setting.beams
    decode_all = decoders.build(setting)  # its complaints now, not when the first users are read

    def lists(users: list[User]) -> tuple[np.ndarray, np.ndarray]:
        histories, names = [user.items for user in users], np.array([user.user for user in users], object)
        batches = prompt_batches(catalog, histories, history=history, buckets=buckets, batch_size=batch_size)
        seen = [np.unique(items) if exclude_seen else items[:0] for items in histories]
        # A power of two: longer histories compile again only when they double.
        capacity = 1 << max(5, (max(map(len, seen), default=0) - 1).bit_length())
        decode = decode_all
        ids = np.full((len(histories), setting.beams), -1, np.int32)
        scores = np.zeros(ids.shape, np.float32)
        for batch in batches:
            if exclude_seen:
                excluded = id_lists(
                    catalog, [seen[row] if row >= 0 else [] for row in batch["row"]], capacity, allow=False
                )
                trie = FilteredTrie(decoders.trie, excluded, allow=False)
                decode = dataclasses.replace(decoders, trie=trie).build(setting)
            result, real = gather(decode(prompt_of(batch))), batch["row"] >= 0
            check_finite(result.faulty[real], names[batch["row"][real]])
            ids[batch["row"][real]] = np.where(result.valid, result.ids, -1)[real]
            scores[batch["row"][real]] = result.score[real]
        return _items_of(ids, scores, seen)

    def _items_of(ids, scores, seen):
        items = expand_ids(ids, items_sorted, offsets, most)
        for row, excluded in zip(items, seen, strict=True):
            row[np.isin(row, excluded)] = -1  # an id shared with an item not seen was decoded
        order = np.argsort(items < 0, axis=1, kind="stable")[:, : setting.beams]
        items = np.take_along_axis(items, order, 1)
        place = (ids[:, None] == np.where(items >= 0, catalog.id_of_item[items], -2)[:, :, None]).argmax(2)
        return items, np.where(items >= 0, np.take_along_axis(scores, place, 1), -np.inf)

    return lists


def recommend(users: Iterable[User], lists: Lists, output: Path, *, chunk: int, fingerprint: str, progress) -> int:
    """Writes one line per user, or parquet row if it is named *.parquet, to `output`; returns how many users it has.

    chunk: users decoded and written at a time. fingerprint: of whatever decides the lists. progress(n) is told how many
    more users are done. Raises RecommendError if `output` exists, or its partial file is of other users or another
    fingerprint; nothing is overwritten.
    """
    partial, claim = (output.with_name(output.name + suffix) for suffix in (".partial", ".partial.json"))
    if output.exists():
        raise RecommendError(f"{output} exists; choose another --output, or delete it")
    if is_writer():
        _resume(partial, claim, fingerprint)
    barrier("what is already written")
    users, done = iter(users), partial.read_text("utf-8").splitlines()
    for number, line in enumerate(done, start=1):
        written, user = json.loads(line)["user"], next(users, None)
        if user is None or written != user.user:
            raise RecommendError(
                f"{partial} has user {written!r} at place {number}, where the input has "
                f"{user.user if user else 'no more'!r}: it was made from another input; delete it, or choose another "
                "--output"
            )
    count = len(done)
    progress(count)
    while group := list(itertools.islice(users, chunk)):
        found = zip(group, *lists(group), strict=True)
        with _written(partial):
            files.append_text(partial, "".join(_line(*one) for one in found))
        count += len(group)
        progress(len(group))
    if is_writer():
        with _written(output):
            _finish(partial, claim, output, chunk)
    barrier("the finished file")  # a long conversion would outlast the wait of processes that end
    return count


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
    """Leaves whole lines alone: cuts off a part of one that a kill left, claims a file without lines."""
    try:
        written = partial.read_bytes() if partial.exists() else b""
        whole = written[: written.rfind(b"\n") + 1]
        if not whole:
            files.write_json(claim, {"fingerprint": fingerprint})
            partial.write_bytes(b"")
        elif not claim.exists() or json.loads(claim.read_text(encoding="utf-8"))["fingerprint"] != fingerprint:
            raise RecommendError(
                f"{partial} was begun with another model, list size or decoder; delete it, or choose another --output"
            )
        elif len(whole) < len(written):
            os.truncate(partial, len(whole))
    except OSError as error:
        raise RecommendError(f"{partial} cannot be written ({error}); choose another --output") from error
