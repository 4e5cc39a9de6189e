"""Metric records of a training run as they are drawn: training and validation side by
side, in one unit.
"""

from collections.abc import Mapping, Sequence


def loss_curves(records: Sequence[Mapping], weights: Mapping[str, float], length: int) -> list[dict]:
    """Prepares the records of a metrics.jsonl for `plots.draw_plots`.

    Training is logged in nats per code, validation in nats per item: validation records
    get a "loss" per code. A part of the loss without weight is left out, since nothing
    makes it fall. So is a part that is always 0, since the batches hold nothing to
    count it on.

    Args:
      records: of `training.metrics_log`.
      weights: of parts of the loss, by name.
      length: codes per item.
    """
    weightless = {name for name, weight in weights.items() if not weight or not any(r.get(name) for r in records)}
    kept = [{name: value for name, value in record.items() if name not in weightless} for record in records]
    return [
        record | {"loss": record["nats_per_item"] / length} if record.get("nats_per_item") is not None else record
        for record in kept
    ]
