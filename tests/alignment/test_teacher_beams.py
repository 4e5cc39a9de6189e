"""Which beams are taught. That they are those of beam search is a test of the stored ones (test_teacher.py)."""

import numpy as np
import pytest

from atspeed_jax.alignment.teacher_beams import aligned_beams


@pytest.mark.parametrize(("codes", "taught"), [(1, 0), (2, 0), (3, 1), (4, 2)])
def test_beams_whose_children_a_draft_proposes_are_taught(codes, taught):
    beams = np.arange(2 * codes * 5).reshape(2, codes, 5)
    np.testing.assert_array_equal(aligned_beams(beams), beams[:, :taught])
