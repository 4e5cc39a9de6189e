"""SIGTERM as a request, and what a main makes of it; that training saves is in test_train_resume.py."""

import concurrent.futures
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from atspeed_jax.training.preemption import sigterm_asks

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
        assert not stops(1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stops(2)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with pytest.raises(KeyError), sigterm_asks():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_is_left_alone_in_other_threads():
    def asked():
        with sigterm_asks() as stops:
            return stops(1), signal.getsignal(signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(asked).result() == (False, signal.SIG_DFL)


def test_a_main_ends_with_the_code_that_means_again():
    done = subprocess.run([sys.executable, "-c", MAIN], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 75 and done.stderr.splitlines()[-1] == "draft: SIGTERM came, saved at step 8"
