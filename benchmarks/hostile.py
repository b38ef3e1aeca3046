"""What can a run directory from a stranger do to its reader?

A small run is made hostile in many ways, by hand and by seeded mutations: links, pipes and devices
in place of its files, SQL and escapes in its records, names that lead elsewhere, numbers without
bounds, engine settings that name code, databases with views over other files. Every check of a
file is made right again, as a stranger can do that. Each is opened by `sql`, `status`, `export`,
`rank`, `compact` and `resume`, each in a separate process.

A violation: a file outside of the run is opened, written, made or removed (seen by inotify); a
secret is printed or copied; a module from the working folder is imported; a traceback or an
internal error; a control character on the terminal; more than 20 seconds or 1 GiB.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

import steelyard
import steelyard.cli
from harness.common import parser, report
from harness.watch import Watch
from steelyard.core.sealed import CHECK, seal
from steelyard.evaluation.apply import apply_calibrator
from steelyard.evaluation.fit import FitOptions, fit_calibrator
from steelyard.evaluation.judged_pairs import Source
from steelyard.store.calibration import save_calibrator

SECONDS, BYTES = 20.0, 1 << 30
SECRET = "SECRET-4711"
ENTRIES = (
    "run.json", "journal.jsonl", "complete.json", "sessions.jsonl", "telemetry.jsonl", "lock",
    "calibration.json", "verdicts.duckdb", "verdicts.duckdb.wal", "duckdb.tmp", "plan", "reads",
    "rejects", "images", "imported", "plan/plan.json", "plan/pairs-00000.parquet",
    "reads/part-00000001.parquet", "rejects/rejects-00000.parquet",
)  # fmt: skip
COMMANDS: dict[str, list[str]] = {
    "sql": ["sql", "RUN", "FROM verdicts"],
    "status": ["status", "RUN"],
    "export": ["export", "RUN", "--format", "reward", "--out", "OUT/data"],
    "rank": ["rank", "RUN"],
    "compact": ["compact", "RUN", "--out", "OUT/o.duckdb"],
    "resume": ["resume", "RUN", "--quiet"],
}
Mutation = Callable[[Path, Path], None]  # of a run, given a folder outside of it


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--mutations", type=int, default=200, help="seeded ones")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    if chosen.smoke:
        chosen.mutations = 12
    kinds: dict[str, Counter[str]] = {}
    violations: list[str] = []
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        bench = Bench(Path(folder))
        cases = [*by_hand(), *by_chance(bench.run, chosen.mutations, chosen.seed)]
        if chosen.smoke:
            cases = cases[:: max(1, len(cases) // 16)]
        for name, mutate in cases:
            counts = kinds.setdefault(name.partition(":")[0], Counter())
            counts["cases"] += 1
            for words in bench.attack(mutate, counts):
                counts["violations"] += 1
                violations.append(f"violation: {name}: {words}")
    names = ("cases", "commands", "refused", "violations")
    rows: list[dict[str, Any]] = [
        {"kind": kind, **{name: count[name] for name in names}, "most_s": count["ms"] / 1000,
         "most_mib": count["mib"]}
        for kind, count in kinds.items()
    ]  # fmt: skip
    report("hostile", rows, chosen)
    for violation in violations[:40]:
        print(violation)
    return 1 if violations else 0


class Bench:
    """A run to be copied and spoilt, and a folder outside of it that is watched."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.run, self._outside = folder / "made" / "run", folder / "outside"
        in_child(lambda: make_run(folder / "made"))
        in_child(lambda: make_outside(folder / "template"))
        self._import_everything()

    def _import_everything(self) -> None:
        """Import what the commands import, once instead of in each fork."""
        modules = self._folder / "modules"

        def note() -> None:
            for command, arguments in COMMANDS.items():
                words = {"RUN": str(self.run), "OUT/data": str(modules) + command,
                         "OUT/o.duckdb": str(modules) + command}  # fmt: skip
                with redirect_stdout(None), redirect_stderr(None), suppress(SystemExit):
                    steelyard.cli.main([words.get(x, x) for x in arguments])
            modules.write_text("\n".join(sys.modules))

        in_child(note)
        for name in modules.read_text().splitlines():
            with suppress(ImportError):
                importlib.import_module(name)

    def attack(self, mutate: Mutation, counts: Counter[str]) -> list[str]:
        """Carry out all commands on a spoilt copy; return the violations."""
        found = []
        for command, arguments in COMMANDS.items():
            run, out = self._folder / "stranger" / "run", self._folder / "stranger" / "out"
            shutil.rmtree(run.parent, ignore_errors=True)
            shutil.copytree(self.run, run)
            out.mkdir()
            shutil.rmtree(self._outside, ignore_errors=True)
            shutil.copytree(self._folder / "template", self._outside)
            os.mkfifo(self._outside / "pipe")
            in_child(partial(mutate, run, self._outside))
            names = {"RUN": str(run), "OUT/data": str(out / "data"), "OUT/o.duckdb": str(out / "o")}
            with Watch([self._outside, self._outside / "inner"]) as watch:
                done = carry_out([names.get(x, x) for x in arguments], self._outside)
                words = [*done.complaints(), *watch.events()]
            if command in {"export", "resume"}:
                words = [word for word in words if word not in readings_of_inputs(run)]
            if any(SECRET.encode() in read(path) for path in out.rglob("*")):
                words.append("the secret was copied")
            found += [f"{command}: {word}" for word in words]
            counts["commands"] += 1
            counts["refused"] += done.code not in {0, 4}
            counts["ms"] = max(counts["ms"], int(done.seconds * 1000))
            counts["mib"] = max(counts["mib"], done.peak >> 20)
        return found


