"""What a main has compiled once it loads the next time, to the same numbers."""

import json
import os
import re
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from devices import environment
from launch import compilation_cache
from mains import run_mains

TWO_DEVICES = {"XLA_FLAGS": environment(2)["XLA_FLAGS"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """With users to recommend to."""
    place = tmp_path_factory.mktemp("programs")
    (place / "users.jsonl").write_text("".join(json.dumps({"user": n, "items": [n, n + 1]}) + "\n" for n in range(3)))
    return place


def recommend(place, small_run, name):
    flags = [f"--checkpoint={small_run.workdir}", f"--input={place / 'users.jsonl'}", f"--output={place / name}.jsonl"]
    return "recommend", None, None, [*flags, "--k=6"], ""


def before(place, small_run, stage, name):
    """A copy of the small run's directory as it was before a stage."""
    later = {"target": ("target", "teacher", "draft", "draft_sft"), "evaluation": ()}[stage]
    leave, run = (*later, "evaluation", "report.html", "report.json", "report.md"), small_run.workdir
    return shutil.copytree(run, place / name, ignore=lambda folder, _: leave if Path(folder) == run else ())


@pytest.fixture(scope="module")
def twice(place, small_run):
    """launch.recommend on two devices with a directory that is new, and once more."""
    return run_mains([recommend(place, small_run, name) for name in ("1", "2")], TWO_DEVICES | cache_of(place))


def cache_of(place):
    return {"JAX_COMPILATION_CACHE_DIR": str(place / "cache")}


def said(result):
    """Lines of standard error that are no progress bar."""
    return [line for line in result.err.splitlines() if not re.search(r"\d+%\||^\s*$", line)]


def check_loaded(first, second):
    """The second run compiled nothing, and nothing is said of it."""
    assert first.code == second.code == 0, first.err + second.err
    assert second.compiled["loaded"] == second.compiled["asked"] > 5
    assert first.compiled["loaded"] < first.compiled["asked"] - 5
    assert not said(first)
    assert not said(second)


@pytest.mark.slow
def test_the_second_run_compiles_nothing(twice, place):
    check_loaded(*twice)
    assert (place / "1.jsonl").read_bytes() == (place / "2.jsonl").read_bytes()


@pytest.mark.slow
def test_it_can_be_switched_off_and_a_damaged_directory_breaks_nothing(twice, place, small_run):
    case = recommend(place, small_run, "off")
    [off] = run_mains([case], TWO_DEVICES | cache_of(place) | {"JAX_ENABLE_COMPILATION_CACHE": "0"})
    assert off.code == 0
    assert off.compiled["loaded"] == 0
    assert not said(off)
    for file in (place / "cache").glob("*-cache"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    [damaged] = run_mains([recommend(place, small_run, "damaged")], TWO_DEVICES | cache_of(place))
    assert damaged.code == 0
    assert damaged.compiled["loaded"] == 0
    [note] = said(damaged)
    assert note.startswith(f"note: a compiled program cannot be read from {place / 'cache'} (")
    assert len({(place / f"{name}.jsonl").read_bytes() for name in ("1", "off", "damaged")}) == 1


@pytest.mark.slow
def test_a_training_and_an_evaluation_load_too_and_their_numbers_are_the_same_to_the_bit(place, small_run, tmp_path):
    """The training's buffers are donated."""
    cases = {}
    for main, stage in (("evaluate", "evaluation"), ("train_target", "target")):
        for name in ("1", "2", "off"):
            cases[main, name] = (main, before(place, small_run, stage, f"{main}{name}"), None, [], "")
    kept = [case for case in cases if case[1] != "off"]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    done = dict(zip(kept, run_mains([cases[case] for case in kept], TWO_DEVICES | cache), strict=True))
    off = [case for case in cases if case[1] == "off"]
    without = run_mains([cases[case] for case in off], TWO_DEVICES | {"JAX_ENABLE_COMPILATION_CACHE": "0"})
    assert [one.code for one in without] == [0, 0]
    for main in ("evaluate", "train_target"):
        check_loaded(done[main, "1"], done[main, "2"])
        found = [FIGURES[main](place / f"{main}{name}") for name in ("1", "2", "off")]
        assert found[0]
        assert found[0] == found[1] == found[2]


def metrics(workdir):
    records = map(json.loads, (workdir / "target" / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


def quality(workdir):
    return json.loads((workdir / "report.json").read_text())["quality"]


FIGURES = {"train_target": metrics, "evaluate": quality}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """keep() with a home of its own; returns what it has set in jax.config."""
    settings = {}
    config = SimpleNamespace(values={"jax_enable_compilation_cache": True}, update=settings.__setitem__)
    stub = SimpleNamespace(config=config, process_count=lambda: 1)
    monkeypatch.setattr(compilation_cache, "jax", stub)
    monkeypatch.setattr(compilation_cache.warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)

    def keep():
        settings.clear()
        compilation_cache.keep_programs()
        return settings.get("jax_compilation_cache_dir")

    return SimpleNamespace(keep=keep, jax=stub, settings=settings)


def test_where_programs_are_kept(kept, tmp_path, monkeypatch, capsys):
    assert kept.keep() == str(compilation_cache.default_directory())
    assert Path(kept.keep()).parent == tmp_path / ".cache/atspeed_jax/xla"
    assert Path(kept.keep()).stat().st_mode & 0o77 == 0
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the standard says to ignore
    assert Path(kept.keep()).parent == tmp_path / ".cache/atspeed_jax/xla"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Path(kept.keep()).parent == tmp_path / "xdg/atspeed_jax/xla"
    assert kept.settings["jax_persistent_cache_min_compile_time_secs"] == 0
    kept.jax.process_count = lambda: 2
    assert kept.keep() is None, "hosts that do not see one directory would wait for each other"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert kept.keep() == str(tmp_path / "own")
    assert (tmp_path / "own").is_dir()
    kept.jax.config.values["jax_enable_compilation_cache"] = False
    assert kept.keep() is None
    assert not capsys.readouterr().err


@pytest.mark.parametrize("home", ["file", None])
def test_without_a_home_to_write_into_it_goes_on(kept, home, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    if home is None:
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert kept.keep() is None
    told = capsys.readouterr().err
    assert told.startswith("note: no compiled program is kept for the next run: ")
    assert told.count("\n") == 1


def test_a_directory_that_cannot_be_written_is_told(kept, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilation_cache.os, "access", lambda *_: False)  # root may write everywhere
    assert kept.keep() is None
    assert f"{tmp_path} cannot be written" in capsys.readouterr().err


def test_programs_are_kept_for_each_kind_of_processor(monkeypatch):
    texts = ["model name\t: A\nflags\t: avx2\ncpu MHz\t: 1\n", "model name\t: A\nflags\t: avx2 avx512f\n"]
    texts.append(texts[0].replace("MHz\t: 1", "MHz\t: 2"))  # the same one a moment later
    found = []
    for text in texts:
        monkeypatch.setattr(Path, "read_text", lambda *_, text=text, **__: text)
        found.append(compilation_cache.default_directory().name)
    assert found[0] == found[2] != found[1]


def test_the_oldest_are_forgotten(tmp_path):
    for age in range(10):
        (tmp_path / f"{age}-cache").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{age}-cache", (1000 - age, 1000 - age))
    (tmp_path / "another").write_bytes(b"x" * 5000)
    compilation_cache.forget_oldest(tmp_path, 1000)
    assert len(list(tmp_path.iterdir())) == 11
    compilation_cache.forget_oldest(tmp_path, 999)
    assert {file.name for file in tmp_path.iterdir()} == {"another", *(f"{age}-cache" for age in range(4))}


def test_a_test_keeps_nothing_in_this_users_cache():
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "0"
    assert not jax.config.jax_enable_compilation_cache
