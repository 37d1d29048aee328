"""Why a machine is in its phase: one sentence, what it rests on, and what a person can do."""

from bedplate.v1.fleet_pb2 import ExplainMachineResponse
from provisioner.cli.terminal import Terminal, plain, wrapped
from provisioner.cli.views import machines, words


def explain(answer: ExplainMachineResponse, terminal: Terminal) -> list[str]:
    phase, colour = words.phase(answer.machine.phase)
    who, width = plain(machines.line(answer.machine)), terminal.page_width
    first, *more = wrapped(answer.because, width, first=f"{who} is {phase}: ", rest="  ")
    # Painted afterwards: an escape sequence has no width.
    lines = [first.replace(f" is {phase}:", f" is {terminal.paint(phase, colour)}:", 1), *more]
    lines += [line for evidence in answer.evidence for line in wrapped(evidence, width, first="  - ")]
    if answer.advice:
        lines += wrapped(answer.advice, width, first="What to do: ", rest="  ")
    return lines
