"""`bedplate`: the program for people. It only starts the program; see `program.py`.

Its packages are an extra, so that a machine's agent installs without them: where they are missing, one line says so.
"""

import sys


def main() -> None:
    try:
        from provisioner.cli.program import run  # noqa: PLC0415 - it needs click, which may not be installed
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"bedplate", "provisioner"}:
            raise
        sys.stderr.write("bedplate: cannot start: its packages are not installed; pip install 'bedplate[cli]'\n")
        sys.exit(1)
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
