"""What a judge prefers besides quality: by hand, and planted biases found again."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.cli.ranking_text import format_bias
from steelyard.errors import InputRefused, UsageError
from steelyard.ranking import bias as measures
from steelyard.ranking.bias_report import bias
from steelyard.ranking.contextual import fit_contextual
from steelyard.ranking.tournament import tournament
from steelyard.statistics.logistic import sigmoid


def planted(rng, count=4000, *, length=0.0, place=0.0, own=0.0):
    """Verdicts of a judge of family `x` on competitors x-1, y-1, z-1 with planted biases."""
    names, strength = np.array(["x-1", "y-1", "z-1"]), np.array([0.8, 0.0, -0.8])
    a = rng.integers(0, 3, count)
    b = (a + rng.integers(1, 3, count)) % 3
    lengths = rng.integers(100, 2000, (2, count)) + 300 * np.array([a == 0, b == 0])
    apart = (lengths[0] - lengths[1]).astype(float)
    quality = strength[a] - strength[b]
    favour = own * ((a == 0).astype(float) - (b == 0))
    z = quality + length * np.tanh(apart / apart.std()) + favour
    columns = {
        "model_a": names[a], "model_b": names[b], "judge": ["owner/X-judge"] * count,
        "preference_ab": sigmoid(z + place), "preference_ba": sigmoid(z - place),
        "preference": sigmoid(z), "length_a": lengths[0], "length_b": lengths[1],
        "label_mass_ab": np.full(count, 0.9), "label_mass_ba": np.full(count, 0.4),
        "instruction_id": np.arange(count) // 4, "subset": np.where(np.arange(count) % 2, "p", "q"),
    }  # fmt: skip
    gold = sigmoid(quality)
    votes = [{"a": p, "b": 1 - p, "tie": 0.0} for p in gold]
    return pa.table(columns).append_column("gold", pa.array(votes))


def report(tmp_path, table, by=None):
    pq.write_table(table, tmp_path / "t.parquet")
    return bias(tmp_path / "t.parquet", {}, by)


def test_position_by_hand():
    found = measures.position(
        np.array([0.9, 0.6, 0.2, 0.5]), np.array([0.8, 0.4, 0.2, 0.5]), np.arange(4)
    )
    # first wins: 1 of 2, 2 of 2, 1 of 2, half of each
    assert found.first.value == pytest.approx((0.5 + 1 + 0.5 + 0.5) / 4)
    assert found.lean.value == pytest.approx((0.1 + 0.2) / 4)
    assert found.deviation.value == pytest.approx(0.3 / 4)
    assert found.flips.value == 0.25


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
@settings(max_examples=50, deadline=None)
def test_swapping_responses_mirrors_position(reads):
    ab, ba = np.array(reads).T
    one = measures.position(ab, ba, np.arange(len(ab)))
    other = measures.position(1 - ba, 1 - ab, np.arange(len(ab)))
    assert other.first.value == pytest.approx(one.first.value)
    assert other.lean.value == pytest.approx(one.lean.value)
    assert other.flips.value == pytest.approx(one.flips.value)


def test_label_mass_by_hand():
    found = measures.label_mass(np.array([1.0, 0.9]), np.array([0.8, 0.3]), np.arange(2))
    assert found.shortfall.value == pytest.approx((0.1 + 0.4) / 2)
    assert found.low.value == 0.5


def test_families_are_the_first_letters():
    names = ["Qwen/Qwen3-8B", "gpt-4", "GPT 3.5", "claude-2.1_concise", "01"]
    assert [measures.family_of(n) for n in names] == ["qwen", "gpt", "gpt", "claude", "01"]


def test_planted_biases_are_found(tmp_path):
    table = planted(np.random.default_rng(1), length=0.7, place=0.5, own=0.6)
    found = report(tmp_path, table)["all"]
    length = found["verbosity"]
    assert length["coefficient"] == pytest.approx(0.7, abs=0.01)
    assert length["longer"]["value"] > length["longer_at_equal_strength"] > 0.55
    assert length["excess"]["value"] > 0.05
    assert found["position"]["first"]["value"] > 0.55
    assert found["position"]["lean"]["value"] > 0.1
    assert found["label_mass"]["shortfall"]["value"] == pytest.approx(0.35)
    assert found["label_mass"]["low"]["value"] == 1
    own, *others = sorted(found["families"], key=lambda one: one["family"])
    assert own["family"] == "x"
    assert own["self_preference"] > 0.08
    assert own["own_judges"]["value"] == own["preference"]["value"]
    assert own["other_judges"] is None
    assert all(one["own_judges"] is None and one["self_preference"] is None for one in others)


def test_without_bias_none_is_found(tmp_path):
    """Raw, the longer seems preferred, because the best competitor writes more."""
    found = report(tmp_path, planted(np.random.default_rng(2)))["all"]
    assert found["verbosity"]["longer"]["lower"] > 0.5
    assert found["verbosity"]["coefficient"] == pytest.approx(0, abs=0.01)
    assert found["verbosity"]["longer_at_equal_strength"] == pytest.approx(0.5, abs=0.005)
    assert found["verbosity"]["excess"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["position"]["lean"]["value"] == pytest.approx(0, abs=1e-12)
    own = next(one for one in found["families"] if one["family"] == "x")
    assert own["self_preference"] == pytest.approx(0, abs=1e-9)


def test_other_judges_show_what_is_self_preference(tmp_path):
    rng = np.random.default_rng(4)
    mine = planted(rng, own=0.6).drop(["gold"])
    theirs = planted(rng).drop(["gold", "judge"]).append_column("judge", pa.array(["w-9"] * 4000))
    both = pa.concat_tables([mine, theirs.select(mine.column_names)])
    families = report(tmp_path, both)["all"]["families"]
    own = next(one for one in families if one["family"] == "x")
    wanted = own["own_judges"]["value"] - own["other_judges"]["value"]
    assert own["self_preference"] == pytest.approx(wanted, abs=0.01)  # opponents nearly match
    known = own["self_preference_estimate"]
    assert own["self_preference"] > 0.08
    assert 0 < known["lower"] < own["self_preference"] == known["value"] < known["upper"]


def test_self_preference_is_of_the_same_opponents(tmp_path):
    """The family's judge met only the strong opponent often, the other judge only the weak."""
    rows = []
    for judge, opponent, count in (
        ("x-judge", "strong", 90), ("x-judge", "weak", 10),
        ("w-9", "strong", 10), ("w-9", "weak", 90),
    ):  # fmt: skip
        for k in range(count):
            wins = 0.2 if opponent == "strong" else 0.9
            rows.append({"model_a": "x-1", "model_b": opponent, "judge": judge,
                         "preference": wins + (0.05 if k % 2 else -0.05)})  # fmt: skip
    (own,) = (
        one for one in report(tmp_path, pa.Table.from_pylist(rows))["all"]["families"]
        if one["family"] == "x"
    )  # fmt: skip
    assert own["own_judges"]["value"] == pytest.approx(0.9 * 0.2 + 0.1 * 0.9)
    assert own["other_judges"]["value"] == pytest.approx(0.1 * 0.2 + 0.9 * 0.9)
    assert own["self_preference"] == pytest.approx(0, abs=1e-12)  # it was -0.56
    known = own["self_preference_estimate"]
    assert known["lower"] < 0 < known["upper"]
    # by hand: in each of two cells, of equal weight, two means of 90 and of 10 rows of 0.05 spread
    variance = 0.05**2 * (1 / 89 + 1 / 9) / 2
    assert known["standard_error"] == pytest.approx(math.sqrt(variance * 200 / 199))
    assert f"0.000 [{known['lower']:.3f}" in format_bias(
        report(tmp_path, pa.Table.from_pylist(rows))
    )


