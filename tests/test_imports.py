"""Imports go down only. Walks the syntax trees of both source roots, so imports inside functions
and under TYPE_CHECKING count as well.

A new module has to be given a place in LAYERS: what stands in no layer fails.
"""

import ast
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"steelyard": ROOT / "engine", "steelyard_kernels": ROOT / "kernels"}

# From the ground up. A unit is a module or a package right under `steelyard`, with all that is in
# it; the kernels are one unit. It may import units of the layers below its own.
LAYERS = {
    "kernels": {"steelyard_kernels"},
    "ground": {"errors", "records", "batches", "work", "images", "clusters"},
    "config": {"config"},
    "protocols": {"protocols"},
    "stages": {
        "prompt",
        "coding",
        "dedupe",
        "division",
        "plan",
        "oracle",
        "reads",
        "tally",
        "calibrate",
        "metrics",
        "ratings",
        "export",
    },
    "edges": {"shards", "judge", "store", "telemetry", "ratebook", "progress", "data", "gold"},
    "flow": {
        *("planning", "texts", "prompting", "feed", "scoring", "identity", "inquiry"),
        *(
            "features",
            "judged",
            "matched",
            "calibration",
            "evaluation",
            "dataset_texts",
            "sightings",
        ),
    },
    "session": {"session"},
    "run": {"run"},
    "surface": {
        *("status", "api", "dryrun", "inspection", "protocol_report", "demo", "doctor"),
        *("importing", "exporting", "reports", "plots", "drawing", "reliability_plot", "rewards"),
    },
    "cli": {"cli", "__main__"},
}
# Layers whose units may import each other, as long as no circle arises.
SIDEWAYS = {"ground", "edges", "flow", "surface", "cli"}

