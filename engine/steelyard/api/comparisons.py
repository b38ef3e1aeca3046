"""What `rank`, `winrate` and `bias` return: what they print with --json, as attributes."""

from __future__ import annotations

from typing import Any

import msgspec
from typing_extensions import override

from steelyard.api.results import Estimate, Record, Result


class Comparisons(Result, frozen=True, kw_only=True):
    """What a result was computed from."""

    source: str  # path of the run
    preference: str  # column that was read: raw_preference or calibrated_preference
    rows: int
    left_out: dict[str, int]  # reason -> rows
    clusters_by: str  # column whose values are clusters
    warnings: tuple[str, ...] = ()

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return warnings."""
        return self.warnings


class Rating(Record, frozen=True, kw_only=True):
    """A competitor's place on a leaderboard."""

    rank: int  # from 1
    competitor: str
    rating: float  # on Elo's scale: 400 points are a factor of ten in the odds; else a score
    lower: float | None = None  # 95% interval; None: it cannot be estimated
    upper: float | None = None
    standard_error: float | None = None
    best_rank: int | None = None  # ranks that the significant differences allow
    worst_rank: int | None = None
    average_win_rate: float  # over opponents, in [0, 1]
    comparisons: int
    gold: dict[str, Any] | None = None  # with `gold`: estimates by people's labels


class Difference(Record, frozen=True, kw_only=True):
    """A difference of two ratings, tested together with all others."""

    better: str
    worse: str
    difference: float  # of ratings, 0 or more
    standard_error: float | None
    p_value: float | None  # step-down, in [0, 1]; None: it cannot be tested


class Removal(Record, frozen=True, kw_only=True):
    """A smallest set without which another competitor is first."""

    removed: int
    of: int
    first: str  # who is first without them
    at_least: int | None  # no smaller number can do that; None: not known
    pair_ids: tuple[str, ...] | None = None  # of up to 1,000 verdicts; None: they have no ids


class WinMatrix(Record, frozen=True, kw_only=True):
    """Shares of points, K x K: row i against column j, in [0, 1]; None where they never met."""

    competitors: tuple[str, ...]
    share: tuple[tuple[float | None, ...], ...]


class Ranking(Comparisons, frozen=True, kw_only=True):
    """A leaderboard (`steelyard rank`)."""

    method: str
    competitors: int
    clusters: int
    ranking: tuple[Rating, ...]  # best first
    win_matrix: WinMatrix
    differences: tuple[Difference, ...] = ()
    sensitivity: dict[str, Removal | None] = msgspec.field(
        default_factory=dict
    )  # by unit: verdicts, instructions
    intervals: str | None = None
    level: float | None = None  # confidence of intervals
    anchor: str | None = None
    tie_parameter: float | None = None
    gold: dict[str, Any] | None = None

    @override
    def records(self) -> list[dict[str, Any]]:
        """Return one row per competitor, best first."""
        rows = [msgspec.structs.asdict(row) for row in self.ranking]
        for row in rows:
            gold = row.pop("gold")
            if self.gold is not None:
                row["corrected_rating"] = _value(gold, "rating")
        return rows

    @override
    def caption(self) -> str:
        """Return method and preference."""
        return f"{self.method}, {self.preference}, {self.rows:,} comparisons"


class ControlledRate(Record, frozen=True, kw_only=True):
    """A win rate at equal length or style, in [0, 1]."""

    win_rate: float
    standard_error: float | None
    lower: float | None
    upper: float | None
    coefficients: dict[str, float]  # log-odds per unit of the feature


class WinRate(Record, frozen=True, kw_only=True):
    """A competitor against the baseline."""

    competitor: str
    win_rate: Estimate  # mean preference for it, in [0, 1]
    discrete_win_rate: float  # share of wins, half of ties
    mean_length_difference: float | None  # characters
    length_controlled: ControlledRate | None
    style_controlled: ControlledRate | None
    not_controlled: dict[str, str]  # rate that is missing -> reason
    gold: dict[str, Any] | None = None


