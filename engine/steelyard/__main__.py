"""`python -m steelyard`: the same as the command `steelyard`."""

import os
import sys

# Python puts the current folder first on the path for -m. In a clone its folder `kernels/` would
# then pass for the package of that name, which transformers looks for; so the entry goes first.
if __name__ == "__main__" and not sys.flags.safe_path and sys.path[:1] in ([""], [os.getcwd()]):  # noqa: PTH109
    del sys.path[0]

from steelyard.cli import main

if __name__ == "__main__":
    main()