def test_without_common_opponents_self_preference_cannot_be_told(tmp_path):
    table = pa.table({
        "model_a": ["x-1"] * 8, "model_b": ["u"] * 4 + ["v"] * 4, "preference": [0.6] * 8,
        "judge": ["x-judge"] * 4 + ["w-9"] * 4,
    })  # fmt: skip
    found = report(tmp_path, table)
    own = next(one for one in found["all"]["families"] if one["family"] == "x")
    assert own["own_judges"]["value"] == own["other_judges"]["value"] == pytest.approx(0.6)
    assert own["self_preference"] is None
    assert own["self_preference_estimate"] is None


def test_names_and_sides_do_not_change_verbosity(tmp_path):
    """The differences of lengths have a mean, whose sign depends on who comes first."""
    table = planted(np.random.default_rng(7), 400, length=0.7)
    renamed = {"x-1": "b-1", "y-1": "c-1", "z-1": "a-1"}  # two of three pairs turn around
    other = table
    for name in ("model_a", "model_b"):
        place = other.schema.get_field_index(name)
        new = [renamed[value] for value in other[name].to_pylist()]
        other = other.set_column(place, name, pa.array(new))
    one, two = (report(tmp_path, t)["all"]["verbosity"] for t in (table, other))
    for key in ("coefficient", "standard_error", "longer_at_equal_strength"):
        assert two[key] == pytest.approx(one[key], abs=1e-9)
    assert one["coefficient_interval"][0] < 0.7 < one["coefficient_interval"][1]
    low, high = one["longer_at_equal_strength_interval"]
    assert 0.5 < low < one["longer_at_equal_strength"] < high < 1


