"""``python -m waypost`` is the ``waypost`` program of this package."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path


def program() -> Path:
    """The program, in the folder of scripts that pip installed it to."""
    schemes = [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]
    folders = [Path(sysconfig.get_path("scripts", scheme)) for scheme in schemes]
    # `pip install --target DIR` puts it into DIR/bin.
    folders.append(Path(__file__).resolve().parent.parent / "bin")
    for folder in folders:
        if (folder / "waypost").is_file():
            return folder / "waypost"
    places = ", ".join(map(str, folders))
    sys.exit(f"waypost: the program is missing in {places}; reinstall the package with pip")


def main() -> None:
    """Replaces this process with the program."""
    path = program()
    os.execv(path, [str(path), *sys.argv[1:]])


if __name__ == "__main__":
    main()
