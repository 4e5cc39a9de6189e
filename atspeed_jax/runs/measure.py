"""The evaluation stage: measures a trained pair and writes the report."""

from __future__ import annotations

import dataclasses

from atspeed_jax.evaluation.evaluate import Evaluation, evaluate
from atspeed_jax.evaluation.examples import examples_of
from atspeed_jax.evaluation.store import MeasurementStore
from atspeed_jax.items.titles import TITLES_FILE, read_titles, with_titles
from atspeed_jax.reporting.curves import loss_curves
from atspeed_jax.reporting.environment import environment, what_was_run
from atspeed_jax.reporting.report import format_table, write_report
from atspeed_jax.runs.assets import Assets
from atspeed_jax.runs.fingerprints import fingerprint
from atspeed_jax.runs.serve import tuned_calls_by_nodes, tuned_settings
from atspeed_jax.runs.trained import RunView, TrainedModels
from atspeed_jax.training.checkpoint import fingerprint_of
from atspeed_jax.training.metrics_log import read_metrics
from atspeed_jax.training.preemption import stop_after_sigterm


def measurements(assets: Assets, models: TrainedModels) -> Evaluation:
    """What is measured of a trained pair, on whom, and where the results are kept."""
    serve, target = assets.serve, fingerprint_of(models.target_params)[:16]
    draft = fingerprint_of(models.draft_params)
    measured = dataclasses.replace(
        serve.evaluate, grid_beams=(), grid_widths=(), tune=(), beside_tuned=True
    )  # these only add or leave out rows
    devices = (tuple(assets.mesh.shape.items()),) if assets.mesh.size > 1 else ()  # times depend on them
    name = fingerprint(target, draft, measured, serve.decode, models.fingerprints.prompt, *devices)
    return Evaluation(
        MeasurementStore(assets.workdir / "evaluation" / name, _print_or_stop),
        assets.dataset,
        models.decoders(models.draft_params),
        serve.decode,
        serve.evaluate,
        history=assets.config.data.history,
        target_fingerprint=target,
        tuned=tuned_settings(RunView(assets), _print_or_stop),
    )


def _print_or_stop(text: str) -> None:
    """Called between two measurements, each of which is stored in a file."""
    stop_after_sigterm("evaluation")
    print(f"[evaluation] {text}", flush=True)


def write_evaluation(assets: Assets, models: TrainedModels, *, full: bool = False) -> dict:
    """Measures everything and writes report.json, report.html, report.md and plots into
    the workdir.

    Args:
      full: see `evaluation.evaluate.evaluate`.

    Returns:
      the report.
    """
    config, dataset, catalog = assets.config, assets.dataset, assets.dataset.catalog
    titles = read_titles(assets.workdir / TITLES_FILE, catalog.items)  # its faults show before the long work
    evaluation = measurements(assets, models)
    quality, rows = evaluate(evaluation, full=full)
    arithmetic = {model.name: model.config.arithmetic for model in (assets.target, assets.draft)}
    report = {
        "config": config.name,
        "dataset": {
            "name": dataset.name,
            "users": dataset.users,
            "items": catalog.items,
            "distinct_ids": len(catalog.ids),
            "collisions": len(catalog.collisions),
        },
        "quality": quality,
        "decoding": rows,
        "calls_by_nodes": tuned_calls_by_nodes(RunView(assets)),
        "examples": with_titles(examples_of(evaluation), titles),
        "run": what_was_run() | {"workdir": str(assets.workdir), "config": dataclasses.asdict(config)},
        "environment": environment() | arithmetic,
    }
    weights = {"target": {}, "draft_sft": {}, "draft": config.align.weights}
    curves = {
        stage: loss_curves(read_metrics(assets.workdir / stage / "metrics.jsonl"), parts, catalog.length)
        for stage, parts in weights.items()
    }
    write_report(assets.workdir, report, curves)
    print(format_table(report))
    print(f"[evaluation] the report: {assets.workdir / 'report.html'}", flush=True)
    return report
