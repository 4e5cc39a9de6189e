"""Lists for many users: from a file of histories to a file of recommendations, in
order, across interruptions.

Input: see `serving.user_file`. Output: one JSON line {"user", "items", "scores"} per
user, in the input's order (compressed if it is named *.gz), or parquet with these
columns; see `serving.list_file`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from tqdm import tqdm

from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.numbering import count_from_one
from atspeed_jax.items.filters import unseen_items
from atspeed_jax.items.grown_catalog import listed_items
from atspeed_jax.items.names import FROM_ZERO, ItemNames
from atspeed_jax.serving.decode_users import filtered, find_ids
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.list_file import Output, RecommendError, finish, resume, written
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.user_file import NAMED, User
from atspeed_jax.utils import files
from atspeed_jax.utils.distributed import barrier, is_writer
from atspeed_jax.utils.ranges import shown

NUMBERED = 1000  # first users, whose histories show whether items are numbered from 0
_HALF_PAIR = re.compile("[\ud800-\udfff]")  # of UTF-16

Lists = Callable[[list[User]], tuple[np.ndarray, np.ndarray]]


def lists_of(
    decoders: Decoders,
    setting: Setting,
    dataset: Dataset,
    shape: BatchShape,
    *,
    exclude_seen: bool,
) -> Lists:
    """Makes the function that lists items for users.

    It says once if K is above the number of items, and if the first users' items seem
    to be numbered from 1.

    Args:
      decoders: the models and the catalog.
      setting: how lists are decoded; its K is their length.
      dataset: the run's; items that share an id are listed by popularity in train.
      shape: of the batches that users are decoded in.
      exclude_seen: never list an item of the whole history, by an exact search over
        what is left (`FilteredTrie`). So are the lists `User.exclude` and `User.allow`
        kept.

    Returns:
      users -> (items [N, K], -1 behind the last one; scores [N, K], log-probabilities
      of the items' ids). It raises DecodeError naming the user where scores are not
      finite.

    Raises:
      DecodeError: a setting that cannot work.
    """
    search = _Search(decoders, setting, dataset, shape, exclude_seen)
    available = int(listed_items(dataset.catalog).sum())
    if setting.search.beams > available and is_writer():
        tqdm.write(f"note: K={setting.search.beams}, but the catalog has {available} items: lists are shorter")
    asked = False

    def lists(users: list[User]) -> tuple[np.ndarray, np.ndarray]:
        nonlocal asked
        if not asked and is_writer() and count_from_one(dataset, [user.items for user in users[:NUMBERED]]):
            tqdm.write(f"note: these are histories of {dataset.name} with each number one too high: {FROM_ZERO}")
        asked = True
        items, scores = search.lists(users)
        _say_who_gets_nothing(users, items)
        return items, scores

    return lists


class _Search:
    """What `lists_of` decodes with."""

    def __init__(self, decoders: Decoders, setting: Setting, dataset: Dataset, shape: BatchShape, exclude_seen: bool):
        self._decoders, self._setting, self._shape, self._exclude_seen = decoders, setting, shape, exclude_seen
        self._catalog, self._by_id = dataset.catalog, dataset.catalog.items_by_id(dataset.popularity)
        self._decode_all = decoders.build(setting)  # its complaints now, not when the first users are read

    def lists(self, users: list[User]) -> tuple[np.ndarray, np.ndarray]:
        """(items, scores) of users: see `lists_of`."""
        seen = [user.items if self._exclude_seen else user.items[:0] for user in users]
        hidden = [np.union1d(one, user.exclude).astype(np.int64) for one, user in zip(seen, users, strict=True)]
        with_allow = np.array([user.allow is not None for user in users], bool)
        parts = []
        for allow in (False, True):  # the lists of a trie are of one kind
            if len(rows := np.flatnonzero(with_allow == allow)):
                found = self._ids([users[row] for row in rows], [hidden[row] for row in rows], allow=allow)
                parts.append((rows, *found))
        order, ids, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        ids, scores = ids[np.argsort(order)], scores[np.argsort(order)]
        items = unseen_items(ids, hidden, *self._by_id, [user.allow for user in users])
        of_items = np.where(items >= 0, self._catalog.id_of_item[items], -2)
        position = (ids[:, None] == of_items[:, :, None]).argmax(2)
        return items, np.where(items >= 0, np.take_along_axis(scores, position, 1), -np.inf)

    def _ids(self, users: list[User], hidden: list[np.ndarray], *, allow: bool) -> tuple[np.ndarray, np.ndarray]:
        """(ids, scores) of users who all have an allow list, or all have none."""
        histories, names = [user.items for user in users], np.array([user.user for user in users], object)
        batches = prompt_batches(self._catalog, histories, self._shape)
        if not (allow or self._exclude_seen or any(map(len, hidden))):
            return find_ids(lambda batch: self._decode_all, batches, names)
        if allow:
            hidden = [np.setdiff1d(_allowed(user), out) for user, out in zip(users, hidden, strict=True)]
        return find_ids(filtered(self._decoders, self._setting, self._catalog, hidden, allow=allow), batches, names)


def _say_who_gets_nothing(users: list[User], items: np.ndarray) -> None:
    """Names the first users whose lists are empty."""
    empty = [shown(users[row].user) for row in np.flatnonzero((items < 0).all(1))]
    if empty and is_writer():
        more = ", ..." if len(empty) > NAMED else ""
        tqdm.write(f"note: no item is left for {len(empty)} users: {', '.join(empty[:NAMED])}{more}")


def _allowed(user: User) -> np.ndarray:
    """The allow list of a user who has one."""
    assert user.allow is not None, "users without an allow list are decoded apart"
    return user.allow


def recommend(
    users: Iterable[User],
    lists: Lists,
    output: Output,
    *,
    chunk: int,
    fingerprint: str,
    progress: tqdm,
    titles: Mapping[int, str] | None = None,
    names: ItemNames | None = None,
) -> int:
    """Writes the lists of all users to `output`: a JSON line each, or a row if the
    output is named *.parquet.

    Args:
      users: in the order of the lines; those whose lists an earlier run has written are
        skipped.
      lists: see `lists_of`.
      output: this run's, see `claimed_output`.
      chunk: users decoded and written at a time.
      fingerprint: of whatever else decides the lists.
      progress: a bar that counts users as they are written; those of an earlier run do
        not count for its speed.
      titles: of items, which the lines get as "titles", null for an item without one;
        None for lines without titles.
      names: what lines call the items; None for their numbers.

    Returns:
      How many users the output holds.

    Raises:
      RecommendError: the partial file was made from other histories or another
        fingerprint (nothing is overwritten), or the output cannot be written.
    """
    if is_writer():
        resume(output, fingerprint + _of_words(titles, names))
    barrier("what is already written")
    users, made_from = iter(users), json.loads(output.claim.read_text("utf-8"))
    digest, count = hashlib.sha256(), made_from["users"]
    _add(digest, itertools.islice(users, count))
    if digest.hexdigest() != made_from["histories"]:
        raise RecommendError(
            f"{output.partial} holds lists of {count} users that are not the first {count} of --input, with their "
            "histories: give the --input it was made from, delete it, or choose another --output"
        )
    progress.update(count)
    progress.initial = count
    while group := list(itertools.islice(users, chunk)):
        found = zip(group, *lists(group), strict=True)
        count += len(group)
        _add(digest, group)
        with written(output.partial):
            files.append_text(output.partial, "".join(_line(*one, titles, names) for one in found))
            files.write_json(output.claim, made_from | {"users": count, "histories": digest.hexdigest()})
        progress.update(len(group))
    if is_writer():
        with written(output.path):
            finish(output, chunk, names is not None and names.texts)
    barrier("the finished file")  # a long conversion would outlast the wait of processes that end
    return count


def _of_words(titles: Mapping[int, str] | None, names: ItemNames | None) -> str:
    """A fingerprint of what lines call the items; empty for lines of numbers alone."""
    words = () if titles is None else (sorted(titles.items()),)
    words += () if names is None or names.names is None else (names.names,)
    return "".join(hashlib.sha256(json.dumps(one).encode()).hexdigest()[:16] for one in words)


def _add(digest, users: Iterable[User]) -> None:
    """Adds users and their histories, in order, to a hash of hashlib."""
    for user in users:
        digest.update(json.dumps([user.user, user.items.tolist()]).encode())


def _line(
    user: User, items: np.ndarray, scores: np.ndarray, titles: Mapping[int, str] | None, names: ItemNames | None
) -> str:
    """The JSON line of a user. items, scores: the user's row of `Lists`."""
    rounded, listed = np.round(scores[items >= 0].astype(float), 5).tolist(), items[items >= 0].tolist()
    line = {"user": user.user, "items": listed if names is None else names.called(listed), "scores": rounded}
    if titles is not None:
        line["titles"] = [titles.get(item) for item in listed]
    readable = json.dumps(line, ensure_ascii=False)
    # Half of a UTF-16 pair, which JSON may hold, has no form in UTF-8.
    written = json.dumps(line) if _HALF_PAIR.search(readable) else readable
    return written + "\n"
