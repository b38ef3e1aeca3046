"""Run all benchmarks one after the other; options such as --smoke go to each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = (
    "startup",
    "host",
    "inputs",
    "tokens",
    "compiled",
    "memory",
    "soak",
    "simulate",
    "bitflips",
    "hostile",
    "sharing",
    "versus",
    "tournament",
    "overlap",
    "rubric",
    "protocols",
    "overhead",
    "exactness",
    "limits",
    "ratings",
    "calibration",
    "trust",
    "validity",
    "export",
    "pages",
    "pairs",
    "gpu",
)


def main() -> int:
    failed = []
    for name in NAMES:
        print(f"== {name}", flush=True)
        command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), *sys.argv[1:]]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
