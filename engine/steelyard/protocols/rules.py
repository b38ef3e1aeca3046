"""How the reads of a pair become a verdict: the one definition, in SQL, for all databases.

A rule has two parts. `answer` gives values of each read: expressions over a read's columns,
`scale`, and `swapped` (response_b came first, or alone). `verdict` combines them: aggregates over
the pair's answers, each with the `weight` of its criterion.
"""

from __future__ import annotations

from dataclasses import dataclass

# P(first label) among two labels etc.; label_logprobs counts from 1.
_FIRST, _SECOND, _THIRD = (f"label_logprobs[{n}]" for n in (1, 2, 3))
_A, _B = "NOT swapped", "swapped"
_TOTAL = f"(exp({_FIRST}) + exp({_SECOND}) + exp({_THIRD}))"
_SCALE = "list_sum(list_transform(label_logprobs, lambda x: exp(x)))"
NEAREST = 1e-12  # means of P(a is better) that are nearer to 0 or 1 count as this far away
IN_ORDER = " ORDER BY nth"  # of sums: the last bit of a sum depends on the order of its terms
ROUNDING = 1e-9  # of means: 6.35 - 5.85 is a little more than a half

# Every verdict has these columns, NULL where its rule does not define them.
COLUMNS = (
    "preference_ab",
    "preference_ba",
    "raw_preference",
    "raw_tie",
    "score_a",
    "score_b",
    "hard_score_a",
    "hard_score_b",
)


# What `verdicts.members` says of each judge and variant of the prompt.
MEMBER = ("logit", "logit_ab", "logit_ba", "share")


@dataclass(frozen=True, slots=True)
class Rule:
    """How reads become a verdict."""

    shows: tuple[str, ...]  # what the prompts may show (Protocol.shows)
    answers: tuple[str, ...]  # kinds of answers that it takes (Answer.kind)
    labels: int | None  # how many there must be; None: any number
    about: str  # description in one line
    answer: tuple[tuple[str, str], ...]  # values of each read, as (name, SQL)
    verdict: tuple[tuple[str, str], ...]  # values of a pair, as (one of COLUMNS, SQL)
    side: str  # of each read: the logit, or P, that response_a is better; else its one score
    middle: float = 0.0  # of `side`, where neither is better: 0 for a logit, 0.5 for P
    band: str = "preference"  # or "score": what `tie_band` is measured on
    missing_is_no: bool = False  # an answer without a read counts as 0; else it spoils the verdict


def sigmoid(logit: str) -> str:
    """Write 1 / (1 + exp(-x)) in SQL, NULL for NULL; past 700 the exponential would overflow."""
    return (
        f"CASE WHEN {logit} < -700 THEN 0.0 WHEN {logit} > 700 THEN 1.0"
        f" ELSE 1 / (1 + exp(-({logit}))) END"
    )


def _mean(value: str, where: str = "") -> str:
    """Write the weighted mean over a pair's answers, or those `where` a condition holds."""
    only = f"{value} IS NOT NULL" + (f" AND {where}" if where else "")
    return (
        f"(sum(weight * {value}{IN_ORDER}) FILTER (WHERE {only})"
        f" / sum(weight{IN_ORDER}) FILTER (WHERE {only}))"
    )


def _balanced(value: str) -> str:
    """Write the mean of both orders' means: unparsable texts leave them unequal in number."""
    return f"(({_mean(value, _A)} + {_mean(value, _B)}) / 2)"


def _turned(same: str, other: str) -> str:
    return f"CASE WHEN swapped THEN {other} ELSE {same} END"


# Verdicts of rules that score each side.
_SIDES = (
    ("score_a", _mean("score", _A)),
    ("score_b", _mean("score", _B)),
    ("hard_score_a", _mean("hard_score", _A)),
    ("hard_score_b", _mean("hard_score", _B)),
    ("raw_preference", sigmoid(f"{_mean('score', _A)} - {_mean('score', _B)}")),
)

