"""launch.recommend as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mains import QUICK, ROOT, SMALL, run_mains

USERS = [{"user": f"u{n}", "items": list(range(n))} for n in range(5)]


@pytest.fixture(scope="module")
def ended(small_run, tmp_path_factory):
    place = tmp_path_factory.mktemp("recommend")
    (place / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in USERS))
    (place / "bad.jsonl").write_text('{"user": 1, "items": [99999]}\n')

    def case(checkpoint, *more, config=None, users="users.jsonl", output="recs.jsonl"):
        flags = [f"--checkpoint={checkpoint}", f"--input={place / users}", f"--output={place / output}", *more]
        return "recommend", None, config, flags, ""

    cases = {
        "lists": case(small_run.workdir, "--k=6", "--exclude_seen", "--chunk=2"),
        "again": case(small_run.workdir, "--k=6", "--exclude_seen"),
        "its config given": case(small_run.workdir, "--k=6", config=SMALL, output="given.jsonl"),
        "no checkpoint": case(place / "nothing", output="other.jsonl"),
        "too many": case(small_run.workdir, "--k=11", output="other.jsonl"),
        "unknown item": case(small_run.workdir, "--k=6", users="bad.jsonl", output="other.jsonl"),
    }
    return place, dict(zip(cases, run_mains(cases.values(), QUICK), strict=True))


def test_every_user_gets_a_list_without_what_was_seen(ended):
    place, results = ended
    assert results["lists"].code == 0 and "5 users" in results["lists"].out
    lines = [json.loads(line) for line in (place / "recs.jsonl").read_text().splitlines()]
    assert [line["user"] for line in lines] == [user["user"] for user in USERS]
    assert results["its config given"].code == 0 and len((place / "given.jsonl").read_text().splitlines()) == 5
    for line, user in zip(lines, USERS, strict=True):
        assert len(set(line["items"])) == len(line["scores"]) == 6 and not set(line["items"]) & set(user["items"])


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("again", "recs.jsonl exists; choose another --output"),
        ("no checkpoint", "experiment.json cannot be read"),
        ("too many", "width 10 of level 2 is below min(K=11"),
        ("unknown item", "bad.jsonl, line 1: item 99999 of user 1 is not in the catalogue"),
    ],
)
def test_a_mistake_ends_in_one_clear_line(ended, case, message):
    place, results = ended
    assert results[case].code == 1 and "Traceback" not in results[case].err
    assert message in results[case].err.splitlines()[-1]
    assert not (place / "other.jsonl").exists()


@pytest.mark.slow  # it waits for a real process to be at work
def test_a_killed_job_goes_on_to_the_same_file(small_run, tmp_path):
    users = [{"user": n, "items": [n % 7, n % 11]} for n in range(60)]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))

    def started(name, chunk):
        flags = [f"--checkpoint={small_run.workdir}", f"--input={tmp_path / 'users.jsonl'}", f"--chunk={chunk}"]
        command = [sys.executable, "-m", "launch.recommend", *flags, f"--output={tmp_path / name}", "--k=6"]
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | QUICK)

    partial = tmp_path / "killed.jsonl.partial"
    killed, deadline = started("killed.jsonl", 1), time.monotonic() + 300
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 3):
        assert killed.poll() is None and time.monotonic() < deadline
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and not (tmp_path / "killed.jsonl").exists()
    assert 3 <= partial.read_bytes().count(b"\n") < 60
    assert started("killed.jsonl", 20).wait() == 0 and started("whole.jsonl", 20).wait() == 0
    assert (tmp_path / "killed.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.jsonl", "users.jsonl", "whole.jsonl"]
