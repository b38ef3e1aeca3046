"""What a user decides about a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgspec

from steelyard.errors import UsageError, check_keys, escape

FORMATS = ("preference", "reward", "kto", "sft", "autorater", "grpo", "trace")
# They train judges, not the models that are judged; the first two by a target probability.
TARGETED = ("autorater", "grpo")
JUDGING = (*TARGETED, "trace")
PAIRED = ("preference", "reward")  # each row has a chosen and a rejected response
SELECT = ("all", "best-worst", "best-second")
FORMS = ("conversational", "plain")
TARGETS = ("gold", "preference")
NGRAM = 13  # words; of GPT-3's decontamination (Brown et al., 2020, appendix C)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Format, filters and splits of a dataset; None: the filter is not used."""

    format: str
    form: str = "conversational"
    where: str | None = None  # SQL over verdicts
    min_probability: float | None = None  # of the chosen response, above 0.5
    consistent: bool = False
    min_label_mass: float | None = None
    trusted: bool = False
    correct: bool = False  # both orders name the side that gold names
    chosen_model: tuple[str, ...] = ()  # who may have written the chosen response; (): anyone
    rejected_model: tuple[str, ...] = ()
    margin: tuple[float, float] | None = None  # range of the chosen response's log-odds
    select: str | None = None  # None: all; for sft best-worst
    per_instruction: int | None = None
    balance_length: bool = False
    near_duplicates: float | None = None  # Jaccard similarity
    decontaminate: tuple[str, ...] = ()  # files of instructions
    decontaminate_column: str | None = None
    ngram: int | None = None  # None: NGRAM
    test: float = 0.0  # share of instructions
    target: str | None = None  # of TARGETED formats; None: gold where the run has any
    seed: int = 0
    rows_per_file: int = 100_000

    @property
    def judging(self) -> bool:
        """Whether rows are for training judges."""
        return self.format in JUDGING

    @property
    def selection(self) -> str:
        """Which pairs of an instruction are taken."""
        return self.select or ("best-worst" if self.format == "sft" else "all")

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the names of files without their folders."""
        values = {**asdict(self), "select": self.selection}
        values["decontaminate"] = [name.rpartition("/")[2] for name in self.decontaminate]
        for name in ("chosen_model", "rejected_model"):
            values[name] = list(values[name])
        if self.margin is not None:
            values["margin"] = [end if math.isfinite(end) else None for end in self.margin]
        return values

    def validate(self) -> ExportOptions:
        """Check what can be checked without data, and return the options.

        Raises:
            UsageError: names the option and what it may be.
        """
        for option, value, allowed in (
            ("--format", self.format, FORMATS),
            ("--form", self.form, FORMS),
            ("--select", self.selection, SELECT),
            ("--target", self.target or TARGETS[0], TARGETS),
        ):
            if value not in allowed:
                raise UsageError(
                    f"{option} is {escape(value)!r}", remedy=f"choose one of: {', '.join(allowed)}"
                )
        _between("--min-probability", self.min_probability, 0.5, 1)
        _between("--min-label-mass", self.min_label_mass, 0, 1)
        _between("--near-duplicates", self.near_duplicates, 0.3, 1)
        _between("--test", self.test, 0, 0.99)
        for option, number in (
            ("--per-instruction", self.per_instruction),
            ("--ngram", self.ngram),
            ("--rows-per-file", self.rows_per_file),
        ):
            if number is not None and number < 1:
                raise UsageError(f"{option} is {number}", remedy="give a number of at least 1")
        if self.where is not None and not self.where.strip(" \n\t;"):
            raise UsageError("--where is empty", remedy="leave it out, or give a condition in SQL")
        low, high = self.margin or (0.0, math.inf)
        if not 0 <= low <= high:
            raise UsageError(
                f"--margin is {low:g}..{high:g}",
                remedy="give two log-odds of the chosen response, at least 0: 0.5..4",
            )
        self._check_combinations()
        return self

    def _check_combinations(self) -> None:
        selects = self.selection != "all"
        does_not_apply = f"does not apply to the format {self.format}"
        if (self.ngram is not None or self.decontaminate_column) and not self.decontaminate:
            cause = "--ngram and --decontaminate-column have no effect without --decontaminate"
            remedy = "leave them out, or name the evaluation's file with --decontaminate"
        elif self.per_instruction is not None and selects:
            cause = f"--per-instruction has no effect with --select {self.selection}"
            remedy = "leave it out: one pair of each instruction is selected"
        elif self.target is not None and self.format not in TARGETED:
            cause = f"--target {does_not_apply}"
            remedy = f"leave it out; it is for {' and '.join(TARGETED)}"
        elif (self.chosen_model or self.rejected_model) and self.format not in PAIRED:
            option = "--chosen-model" if self.chosen_model else "--rejected-model"
            cause = f"{option} {does_not_apply}"
            remedy = f"leave it out; it is for {' and '.join(PAIRED)}"
        elif self.judging and selects:
            cause = f"--select {self.selection} {does_not_apply}"
            remedy = "leave it out: judges are trained on the pairs that were judged"
        elif self.judging and self.balance_length:
            cause = f"--balance-length {does_not_apply}"
            remedy = "leave it out: every pair is exported in both orders"
        else:
            return
        raise UsageError(cause, remedy=remedy)


def make_options(values: Mapping[str, Any]) -> ExportOptions:
    """Make options from plain values.

    Raises:
        UsageError: an option is unknown, or out of range.
    """
    check_keys(values, [entry.name for entry in fields(ExportOptions)], "export()")
    try:
        options = msgspec.convert(dict(values), ExportOptions)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"an option has the wrong type: {escape(error, 200)}",
            place="export()",
            remedy="see docs/reward-datasets.md for the options",
        ) from None
    return options.validate()


def read_margin(text: str | None) -> tuple[float, float] | None:
    """Parse `LOW..HIGH`, either of which may be left out.

    Raises:
        UsageError: it is something else.
    """
    if text is None:
        return None
    low, dots, high = text.partition("..")
    try:
        ends = float(low or 0), float(high or math.inf)
    except ValueError:
        ends = math.nan, math.nan
    if not dots or any(map(math.isnan, ends)):
        raise UsageError(
            f"--margin is {escape(text)!r}",
            remedy="give the least and the greatest log-odds, separated by `..`: 0.5..4, or 1..",
        )
    return ends


def _between(option: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise UsageError(f"{option} is {value:g}", remedy=f"give a number from {low:g} to {high:g}")
