"""The mutation check finds what no test notices, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).with_name("check.py")

MODULE = '''
"""Planted: no test looks at an age of 18, and nobody calls `unused`."""

ADULT = 18


def is_adult(age):
    return age >= ADULT


def price(age, number):
    if number == 0:
        raise ValueError("nothing to pay")
    total = 0
    for _ in range(number):
        total += 10 if is_adult(age) else 5
    return total


def unused():
    return 1 + 1


def query(name):
    return f"SELECT {name} FROM t WHERE a AND b"
'''
TESTS = """
import time
import pytest
from steelyard.planted.shop import is_adult, price, query

BEFORE = []


def test_prices():
    assert is_adult(30)
    assert not is_adult(3)
    assert price(30, 2) == 20
    assert price(3, 1) == 5
    with pytest.raises(ValueError):
        price(3, 0)


@pytest.fixture(scope="module")
def text():
    return query("x")


def test_begins(text):
    assert text.startswith("SELECT x")


def test_ends(text):
    assert text.endswith(" AND b")


def test_is_broken():
    assert is_adult(4)


def test_goes_first():
    time.sleep(0.5)
    BEFORE.append(1)


def test_depends_on_another():
    assert BEFORE
    assert is_adult(30)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    package, tests = root / "engine/steelyard/planted", root / "tests/planted"
    package.mkdir(parents=True)
    tests.mkdir(parents=True)
    package.with_name("__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "shop.py").write_text(MODULE)
    (tests / "test_shop.py").write_text(TESTS)
    (root / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n'
        'markers = ["slow", "vllm", "train"]\n'
    )
    return root


def check(root, *options, equivalent=""):
    known, target = root / "known.toml", root / "verdicts.json"
    known.write_text(equivalent)
    done = subprocess.run(
        [sys.executable, CHECK, "planted/shop", "--root", root, "--equivalent", known,
         "--sample", "0", "--json", target, *options],
        capture_output=True, text=True, check=False, cwd=root,
    )  # fmt: skip
    content = json.loads(target.read_text()) if done.returncode in {0, 1} else {"changes": []}
    return done, content, {row["change"]: row for row in content["changes"]}


@pytest.fixture(scope="module")
def checked(project):
    return check(project)


def test_a_planted_survivor_is_found(checked):
    done, content, rows = checked
    assert rows["age >= ADULT -> age > ADULT"]["verdict"] == "survived"
    assert rows["18 -> 17"]["verdict"] == "survived"
    assert rows["1 + 1 -> 1 - 1"]["verdict"] == "uncovered"
    assert done.returncode == 1
    assert "engine/steelyard/planted/shop.py:8" in done.stdout
    assert rows["age >= ADULT -> age > ADULT"]["line"] == 8
    assert content["scores"].keys() == {"engine/steelyard/planted/shop.py"}


def test_what_a_test_notices_is_killed(checked):
    _, _, rows = checked
    for change in (
        "number == 0 -> number != 0",
        "raise ValueError('nothing to pay') -> pass",
        "total += 10 if is_adult(age) else 5 -> pass",
        "10 if is_adult(age) else 5 -> 11 if is_adult(age) else 5",
    ):
        assert rows[change]["verdict"] == "killed"
        assert rows[change]["killer"] == "tests/planted/test_shop.py::test_prices"


def test_the_users_of_a_shared_fixture_are_its_tests(checked):
    _, _, rows = checked
    (row,) = (row for change, row in rows.items() if "FROM t WHERE a OR b" in change)
    assert row["killer"] == "tests/planted/test_shop.py::test_ends"


def test_equivalent_changes_do_not_count(project, checked):
    known = """
[["engine/steelyard/planted/shop.py"]]
in = "unused"
why = "nobody calls it"
changes = ["return 1 + 1 -> return None", "1 + 1 -> 1 - 1", "1 + 1 -> 2 + 1", "1 + 1 -> 0 + 1",
           "1 + 1 -> 1 + 2", "1 + 1 -> 1 + 0"]
"""
    done, content, rows = check(project, "--floor", "0.5", equivalent=known)
    assert done.returncode == 0, done.stderr
    assert rows["1 + 1 -> 2 + 1"]["verdict"] == "equivalent"
    assert [*content["scores"].values()] > [*checked[1]["scores"].values()]


def test_tests_that_fail_without_a_change_are_left_out(checked):
    done, _, rows = checked
    killers = {row["killer"].partition("::")[2] for row in rows.values()} - {""}
    assert not killers & {"test_is_broken", "test_depends_on_another"}
    assert "1 skipped, failing" in done.stdout
    assert "left out, as it depends on what runs before it: tests/planted/test_shop.py::" in (
        done.stdout
    )


def test_a_choice_between_texts_may_become_either(monkeypatch):
    monkeypatch.syspath_prepend(CHECK.parent)
    from changes import mutants_of

    changes = [m.change for m in mutants_of("shop", "x = name or 'text of a query'")]
    assert any(change.endswith("-> 'text of a query'") for change in changes)


def test_an_equivalent_that_is_gone_is_refused(project):
    entry = 'in = "unused"\nwhy = ""\nchanges = ["1 -> 2"]\n'
    done, _, _ = check(project, equivalent=f'[["engine/steelyard/planted/shop.py"]]\n{entry}')
    assert done.returncode == 2
    assert "unused has no change 1 -> 2" in done.stderr
