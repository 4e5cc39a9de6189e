"""What is said when SIGTERM ends a main, and with which code."""

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from launch.sigterm import lists_kept, measurements_kept, nothing_kept, sigterm_says, stages_kept
from mains import ROOT

BODY = """
import os, signal, sys
from launch.sigterm import sigterm_says
kept = None if sys.argv[1] == "none" else lambda flags: sys.argv[1] or None
with sigterm_says(kept):
    print("before", end="")
    os.kill(os.getpid(), signal.SIGTERM)
    print("after")
"""


@pytest.mark.parametrize(
    ("kept", "code", "said"),
    [
        ("the lists of 3 users are", 75, "SIGTERM came: the lists of 3 users are kept; run the same command to go on"),
        ("", -signal.SIGTERM, "SIGTERM came: nothing is saved yet"),
        ("none", -signal.SIGTERM, ""),
    ],
)
def test_the_process_ends_at_once_and_says_what_is_kept(kept, code, said):
    ended = subprocess.run([sys.executable, "-c", BODY, kept], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.strip().rpartition("\n")[2] == said
    assert "after" not in ended.stdout
    assert kept == "none" or ended.stdout == "before", "what was printed is lost"


def test_sigterm_is_as_before_after_the_block(monkeypatch):
    with sigterm_says(nothing_kept):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with sigterm_says(nothing_kept):  # JAX asks several processes
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_what_is_kept(tmp_path):
    values = SimpleNamespace(workdir=str(tmp_path), output=str(tmp_path / "recs.jsonl"))
    for kept in (lists_kept, measurements_kept, nothing_kept, stages_kept):
        assert kept(values) is None
    claim = tmp_path / "recs.jsonl.partial.json"
    for text in ("{", "[]", "{}", '{"users": 0}'):
        claim.write_text(text)
        assert lists_kept(values) is None
    claim.write_text('{"users": 12}')
    assert lists_kept(values) == f"the lists of 12 users in {tmp_path}/recs.jsonl.partial are"
    (tmp_path / "evaluation" / "abc").mkdir(parents=True)
    assert measurements_kept(values) is None
    (tmp_path / "evaluation" / "abc" / "quality.json").write_text("{}")
    assert measurements_kept(values) == f"1 finished measurements in {tmp_path}/evaluation are"
    (tmp_path / "kd_0" / "data").mkdir(parents=True)
    assert stages_kept(values) == f"finished stages and measurements in {tmp_path} are"
