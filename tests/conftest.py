"""One run of the whole small pipeline, shared by the tests of everything that needs trained models."""

import dataclasses
import fcntl
import gc
import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import compilation
import reports
import small
from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.data.sources import synthesize
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.runs.record import record_config
from atspeed_jax.utils.program_memory import forget_programs
from launch.config import load


def pytest_configure(config):
    # Nothing that a test starts writes into this user's cache; `mains.run_mains` names a temporary directory.
    for flag, value in ((compilation.FLAG, True), ("jax_enable_compilation_cache", False)):
        jax.config.update(flag, value)
        os.environ[flag.upper()] = str(int(value))  # of processes that tests start
    if not hasattr(config, "workerinput"):  # xdist's processes, begun later, inherit it
        compilation.emit_plainly()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(config, items):
    """Tests that share compiled programs run in one process, and those of one file, which share its fixtures.

    Files of tests/launch that ask for the small run come last: another process makes that run meanwhile.
    """
    waiting = {item.path for item in items if "small_run" in item.fixturenames and item.path.parent.name == "launch"}
    items.sort(key=lambda item: item.path in waiting)  # stable
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        file = item.location[0]
        # tests/launch: one process that runs mains (`mains.run_mains`). tests/decoding: the same shapes in many files.
        room = next((room for room in ("tests/launch", "tests/decoding") if file.startswith(f"{room}/")), None)
        if file == "tests/tuning/test_acceptance.py":  # it decodes with the shapes of tests/decoding
            room = "tests/decoding"
        group = room or ("small_run" if "small_run" in item.fixturenames else file)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish():
    """Modules and tests stay to the end, so the garbage collector need not look at them. Tracing makes many objects, of
    which few are garbage with a cycle.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def few_memory_maps():
    yield
    forget_programs(20_000)  # of 65,530; no file adds half as many


@pytest.fixture(scope="session")
def small_config() -> ExperimentConfig:
    """tests/helpers/small.py as the pipeline takes it."""
    return load(small.get_config(), ExperimentConfig)


@pytest.fixture(scope="session")
def small_run(small_config, tmp_path_factory):
    """(run, workdir, report, files) of the small pipeline from nothing to its report. Read it, never write into it.

    The first process of the suite that asks makes it, the others wait and open it.
    report: what the pipeline returned, as JSON gives it back. files: what was there when it ended, see
    `small.snapshot`.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    workdir, ended = shared / "small" / "run", shared / "small" / "ended.json"
    ended.parent.mkdir(exist_ok=True)
    with (shared / "small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ended.exists():
            record_config(workdir, small_config)
            report = Run(small_config, workdir, None).all()
            ended.write_text(json.dumps([report, small.snapshot(workdir)]))
    report, files = json.loads(ended.read_text())
    files = {name: tuple(status) for name, status in files.items()}
    return SimpleNamespace(run=Run(small_config, workdir, None), workdir=workdir, report=report, files=files)


@pytest.fixture(scope="session")
def data_only(small_config, tmp_path_factory) -> Path:
    """A workdir of the small pipeline whose data stage alone is done. Never write into it."""
    workdir = tmp_path_factory.mktemp("data_only") / "run"
    Run(small_config, workdir, None).data()
    return workdir


@pytest.fixture(scope="session")
def real_data(small_config, tmp_path_factory):
    """(config, source, directory): the small pipeline's interactions as a data directory, and its config for that."""
    source = synthesize(small_config.data.synthetic)
    directory = small.write_atspeed(tmp_path_factory.mktemp("data") / "shop", source)
    config = small.changed(small.changed(small_config, "data.source", "atspeed"), "data.synthetic", None)
    return SimpleNamespace(config=config, source=source, directory=directory)


@pytest.fixture(scope="session")
def beauty_dir() -> Path:
    """Directory of the real Beauty data, which the environment variable ATSPEED_BEAUTY names."""
    named = os.environ.get("ATSPEED_BEAUTY")
    if not named:
        pytest.skip("to run this test, set ATSPEED_BEAUTY to the directory with Beauty's sequential_train.txt")
    directory = Path(named)
    if not directory.is_dir():
        raise NotADirectoryError(f"ATSPEED_BEAUTY={named} is no directory; give that of the Beauty data")
    return directory


@pytest.fixture
def report() -> dict:
    """See `reports.small_report`."""
    return reports.small_report()


@pytest.fixture(scope="session")
def toy() -> SimpleNamespace:
    """See `reports.toy_decoders`."""
    return reports.toy_decoders()


@pytest.fixture
def two_models(toy) -> SimpleNamespace:
    """The toy with a draft whose config is not that of the target."""
    draft = dataclasses.replace(toy.decoders.draft, rope_theta=999.0)
    return SimpleNamespace(catalog=toy.catalog, decoders=dataclasses.replace(toy.decoders, draft=draft))


@pytest.fixture
def toy_batches(toy) -> list[dict]:
    """Prompts of three users of the toy, one a batch."""
    histories = [np.array(items, np.int32) for items in ([], [3], [6, 0])]
    return prompt_batches(toy.catalog, histories, BatchShape(2, (2,), 1))


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only where the test says so."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now.seconds)
    return now