RULES = {
    "preference": Rule(
        ("pair",),
        ("label", "reasons"),
        2,
        "the sigmoid of the mean logit of A against B, over both orders",
        (("logit", _turned(f"{_FIRST} - {_SECOND}", f"{_SECOND} - {_FIRST}")),),
        (
            ("preference_ab", sigmoid(_mean("logit", _A))),
            ("preference_ba", sigmoid(_mean("logit", _B))),
            ("raw_preference", sigmoid(_mean("logit"))),
        ),
        side="logit",
    ),
    "tie": Rule(
        ("pair",),
        ("label", "reasons"),
        3,
        "mean probabilities of A, B and a tie over both orders; a tie is half a win",
        (
            ("p_a", f"exp({_turned(_FIRST, _SECOND)}) / {_TOTAL}"),
            ("p_b", f"exp({_turned(_SECOND, _FIRST)}) / {_TOTAL}"),
            ("p_tie", f"exp({_THIRD}) / {_TOTAL}"),
        ),
        (
            ("preference_ab", _mean("(p_a + p_tie / 2)", _A)),
            ("preference_ba", _mean("(p_a + p_tie / 2)", _B)),
            ("raw_preference", _mean("(p_a + p_tie / 2)")),
            ("raw_tie", _mean("p_tie")),
        ),
        side="(p_a + p_tie / 2)",
        middle=0.5,
    ),
    "scores": Rule(
        ("pair",),
        ("scores",),
        0,
        "mean of the two scores over orders and samples; the sigmoid of their difference",
        (
            ("points_a", _turned("numbers[1]", "numbers[2]")),
            ("points_b", _turned("numbers[2]", "numbers[1]")),
        ),
        (
            ("preference_ab", sigmoid(_mean("(points_a - points_b)", _A))),
            ("preference_ba", sigmoid(_mean("(points_a - points_b)", _B))),
            ("raw_preference", sigmoid(_balanced("(points_a - points_b)"))),
            ("score_a", _balanced("points_a")),
            ("score_b", _balanced("points_b")),
        ),
        side="(points_a - points_b)",
        band="score",
    ),
    "probability": Rule(
        ("pair",),
        ("probability",),
        0,
        "mean of the stated probabilities over orders and samples",
        (("probability", _turned("numbers[1]", "1 - numbers[1]")),),
        (
            ("preference_ab", _mean("probability", _A)),
            ("preference_ba", _mean("probability", _B)),
            ("raw_preference", _balanced("probability")),
        ),
        side="probability",
        middle=0.5,
    ),
    "scale": Rule(
        ("response",),
        ("label", "reasons"),
        None,
        "the expected score over the scale, and the likeliest; the sigmoid of the difference",
        (
            (
                "score",
                "list_sum(list_transform(list_zip(label_logprobs, scale),"
                f" lambda x: exp(x[1]) * x[2])) / {_SCALE}",
            ),
            ("hard_score", "scale[list_position(label_logprobs, list_max(label_logprobs))]"),
        ),
        _SIDES,
        side="score",
        band="score",
    ),
    "rubric": Rule(
        ("response",),
        ("label", "reasons"),
        2,
        "the weighted share of criteria met: P(yes), and as hard votes; a missing answer is a no",
        (
            ("score", sigmoid(f"({_FIRST} - {_SECOND})")),
            ("hard_score", f"({_FIRST} >= {_SECOND})::INTEGER::DOUBLE"),
        ),
        _SIDES,
        side="score",
        band="score",
        missing_is_no=True,
    ),
}


def member_sql(rule: Rule, who: str, samples: int) -> dict[str, str]:
    """Write MEMBER in SQL: aggregates over the answers of a pair for which `who` holds.

    The logit that response_a is better, over both orders and in each, and the logit of the share
    of samples that prefer it, where there are several. A sample of a half for either side is added,
    so that it is finite.
    """

    def logit(where: str) -> str:
        mean = _mean(rule.side, f"{where} AND {who}")
        if not rule.middle:
            return mean
        p = f"least(greatest({mean}, {NEAREST!r}), 1 - {NEAREST!r})"
        return f"CASE WHEN {mean} IS NOT NULL THEN ln({p}) - ln(1 - {p}) END"

    none = dict.fromkeys(MEMBER, "NULL::DOUBLE")
    if "response" in rule.shows:
        return {**none, "logit": f"{logit(_A)} - {logit(_B)}"}
    ab, ba = logit(_A), logit(_B)
    values = {**none, "logit": f"(({ab}) + ({ba})) / 2", "logit_ab": ab, "logit_ba": ba}
    if samples > 1:
        won = f"(sign({rule.side} - {rule.middle!r}) + 1) / 2"
        count, wins = (f"{f} FILTER (WHERE {who})" for f in (f"count({won})", f"sum({won})"))
        values["share"] = f"ln({wins} + 0.5) - ln({count} - {wins} + 0.5)"
    return values


def winner(preference: str, tie: str, scores: tuple[str, str] | None, band: float) -> str:
    """Write the side that wins in SQL: 'a', 'b' or 'tie'.

    With a probability of a tie (`tie` is not NULL) the likeliest of the three wins. Else sides that
    differ by no more than the band are a tie: in score points where there are scores, else in the
    preference's distance from 0.5.
    """
    measure = f"{preference} - 0.5" if scores is None else f"{scores[0]} - {scores[1]}"
    hard = (
        f"CASE WHEN {preference} IS NULL THEN NULL"
        f" WHEN abs({measure}) <= {band + ROUNDING!r} THEN 'tie'"
        f" WHEN {measure} > 0 THEN 'a' ELSE 'b' END"
    )
    three = (
        f"CASE WHEN {preference} = 0.5 OR {tie} >= greatest({preference}, 1 - {preference})"
        f" - {tie} / 2 THEN 'tie' WHEN {preference} > 0.5 THEN 'a' ELSE 'b' END"
    )
    return f"CASE WHEN {tie} IS NULL THEN {hard} ELSE {three} END"
