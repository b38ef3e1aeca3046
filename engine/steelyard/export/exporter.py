"""Verdicts become a dataset in a format of TRL's.

sources read the texts -> selection decides, by filters and pairing -> formats make rows -> writer
-> card.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from steelyard.core.arrow import repeat_text
from steelyard.core.progress import Reporter
from steelyard.core.version import __version__
from steelyard.errors import InputRefused, UsageError
from steelyard.export.card import format_card
from steelyard.export.formats import Texts, make_rows, schema
from steelyard.export.observer import TextObserver
from steelyard.export.options import NGRAM, TARGETED, ExportOptions
from steelyard.export.overlap import HeldOutText
from steelyard.export.response_rows import ResponseRowSource
from steelyard.export.selection import AvailableColumns, Selection, open_selection
from steelyard.export.sources import ResponseSource, ShardSource, TextSource
from steelyard.export.writer import (
    DatasetWriter,
    check_folder,
    estimate_sizes,
    scratch,
    writing_dataset,
)
from steelyard.input import ShardSet, open_shards
from steelyard.input.roles import INSTRUCTIONS, RESPONSES
from steelyard.input.side_files import read_instructions
from steelyard.protocols.protocol import Protocol
from steelyard.store.durable import sync, write_text
from steelyard.store.run_input import reopen_input
from steelyard.store.run_record import RunRecord
from steelyard.store.snapshot import RunSnapshot


@dataclass(frozen=True, slots=True)
class Responses:
    """Files of responses, in place of the run's own shards."""

    inputs: Sequence[str]
    columns: Mapping[str, str]


def export_dataset(
    run: Path,
    out: Path | None,
    options: ExportOptions,
    responses: Responses | None = None,
    reporter: Reporter | None = None,
    *,
    remote: bool = False,
) -> dict[str, Any]:
    """Write a dataset.

    Args:
        run: a run directory, scored or imported.
        out: the folder to make; None: decide, count, and write nothing.
        options: format, filters and splits.
        responses: files with the texts, if they are not in the run's shards.
        reporter: of progress.
        remote: whether texts may be fetched from addresses that the run names.

    Returns:
        JSON, the content of export.json: options, judge, calibrator, counts, files with digests.

    Raises:
        UsageError: an option is wrong, or needs what the run lacks.
        InputRefused: texts are missing or have changed, or no row is left.
    """
    reporter = reporter or Reporter()
    snapshot = RunSnapshot.take(run)
    options = options.validate()
    if out is not None:
        check_folder(out)
    opened = _open_texts(snapshot.record, options, responses, remote=remote)
    evaluations = _evaluations(options)
    with scratch(out) as folder, open_selection(folder) as selection:
        reporter.log("reading verdicts")
        available = selection.load_verdicts(snapshot, options.where)
        options = _resolve(options, available)
        selection.require_models((*options.chosen_model, *options.rejected_model))
        protocol = selection.load_outputs(snapshot) if options.format == "trace" else None
        _warn_about_run(snapshot, options, available, selection, reporter)
        observer = TextObserver(options, _held_out(evaluations, options))
        texts = opened(selection.by_response)
        texts.scan(selection, observer, partial(reporter.step, "texts"))
        reporter.done()
        counts = selection.decide(
            options, calibrated=available.calibrated, in_shards=texts.in_shards
        )
        content = {
            **_origin(snapshot, options),
            "responses": _files(texts.files),
            "evaluations": _files(evaluations),
            **asdict(counts),
            "accuracy": selection.accuracy,
            "promise": _promise(snapshot, options),
        }
        rows = texts.rows(selection)
        made = ((items, _made_rows(items, own, content, protocol)) for items, own in rows)
        if out is not None:
            _require_rows(run, content)
            if options.test and len(content["rows"]) < 2:
                reporter.warn(f"all instructions fell into one split: {', '.join(content['rows'])}")
            _publish(folder / "dataset", out, made, content, reporter)
        elif sum(content["rows"].values()):
            content["estimate"] = estimate_sizes(table for _, table in made)
    reporter.done()
    return content


def _open_texts(
    record: RunRecord, options: ExportOptions, responses: Responses | None, *, remote: bool
) -> Callable[[bool], TextSource]:
    """Return what makes the source of texts once it is known whether rows hold one response."""
    if responses is not None:
        files = open_shards(responses.inputs, responses.columns, RESPONSES)
        return lambda _: ResponseSource(files, options)
    shards, limits = reopen_input(
        record,
        otherwise="give the texts with --responses FILE, one row per response: instruction_id or"
        " instruction, instruction, model, response",
        remote=remote,
    )

    def source(by_response: bool) -> TextSource:
        made = ResponseRowSource if by_response else ShardSource
        return made(shards, limits, options)

    return source


def _held_out(evaluations: ShardSet | None, options: ExportOptions) -> HeldOutText | None:
    """Read the instructions that no row may contain; None: there are no evaluations."""
    if evaluations is None:
        return None
    return HeldOutText(read_instructions(evaluations), options.ngram or NGRAM)


def _evaluations(options: ExportOptions) -> ShardSet | None:
    if not options.decontaminate:
        return None
    column = options.decontaminate_column
    columns = {"instruction": column} if column else None
    try:
        return open_shards(options.decontaminate, columns, INSTRUCTIONS)
    except (InputRefused, UsageError) as refused:
        cause = refused.cause.partition(" for --map")[0]
        raise InputRefused(
            f"the file of --decontaminate cannot be used: {cause}",
            place=refused.place,
            remedy="give Parquet with a column instruction, prompt or question, or name the column"
            " with --decontaminate-column",
        ) from None


