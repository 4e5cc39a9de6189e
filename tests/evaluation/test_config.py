import dataclasses

import pytest

from atspeed_jax.data.batches import BatchShape
from evaluations import CONFIG


def test_the_shape_of_batches_has_the_history_of_the_run():
    assert CONFIG.batch_shape(7) == BatchShape(7, CONFIG.buckets, CONFIG.batch_size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beams": ()}, r"beams=\(\), grid_beams=.*: expected one or more K for all users, each K named once"),
        ({"grid_beams": CONFIG.beams}, "each K named once"),
        ({"drafters": ("none",)}, "drafters holds 'none', which is plain beam search"),
        ({"buckets": ()}, r"buckets=\(\): expected one or more increasing numbers"),
        ({"list_size": 5}, "list_size=5: expected a whole number, at least 10 .*; the report shows Recall@10"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)
