"""Sampled negatives: their law, and that nothing but the seed decides."""

import numpy as np
import pytest
from scipy import stats

from tfrec.data import negatives


def test_they_are_products_and_uniform():
    drawn = negatives.uniform([4000, 25], 50, [3, 4]).numpy()
    assert drawn.dtype == np.int32 and drawn.shape == (4000, 25)
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=50)).pvalue > 0.001
    assert len(np.bincount(drawn.ravel())) == 50


@pytest.mark.parametrize("other", [[4, 3], [3, 5], [0, 4]])
def test_the_seed_decides(other):
    first = negatives.uniform([6, 5], 1000, [3, 4])
    np.testing.assert_array_equal(first, negatives.uniform([6, 5], 1000, [3, 4]))
    assert not np.array_equal(first, negatives.uniform([6, 5], 1000, other))
