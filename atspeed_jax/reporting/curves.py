"""Metric records of a training run as they are drawn: training and validation side by side, in one unit."""

from collections.abc import Mapping, Sequence


def loss_curves(records: Sequence[Mapping], weights: Mapping[str, float], length: int) -> list[dict]:
    """Records of a metrics.jsonl (`training.metrics_log`) for `plots.draw_plots`.

    weights: of parts of the loss, by name. A part without weight is left out, since nothing makes it fall, and so is
    one that is always 0, since the batches hold nothing to count it on. length: codes per item. Training is logged in
    nats per code, validation in nats per item: its records get a "loss" per code.
    """
    weightless = {name for name, weight in weights.items() if not weight or not any(r.get(name) for r in records)}
    kept = [{name: value for name, value in record.items() if name not in weightless} for record in records]
    return [
        record | {"loss": record["nats_per_item"] / length} if record.get("nats_per_item") is not None else record
        for record in kept
    ]