@pytest.mark.parametrize("differences", [[100, 100], [-80, 80]])
def test_lengths_that_follow_from_the_competitors_give_no_verbosity(tmp_path, differences):
    """Equal differences leaked a warning, and gave a coefficient that only a prior decided."""
    rng = np.random.default_rng(0)
    table = pa.table({
        "model_a": ["x", "y"] * 40, "model_b": ["y", "z"] * 40, "preference": rng.random(80),
        "length_a": np.tile(1000 + np.array(differences), 40), "length_b": [1000] * 80,
    })  # fmt: skip
    found = report(tmp_path, table)
    assert found["all"]["verbosity"] is None
    assert found["warnings"] == [
        "verbosity: lengths follow from the competitors, and cannot be separated from their quality"
    ]


def test_a_weight_of_two_is_the_row_twice(tmp_path):
    table = planted(np.random.default_rng(9), 200, length=0.5, place=0.3, own=0.4)
    weight = np.tile([1.0, 2.0, 1.0, 3.0], 50)
    once = report(tmp_path, table.append_column("weight", pa.array(weight)))["all"]
    rows = np.repeat(np.arange(200), weight.astype(int))
    again = report(tmp_path, table.take(pa.array(rows)))["all"]

    def values(section):
        if isinstance(section, list):
            return [values(item) for item in section]
        if not isinstance(section, dict):
            return section
        return {key: values(item) for key, item in section.items() if key != "rows"}

    def flat(item):
        children = item.values() if isinstance(item, dict) else item
        return [
            x
            for child in children
            for x in (flat(child) if isinstance(child, dict | list | tuple) else [child])
        ]

    left, right = flat(values(once)), flat(values(again))
    assert [x for x in left if not isinstance(x, float)] == [
        x for x in right if not isinstance(x, float)
    ]
    assert [x for x in left if isinstance(x, float)] == pytest.approx(
        [x for x in right if isinstance(x, float)], abs=1e-7
    )


def test_by_a_column(tmp_path):
    table = planted(np.random.default_rng(3), 400, place=0.3)
    found = report(tmp_path, table, "subset")
    assert found["by"].keys() == {"p", "q"}
    assert sum(part["rows"] for part in found["by"].values()) == found["all"]["rows"] == 400
    text = format_bias(found)
    assert "decisions for the response shown first" in text
    assert "warning" not in text
    with pytest.raises(InputRefused, match="no column nothing"):
        report(tmp_path, table, "nothing")
    with pytest.raises(UsageError, match="has 400 values"):
        report(tmp_path, table.append_column("id", pa.array(range(400))), "id")


def test_what_cannot_be_told_is_named(tmp_path):
    found = report(tmp_path, pa.table({"preference": [0.4, 0.6]}))
    assert found["missing"].keys() == {"position", "verbosity", "families", "label mass"}
    assert found["all"]["verbosity"] is None
    assert "no position: it needs preference_ab and preference_ba" in format_bias(found)


