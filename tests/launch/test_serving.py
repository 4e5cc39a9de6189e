"""What mains that decode share."""

import pytest

from atspeed_jax.training.preemption import Preempted
from launch import serving


def test_before_the_first_chunk_it_is_said_that_programs_are_compiled(monkeypatch):
    said = []
    monkeypatch.setattr(serving, "say", said.append)
    lists = serving.by_chunk(lambda users: said.append(users))
    lists("first")
    lists("second")
    assert said == ["compiling the decoder; the bar moves when the first users are written", "first", "second"]


def test_several_processes_stop_between_two_chunks(monkeypatch):
    asked, served = [], []
    monkeypatch.setattr(serving, "stop_after_sigterm", asked.append)
    lists = serving.by_chunk(served.append)
    lists("first")

    def stop(name):
        raise Preempted(name)

    monkeypatch.setattr(serving, "stop_after_sigterm", stop)
    with pytest.raises(Preempted):
        lists("second")
    assert asked == ["recommend"]
    assert served == ["first"]
