"""Users whose histories name items."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atspeed_jax.items.names import ItemNames
from atspeed_jax.serving.user_file import UserFile, UserFileError

NAMES = ItemNames(4, ("B00", "B01", "B02", "B03"))


def read(path, said=None, **how):
    return list(UserFile(path, NAMES, **how).users(print if said is None else said.append))


def listed(users) -> list:
    return [(user.user, user.items.tolist()) for user in users]


def lines_of(histories) -> bytes:
    return "".join(json.dumps({"user": user, "items": items}) + "\n" for user, items in histories.items()).encode()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_items_are_read_by_their_names(tmp_path, kind):
    path, said = tmp_path / f"u.{kind}", []
    histories = {"ann": ["B02", "B00", "B99"], "bob": [], "cy": ["B03"]}
    if kind == "parquet":
        pq.write_table(pa.table({"user": list(histories), "items": list(histories.values())}), path)
    else:
        path.write_bytes(lines_of(histories))
    message = "line 1: item 'B99' of user 'ann' is not in the catalog, whose 4 items are called such as 'B00'; corr"
    with pytest.raises(UserFileError, match=message):
        read(path)
    assert listed(read(path, said=said, on_unknown="skip")) == [("ann", [2, 0]), ("bob", []), ("cy", [3])]
    assert said == [f"left out of {path}: 0 lines that are no user, 1 unknown items of 1 users: 'ann'"]
    (tmp_path / "v").write_bytes(lines_of({1: [None]}))
    with pytest.raises(UserFileError, match="line 1: item None is not the name of an item"):
        read(tmp_path / "v")
