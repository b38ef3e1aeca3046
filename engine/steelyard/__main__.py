"""`python -m steelyard` does the same as the command `steelyard`."""

import os
import sys

# With -m, Python puts the current folder first on the path. In a clone, transformers would then
# take its folder `kernels/` for the package of that name.
if __name__ == "__main__" and not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109
    del sys.path[0]


def main() -> None:
    """Run the command line; Ctrl-C ends it as everywhere while it is still being imported."""
    try:
        from steelyard.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