def _files(shards: ShardSet | None) -> dict[str, Any] | None:
    """Describe files for the card of the dataset that is made with them."""
    if shards is None:
        return None
    return {
        "files": [source.name for source in shards.sources],
        "rows": shards.rows,
        "fingerprint": shards.fingerprint,
    }


def _resolve(options: ExportOptions, available: AvailableColumns) -> ExportOptions:
    """Fill in options that depend on the run.

    Raises:
        UsageError: the run lacks a column that an option needs.
    """
    calibrate = "apply a calibrator that was fitted with --agreement (docs/calibration.md)"
    for option, missing, remedy in (
        ("--consistent", options.consistent and not available.consistent,
         "leave it out: its protocol has one order"),
        ("--min-label-mass", options.min_label_mass is not None and not available.label_mass,
         "leave it out: its judge gave no label masses"),
        ("--trusted", options.trusted and not available.trusted, calibrate),
        ("--correct", options.correct and not available.gold,
         "leave it out: its shards hold no gold"),
        ("--target gold", options.target == "gold" and not available.gold,
         "leave it out: its shards hold no gold"),
    ):  # fmt: skip
        if missing:
            raise UsageError(
                f"{option} cannot be decided for any verdict of this run",
                effect="nothing was written",
                remedy=remedy,
            )
    if options.format in TARGETED and options.target is None:
        return replace(options, target="gold" if available.gold else "preference")
    return options


def _warn_about_run(
    snapshot: RunSnapshot,
    options: ExportOptions,
    available: AvailableColumns,
    selection: Selection,
    reporter: Reporter,
) -> None:
    if not available.calibrated:
        reporter.warn("no calibrator was applied to this run: raw preferences are exported")
    if options.trusted and options.selection != "all":
        reporter.warn(
            "--trusted promises the agreement of verdicts, not of the pairs that are selected from"
            f" them ({options.selection}): see the expected accuracy"
        )
    manifest = snapshot.manifest
    if manifest is not None and manifest.pairs > selection.counts.verdicts:
        reporter.warn(
            f"the run is not complete: {selection.counts.verdicts:,} of {manifest.pairs:,} pairs"
            " have a verdict"
        )


def _origin(snapshot: RunSnapshot, options: ExportOptions) -> dict[str, Any]:
    record, calibrator = snapshot.record, snapshot.calibrator
    return {
        "steelyard": __version__,
        "options": options.to_json(),
        "judge": {
            "name": record.judge,
            "protocol": record.protocol,
            "fingerprint": record.fingerprint,
        },
        "input": {"fingerprint": record.input.fingerprint, "rows": record.input.rows},
        "calibrator": None
        if calibrator is None
        else {"method": calibrator.method, "digest": snapshot.calibration},
        "preference": snapshot.preference,
    }


def _promise(snapshot: RunSnapshot, options: ExportOptions) -> dict[str, Any] | None:
    """Return what was promised of trusted verdicts, and whether it is of the rows as well."""
    threshold = None if snapshot.calibrator is None else snapshot.calibrator.selective
    if not options.trusted or threshold is None:
        return None
    return {
        "agreement": threshold.agreement,
        "confidence": threshold.confidence,
        "of_rows": options.selection == "all",
    }


def _require_rows(run: Path, content: Mapping[str, Any]) -> None:
    if content["removed"].get("no_text") == content["verdicts"]:
        raise InputRefused(
            f"the two responses were not found for any of {content['verdicts']:,} verdicts",
            place=str(run),
            remedy="--responses needs the verdicts' instruction_id (a number is not the text"
            " of it) or their instructions, and their models' names; --map names the columns",
        )
    if not content["verdicts"]:
        raise InputRefused(
            "the run has no verdict",
            place=str(run),
            remedy=f"`steelyard status {run}` shows how far it is; `resume` goes on with it",
        )
    if not content["rows"]:
        reasons = ", ".join(f"{count:,} {name}" for name, count in content["removed"].items())
        raise InputRefused(
            f"none of {content['verdicts']:,} verdicts is left ({reasons})",
            place=str(run),
            remedy="`--dry-run` prints what each filter removes; loosen one",
        )


def _made_rows(
    items: pa.Table, texts: Texts, content: dict[str, Any], protocol: Protocol | None
) -> pa.Table:
    """Return rows of the dataset's format, with the judge's name."""
    judge, options = content["judge"], content["options"]
    for column, text in (("judge", judge["name"]), ("judge_fingerprint", judge["fingerprint"])):
        items = items.append_column(column, repeat_text(text, len(items)))
    return make_rows(options["format"], options["form"], texts, items, protocol)


def _publish(
    folder: Path,
    out: Path,
    made: Iterable[tuple[pa.Table, pa.Table]],
    content: dict[str, Any],
    reporter: Reporter,
) -> None:
    """Write everything, rows next to their items, then rename the folder."""
    options, splits = content["options"], content["rows"]
    columns = schema(options["format"], options["form"])
    writer = DatasetWriter(folder, columns, splits, options["rows_per_file"])
    done = 0
    for items, rows in made:
        for split in splits:
            writer.add(split, rows.filter(pc.equal(items["split"], split)))
        done += len(rows)
        reporter.step("written", done, sum(splits.values()))
    content["files"] = writer.close()
    write_text(folder / "export.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "README.md", format_card(content))
    with writing_dataset(out):
        folder.replace(out)
        sync(out.absolute().parent)
