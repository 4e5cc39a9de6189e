"""A pipeline killed in every stage, and started again each time, ends as if it had never been killed."""

import json

import pytest

from mains import SMALL, run_mains

pytestmark = pytest.mark.slow

# What differs between two runs of the same bits: time, and the names that orbax draws for its files.
ACCIDENTAL = ("seconds", "files")
TIMES = ("latency_ms_p50", "latency_ms_p95", "ws_vs_beam_search", "ws_interval", "breakdown_ms", "users_per_s")
KILLS = (
    ".data.building-*",
    "target/checkpoints/[0-9]*",
    "target/params*",
    "teacher/.part-*",
    "teacher/part-*",
    "draft_sft/metrics.jsonl",
    "draft/checkpoints/[0-9]*",
    "draft/metadata.json",
    "evaluation/*/row_speculative_draft*",
    "report.md",
)


def results(workdir) -> dict:
    """Everything the run found out, without times."""
    report = json.loads((workdir / "report.json").read_text())
    stages = {}
    for stage in ("target", "draft_sft", "draft"):
        metadata = json.loads((workdir / stage / "metadata.json").read_text())
        records = [json.loads(line) for line in (workdir / stage / "metrics.jsonl").read_text().splitlines()]
        stages[stage] = (
            {key: value for key, value in metadata.items() if key not in ACCIDENTAL},
            [{key: value for key, value in record.items() if key != "time"} for record in records],
        )
    return {
        "quality": report["quality"],
        "decoding": [{key: value for key, value in row.items() if key not in TIMES} for row in report["decoding"]],
        "stages": stages,
        "teacher": [path.read_bytes() for path in sorted((workdir / "teacher").glob("part-*"))],
    }


def test_a_killed_pipeline_ends_as_if_never_killed(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    cases = [("pipeline", killed, SMALL, [], str(killed / pattern)) for pattern in KILLS]
    cases += [("pipeline", workdir, SMALL, [], "") for workdir in (killed, whole)]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    *deaths, ended, uninterrupted = run_mains(cases, cache)
    assert [death.code for death in deaths] == [-9] * len(KILLS)
    assert ended.code == uninterrupted.code == 0, ended.err + uninterrupted.err
    assert results(killed) == results(whole)
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}
