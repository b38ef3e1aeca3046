"""Imports go in one direction, and four libraries have one home each.

The test walks the syntax trees of both source roots, so imports inside functions and under
TYPE_CHECKING count as well. A new package needs a position in ORDER.
"""

import ast
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"steelyard": ROOT / "engine", "steelyard_kernels": ROOT / "kernels"}

# A package imports packages to its left only.
ORDER = (
    *("steelyard_kernels", "errors", "core", "statistics", "protocols", "calibrators"),
    *("input", "plan", "store", "judge", "prompts", "comparisons", "scoring", "evaluation"),
    *("ranking", "export", "rewards", "report", "api", "cli", "__main__"),
)
# The package `steelyard` itself hands out what its API has.
DOOR_MAY_IMPORT = {"core", "api"}

# Libraries that only these modules may import, as prefixes.
ONLY_IN = {
    "vllm": "steelyard.judge.vllm",
    "click": "steelyard.cli",
    "matplotlib": "steelyard.cli.plots",
    "vl_convert": "steelyard.report.page",
    "starlette": "steelyard.report.server",
    "uvicorn": "steelyard.report.server",
    "scipy": "steelyard.statistics",
}
# The only module that opens a DuckDB connection.
DUCKDB_CONNECT_IN = {"steelyard.store.sql"}

