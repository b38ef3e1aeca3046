"""The options of a run, from a TOML file and the command line."""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from steelyard.core.files import read_file
from steelyard.errors import UsageError, check_keys, escape

Scalar = str | int | float | bool

MOST_SAMPLES = 100
MOST_REPLICAS = 1024
MOST = 1 << 40  # of rows, bytes and seconds
LARGEST = 1 << 20  # bytes of a file of options
JUDGES = (
    "choose it with --judge: a model folder, or a name on the Hugging Face Hub such as"
    " Qwen/Qwen3-8B; `demo`, a toy of 135 million parameters, to see how Steelyard works; or"
    " `scripted`, which makes answers up, for tests"
)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """All that a user can decide about a run; the keys of the TOML file have the same names.

    The last four are for tests and unusual machines, and have no option on the command line.
    """

    inputs: tuple[str, ...] = ()
    map: dict[str, str] = field(default_factory=dict)  # role -> column
    pairs: str | None = None  # how pairs are made of rows of one response each (plan.pairing)
    limit: int = 0  # judge the first rows only; 0: all
    sample: int = 0  # judge this many rows, drawn at random, the same in every run; 0: all
    judge: tuple[str, ...] = ()  # demo, scripted[:...], a hub name or a folder; or several
    revision: str | None = None
    protocol: tuple[str, ...] = ("pairwise",)  # a name or a file; several: variants of the prompt
    criteria: str | None = None  # file of a rubric's criteria
    examples: str | None = None  # file of worked examples
    samples: int = 0  # of what a judge writes; 0: the protocol's own number
    tie_band: float | None = None  # None: the protocol's own
    engine: dict[str, Scalar] = field(default_factory=dict)  # vLLM's own argument names
    replicas: int = 1
    overlong: str = "reject"
    on_bad_row: str = "reject"
    reuse: tuple[str, ...] = ()
    max_row_bytes: int = 1 << 20
    bucket_bytes: int = 32 << 20
    part_rows: int = 20_000
    part_seconds: float = 60.0

    def anchored(self) -> RunConfig:
        """Make all paths absolute, so that a run can be resumed from any folder."""
        return replace(
            self,
            inputs=tuple(map(_absolute, self.inputs)),
            reuse=tuple(map(_absolute, self.reuse)),
            judge=tuple(
                _absolute(name) if name != "demo" and os.path.isdir(name) else name  # noqa: PTH112
                for name in self.judge
            ),
            protocol=tuple(
                _absolute(name) if name.endswith(".toml") else name for name in self.protocol
            ),
            criteria=None if self.criteria is None else _absolute(self.criteria),
            examples=None if self.examples is None else _absolute(self.examples),
        )

    def rows_of(self, rows: int) -> int:
        """Return how many of an input's rows are read: to make pairs, all of them."""
        return rows if self.pairs else min(self.limit or self.sample or rows, rows)

    def validate(self) -> RunConfig:
        """Check each value, as far as that needs neither files nor a judge, and return the config.

        Raises:
            UsageError: a value is not allowed.
        """
        for name, allowed in (("overlong", "truncate"), ("on_bad_row", "fail")):
            if getattr(self, name) not in ("reject", allowed):
                raise UsageError(
                    f"`{name}` is {escape(getattr(self, name))!r}",
                    remedy=f"choose one of: reject, {allowed}",
                )
        if min(self.limit, self.sample) < 0 or (self.limit and self.sample):
            raise UsageError(
                f"`limit` is {self.limit} and `sample` is {self.sample}",
                remedy="give one of the two, a number of rows",
            )
        for name in ("judge", "protocol"):
            values = getattr(self, name)
            if not all(value.strip() for value in values):
                raise UsageError(f"`{name}` is empty", remedy=f"name a {name}, or leave it out")
            if len(set(values)) < len(values):
                raise UsageError(f"a {name} is named twice", remedy=f"name each {name} once")
        if not 0 <= self.samples <= MOST_SAMPLES:
            raise UsageError(
                f"`samples` is {self.samples}",
                remedy=f"leave it out, or ask 1 to {MOST_SAMPLES} times",
            )
        if self.tie_band is not None and not 0 <= self.tie_band < math.inf:
            raise UsageError(
                f"`tie_band` is {self.tie_band}",
                remedy="give a number from 0, or leave it out for the protocol's own",
            )
        for name in ("replicas", "max_row_bytes", "bucket_bytes", "part_rows", "part_seconds"):
            most = MOST_REPLICAS if name == "replicas" else MOST
            if not 0 < getattr(self, name) <= most:
                raise UsageError(
                    f"`{name}` must be positive and at most {most:,}, not {getattr(self, name)}",
                    remedy=f"leave `{name}` out for its default",
                )
        self._check_judges()
        return self

    def _check_judges(self) -> None:
        if not self.judge:
            raise UsageError("no judge is named", remedy=JUDGES)
        if self.revision and len(self.judge) > 1:
            raise UsageError(
                "`revision` is for one judge, but several are named",
                remedy="download them, and name their folders",
            )
        if self.revision and self.judge[0].partition(":")[0] in {"demo", "scripted"}:
            raise UsageError(
                f"`revision` has no effect on the judge {escape(self.judge[0])}",
                remedy="leave it out; it is for judges of the Hugging Face Hub",
            )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], place: str) -> RunConfig:
        """Make a config from plain values; `place` says in errors where they come from.

        Raises:
            UsageError: a key is unknown, or a value has the wrong type.
        """
        known = {entry.name: entry.default for entry in fields(cls)}
        check_keys(values, known, place)
        lists = {key for key, default in known.items() if isinstance(default, tuple)}
        try:
            config = msgspec.convert(
                {k: [v] if k in lists and isinstance(v, str) else v for k, v in values.items()}, cls
            )
        except (msgspec.ValidationError, UnicodeEncodeError) as error:  # half a character
            raise UsageError(
                f"a value has the wrong type: {escape(error, 200)}",
                place=place,
                remedy="see docs/cli.md for an example",
            ) from None
        return config.validate()


def load_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return tomllib.loads(read_file(path, LARGEST).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"the configuration cannot be read: {describe_unreadable(error)}",
            place=str(path),
            remedy="see docs/cli.md for an example",
        ) from None


def describe_unreadable(error: OSError | ValueError | RecursionError) -> str:
    """Say for people why a file of texts cannot be read."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not a text in UTF-8"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return escape(getattr(error, "strerror", None) or error, 200)


def parse_pairs(option: str, values: tuple[str, ...], *, empty: bool = False) -> dict[str, str]:
    """Parse the `key=value` arguments of a repeatable option; `empty` allows empty values.

    Raises:
        UsageError: an argument has no `=`, or a key comes twice.
    """
    pairs: dict[str, str] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not key or not (rest or empty):
            raise UsageError(
                f"{option} takes key=value, not {escape(value)!r}",
                remedy=f"write {option} {escape(key) or 'key'}=value",
            )
        if key in pairs:
            raise UsageError(
                f"{option} names {escape(key)!r} twice", remedy=f"keep one of the two {option}"
            )
        pairs[key] = rest
    return pairs


def scalar(text: str) -> Scalar:
    """Read a value of `--engine key=value` as TOML would; a value that TOML refuses is a text."""
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def fingerprint(content: Any) -> str:  # noqa: ANN401 - any JSON value
    """Hash canonical JSON with xxh3_128, to 32 hex digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return xxhash.xxh3_128_hexdigest(text.encode())


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)  # noqa: PTH100 - keeps `..` and links
