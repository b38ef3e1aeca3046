import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steelyard.judge.readout import merge_variants

FINITE = st.floats(-80, 0)


def naive(row, starts):
    groups = [row[a:b] for a, b in zip(starts, [*starts[1:], len(row)], strict=True)]
    return [math.log(math.fsum(math.exp(value) for value in group)) for group in groups]


@given(st.lists(st.tuples(FINITE, FINITE, FINITE), min_size=1, max_size=20))
def test_merge_is_log_sum_exp_by_label(rows):
    logprobs = np.asarray(rows) - math.log(3)  # mass at most 1
    merged, mass = merge_variants(logprobs, [0, 2])
    for row, got, total in zip(logprobs.tolist(), merged.tolist(), mass.tolist(), strict=True):
        expected = naive(row, [0, 2])
        assert np.allclose(got, expected, rtol=1e-12, atol=1e-12)
        assert math.isclose(total, sum(map(math.exp, expected)), rel_tol=1e-9)
    assert np.isfinite(mass).all()


def test_what_is_not_finite_or_not_a_probability_is_not_a_read():
    rows = np.log(np.asarray([[0.5, 0.2], [np.nan, 0.2], [0.9, 0.3]]))
    rows = np.vstack([rows, [[-np.inf, -1.0]]])
    merged, mass = merge_variants(rows, [0, 1])
    assert np.isfinite(mass).tolist() == [True, False, False, False]
    assert np.isnan(merged[1:]).all()