KERNELS_MAY_IMPORT = {"numpy", "numba", "steelyard_kernels"}
# No files, no GPU, no SQL connection.
PURE = (
    *("statistics", "calibrators", "plan", "evaluation.metrics"),
    *("prompts.forms", "prompts.text_codes", "export.filters", "export.formats", "export.overlap"),
    *("export.pairing", "ranking.bias", "ranking.bradley_terry", "ranking.connectivity"),
    *("ranking.contextual", "ranking.differences", "ranking.length_control"),
    *("ranking.length_slope", "ranking.scores", "ranking.tournament", "ranking.tuned_ratings"),
    *("ranking.sensitivity", "ranking.win_rate_sensitivity", "ranking.win_rates"),
)
PURE_MAY_IMPORT = {
    "msgspec",
    "numpy",
    "pyarrow",
    "scipy",
    "xxhash",
    "steelyard",
    "steelyard_kernels",
}
PURE_MAY_NOT_IMPORT = {
    "os", "pathlib", "shutil", "tempfile", "subprocess", "socket", "threading", "multiprocessing",
    "pyarrow.parquet", "pyarrow.dataset", "pyarrow.fs",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    module: str  # the importing module, dotted
    target: str  # the imported name, dotted
    line: int

    def __str__(self):
        return f"{self.module}, line {self.line}: imports {self.target}"


def imports_of(module, source, *, is_package=False):
    """All imports of a module's source, absolute. `from a import b` counts as `a.b`."""
    imports = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports += [Import(module, alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            imports += [Import(module, f"{base}.{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant):
                imports.append(Import(module, str(name.value), node.lineno))
    return imports


def package_of(dotted):
    """The entry of ORDER that a module belongs to; "" for the package `steelyard` itself."""
    first, *rest = dotted.split(".")
    return first if first == "steelyard_kernels" else (rest[0] if rest else "")


def is_within(dotted, prefix):
    return dotted == prefix or dotted.startswith(prefix + ".")


def modules():
    for package, root in SOURCES.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            yield ".".join(parts[:-1] if is_package else parts), path, is_package


def all_imports():
    return [
        found
        for module, path, is_package in modules()
        for found in imports_of(module, path.read_text("utf-8"), is_package=is_package)
    ]


def wrong_direction(found):
    """Return why an import points to the right, or None."""
    if found.target.split(".")[0] not in SOURCES:
        return None
    source, target = package_of(found.module), package_of(found.target)
    if target in {"", source}:
        return None
    if source == "":
        allowed = target in DOOR_MAY_IMPORT
        return None if allowed else f"{found}; the package itself imports only its API"
    for name in (source, target):
        if name not in ORDER:
            return f"{found}; {name} has no position in ORDER"
    if ORDER.index(target) < ORDER.index(source):
        return None
    return f"{found}; {source} comes before {target}"


def wrong_library(found):
    """Return why an import of a third-party package is not allowed here, or None."""
    top = found.target.split(".")[0]
    home = ONLY_IN.get(top)
    if home and not is_within(found.module, home):
        return f"{found}; only {home} may"
    if top in sys.stdlib_module_names and not any(
        is_within(found.target, name) for name in PURE_MAY_NOT_IMPORT
    ):
        return None
    if package_of(found.module) == "steelyard_kernels" and top not in {
        *KERNELS_MAY_IMPORT,
        *sys.stdlib_module_names,
    }:
        return f"{found}; kernels import NumPy and Numba only"
    pure = any(is_within(found.module, f"steelyard.{name}") for name in PURE)
    if pure and (
        top not in PURE_MAY_IMPORT
        or any(is_within(found.target, name) for name in PURE_MAY_NOT_IMPORT)
    ):
        return f"{found}; a pure module uses no files, GPU or SQL connection"
    return None


def connects_to_duckdb(source):
    """Return the lines on which a module's source opens a DuckDB connection."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) == "duckdb.connect")
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "duckdb"
            and any(alias.name == "connect" for alias in node.names)
        )
    ]


def test_every_package_has_a_position():
    packages = {package_of(module) for module, _, _ in modules()} - {""}
    assert packages == set(ORDER)


def test_imports_go_in_one_direction():
    wrong = [reason for found in all_imports() if (reason := wrong_direction(found))]
    assert not wrong, "\n".join(wrong)


def test_libraries_stay_in_their_homes():
    wrong = [reason for found in all_imports() if (reason := wrong_library(found))]
    assert not wrong, "\n".join(wrong)


def test_only_one_module_opens_duckdb():
    homes = {m for m, path, _ in modules() if connects_to_duckdb(path.read_text("utf-8"))}
    assert homes == DUCKDB_CONNECT_IN


def test_no_circles_between_modules_of_a_package():
    names = {module for module, _, _ in modules()}
    graph = {}
    for found in all_imports():
        target = found.target if found.target in names else found.target.rsplit(".", 1)[0]
        if target in names and not is_within(found.module, target):
            graph.setdefault(found.module, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(f"modules import each other in a circle: {' <- '.join(circle.args[1])}")


def test_few_entries_at_the_top():
    entries = [p for p in (ROOT / "engine/steelyard").iterdir() if p.name != "__pycache__"]
    assert len(entries) <= 22


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("steelyard.errors", "from steelyard.cli import main"),
        ("steelyard.plan.keys", "def f():\n    from steelyard import store"),
        ("steelyard.plan.keys", "from .. import scoring"),
        ("steelyard.store.reads.journal", "from ...scoring.run import score"),
        ("steelyard.protocols.protocol", "import steelyard.prompts.forms"),
        ("steelyard.judge.readout", "import steelyard.newcomer"),
        ("steelyard", "import steelyard.cli"),
        ("steelyard_kernels.prefix", "from steelyard.errors import SteelyardError"),
        ("steelyard_kernels.prefix", "import pyarrow"),
        ("steelyard.judge.base", "import vllm"),
        ("steelyard.cli.doctor", "import importlib\nimportlib.import_module('vllm')"),
        ("steelyard.scoring.run", "import click"),
        ("steelyard.cli.doctor", "import matplotlib"),
        ("steelyard.ranking.scores", "import pyarrow.parquet as pq"),
        ("steelyard.ranking.scores", "from pyarrow import parquet"),
        ("steelyard.statistics.means", "import torch"),
        ("steelyard.evaluation.metrics.sums", "from pathlib import Path"),
    ],
)
def test_the_rules_catch(module, source):
    reasons = [wrong_direction(i) or wrong_library(i) for i in imports_of(module, source)]
    assert any(reasons)


@pytest.mark.parametrize(
    "source", ["import duckdb\nduckdb.connect()", "from duckdb import connect"]
)
def test_the_rule_on_connections_catches(source):
    assert connects_to_duckdb(source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("steelyard.plan.keys", "import numpy as np\nfrom steelyard_kernels import prefix"),
        ("steelyard.store.reads", "from .journal import Journal"),
        ("steelyard.judge.vllm.judge", "import vllm\nfrom steelyard.judge.base import Judge"),
        ("steelyard.cli", "import click\nfrom steelyard.core.version import __version__"),
        ("steelyard.errors", "from __future__ import annotations"),
    ],
)
def test_the_rules_allow(module, source):
    is_package = module == "steelyard.store.reads"
    imports = imports_of(module, source, is_package=is_package)
    assert imports
    assert not [r for i in imports if (r := wrong_direction(i) or wrong_library(i))]
