"""The five commands of README, from a CSV to lists of named items."""

import csv
import json

import numpy as np
import pytest

import shop_files
from atspeed_jax.data.dataset import load_dataset
from mains import run_mains

TINY = [
    *(
        f"--config.{model}.{name}={value}"
        for model in ("target", "draft")
        for name, value in {
            "hidden_size": 16,
            "intermediate_size": 32,
            "layers": 1,
            "heads": 2,
            "kv_heads": 1,
            "head_dim": 8,
        }.items()
    ),
    *(f"--config.{stage}.epochs=1.0" for stage in ("train_target", "train_draft", "train_align")),
    "--config.teacher.beams=4",
    "--config.align.top_k=4",
    "--config.decode.widths=('all',12)",
    "--config.decode.unroll=False",
    "--config.evaluate.beams=(4,)",
    "--config.evaluate.tune=()",
    "--config.evaluate.list_size=10",
    "--config.evaluate.latency_users=2",
    "--config.evaluate.bootstrap_samples=10",
]


def commands(place, *, lists=False):
    """What run_mains makes of the commands up to launch.prepare_data, or of all five."""
    log, items = shop_files.write_shop(place, users=60, items=30)
    data, run, tuned = (
        place / "log_data",
        place / "log",
        ["--batch_sizes=2", "--finalists=1", "--batches=1", "--repeats=1"],
    )
    config = "configs/own.py:3,small"
    cases = [
        ("ingest", None, None, [f"--interactions={log}", "--time=bought", f"--items={items}", f"--output={data}"], ""),
        ("build_ids", None, None, [f"--data_dir={data}", "--levels=3", "--codes=6"], ""),
        ("pipeline" if lists else "prepare_data", run, config, [f"--data_dir={data}", *TINY], ""),
    ]
    if lists:
        given = [f"--input={data / 'histories.parquet'}", f"--output={place / 'recs.jsonl'}", "--k=3"]
        cases += [
            ("tune_decoder", run, None, ["--beams=3", "--drafters=draft", *tuned], ""),
            ("recommend", run, None, given, ""),
        ]
    return run_mains(cases)


def rows_of(file):
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_a_log_becomes_data_with_names_and_titles(tmp_path):
    for result in commands(tmp_path):
        assert result.code == 0, result.err
    titles = {row["product"]: row["title"] for row in rows_of(tmp_path / "items.csv")}
    names = json.loads((tmp_path / "log" / "names.json").read_text())
    found = json.loads((tmp_path / "log" / "titles.json").read_text())
    assert names == sorted(titles)
    assert [found[str(item)] for item in range(len(names))] == [titles[name] for name in names]
    data = load_dataset(tmp_path / "log" / "data")
    assert data.catalog.codes.shape == (len(names), 3)
    assert data.catalog.level_sizes == (6, 6, 6), "of the codebooks: a new item may get any code"
    events = [row["product"] for row in rows_of(tmp_path / "log.csv")]
    stored = np.concatenate((*data.train, *data.valid, *data.test))
    assert sorted(events) == sorted(names[item] for item in stored)


@pytest.mark.slow
def test_five_commands_give_lists_of_named_items(tmp_path):
    for result in commands(tmp_path, lists=True):
        assert result.code == 0, result.err
    titles = {row["product"]: row["title"] for row in rows_of(tmp_path / "items.csv")}
    lines = [json.loads(line) for line in (tmp_path / "recs.jsonl").read_text().splitlines()]
    assert {line["user"] for line in lines} == {row["customer"] for row in rows_of(tmp_path / "log.csv")}
    for line in lines:
        assert len(line["items"]) == len(line["scores"]) == 3
        assert line["titles"] == [titles[item] for item in line["items"]]
    assert "no. B0" in (tmp_path / "log" / "report.html").read_text(), "the examples of the report show titles"
