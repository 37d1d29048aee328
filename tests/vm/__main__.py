"""`make console`: a shell in the tests' machine, a line at a time; the end of the input ends the machine."""

import sys

from tests.vm import image, site
from tests.vm.machine import machine


def main() -> int:
    if lacking := image.missing():
        sys.stderr.write(f"{lacking}\n")
        return 1
    sys.stderr.write("starting; the first time takes minutes, later ones a second\n")
    with machine(image.image(), site.enrolled()) as bench:
        sys.stderr.write("root in gpu-01; each line is a script of its own, Ctrl-D ends the machine\ngpu-01# ")
        for line in sys.stdin:
            done = bench.run("bash", "-c", site.PROGRAMS + line, limit_s=600)
            sys.stdout.write(done.out + done.error)
            sys.stdout.flush()
            sys.stderr.write("gpu-01# ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
