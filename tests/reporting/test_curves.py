from atspeed_jax.reporting.curves import loss_curves


def test_validation_gets_the_unit_of_training():
    train = {"step": 1, "split": "train", "loss": 2.5}
    valid = {"step": 1, "split": "valid", "nats_per_item": 8.0, "ndcg@10": 0.5}
    assert loss_curves([train, valid], {}, 4) == [train, valid | {"loss": 2.0}]
    assert loss_curves([valid | {"nats_per_item": None}], {}, 4) == [valid | {"nats_per_item": None}]


def test_a_part_without_weight_is_left_out():
    record = {"step": 1, "split": "train", "loss": 2.5, "align_loss": 2.5, "next_item_loss": 7.0}
    kept = {"step": 1, "split": "train", "loss": 2.5, "align_loss": 2.5}
    assert loss_curves([record], {"align_loss": 1.0, "next_item_loss": 0.0}, 4) == [kept]
    assert loss_curves([record], {"align_loss": 0.9, "next_item_loss": 0.1}, 4) == [record]


def test_a_part_that_is_always_zero_is_left_out():
    """Prompts of the whole history have no next item."""
    weights = {"align_loss": 0.9, "next_item_loss": 0.1}
    records = [{"step": n, "split": "train", "align_loss": 0.0, "next_item_loss": 0.0} for n in (1, 2)]
    records[1]["align_loss"] = 0.5
    kept = [{"step": 1, "split": "train", "align_loss": 0.0}, {"step": 2, "split": "train", "align_loss": 0.5}]
    assert loss_curves(records, weights, 4) == kept