def make_outside(folder: Path) -> None:
    """Make what nobody may read or change."""
    (folder / "inner").mkdir(parents=True)
    for name in ("secret.txt", "part.tmp", "inner/notes.tmp", "inner/part-00000001.parquet"):
        (folder / name).write_text(SECRET)
    (folder / "evil.py").write_text("open('owned', 'w').write('x')\n")
    pq.write_table(pa.table({"x": [SECRET]}), folder / "table.parquet")
    with duckdb.connect(str(folder / "other.duckdb")) as connection:
        connection.execute(f"CREATE TABLE verdicts AS SELECT '{SECRET}' AS x")


def readings_of_inputs(run: Path) -> set[str]:
    """Return the events of looking at the files of the input, which must be what was judged."""
    try:
        inputs = json.loads((run / "run.json").read_bytes())["config"]["inputs"]
        return {f"{path} was {event}" for path in inputs for event in ("opened", "read")}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


class Done:
    """What a command did."""

    def __init__(self, code: int, seconds: float, peak: int, printed: bytes) -> None:
        self.code, self.seconds, self.peak, self.printed = code, seconds, peak, printed

    def complaints(self) -> list[str]:
        """Return what no command may do."""
        text = self.printed.decode("utf-8", "replace")
        checks = {
            f"it took {self.seconds:.0f} s": self.seconds > SECONDS,
            f"it took {self.peak >> 20} MiB": self.peak > BYTES,
            "the secret was printed": SECRET in text,
            f"it ended with {self.code}: {text[:200]!r}": self.code not in {0, 2, 3, 4, 5, 6},
            f"internal: {text[:200]!r}": "error[internal]" in text or "Traceback" in text,
            "a control character was printed": any(
                not character.isprintable() and character not in "\n\t\r" for character in text
            ),
        }
        return [words for words, broken in checks.items() if broken]