class WinRates(Comparisons, frozen=True, kw_only=True):
    """Win rates against a baseline (`steelyard winrate`)."""

    baseline: str
    difficulty: str | None  # learned, a file, or None: no rate rests on it
    win_rates: tuple[WinRate, ...]  # best first
    sensitivity: dict[str, Removal | None] = msgspec.field(default_factory=dict)
    gold: dict[str, Any] | None = None

    @override
    def records(self) -> list[dict[str, Any]]:
        """Return one row per competitor, best first."""
        return [
            {
                "competitor": rate.competitor,
                "win_rate": rate.win_rate.value,
                "lower": rate.win_rate.lower,
                "upper": rate.win_rate.upper,
                "discrete_win_rate": rate.discrete_win_rate,
                "length_controlled": _rate(rate.length_controlled),
                "style_controlled": _rate(rate.style_controlled),
                "rows": rate.win_rate.rows,
                **(
                    {"corrected": _value(rate.gold, "prediction_powered")}
                    if self.gold is not None
                    else {}
                ),
            }
            for rate in self.win_rates
        ]

    @override
    def caption(self) -> str:
        """Return the baseline."""
        return f"win rates against {self.baseline}, {self.preference}"


def _value(gold: dict[str, Any] | None, name: str) -> float | None:
    """Return the value of an estimate that gold corrects."""
    return None if gold is None or gold[name] is None else gold[name]["value"]


def _rate(rate: ControlledRate | None) -> float | None:
    return None if rate is None else rate.win_rate


class PositionBias(Record, frozen=True, kw_only=True):
    """What changes with the order of presentation."""

    first: Estimate  # share of decisions for the response shown first; 0.5 without bias
    lean: Estimate  # mean of preference_ab - preference_ba; 0 without bias
    deviation: Estimate  # mean of its absolute value
    flips: Estimate  # share of pairs whose winner changes with the order


class LabelMass(Record, frozen=True, kw_only=True):
    """Probability that the judge put on no label."""

    shortfall: Estimate  # 1 - label mass, mean over both orders
    low: Estimate  # share of pairs with a mass below 0.5 in an order


class Verbosity(Record, frozen=True, kw_only=True):
    """What length is worth to the judge, where lengths differ by more than 30 characters."""

    longer: Estimate  # mean preference for the longer response; 0.5 without bias
    gold_longer: Estimate | None  # gold's mean preference for it
    excess: Estimate | None  # the judge's less the gold's
    # Log-odds per unit of tanh(difference / its root mean square); None: it has no bound.
    coefficient: float | None
    standard_error: float | None
    coefficient_interval: tuple[float, float] | None
    longer_at_equal_strength: float | None  # P(the longer wins), in [0, 1]
    longer_at_equal_strength_interval: tuple[float, float] | None


class Family(Record, frozen=True, kw_only=True):
    """Preference for a family's responses against others'."""

    family: str
    preference: Estimate
    own_judges: Estimate | None  # by judges of the same family
    other_judges: Estimate | None
    gold: Estimate | None
    self_preference: float | None
    self_preference_estimate: Estimate | None


class BiasSections(Record, frozen=True, kw_only=True):
    """Biases over some comparisons; None: `Bias.missing` or a warning says why."""

    rows: int
    position: PositionBias | None = None
    label_mass: LabelMass | None = None
    verbosity: Verbosity | None = None
    families: tuple[Family, ...] | None = None


class Bias(Comparisons, frozen=True, kw_only=True):
    """What sways the judge besides quality (`steelyard bias`)."""

    all: BiasSections
    by: dict[str, BiasSections] = msgspec.field(
        default_factory=dict
    )  # value of the column -> its comparisons
    missing: dict[str, str]  # section -> columns that it lacks
    notes: tuple[str, ...] = ()

    @override
    def records(self) -> list[dict[str, Any]]:
        """Return one row per measure that is an estimate, of all comparisons and of each group."""
        return [
            {
                "group": group,
                "measure": f"{section}, {name}".replace("_", " "),
                "value": value.value,
                "lower": value.lower,
                "upper": value.upper,
            }
            for group, sections in {"all": self.all, **self.by}.items()
            for section in ("position", "label_mass", "verbosity")
            for name, value in msgspec.structs.asdict(
                getattr(sections, section) or Record()
            ).items()
            if isinstance(value, Estimate)
        ]

    @override
    def remarks(self) -> tuple[str, ...]:
        """Return warnings, notes, and what is missing."""
        lacking = (f"no {what}: it needs {names}" for what, names in self.missing.items())
        return (*self.warnings, *self.notes, *lacking)


def _fields(record: Record | None) -> dict[str, Any]:
    return {} if record is None else msgspec.structs.asdict(record)
