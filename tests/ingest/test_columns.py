import pytest

from atspeed_jax.ingest.columns import named_columns, need
from atspeed_jax.ingest.settings import IngestError


def test_columns_are_found_by_usual_names_whatever_their_capitals(table):
    found = table("ItemID,user_id:token,Rating\n")
    usual = {"user": ("user_id",), "item": ("itemid",), "time": ("timestamp",)}
    assert named_columns(found, {"user": None, "item": None, "time": None}, usual) == {
        "user": "user_id:token",
        "item": "ItemID",
    }
    assert named_columns(found, {"user": "Rating"}, usual) == {"user": "Rating"}
    with pytest.raises(IngestError, match=r"no column 'rating' for the user; it has ItemID, user_id:token, Rating"):
        named_columns(found, {"user": "rating"}, usual)
    with pytest.raises(IngestError, match=r"as the user or the time; it has .*Rating\. Name it: --u=NAME --t=NAME"):
        need(found, {"item": "ItemID"}, ("user", "item", "time"), {"user": "u", "item": "i", "time": "t"})