def in_child(work: Callable[[], object]) -> None:
    """Do something in a fork, so that this process has no threads when it forks again."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("hostile: a preparation failed")


def carry_out(arguments: list[str], folder: Path) -> Done:
    """Run a command in a fork of this process, which has imported everything already."""
    with tempfile.TemporaryFile() as printed:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_command(arguments, folder, printed.fileno())
        end = began + SECONDS + 5
        while True:
            number, status, usage = os.wait4(child, os.WNOHANG)
            if number:
                break
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.005)
        seconds = time.monotonic() - began
        printed.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return Done(code, seconds, usage.ru_maxrss * 1024, printed.read())


def _be_command(arguments: list[str], folder: Path, printed: int) -> None:
    for handle in (1, 2):
        os.dup2(printed, handle)
    os.chdir(folder)
    sys.path.insert(0, "")  # as `python -m` would
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        steelyard.cli.main(arguments)
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException:
        traceback.print_exc()
    os._exit(70)


def make_run(folder: Path) -> Path:
    """Score and calibrate a small run with gold, metadata, competitors and rejects."""
    folder.mkdir()
    rows = range(60)
    columns = {
        "instruction": [None if i == 7 else f"question {i % 10}" for i in rows],
        "response_a": [f"first answer {i}" for i in rows],
        "response_b": [f"second answer {i * i}" for i in rows],
        "model_a": [f"m{i % 3}" for i in rows],
        "model_b": [f"m{(i + 1) % 3}" for i in rows],
        "gold": ["ABAAB"[i % 5] for i in rows],
        "tag": [f"tag {i % 4}" for i in rows],
    }
    pq.write_table(pa.table(columns), folder / "pairs.parquet")
    run = folder / "run"
    steelyard.score(folder / "pairs.parquet", run=run, judge="scripted", part_rows=30)
    fitted = fit_calibrator(Source(run), None, FitOptions(method="temperature"))
    save_calibrator(folder / "c.json", fitted.calibrator)
    apply_calibrator(Source(run), folder / "c.json", None, force=False)
    return run


def by_hand() -> list[tuple[str, Mutation]]:
    """Return the cases that people would think of."""
    targets = ("secret.txt", "inner", "pipe", "other.duckdb", "table.parquet", "/dev/zero")
    cases: list[tuple[str, Mutation]] = []
    for entry in ENTRIES:
        cases += [(f"links: {entry} -> {target}", linked(entry, target)) for target in targets]
        cases.append((f"hard links: {entry}", hard_linked(entry)))
        cases.append((f"pipes: {entry}", piped(entry)))
    for name in ("../../../outside/inner/part-00000001.parquet", "/dev/zero", "reads/../../x"):
        cases.append((f"names: a part {name}", renamed_part(name)))
        cases.append((f"names: a plan file {name}", renamed_plan(name)))
    views = ("read_text('OUTSIDE/secret.txt')", "read_parquet('OUTSIDE/table.parquet')")
    cases += [(f"databases: {view}", with_view(view)) for view in views]
    settings = {
        "worker_cls": "evil.X", "scheduler_cls": "evil.X", "logits_processors": '["evil.X"]',
        "distributed_executor_backend": "evil.X", "reasoning_parser_plugin": "evil.py",
    }  # fmt: skip
    for setting, value in settings.items():
        cases.append((f"settings: {setting}", unfinished(["config", "engine"], {setting: value})))
    for path, value in (
        (["config", "inputs"], ["http://127.0.0.1:9/x.parquet"]),
        (["config", "inputs"], ["OUTSIDE/table.parquet"]),
        (["config", "inputs"], ["OUTSIDE/pipe"]),
        (["config", "judge"], ["OUTSIDE/inner"]),
        (["config", "reuse"], ["OUTSIDE/inner"]),
    ):
        cases.append((f"inputs: {path[-1]} {value[0]}", unfinished(path, value)))
    return cases


def linked(entry: str, target: str) -> Mutation:
    def mutate(run: Path, outside: Path) -> None:
        replace(run / entry)
        (run / entry).symlink_to(outside / target)

    return mutate


def hard_linked(entry: str) -> Mutation:
    def mutate(run: Path, outside: Path) -> None:
        replace(run / entry)
        os.link(outside / "secret.txt", run / entry)

    return mutate


def piped(entry: str) -> Mutation:
    def mutate(run: Path, _outside: Path) -> None:
        replace(run / entry)
        os.mkfifo(run / entry)

    return mutate


def renamed_part(name: str) -> Mutation:
    def mutate(run: Path, _outside: Path) -> None:
        lines = []
        for line in (run / "journal.jsonl").read_text().splitlines():
            part = json.loads(line)["part"] | {"name": name}
            body = json.dumps(part, separators=(",", ":"), sort_keys=True)
            lines.append(f'{{"check":"{xxhash.xxh3_64_hexdigest(body.encode())}","part":{body}}}\n')
        (run / "journal.jsonl").write_text("".join(lines))
        (run / "complete.json").unlink()
        (run / "verdicts.duckdb").unlink()

    return mutate


def renamed_plan(name: str) -> Mutation:
    def change(content: dict[str, Any]) -> None:
        content["files"] = {name: next(iter(content["files"].values()))}

    return edited("plan/plan.json", lambda content, _: change(content))


def with_view(query: str) -> Mutation:
    def mutate(run: Path, outside: Path) -> None:
        with duckdb.connect(str(run / "verdicts.duckdb")) as connection:
            connection.execute("DROP TABLE rejects")
            sql = query.replace("OUTSIDE", str(outside))
            connection.execute("ALTER TABLE verdicts RENAME TO other")
            connection.execute(f"CREATE VIEW rejects AS SELECT * FROM {sql}")
            connection.execute(
                f"CREATE VIEW verdicts AS SELECT o.*, t.* FROM other o, (FROM {sql}) t"
            )

    return mutate


def unfinished(path: list[str], value: Any) -> Mutation:
    """Change run.json, and take the reads away, so that `resume` has to act on it."""

    def mutate(run: Path, outside: Path) -> None:
        filled = json.loads(json.dumps(value).replace("OUTSIDE", str(outside)))
        edit(run / "run.json", lambda content: assign(content, path, filled))
        for name in ("complete.json", "verdicts.duckdb"):
            (run / name).unlink()
        (run / "journal.jsonl").write_text("")
        shutil.rmtree(run / "reads")
        (run / "reads").mkdir()

    return mutate


def by_chance(run: Path, count: int, seed: int) -> list[tuple[str, Mutation]]:
    """Return seeded mutations of the values of the records."""
    draw = random.Random(seed)
    files = ("run.json", "plan/plan.json", "calibration.json", "complete.json")
    cases: list[tuple[str, Mutation]] = []
    for number in range(count):
        file = draw.choice(files)
        paths = list(leaves(json.loads((run / file).read_bytes())))
        path, value = draw.choice(paths), draw.choice(VALUES)
        live = draw.random() < 0.5
        cases.append((f"records: {number}, {file} {path} = {value!r:.60}",
                      valued(file, path, value, live=live)))  # fmt: skip
    return cases


COPY = "COPY (SELECT content FROM read_text('OUTSIDE/secret.txt')) TO 'OUTSIDE/owned'"
VALUES: tuple[Any, ...] = (
    f"'); {COPY}; --", f'"; {COPY}; /*', f"1) v; {COPY}; SELECT $q$ $q$; --",
    "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "\u202eabc", "a\0b", "\n\n| x |\n", "<script>x</script>",
    "OUTSIDE/secret.txt", "../../outside/secret.txt", "/dev/zero", "http://127.0.0.1:9/x",
    10**30, -1, 10**12, 1e308, True, None, [], {}, ["x"] * 3, {"x": "y"}, "x" * 1_000_000,
)  # fmt: skip


def valued(file: str, path: list[Any], value: Any, *, live: bool) -> Mutation:
    def mutate(run: Path, outside: Path) -> None:
        filled = value.replace("OUTSIDE", str(outside)) if isinstance(value, str) else value
        edit(run / file, lambda content: assign(content, path, filled))
        if live:
            (run / "verdicts.duckdb").unlink()

    return mutate


def edited(file: str, change: Callable[[dict[str, Any], Path], None]) -> Mutation:
    def mutate(run: Path, outside: Path) -> None:
        edit(run / file, lambda content: change(content, outside))
        (run / "verdicts.duckdb").unlink()

    return mutate


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a record, and give it a right check again."""
    content = json.loads(path.read_bytes())
    del content[CHECK]
    change(content)
    path.write_bytes(seal(content))


def assign(content: Any, path: list[Any], value: Any) -> None:
    for key in path[:-1]:
        content = content[key]
    content[path[-1]] = value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """Yield the paths of all values, those of objects and lists too."""
    if path and path != (CHECK,):
        yield list(path)
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:3])
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def replace(path: Path) -> None:
    """Remove what is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


if __name__ == "__main__":
    sys.exit(main())
