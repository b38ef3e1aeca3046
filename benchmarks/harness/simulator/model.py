"""What must be read and shown, worked out from the table alone, and what is on the disk."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import xxhash

from harness.simulator.judge import Prompt, truth
from harness.simulator.schedule import Life, prompts_of


class Violation(Exception):
    """The program broke a promise."""


@dataclass(frozen=True)
class Line:
    """A committed part, as the journal's bytes say."""

    name: str
    digest: str
    rows: int
    pairs: int


class Model:
    """What a life's run has to hold."""

    def __init__(self, life: Life, root: Path) -> None:
        self.root = root
        self.rows = [(number, row) for number, row in enumerate(life.rows) if not row.reject]
        self.rejects = len(life.rows) - len(self.rows)
        self.long = {prompt for _, row in self.rows if row.too_long for prompt in prompts_of(row)}
        self.failing = (life.poison | life.broken) - self.long
        self.prompts = {prompt for _, row in self.rows for prompt in prompts_of(row)}
        self._keys: dict[bytes, Prompt] = {}
        self._parts: dict[str, dict[bytes, Prompt]] = {}

    @property
    def exit_code(self) -> int:
        """How a complete run ends."""
        failed = self.prompts & (self.long | self.failing)
        return 4 if self.rejects or failed else 0

    def status(self, prompt: Prompt) -> str:
        """Return the status of a prompt's read."""
        if prompt in self.long:
            return "overlong"
        return "error" if prompt in self.failing else "ok"

    def lines(self) -> tuple[list[Line], bool]:
        """Read the journal's bytes; also whether the last line is torn."""
        path = self.root / "journal.jsonl"
        if not path.exists():
            return [], False
        *whole, rest = path.read_bytes().split(b"\n")
        lines = []
        for raw in whole:
            try:
                part = json.loads(raw)["part"]
            except (ValueError, KeyError) as error:
                raise Violation(f"a line of the journal is damaged: {raw[:60]!r}") from error
            lines.append(Line(part["name"], part["digest"], part["rows"], part["pairs"]))
        return lines, bool(rest)

    def read(self, lines: Iterable[Line]) -> set[Prompt]:
        """Check every read of some parts; return their prompts."""
        seen: set[Prompt] = set()
        for line in lines:
            prompts = self._part(line)
            for prompt in prompts:
                if prompt in seen:
                    raise Violation(f"{prompt} was read twice; the second time in {line.name}")
                seen.add(prompt)
        return seen

    def _part(self, line: Line) -> set[Prompt]:
        path = self.root / line.name
        if not path.exists():
            raise Violation(f"{line.name} is in the journal and not on the disk")
        raw = path.read_bytes()
        if xxhash.xxh3_128_hexdigest(raw) != line.digest:
            raise Violation(f"{line.name} is not what was committed")
        if line.digest not in self._parts:
            self._parts[line.digest] = set(map(self._check, pq.read_table(path).to_pylist()))
        if len(self._parts[line.digest]) != line.rows:
            raise Violation(f"{line.name} has other rows than the journal says")
        return self._parts[line.digest]

    def _check(self, row: dict) -> Prompt:
        if not self._keys:
            self._learn_keys()
        prompt = self._keys.get(row["prompt_key"])
        if prompt is None:
            raise Violation(f"the read {row['prompt_key'].hex()} belongs to no pair")
        expected = self.status(prompt)
        if row["status"] != expected:
            raise Violation(f"{prompt} has the status {row['status']}, and not {expected}")
        values = row["label_logprobs"]
        if (values is None) != (expected != "ok"):
            raise Violation(f"{prompt} has the log-probabilities {values}, status {expected}")
        if values is not None and tuple(values) != truth(prompt):
            raise Violation(f"{prompt} was altered: {values}")
        return prompt

    def _learn_keys(self) -> None:
        """Take the keys of prompts from the plan, which has to name every row once."""
        pairs = pq.read_table(self.root / "plan" / "pairs-00000.parquet").to_pylist()
        rows = dict(self.rows)
        if sorted(pair["row"] for pair in pairs) != sorted(rows):
            raise Violation("the plan has other rows than the table")
        for pair in pairs:
            for key, prompt in zip(pair["keys"], prompts_of(rows[pair["row"]]), strict=True):
                if self._keys.setdefault(key, prompt) != prompt:
                    raise Violation(f"{prompt} and {self._keys[key]} have the same key")
        if len(set(self._keys.values())) != len(self._keys):
            raise Violation("a prompt has two keys")

    def verdicts(self, read: set[Prompt]) -> dict[int, float | None]:
        """Return the preference of each row whose prompts are all read; None: no answer."""
        shown: dict[int, float | None] = {}
        for number, row in self.rows:
            prompts = prompts_of(row)
            if not read.issuperset(prompts):
                continue
            if any(self.status(prompt) != "ok" for prompt in prompts):
                shown[number] = None
                continue
            (ab_a, ab_b), (ba_a, ba_b) = map(truth, prompts)
            logit = ((ab_a - ab_b) + (ba_b - ba_a)) / 2
            shown[number] = 1 / (1 + math.exp(-logit))
        return shown

    def complete_pairs(self, read: set[Prompt]) -> int:
        """Count the pairs whose prompts are all read."""
        return sum(read.issuperset(prompts_of(row)) for _, row in self.rows)
