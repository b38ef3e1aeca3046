"""What does each protocol cost per pair: prompts, tokens computed, tokens written?

All pairs of k responses to some instructions, from shuffled shards, in Steelyard's own order.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import workloads
from harness.common import report
from harness.contest import options, texts
from harness.tinyjudge import tiny_judge

CRITERIA = ["It is correct.", "It is complete.", "It is clear.", "It is short.", "It is polite."]
EXAMPLE = {"instruction": "2 + 2?", "response_a": "4", "response_b": "5", "verdict": "A"}


def main() -> int:
    made = options(__doc__)
    made.add_argument("--instructions", type=int, default=2)
    made.add_argument("--responses", type=int, default=4, help="responses per instruction")
    made.add_argument("--names", nargs="*", help="protocols [all]")
    made.add_argument("--max-tokens", type=int, default=64, help="limit on what a judge writes")
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.instructions, chosen.responses, chosen.max_tokens = 1, 3, 4
    loaded = texts(chosen)
    rows = workloads.tournament(loaded, chosen.instructions, chosen.responses, chosen.seed)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="steelyard-bench-") as folder:
        place = Path(folder)
        judge = chosen.judge
        if chosen.smoke:
            words = [text for _, responses in loaded.items for text in responses.values()]
            judge = str(tiny_judge(place / "judge", [*words, "Yes No " * 200]))
        shuffled = workloads.arrange(rows, "shuffled", chosen.seed)
        workloads.write(shuffled, place / "shuffled")
        for name in chosen.names or protocol_names():
            found += [cost(name, judge, place, chosen.max_tokens)]
    base = found[0]["computed_a_pair"]
    for row in found:
        row["to_pairwise"] = row["computed_a_pair"] / base
    report("protocols", found, chosen)
    return 0


def protocol_names() -> list[str]:
    from steelyard.protocols import protocol_names

    return protocol_names()


def cost(name: str, judge: str, place: Path, max_tokens: int) -> dict[str, Any]:
    """Score with one protocol; return what its run counted."""
    from steelyard.core.config import RunConfig
    from steelyard.core.progress import Reporter
    from steelyard.scoring.run import score
    from steelyard.scoring.status import run_status

    run = place / name
    with shortened(name, place, max_tokens) as (protocol, files):
        config = RunConfig(
            inputs=(str(place / "shuffled"),), judge=(judge,), protocol=(protocol,), **files
        )
        score(config, run, Reporter(quiet=True))
    status = run_status(run)
    pairs, work = status["pairs"]["done"], status["work"]
    if pairs != status["pairs"]["planned"]:
        raise SystemExit(f"{name}: {pairs} of {status['pairs']['planned']} pairs")
    return {
        "protocol": name,
        "pairs": pairs,
        "prompts_a_pair": status["prompts"]["asked"] / pairs,
        "unique_a_pair": status["prompts"]["unique"] / pairs,
        "logical_a_pair": work["logical_tokens"] / pairs,
        "computed_a_pair": work["computed_tokens"] / pairs,
        "floor_a_pair": work["floor_tokens"] / pairs,
        "written_a_pair": work["written_tokens"] / pairs,
        "unparsable": status["prompts"]["unparsable"],
        "seconds": work["reading_seconds"],
    }


@contextmanager
def shortened(name: str, place: Path, max_tokens: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Return the protocol, writing at most `max_tokens`, and the files that it needs."""
    import json

    from steelyard.protocols import get_protocol

    protocol, files = get_protocol(name), {}
    if "criterion" in protocol.names:
        files["criteria"] = str(place / "criteria.json")
        Path(files["criteria"]).write_text(json.dumps({"criteria": CRITERIA}))
    if protocol.has_examples:
        files["examples"] = str(place / "examples.json")
        Path(files["examples"]).write_text(json.dumps({"examples": [EXAMPLE]}))
    if protocol.answer == "label":
        yield name, files
        return
    copy = place / f"{name}.toml"
    text = Path(protocol.place).read_text("utf-8")
    copy.write_text(text.replace("max_tokens = 512", f"max_tokens = {max_tokens}"), "utf-8")
    yield str(copy), files


if __name__ == "__main__":
    sys.exit(main())
