"""SIGTERM as a request, and what a main makes of it; that training saves is in test_train_resume.py."""

import concurrent.futures
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from atspeed_jax.training import preemption
from atspeed_jax.training.preemption import Preempted, sigterm_asks, until_sigterm

ROOT = Path(__file__).parents[2]
MAIN = """
import sys
from atspeed_jax.training.preemption import Preempted
from launch.stage import start
def body():
    raise Preempted("draft: SIGTERM came, saved at step 8")
sys.argv = ["main"]
start(body, required=())
"""


def test_sigterm_asks_and_ends_nothing():
    with sigterm_asks() as stops:
        assert not stops()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyError), sigterm_asks():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_is_left_alone_in_other_threads():
    def asked():
        with sigterm_asks() as stops:
            return stops(), signal.getsignal(signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(asked).result() == (False, signal.SIG_DFL)


def test_a_main_ends_with_the_code_that_means_again():
    done = subprocess.run([sys.executable, "-c", MAIN], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 75
    assert done.stderr.splitlines()[-1] == "draft: SIGTERM came, saved at step 8"


@pytest.fixture
def several(monkeypatch):
    """Two processes by name; (numbers asked, at which of them all are to stop)."""
    asked, stop = [], set()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    service = preemption.multihost_utils
    monkeypatch.setattr(service, "reached_preemption_sync_point", lambda n: asked.append(n) or n in stop)
    return asked, stop


def test_every_question_has_a_higher_number_than_the_last_of_any_stage(several):
    """JAX stops all at the question after the highest so far, whichever stage asks it."""
    asked, stop = several
    for _ in range(2):
        with sigterm_asks() as stops:
            assert not stops()
            assert not stops()
    assert list(until_sigterm([1, 2], "teacher")) == [1, 2]
    assert asked == list(range(asked[0], asked[0] + 6))
    stop.add(asked[-1] + 1)
    with sigterm_asks() as stops:
        assert stops()


def test_parts_stop_between_two_of_them(several):
    asked, stop = several
    done = []
    assert list(until_sigterm([0], "teacher")) == [0]
    stop.add(asked[-1] + 2)
    with pytest.raises(Preempted, match="teacher: SIGTERM came, what is done is saved; run the same command"):
        done.extend(until_sigterm(range(5), "teacher"))
    assert done == [0, 1]


def test_parts_of_one_process_ask_nobody(monkeypatch):
    monkeypatch.setattr(preemption.multihost_utils, "reached_preemption_sync_point", None)
    assert list(until_sigterm("ab", "teacher")) == ["a", "b"]
