"""Entry of ./longhaul: puts the repository's root on the path and hands over to the commands."""

import pathlib
import sys

sys.dont_write_bytecode = True
sys.path[0] = str(pathlib.Path(__file__).resolve().parents[2])

from tools.launcher import commands  # noqa: E402  (the path must be set first)

sys.exit(commands.main(sys.argv[1:]))
