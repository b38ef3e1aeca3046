"""`python -m steelyard` does the same as the command `steelyard`."""

import io
import os
import sys

from typing_extensions import override

# With -m, Python puts the current folder first on the path. In a clone, transformers would then
# take its folder `kernels/` for the package of that name.
if __name__ == "__main__" and not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109
    del sys.path[0]


class Messages(io.FileIO):
    """Where messages go; those that cannot be written are lost, and the work goes on.

    The disk of a log fills up, or its reader ends, in the middle of the night.
    """

    @override
    def write(self, text: bytes, /) -> int:  # type: ignore[override]
        """Write everything, or give up."""
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError:
            pass
        return len(text)


def secure_streams() -> None:
    """Open the standard streams that are closed, and make messages unable to end a command.

    Otherwise the next file that is opened would be taken for one of them.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    sys.stderr = io.TextIOWrapper(
        Messages(2, "w", closefd=False),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=True,
        write_through=True,
    )


def main() -> None:
    """Run the command line; Ctrl-C ends it as everywhere while it is still being imported."""
    secure_streams()
    try:
        from steelyard.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
