from atspeed_jax.evaluation.curves import loss_curves


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
