import copy
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from atspeed_jax.reporting import contents
from atspeed_jax.reporting.headlines import headlines
from atspeed_jax.reporting.report import (
    DECODING_KEYS,
    ReportError,
    format_table,
    read_report,
    validate_report,
    write_report,
)

CURVES = {"target": [{"step": 1, "split": "train", "loss": 3.0}, {"step": 2, "split": "train", "loss": 2.0}]}


def test_written_report_is_read_back_and_names_its_plots(tmp_path, report):
    directory = tmp_path / "runs" / "toy"
    write_report(directory, report, CURVES)
    assert json.loads((directory / "report.json").read_text(encoding="utf-8")) == report
    text = (directory / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Speculative beam search on toy\n")
    plots = sorted(path.name for path in directory.glob("*.png"))
    assert plots == ["acceptance.png", "latency.png", "loss.png", "quality.png", "speed_up.png", "target_calls.png"]
    assert all(f"]({name})" in text for name in plots)
    assert sorted(path.name for path in directory.iterdir()) == sorted(
        [*plots, "report.html", "report.json", "report.md"]
    )


@pytest.mark.slow
def test_writing_again_replaces_the_report(tmp_path, report):
    write_report(tmp_path, report, CURVES)
    report["quality"]["target"]["seen_kept"]["recall@10"] = 0.5
    write_report(tmp_path, report, CURVES)
    assert json.loads((tmp_path / "report.json").read_text())["quality"]["target"]["seen_kept"]["recall@10"] == 0.5
    assert "0.5000" in (tmp_path / "report.md").read_text()


def test_arrays_and_tuples_become_plain(tmp_path, report):
    report["decoding"][1].update(
        widths=("all", 64, 96),
        acceptance_by_level=np.array([1.0, 0.875, 0.5], np.float32),
        target_calls_mean=np.float32(1.375),
        mismatched_users=np.int64(0),
        latency_ms_p50=jnp.float32(8.25),
    )
    write_report(tmp_path, report, {})
    row = json.loads((tmp_path / "report.json").read_text())["decoding"][1]
    assert row["widths"] == ["all", 64, 96]
    assert row["acceptance_by_level"] == [1.0, 0.875, 0.5]
    assert (row["target_calls_mean"], row["mismatched_users"], row["latency_ms_p50"]) == (1.375, 0, 8.25)


def test_the_printed_table_shows_the_figures(report):
    text = format_table(report)
    for figure in ("0.0177 [0.0145, 0.0210]", "0.0191", "-0.0014 [-0.0030, 0.0010]", "1.375", "12,023", "all, 64, 96"):
        assert figure in text
    assert max(map(len, text.splitlines())) < 200


def test_the_table_ends_with_sentences(tmp_path, report):
    """What each drafter saves; below float32 also whether it loses anything."""
    agreement = {"same_list": 0.7, "items_shared": 0.99, "score_gap": 0.001, "largest_gap": 0.01}
    about = {"arithmetic": "bfloat16", "itself": agreement, "itself_batch_size": 4, "loses_more": []}
    report["decoding"][1]["agreement"] = agreement | about
    text, sentences = format_table(report), contents.in_words(report)
    first = [headline.sentence for headline in headlines(report["decoding"])]
    assert len(first) == 2
    assert " ".join(text.split()).endswith(" ".join([*sentences, *first]))
    draft, prior, low = sentences
    assert draft.startswith("The draft model (widths all, 64, 96) saves 2.62 and 2.94 of 4 target calls per user")
    assert prior.startswith("The popularity prior (widths all, 64, 96) saves 2.00 of 4 target calls")
    assert low.startswith("Computing in bfloat16, speculation loses no more")
    assert "0.700 (0.700)" in text
    write_report(tmp_path, report, {})
    written = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(f"\n- {sentence}\n" in written for sentence in (draft, prior, low))


def paths(value, prefix=()):
    """Path of every key the schema requires, taken from a valid report."""
    optional = ("intervals", "users", "differences", "id_recall@10", "hits", "truths", "impossible")
    for key, inner in value.items():
        if prefix == () or prefix[0] != "quality" or key not in optional:
            yield (*prefix, key)
            if isinstance(inner, dict):
                yield from paths(inner, (*prefix, key))


def test_every_missing_key_is_named(report):
    validate_report(report)
    required = list(paths(report)) + [("decoding", 1, key) for key in DECODING_KEYS]
    assert len(required) == 4 + 5 + (4 + 3 * 2 * (1 + 2)) + 4 + len(DECODING_KEYS)
    for *parents, key in required:
        broken = copy.deepcopy(report)
        place = broken
        for parent in parents:
            place = place[parent]
        del place[key]
        with pytest.raises(ReportError) as error:
            validate_report(broken)
        where = "report" + "".join(f"[{parent}]" if isinstance(parent, int) else f".{parent}" for parent in parents)
        assert str(error.value).startswith(f"{where} lacks {key!r}")


def test_measures_may_be_none_and_keys_may_be_added(tmp_path, report):
    for row in report["decoding"]:
        row.update(dict.fromkeys(DECODING_KEYS[6:]))
        row["note"] = "an extra"
    report["stages"] = {"train_target": 12.5}
    report["quality"]["target"]["seen_kept"] = {"recall@10": None, "ndcg@10": None}
    write_report(tmp_path, report, {})
    assert [path.name for path in tmp_path.glob("*.png")] == ["quality.png"]  # of the baselines
    assert json.loads((tmp_path / "report.json").read_text())["stages"] == {"train_target": 12.5}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method", "magic", r"report.decoding\[1\].method is 'magic', expected one of beam_search, speculative"),
        ("drafter", "oracle", r"report.decoding\[1\].drafter is 'oracle'"),
        ("K", 0, r"report.decoding\[1\].K is 0"),
        ("widths", "all", r"report.decoding\[1\].widths is 'all', expected a list or None"),
        ("latency_ms_p50", math.nan, r"report.decoding\[1\].latency_ms_p50 is nan"),
        ("acceptance_by_level", [1.0, math.inf], r"report.decoding\[1\].acceptance_by_level\[1\] is inf"),
    ],
)
def test_bad_values_are_named_and_nothing_is_written(tmp_path, report, key, value, message):
    report["decoding"][1][key] = value
    with pytest.raises(ReportError, match=message):
        write_report(tmp_path / "new", report, CURVES)
    assert not (tmp_path / "new").exists()


def test_decoding_must_be_a_list_and_sections_dicts(report):
    with pytest.raises(ReportError, match=r"report\.decoding is None"):
        validate_report({**report, "decoding": None})
    with pytest.raises(ReportError, match=r"report\.environment is 'cpu'"):
        validate_report({**report, "environment": "cpu"})


def test_a_damaged_report_is_named(tmp_path):
    (tmp_path / "report.json").write_text('{"quality": ')
    with pytest.raises(ValueError, match=f"{tmp_path}/report.json is damaged .*launch.evaluate"):
        read_report(tmp_path)
