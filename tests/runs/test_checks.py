"""What is refused before any long work, asked for the way a run does."""

import dataclasses

import numpy as np
import pytest

import small
from atspeed_jax.evaluation.modes import ModesConfig
from atspeed_jax.runs.checks import check_grid, check_modes
from atspeed_jax.runs.pipeline import Run

MODES = ModesConfig(
    beams=(5,), main_beams=(), widths=((4, 10),), drafter="draft", norms=("vocab",), tolerances=(), budgets=(),
    temperature=1.0, seeds=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("decode.widths", ("all",), r"config.decode.widths: .* has 1 entries; ids of length 3 need 2"),
        ("decode.widths", ("all", 10, 10), r"config.decode.widths: .* has 3 entries; ids of length 3 need 2"),
        ("decode.widths", (3, "all"), r"config.decode.widths: width 3 of level 1 is below min\(K=10, 4 prefixes"),
        ("decode.widths", ("all", 9), r"config.decode.widths: width 9 of level 2 is below min\(K=10, 14 prefixes"),
        ("teacher.beams", 11, r"width 10 .*; raise it in config.decode.widths, or lower config.teacher.beams$"),
        ("evaluate.beams", (5, 11), r"config.decode.widths: width 10 .*K=11.* or lower config.evaluate.beams$"),
        ("evaluate.grid_beams", (11,), r"config.decode.widths: width 10 .*K=11.* or lower config.evaluate.grid_beams$"),
        (
            "evaluate.grid_widths",
            ((4, 10), (4, 9)),
            r"width 9 .*; raise it in config.evaluate.grid_widths\[1\], or lower",
        ),
        (
            "evaluate.tune",
            (5, 5000),
            r"config.evaluate.tune holds K=5000: expected at most \d+, the ids",
        ),
        ("decode.budget", 9, r"config.decode.budget=9: expected at least the largest K decoded, 10, or None"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(small_config, data_only, path, value, message):
    with pytest.raises(ValueError, match=message):
        Run(small.changed(small_config, path, value), data_only, None).all()
    assert [entry.name for entry in data_only.iterdir()] == ["data"]


@pytest.mark.parametrize("part", ["codes", "train", "test"])
def test_other_data_than_the_workdir_was_built_from(real_data, tmp_path, part):
    config, source, directory = real_data.config, real_data.source, real_data.directory
    workdir = tmp_path / "run"
    Run(config, workdir, directory).data()
    before = small.snapshot(workdir)
    if part == "codes":
        other = np.array(source.codes)
        other[[0, 1]] = other[[1, 0]]
        assert (other != source.codes).any()
    else:
        other = (getattr(source, part)[0][:0], *getattr(source, part)[1:])
    odd = small.write_atspeed(tmp_path / "odd", dataclasses.replace(source, **{part: other}))
    message = "data was built from other interactions or item codes than .*odd gives: use another --workdir"
    for stage in ("data", "target"):
        with pytest.raises(ValueError, match=message):
            Run(config, workdir, odd).make(stage)
    assert small.snapshot(workdir) == before


@pytest.mark.parametrize("split", ["valid", "test"])
def test_an_empty_split_is_refused_before_it_is_stored(real_data, tmp_path, capsys, split):
    config, source = real_data.config, real_data.source
    nobody = tuple(items[:0] for items in getattr(source, split))
    directory = small.write_atspeed(tmp_path / "odd", dataclasses.replace(source, **{split: nobody}))
    with pytest.raises(ValueError, match=f"'odd': nobody has {split} items"):
        Run(config, tmp_path / "run", directory).data()
    assert not (tmp_path / "run").exists()
    assert not capsys.readouterr().out
    Run(config, tmp_path / "run", real_data.directory).data()  # the corrected files
    assert "data of shop" in capsys.readouterr().out
    assert (tmp_path / "run" / "data" / "catalog.json").exists()


def test_widths_of_what_a_sweep_measures_are_checked_when_its_data_are_there(small_config, data_only):
    dataset = Run(small_config, data_only, None).dataset
    check_modes([MODES], dataset)
    check_grid("--widths", [(4, 10), ("all", 1)], dataset)
    with pytest.raises(ValueError, match=r"--widths: widths=\('all',\) has 1 entries; ids of length 3 need 2"):
        check_grid("--widths", [(4, 10), ("all",)], dataset)
    wrong = dataclasses.replace(MODES, widths=((4, 10), (1, 2, 3)))
    with pytest.raises(ValueError, match=r"config.measure\[1\].widths: widths=\(1, 2, 3\) has 3 entries; ids of len"):
        check_modes([MODES, wrong], dataset)