# Packages of others that only these may import, as path prefixes.
ONLY_IN = {
    "vllm": "steelyard.judge.vllm",
    "duckdb": "steelyard.store",
    "click": "steelyard.cli",
}
KERNELS_MAY_IMPORT = {"numpy", "numba", "steelyard_kernels"}
# No files, no GPU, no SQL: what a pure stage may import besides the standard library and us.
STAGES_MAY_IMPORT = {"numpy", "pyarrow", "xxhash", "steelyard", "steelyard_kernels"}
STAGES_MAY_NOT_IMPORT = {
    "os", "pathlib", "shutil", "tempfile", "subprocess", "socket", "threading", "multiprocessing",
    "pyarrow.parquet", "pyarrow.dataset", "pyarrow.fs",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    module: str  # that imports, dotted
    target: str  # what is imported, dotted
    line: int

    def __str__(self):
        return f"{self.module}, line {self.line}: imports {self.target}"


def imports_of(module, source, *, is_package=False):
    """All imports of a module's source, absolute. `from a import b` counts as `a.b`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(module, alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            found += [Import(module, f"{base}.{alias.name}", node.lineno) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant):
                found.append(Import(module, str(name.value), node.lineno))
    return found


def unit(dotted):
    """The unit that a module of ours belongs to; "" for the package `steelyard` itself."""
    first, *rest = dotted.split(".")
    return first if first == "steelyard_kernels" else (rest[0] if rest else "")


def layer(name):
    return next((label for label, units in LAYERS.items() if name in units), None)


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


def target_unit(found):
    """Unit of an import of ours; `from steelyard import __version__` is the package itself."""
    name = unit(found.target)
    return "" if found.target == "steelyard.__version__" else name


def wrong_arrow(found):
    """Why an import points up or aside, or None."""
    if found.target.split(".")[0] not in SOURCES:
        return None
    source, target = unit(found.module), target_unit(found)
    if target in {"", source}:
        return None
    if source == "":  # `steelyard.score` and its like open the door to the library, and to no more
        return None if target == "api" else f"{found}; the package itself imports only api"
    order = list(LAYERS)
    here, there = layer(source), layer(target)
    if here is None or there is None:
        return f"{found}; {source if here is None else target} is in no layer"
    if order.index(there) < order.index(here) or (here == there and here in SIDEWAYS):
        return None
    return f"{found}; {here} may not import {there}"


def wrong_package(found):
    """Why an import of somebody else's package is not allowed here, or None."""
    top = found.target.split(".")[0]
    home = ONLY_IN.get(top)
    if home and not is_within(found.module, home):
        return f"{found}; only {home} may"
    is_ours_or_standard = top in SOURCES or top in sys.stdlib_module_names
    here = layer(unit(found.module))
    if here == "kernels" and top not in KERNELS_MAY_IMPORT and top not in sys.stdlib_module_names:
        return f"{found}; kernels import NumPy and Numba only"
    if here == "stages" and (
        not (is_ours_or_standard or top in STAGES_MAY_IMPORT)
        or any(is_within(found.target, name) for name in STAGES_MAY_NOT_IMPORT)
    ):
        return f"{found}; a pure stage has no files, GPU or SQL"
    return None


def test_every_module_has_a_layer():
    homeless = [m for m, _, _ in modules() if unit(m) and layer(unit(m)) is None]
    assert not homeless, f"give them a place in LAYERS: {homeless}"


def test_imports_go_down_only():
    wrong = [reason for found in all_imports() if (reason := wrong_arrow(found))]
    assert not wrong, "\n".join(wrong)


def test_packages_of_others_stay_in_their_place():
    wrong = [reason for found in all_imports() if (reason := wrong_package(found))]
    assert not wrong, "\n".join(wrong)


def test_no_circles_between_units():
    graph = {}
    for found in all_imports():
        source, target = unit(found.module), target_unit(found)
        if found.target.split(".")[0] in SOURCES and source != target and source and target:
            graph.setdefault(source, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(f"units import each other in a circle: {' <- '.join(circle.args[1])}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("steelyard.errors", "from steelyard.cli import main"),
        ("steelyard.plan", "from steelyard.dedupe import unique"),
        ("steelyard.plan", "def f():\n    from steelyard import store"),
        ("steelyard.plan", "from . import run"),
        ("steelyard.store.journal", "from ..run import score"),
        ("steelyard.protocols.base", "import steelyard.prompt"),
        ("steelyard.reads", "import steelyard.newcomer"),
        ("steelyard_kernels.prefix", "from steelyard.errors import SteelyardError"),
        ("steelyard_kernels.prefix", "import pyarrow"),
        ("steelyard.run", "import vllm"),
        ("steelyard.doctor", "import importlib\nimportlib.import_module('vllm')"),
        ("steelyard.run", "from duckdb import connect"),
        ("steelyard.doctor", "import click"),
        ("steelyard.ratings", "import pyarrow.parquet as pq"),
        ("steelyard.ratings", "from pyarrow import parquet"),
        ("steelyard.ratings", "import torch"),
        ("steelyard.ratings", "from pathlib import Path"),
    ],
)
def test_the_rules_catch(module, source):
    reasons = [wrong_arrow(i) or wrong_package(i) for i in imports_of(module, source)]
    assert any(reasons)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("steelyard.plan", "import numpy as np\nfrom steelyard_kernels import prefix"),
        ("steelyard.store.database", "import duckdb\nfrom . import journal"),
        ("steelyard.store", "from .journal import Journal"),
        ("steelyard.judge.vllm", "import vllm\nfrom steelyard.judge.base import Judge"),
        ("steelyard.cli", "import click\nfrom steelyard import __version__, run"),
        ("steelyard.errors", "from __future__ import annotations"),
    ],
)
def test_the_rules_allow(module, source):
    is_package = module == "steelyard.store"
    found = imports_of(module, source, is_package=is_package)
    assert found
    assert not [reason for i in found if (reason := wrong_arrow(i) or wrong_package(i))]
