import json
import os
import re
import subprocess
import sys

import pytest

from mains import ROOT, run_mains

TINY = "configs/tiny.py"
ON_MESH = ["--config.mesh.fsdp=4", "--config.mesh.tensor=2", "--items=300", "--steps=train"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """What some commands say, by name, and the figures of the first."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    cases = {
        "fits": (TINY, ["--devices=16", *ON_MESH, "--batch_per_device=2", f"--json={path}"]),
        "devices": (TINY, ["--devices=12", *ON_MESH]),
        "batch": (TINY, ["--devices=24", *ON_MESH]),
        "chip": (TINY, ["--devices=8", "--chip=v9"]),
        "slice": (TINY, ["--devices=12", "--compiler=tpu"]),
        "gpu": (TINY, ["--devices=8", "--chip=h100", "--compiler=tpu"]),
        "sizes": ("configs/beauty_llama7b.py", ["--devices=8", "--config.target.directory=nowhere"]),
        "json": (TINY, ["--devices=8", "--json=no/p.json"]),
        "heads": ("configs/beauty_llama7b.py", ["--devices=64", "--config.mesh.tensor=8"]),
    }
    results = run_mains([("plan", None, config, flags, "") for config, flags in cases.values()])
    return dict(zip(cases, results, strict=True)), json.loads(path.read_text())


def test_figures_are_printed_and_written(done):
    results, report = done
    assert results["fits"].code == 0, results["fits"].err
    out = results["fits"].out
    assert "300 items with random ids" in out
    assert "Compiled for CPU devices" in out
    assert re.search(r"^Largest peak of a device: \d+\.\d\d GiB of 16 GiB, which fits$", out, re.MULTILINE)
    assert not re.search(r"[a-z]_[a-z]", out[out.index("Per device") :]), "a table of words, not of field names"
    (row,) = report["steps"]
    assert (row["devices"], row["data"], row["fsdp"], row["tensor"], row["rows"]) == (16, 2, 4, 2, 16)
    assert report["peak_gib_per_device"] == row["peak_gib_per_device"]
    assert report["hbm_gib"] == 16
    assert row["flops"] == pytest.approx(row["estimate"]["flops"], rel=0.15)
    assert {"all-gather", "all-reduce"} <= set(row["collectives"])
    assert 0.5 < row["received_bytes"] / row["estimate"]["received_bytes"] < 2.5


@pytest.mark.slow
def test_what_does_not_fit_ends_with_one():
    flags = ["--devices=8", *ON_MESH, "--hbm_gib=0.001"]
    (result,) = run_mains([("plan", None, TINY, flags, "")])
    assert result.code == 1
    assert "of 0.001 GiB, too much" in result.out
    assert not result.err.count("error")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("devices", "error: mesh data=the rest, fsdp=4, tensor=2 does not fit the 12 devices"),
        ("batch", "error: config.train_target.batch_size=64: these rows cannot be split evenly"),
        ("chip", "error: chip 'v9' is unknown; expected one of v4, v5e"),
        ("slice", "error: there is no v5e slice of 12 devices; expected one of 1, 4, 8"),
        ("gpu", "error: chip 'h100' is none of the TPUs that can be compiled for: v5e, v5p, v6e"),
        ("sizes", "error: there is no nowhere/config.json"),
        ("json", "error: --json=no/p.json: there is no directory no"),
        ("heads", "error: config.draft.heads=12 cannot be split evenly over mesh axis tensor=8"),
    ],
)
def test_a_mistake_is_one_line(done, name, message):
    result = done[0][name]
    assert result.code == 1
    assert message in result.err
    assert "Traceback" not in result.err


def test_it_plans_on_the_cpu_of_a_machine_with_an_accelerator():
    """JAX reads JAX_PLATFORMS as it is imported, before a main can set it."""
    code = (
        "import jax\nfrom launch.host_devices import use_host_devices\nuse_host_devices(3)\n"
        "assert jax.config.jax_platforms == 'cpu' and jax.device_count() == 3"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
