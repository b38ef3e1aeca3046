"""Calibrators that are linear in logits: P(a is better) = sigmoid(sum of coefficient x term).

Each term has its NumPy form and its SQL; they agree to 1e-12 (a test proves it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from steelyard.calibrators.features import Features, logit_sql, number_sql, sigmoid_sql
from steelyard.core.schemas import Float64
from steelyard.statistics.logistic import sigmoid


@dataclass(frozen=True, slots=True)
class Term:
    """A regressor: what it needs, its values, its SQL over the score's expression.

    `constants` are fitted beforehand and without gold, such as a scale.
    """

    needs: tuple[str, ...]  # fields of Features
    columns: tuple[str, ...]  # of verdicts, besides that of the score
    values: Callable[[Features, Mapping[str, float]], Float64]
    sql: Callable[[str, Mapping[str, float]], str]


def _order(features: Features, constants: Mapping[str, float]) -> Float64:
    ab, ba = features.score_ab, features.score_ba
    if ab is None or ba is None:
        raise ValueError("the term `order` needs both orders")
    return np.asarray((ab - ba) / 2 - constants["first_position"])


def _length(features: Features, constants: Mapping[str, float]) -> Float64:
    if features.longer is None:
        raise ValueError("the term `length` needs lengths")
    return np.tanh(features.longer / constants["length_scale"])


def _softplus_sql(score: str) -> str:
    """Return the SQL of ln(1 + exp(x)), without overflow."""
    return f"(greatest({score}, 0) + ln(1 + exp(-abs({score}))))"


def _softplus(score: Float64) -> Float64:
    return np.asarray(np.maximum(score, 0) + np.log(1 + np.exp(-np.abs(score))))


TERMS: dict[str, Term] = {
    "intercept": Term((), (), lambda f, _: np.ones(len(f)), lambda _score, _: "1"),
    "logit": Term((), (), lambda f, _: f.score, lambda score, _: score),
    "order": Term(
        ("score_ab", "score_ba"),
        ("preference_ab", "preference_ba"),
        _order,
        lambda _, c: (
            f"(({logit_sql('preference_ab')} - {logit_sql('preference_ba')}) / 2"
            f" - {number_sql(c['first_position'])})"
        ),
    ),
    "length": Term(
        ("longer",),
        ("length_a", "length_b"),
        _length,
        lambda _, c: f"tanh((length_a - length_b)::DOUBLE / {number_sql(c['length_scale'])})",
    ),
    # Beta calibration: ln p and -ln(1 - p).
    "log_a": Term(
        (), (), lambda f, _: -_softplus(-f.score), lambda s, _: f"-{_softplus_sql(f'-({s})')}"
    ),
    "log_b": Term((), (), lambda f, _: _softplus(f.score), lambda s, _: _softplus_sql(f"({s})")),
}  # fmt: skip


class Linear(msgspec.Struct, frozen=True, tag_field="kind", tag="linear"):
    """Coefficients by term, with 95% intervals if they were fitted, and the terms' constants."""

    coefficients: dict[str, float]
    intervals: dict[str, tuple[float, float]] = {}
    constants: dict[str, float] = {}

    def __post_init__(self) -> None:
        if unknown := self.coefficients.keys() - TERMS.keys():
            raise ValueError(f"unknown term {min(unknown)}")
        if not self.constants.get("length_scale", 1.0) > 0:
            raise ValueError("`length_scale` is not above 0")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of verdicts that the SQL reads, besides that of the score."""
        return tuple(column for name in self.coefficients for column in TERMS[name].columns)

    def preference(self, features: Features) -> Float64:
        """Return P(a is better) of n pairs."""
        total = np.zeros(len(features))
        for name, coefficient in self.coefficients.items():
            total = total + coefficient * TERMS[name].values(features, self.constants)
        return sigmoid(total)

    def sql(self, score: str) -> str:
        """Return that as SQL over columns of `verdicts`; `score` is the expression of the logit."""
        parts = (
            f"{number_sql(coefficient)} * {TERMS[name].sql(score, self.constants)}"
            for name, coefficient in self.coefficients.items()
        )
        return sigmoid_sql(" + ".join([number_sql(0), *parts]))
