"""`make console`: a shell in the tests' machine, a line at a time; the end of the input ends the machine.

With `--only-make` the machine is made where it is not there yet, and that is all: what takes a minute or two once.
"""

import argparse
import os
import sys
import time

from tests.vm import image, site
from tests.vm.machine import machine


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.vm", description="A shell in the tests' machine.")
    arguments.add_argument("--only-make", action="store_true", help="make the machine where it is not there yet")
    told = arguments.parse_args()
    if lacking := image.missing():
        sys.stderr.write(f"{lacking}\n")
        return 1
    began = time.monotonic()
    sys.stderr.write("the virtual machine: the first time takes minutes, later ones a second\n")
    disk, running = image.image(), site.enrolled()
    if told.only_make:
        os.sync()  # else two gigabytes go to the disk while the tests run
        sys.stderr.write(f"it is there, after {time.monotonic() - began:.0f} s\n")
        return 0
    with machine(disk, running) as bench:
        sys.stderr.write("root in gpu-01; each line is a script of its own, Ctrl-D ends the machine\ngpu-01# ")
        for line in sys.stdin:
            done = bench.run("bash", "-c", site.PROGRAMS + line, limit_s=600)
            sys.stdout.write(done.out + done.error)
            sys.stdout.flush()
            sys.stderr.write("gpu-01# ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
