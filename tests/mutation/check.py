"""Change a module in many small ways, one at a time, and see whether its tests notice.

    make mutants ARGS=plan/keys                    60 changes of one module
    make mutants ARGS="store --sample 0"           every change of every module of a package
    make mutants ARGS="plan/keys --tests tests/scoring/test_planner.py"

The project is copied to a temporary folder, so that the working tree can be edited meanwhile. A
server imports pytest and the libraries once; each change is written to a copy, and a forked process
runs there the tests that reach the changed statement, the fastest first, until one fails.
Candidates are tests in the folder of the module's package, and files of tests that import the
module or one that imports it; none marked slow, vllm or train. Kernels run uncompiled.

A change is killed if a test fails or takes far longer than usual. It survives if all pass, and is
uncovered if none reaches it. Changes in equivalent.toml make no difference that a test could see;
they do not count. Exit code 1: the tests kill a smaller share than the floor in one of the modules.
2: nothing could be checked.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from changes import Mutant, mutants_of
from server import BaselineFailed, Server, Verdict

HERE = Path(__file__).parent
SOURCES = ("engine/steelyard", "kernels/steelyard_kernels")
UNCOMPILED = {"NUMBA_DISABLE_JIT": "1"}
KILLED = ("killed", "timeout")


class Refused(Exception):
    """What is asked for cannot be checked."""


def modules_of(root: Path, name: str) -> list[str]:
    """Return the modules that a path, a dotted name or the end of either names."""
    plain = name.removesuffix(".py").removesuffix("/")
    for form in (plain, plain.replace(".", "/")):
        for base in ("", "engine", "kernels", *SOURCES):
            path = root / base / form
            if not any(path.is_relative_to(root / source) for source in SOURCES):
                continue
            if (file := path.with_name(f"{path.name}.py")).is_file():
                return [str(file.relative_to(root))]
            if path.is_dir():
                return sorted(str(file.relative_to(root)) for file in path.rglob("*.py"))
    raise Refused(f"{name} is not a module or package in {' or '.join(SOURCES)}")


def dotted(module: str) -> str:
    """Return the name under which a module is imported."""
    return ".".join(Path(module).with_suffix("").parts[1:]).removesuffix(".__init__")


def candidates(root: Path, modules: Sequence[str]) -> list[str]:
    """Return the files of tests that probably reach a module."""
    targets = {dotted(module) for module in modules}
    near = targets | {
        dotted(str(file.relative_to(root)))
        for source in SOURCES
        for file in (root / source).rglob("*.py")
        if imports(file) & targets
    }
    folders = {dotted(module).split(".")[1] for module in modules}
    if any(module.startswith("kernels") for module in modules):
        folders = {"numerics"}
    return sorted(
        str(file.relative_to(root))
        for file in (root / "tests").rglob("test_*.py")
        if file.relative_to(root).parts[1] in folders or imports(file) & near
    )


def imports(file: Path) -> set[str]:
    """Return the names that a module imports, each with and without its last part."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def equivalents(path: Path) -> dict[tuple[str, str, str], str]:
    """Return reasons by module, function and change."""
    entries = tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
    return {
        (module, entry["in"], change): entry["why"]
        for module, listed in entries.items()
        for entry in listed
        for change in entry["changes"]
    }


def check(root: Path, modules: Sequence[str], options: argparse.Namespace) -> list[Verdict]:
    """Make the changes of modules that share tests, print verdicts as they come, return them."""
    known = equivalents(options.equivalent)
    mutants, verdicts = list[Mutant](), list[Verdict]()
    for module in modules:
        made = mutants_of(module, (root / module).read_text("utf-8"))
        stale = {key for key in known if key[0] == module} - {_key(mutant) for mutant in made}
        for _, where, change in sorted(stale):
            raise Refused(f"{options.equivalent}: {module}, {where} has no change {change}")
        counted = [mutant for mutant in made if _key(mutant) not in known]
        if options.sample and len(counted) > options.sample:
            counted = random.Random(options.seed).sample(counted, options.sample)
        mutants += sorted(counted, key=lambda mutant: mutant.line)
        verdicts += [
            Verdict(m.module, m.line, m.where, m.change, "equivalent")
            for m in made
            if _key(m) in known
        ]
    files = options.tests or candidates(root, modules)
    compiled = {} if modules[0].startswith("engine") else UNCOMPILED
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        server = Server(root, Path(folder), options.jobs, compiled)
        baseline = server.measure(modules, files, options.limit)
        print(
            f"{len(mutants)} changes, {len(baseline.seconds)} tests in {len(files)} files; "
            f"{len(baseline.failed)} skipped, failing or slower than {options.limit} s", flush=True
        )  # fmt: skip
        for verdict in server.judge(mutants, baseline):
            verdicts.append(verdict)
            if verdict.verdict not in KILLED or options.verbose:
                print(line(verdict), flush=True)
    return verdicts


def _key(mutant: Mutant) -> tuple[str, str, str]:
    return mutant.module, mutant.where, mutant.change


def line(verdict: Verdict) -> str:
    """Return a verdict as a row of the table."""
    place = f"{verdict.module}:{verdict.line}"
    return f"{verdict.verdict:<10} {place:<50} {verdict.where}: {verdict.change}"


def score(verdicts: Sequence[Verdict]) -> float:
    """Return the share of changes that are killed; 1 if there are none that count."""
    number = Counter(verdict.verdict for verdict in verdicts)
    counted = len(verdicts) - number["equivalent"]
    return sum(number[kind] for kind in KILLED) / counted if counted else 1.0


def main() -> int:
    """Check the modules of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", help="plan/keys, steelyard.store, a path, ...")
    parser.add_argument("--tests", nargs="+", help="files of tests [those that reach the module]")
    parser.add_argument("--sample", type=int, default=60, help="changes per module; 0: all [60]")
    parser.add_argument("--seed", type=int, default=0, help="of the sample [0]")
    parser.add_argument("--jobs", type=int, default=2, help="processes [2]")
    parser.add_argument("--limit", type=int, default=10, help="seconds of a test [10]")
    parser.add_argument("--floor", type=float, default=0.9, help="share to be killed [0.9]")
    parser.add_argument("--json", type=Path, help="file for all verdicts")
    parser.add_argument("--verbose", action="store_true", help="print killed changes as well")
    parser.add_argument("--root", type=Path, default=HERE.parents[1], help=argparse.SUPPRESS)
    parser.add_argument(
        "--equivalent", type=Path, default=HERE / "equivalent.toml", help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    try:
        return report(options)
    except (Refused, BaselineFailed) as failure:
        print(failure, file=sys.stderr)
        return 2


def report(options: argparse.Namespace) -> int:
    """Check modules, print and write the results, and return the exit code."""
    root = options.root.resolve()
    modules = sorted({module for name in options.modules for module in modules_of(root, name)})
    verdicts = list[Verdict]()
    for source in SOURCES:  # kernels are checked uncompiled
        if group := [module for module in modules if module.startswith(source)]:
            verdicts += check(root, group, options)
    results = {module: [v for v in verdicts if v.module == module] for module in modules}
    for module, listed in results.items():
        number = Counter(verdict.verdict for verdict in listed)
        counts = ", ".join(f"{number[kind]} {kind}" for kind in sorted(number))
        print(f"{score(listed):7.1%}  {module}  {counts or 'nothing to change'}")
    if options.json:
        rows = [asdict(verdict) for verdict in verdicts]
        content = {"scores": {m: score(v) for m, v in results.items()}, "changes": rows}
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return int(any(score(listed) < options.floor for listed in results.values()))


if __name__ == "__main__":
    sys.exit(main())
