import json

import msgspec
import pytest

from steelyard.core.config import RunConfig, load_toml, parse_pairs, scalar
from steelyard.errors import UsageError, escape


def refused(**values):
    with pytest.raises(UsageError) as error:
        RunConfig.from_mapping(values, "here")
    return str(error.value)


def test_defaults_and_round_trip():
    config = RunConfig.from_mapping(
        {"inputs": "x.parquet", "judge": "demo", "engine": {"seed": 1}}, "here"
    )
    assert config.inputs == ("x.parquet",)
    again = RunConfig.from_mapping(json.loads(msgspec.json.encode(config)), "there")
    assert again == config


def test_no_judge_is_chosen_in_silence():
    message = refused(inputs=["x.parquet"])
    assert "no judge is named" in message
    assert "`demo`, a toy of 135 million parameters" in message
    assert "`scripted`" in message


@pytest.mark.parametrize("values", [{"limit": 1, "sample": 1}, {"limit": -1}, {"sample": -1}])
def test_a_part_of_the_rows_is_chosen_in_one_way(values):
    assert "give one of the two" in refused(judge="demo", **values)


def test_unknown_keys_are_refused_with_what_was_meant():
    assert "did you mean judge?" in refused(jugde="demo")
    assert "known: inputs" in refused(zzz=1)


@pytest.mark.parametrize(
    "values",
    [
        {"judge": 3}, {"replicas": "two"}, {"replicas": True}, {"map": "x"}, {"inputs": [1]},
        {"overlong": "cut"}, {"on_bad_row": "skip"}, {"part_rows": 0}, {"part_seconds": -1},
        {"max_row_bytes": 1.5}, {"tie_band": -1}, {"tie_band": float("inf")}, {"tie_band": "0.1"},
    ],
)  # fmt: skip
def test_wrong_values_are_refused(values):
    assert next(iter(values)) in refused(**values)


def test_broken_toml_is_refused(tmp_path):
    (tmp_path / "c.toml").write_text("judge = ")
    with pytest.raises(UsageError, match=r"cannot be read"):
        load_toml(tmp_path / "c.toml")


def test_pairs_and_scalars():
    assert parse_pairs("--map", ("a=b", "c=d=e")) == {"a": "b", "c": "d=e"}
    for wrong in (("a",), ("=b",), ("a=",), ("a=1", "a=2")):
        with pytest.raises(UsageError):
            parse_pairs("--map", wrong)
    assert [scalar(text) for text in ("1", "0.5", "true", "bfloat16", "1.x", "[1]")] == [
        1, 0.5, True, "bfloat16", "1.x", "[1]",
    ]  # fmt: skip


def test_data_in_messages_is_escaped_and_short():
    assert escape("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert len(escape("é" * 500).encode()) <= 83
    assert escape("x" * 80) == "x" * 80
