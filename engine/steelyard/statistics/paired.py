"""Tests of a mean over clusters, such as that of paired differences: Student's t."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from steelyard.core.schemas import Float64
from steelyard.statistics.clusters import Codes
from steelyard.statistics.intervals import NO_SPREAD, t_p_value, t_quantile
from steelyard.statistics.means import mean


@dataclass(frozen=True, slots=True)
class PairedTest:
    """The mean of n differences; nothing but it is known with fewer than MIN_FOR_INTERVAL clusters.

    Differences that are all equal have no p-value either: no spread does not mean no error.
    """

    value: float
    standard_error: float | None
    lower: float | None
    upper: float | None
    p_value: float | None  # two-sided, of "the mean is `null`"
    detectable: float | None  # what a test at 5% finds in 80% of such samples
    rows: int
    clusters: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        fields = asdict(self)
        return {"difference": fields.pop("value"), **fields}


def paired_test(
    values: Float64,
    cluster: Codes,
    weight: Float64 | None = None,
    *,
    null: float = 0.0,
    bounds: tuple[float, float] | None = None,
    level: float = 0.95,
    power: float = 0.8,
) -> PairedTest:
    """Test a mean of dependent rows by clusters: each is a single observation, and t has G - 1.

    The standard error is that of `means.mean`, and t has one degree of freedom less than there are
    effective clusters, which are fewer where some weigh more than others.

    Args:
        values: [n], n > 0, such as differences of two preferences for the same pair.
        cluster: [n], whole numbers.
        weight: [n], not negative and not all zero; None: each is 1.
        null: the mean without a difference.
        bounds: what the mean's interval may not leave, such as `means.SHARE`; None: any value.
        level: of the interval, and 1 less the level of the test that `detectable` is for.
        power: how often that test finds `detectable`.
    """
    estimate = mean(values, cluster, weight, bounds=bounds)
    freedom = estimate.effective_clusters - 1
    lower, upper = estimate.interval(level)
    error = None if lower is None else estimate.standard_error
    if error is None or error <= NO_SPREAD:
        p_value = smallest = None
        lower, upper = (lower, upper) if bounds else (None, None)
    else:
        p_value = t_p_value((estimate.value - null) / error, freedom)
        smallest = detectable(error, freedom, level=level, power=power)
    return PairedTest(
        estimate.value, error, lower, upper, p_value, smallest, estimate.rows, estimate.clusters
    )


def detectable(standard_error: float, df: float, *, level: float, power: float) -> float:
    """Return the difference that a two-sided test finds with this probability.

    It is the sum of both quantiles of t times the standard error; `level` is 1 less the level of
    the test, `power` from 0.5 to 1, and `df` the test's degrees of freedom.
    """
    return standard_error * (t_quantile(level, df) + t_quantile(2 * power - 1, df))
