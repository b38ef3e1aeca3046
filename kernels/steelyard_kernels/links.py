"""How the strengths of two competitors make a win, a loss or a tie: three models' likelihoods.

With d the difference of two log-strengths and e one parameter for ties:

- Bradley and Terry (Biometrika 39, 1952): P(win) = 1 / (1 + exp(-d)); a tie is half a win.
- Davidson (JASA 65, 1970, eq. 2.4): win : loss : tie = exp(d/2) : exp(-d/2) : exp(e); nu = exp(e).
- Rao and Kupper (JASA 62, 1967, eq. 2.1): P(win) = 1 / (1 + exp(e - d)), P(loss) = 1 / (1 +
  exp(e + d)), P(tie) the rest; theta = exp(e), e > 0.

All three log-likelihoods are concave in (d, e), and linear in the sums n, s and t.
"""

from __future__ import annotations

import math

from steelyard_kernels.jit import kernel

BRADLEY_TERRY, DAVIDSON, RAO_KUPPER = 0, 1, 2


@kernel
def log_logistic(x: float) -> float:
    """Return log(1 / (1 + exp(-x))) without overflow."""
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@kernel
def slopes(model: int, d: float, e: float) -> tuple[float, float, float, float, float, float]:
    """Return the gradient's coefficients of the sums.

    Returns:
        dn, ds, dt, en, es, et: the derivative by d is dn * n + ds * s + dt * t for n comparisons
        with score s (ties count half) and t ties; that by e is en * n + es * s + et * t.
    """
    if model == DAVIDSON:
        win, loss, tie = _davidson(d, e)
        return -0.5 - (win - loss) / 2, 1.0, 0.0, -tie, 0.0, 1.0
    if model == RAO_KUPPER:
        win, loss = 1 / (1 + math.exp(e - d)), 1 / (1 + math.exp(e + d))
        ties = 2 / (1 - math.exp(-2 * e))
        # (s + t/2) (1 - win) - (n - s + t/2) (1 - loss), and its likes by e
        return (
            loss - 1, 2 - win - loss, (loss - win) / 2,
            loss - 1, win - loss, ties - (2 - win - loss) / 2,
        )  # fmt: skip
    return -1 / (1 + math.exp(-d)), 1.0, 0.0, 0.0, 0.0, 0.0


@kernel
def curvature(
    model: int, d: float, e: float, sums: tuple[float, float, float]
) -> tuple[float, float, float, float]:
    """Return the log-likelihood of a pair's sums n, s, t and its negative second derivatives.

    Returns:
        value, dd, de, ee.
    """
    n, s, t = sums
    if model == DAVIDSON:
        win, loss, tie = _davidson(d, e)
        value = n * math.log(tie) + (s - n / 2) * d - (n - t) * e
        lean = win - loss
        return (
            value, n * ((win + loss) - lean * lean) / 4, -n * lean * tie / 2, n * tie * (1 - tie)
        )  # fmt: skip
    if model == RAO_KUPPER:
        win, loss = 1 / (1 + math.exp(e - d)), 1 / (1 + math.exp(e + d))
        wins, losses = s + t / 2, n - s + t / 2
        up, down = wins * win * (1 - win), losses * loss * (1 - loss)
        value = wins * log_logistic(d - e) + losses * log_logistic(-d - e)
        rest = 0.0
        if t > 0:
            value += t * math.log(math.expm1(2 * e))
            rest = t / math.sinh(e) ** 2
        return value, up + down, down - up, up + down + rest
    p = 1 / (1 + math.exp(-d))
    return s * log_logistic(d) + (n - s) * log_logistic(-d), n * p * (1 - p), 0.0, 0.0


@kernel
def _davidson(d: float, e: float) -> tuple[float, float, float]:
    top = max(abs(d) / 2, e)
    win, loss, tie = math.exp(d / 2 - top), math.exp(-d / 2 - top), math.exp(e - top)
    total = win + loss + tie
    return win / total, loss / total, tie / total
