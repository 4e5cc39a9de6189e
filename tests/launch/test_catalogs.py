"""launch.recommend with another catalog and with filters, as a user meets them."""

import itertools
import json
from types import SimpleNamespace

import pytest

from atspeed_jax.runs.open_run import open_run
from launch import catalogs
from launch.command_line import CommandLineError
from mains import run_mains

USERS = [{"user": f"u{n}", "items": list(range(n))} for n in range(5)]
GONE, K = {3, 5}, 6


@pytest.fixture(scope="module")
def ended(small_run, tmp_path_factory):
    place = tmp_path_factory.mktemp("catalogs")
    codes, sizes = small_run.run.catalog.codes.tolist(), small_run.run.catalog.level_sizes
    free = [list(one) for one in itertools.product(*map(range, sizes)) if list(one) not in codes]
    index = {str(item): one for item, one in enumerate([*codes, *free[:4]]) if item not in GONE}
    (place / "new.json").write_text(json.dumps(index))
    (place / "bad.json").write_text(json.dumps(index | {"44": [0, 0, 9]}))
    (place / "moved.json").write_text(json.dumps(index | {"7": free[0]}))
    users = [*USERS, {"user": "new", "items": [41, 3]}]
    (place / "grown.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))
    (place / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in USERS))
    (place / "allow.txt").write_text("\n".join(map(str, range(0, 40, 2))))
    lists = [{"user": user["user"], "items": [7, 8, 9]} for user in USERS[:4]]
    (place / "lists.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lists))
    (place / "stray.json").write_text("[1, 40]")
    (place / "none.txt").write_text("99\n")

    def case(output, *flags, users="users.jsonl"):
        common = [f"--input={place / users}", f"--output={place / output}", f"--k={K}", "--drafter=none"]
        return "recommend", None, None, [f"--workdir={small_run.workdir}", *common, *flags], ""

    def given(flag, name):
        return f"--{flag}={place / name}"

    cases = {
        "grown": case("grown_lists.jsonl", given("catalog", "new.json"), "--compare_catalogs=4", users="grown.jsonl"),
        "filtered": case("left.jsonl", given("allow", "allow.txt"), given("exclude", "lists.jsonl"), "--exclude_seen"),
        "allowed": case("few.jsonl", given("allow", "lists.jsonl"), "--without_allow=all"),
        "no list": case("other.jsonl", given("allow", "lists.jsonl")),
        "nothing left": case("other.jsonl", given("allow", "none.txt"), "--on_unknown=skip"),
        "stray item": case("other.jsonl", given("exclude", "stray.json")),
        "no token": case("other.jsonl", given("catalog", "bad.json")),
        "other codes": case("other.jsonl", given("catalog", "moved.json")),
    }
    return place, dict(zip(cases, run_mains(cases.values()), strict=True))


def lists_in(path):
    return [json.loads(line)["items"] for line in path.read_text().splitlines()]


def test_lists_of_a_grown_catalog(ended, small_run):
    place, results = ended
    assert results["grown"].code == 0, results["grown"].err
    assert "new.json: 38 known items, 4 new ones; 2 items of the trained catalog removed" in results["grown"].out
    found = lists_in(place / "grown_lists.jsonl")
    assert not set().union(*found) & GONE
    own = lists_in_of(small_run, None)
    changed = sum(one != other for one, other in zip(own, found[:4], strict=True)) / 4
    new = sum(item >= 40 for one in found[:4] for item in one) / (4 * K)
    share = f"of the first 4 lists {changed:.1%} changed, and new items take {new:.1%} of the places"
    assert share in results["grown"].out
    assert found[:4] == lists_in_of(small_run, place / "new.json")


def lists_in_of(small_run, catalog):
    recommend = open_run(small_run.workdir).recommender(K, drafter="none", catalog=catalog)
    return recommend([user["items"] for user in USERS[:4]]).items


def test_filters_of_all_and_of_each_user(ended):
    place, results = ended
    assert results["filtered"].code == results["allowed"].code == 0, results["filtered"].err + results["allowed"].err
    for user, items in zip(USERS, lists_in(place / "left.jsonl"), strict=True):
        assert len(items) == K
        assert all(item % 2 == 0 for item in items)
        assert not set(items) & set(user["items"])
        assert user["user"] == "u4" or 8 not in items
    few = lists_in(place / "few.jsonl")
    assert [sorted(items) for items in few[:4]] == [[7, 8, 9]] * 4
    assert len(few[4]) == K


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no list", "users.jsonl, line 5: user 'u4' has no list in"),
        ("nothing left", "none.txt: no item of the catalog, whose items are 0 to 39"),
        ("stray item", "stray.json: item 40 is not in the catalog, whose items are 0 to 39"),
        ("no token", "bad.json: item 44 has code 9 at level 2, but the model has tokens for the 4 codes 0..3"),
        ("other codes", "moved.json: item 7 has the codes"),
    ],
)
def test_a_mistake_ends_in_one_clear_line(ended, case, message):
    place, results = ended
    assert results[case].code == 1
    assert "Traceback" not in results[case].err
    assert message in results[case].err.splitlines()[-1]
    assert not list(place.glob("other*"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"catalog": None}, "--compare_catalogs=4 compares with --catalog=INDEX: give it too"),
        ({"allow": "allow.txt"}, "--compare_catalogs compares whole catalogs: leave --allow and --exclude out"),
        ({"compare_catalogs": 0, "catalog": None, "allow": "allow.txt"}, None),
        ({}, None),
    ],
)
def test_flags_that_do_not_go_together(monkeypatch, given, message):
    usual = {"catalog": "new.json", "allow": None, "exclude": None, "compare_catalogs": 4}
    monkeypatch.setattr(catalogs, "FLAGS", SimpleNamespace(**usual | given))
    if message is None:
        catalogs.check_flags()
    else:
        with pytest.raises(CommandLineError, match=message):
            catalogs.check_flags()
