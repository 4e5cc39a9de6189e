"""Fixtures of the tests of the training loop."""

import jax
import pytest

from tests.training import toy


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A compilation cache for these tests and the processes they start: compiling is most of their time.

    Who resumes compiles anew unless the user has such a cache; the slow test of random kills does without.
    """
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    values = (str(tmp_path_factory.mktemp("cache")), 0.0)
    for name, value in zip(names, values, strict=True):
        jax.config.update(name, value)
    yield {name.upper(): str(value) for name, value in zip(names, values, strict=True)}
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory, cache):
    """(workdir, params) of a run that nobody killed; its best evaluation is not its last."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    params = toy.fit_toy(workdir, toy.toy_config())
    return workdir, params