def test_a_contextual_fit_covers_the_truth():
    """Gradient zero at the estimate, and the coefficient's interval right in 200 simulations."""
    rng, inside = np.random.default_rng(8), []
    strength = np.array([0.5, 0.0, -0.5])
    for _ in range(200):
        i = rng.integers(0, 2, 400)
        j = np.where(i == 0, rng.integers(1, 3, 400), 2)
        x = rng.normal(size=400)
        y = (rng.random(400) < sigmoid(strength[i] - strength[j] + 0.4 * x)).astype(float)
        names = np.array(["a", "b", "c"])
        contest = tournament(pa.table({"model_a": names[i], "model_b": names[j], "preference": y}))
        found = fit_contextual(contest, x[:, None])
        off = abs(found.coefficients[0] - 0.4)
        inside.append(off < 1.96 * found.standard_errors[0])
    p = sigmoid(found.strengths[i] - found.strengths[j] + x * found.coefficients[0])
    assert abs(x @ (y - p)) < 1e-6
    assert 0.9 < np.mean(inside) < 0.99
    assert math.isclose(found.strengths.sum(), 0, abs_tol=1e-9)


def test_few_instructions_are_told_by_group(tmp_path):
    table = planted(np.random.default_rng(5), 160)  # 40 instructions
    assert report(tmp_path, table)["warnings"] == []
    few = table.set_column(
        table.schema.get_field_index("subset"), "subset", pa.array(["p"] * 12 + ["q"] * 148)
    )
    found = report(tmp_path, few, "subset")
    note = "only 3 clusters: too few to estimate uncertainty; no interval is given"
    assert f"p: {note}" in found["warnings"]
    assert not [line for line in found["warnings"] if line.startswith("q: ")]
    for group, sure in ((found["by"]["p"], False), (found["by"]["q"], True)):
        assert (group["position"]["lean"]["lower"] is not None) == sure
        assert (group["verbosity"]["standard_error"] is not None) == sure
    assert note in format_bias(found)
    assert report(tmp_path, table.slice(0, 80))["warnings"] == []


def test_without_all_lengths_verbosity_is_left_out(tmp_path):
    table = planted(np.random.default_rng(6), 400)
    at = table.schema.get_field_index("length_a")
    known = table["length_a"].to_pylist()
    some = table.set_column(at, "length_a", pa.array([None] * 7 + known[7:]))
    found = report(tmp_path, some)
    assert found["all"]["verbosity"] is None
    assert found["all"]["position"] is not None
    assert found["warnings"] == ["7 rows lack a length: verbosity is left out"]


def test_length_that_decides_everything_has_no_bound(tmp_path):
    """The longer always wins: 100% prefer it, and no slope of length is large enough."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(100, 900, (2, 200))
    models = np.array(["x", "y"])[(np.arange(200) % 2)]
    columns = {
        "model_a": models, "model_b": np.where(models == "x", "y", "x"),
        "preference": (lengths[0] > lengths[1]).astype(float),
        "length_a": lengths[0], "length_b": lengths[1],
    }  # fmt: skip
    found = report(tmp_path, pa.table(columns))
    verbosity = found["all"]["verbosity"]
    assert verbosity["longer"]["value"] == 1.0
    assert verbosity["longer"]["lower"] < 0.99
    for name in ("coefficient", "standard_error", "longer_at_equal_strength"):
        assert verbosity[name] is None
        assert verbosity.get(f"{name}_interval") is None
    assert any("separates wins from losses" in line for line in found["warnings"])
    text = format_bias(found)
    assert "judge's preference for the longer response" in text
    assert "at equal strength" not in text


@pytest.mark.parametrize("preference", [[None, None], []])
def test_nothing_to_measure_is_refused(tmp_path, preference):
    count = len(preference)
    columns = {"model_a": ["x"] * count, "model_b": ["y"] * count}
    table = pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))
    table = table.append_column("preference", pa.array(preference, pa.float64()))
    with pytest.raises(InputRefused, match="no comparisons are left"):
        report(tmp_path, table)
