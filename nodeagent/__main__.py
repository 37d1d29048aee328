"""`nodeagent`: the agent of one host, and what a person asks of a host or of a captured one.

Rule 1: an error is one line that says what to do, and exit status 1; wrong usage is exit status 2.
Rule 2: a command imports what it needs when it runs: `version` loads neither gRPC nor a probe.
"""

# ruff: noqa: PLC0415 - rule 2
import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from google.protobuf.message import Message

from nodeagent import output
from nodeagent.errors import BedplateError
from nodeagent.host import Host, live, replayed

EPILOG = """\
examples:
  nodeagent snapshot                     what this host is, and what is amiss
  nodeagent topology --root DIR          the GPU-NIC matrix of a captured machine
  nodeagent capture --scrub DIR          a captured machine to send to somebody
"""


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    output.stand()
    try:
        if words[:1] == ["simulate"]:  # has options of its own
            from nodeagent.simulate.command import main as simulate

            return int(simulate(words[1:]))
        arguments = _parser().parse_args(words)
        command: Callable[[argparse.Namespace], int] = arguments.command
        status = command(arguments)
        sys.stdout.flush()
    except BedplateError as error:
        sys.stderr.write(f"nodeagent: {error}\n")
        return 1
    except BrokenPipeError:  # the reader has seen enough
        output.drop()
        return 0
    except OSError as error:
        sys.stderr.write(f"nodeagent: {output.fault(error)}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "nodeagent",
        description=__doc__.partition("\n")[0],
        epilog=EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _run_command(commands.add_parser("run", help="be the agent of this host"))
    _seen_command(commands.add_parser("snapshot", help="scan once, and show what was seen"), _snapshot, "text")
    _seen_command(commands.add_parser("topology", help="which NIC is nearest to which GPU"), _topology, "matrix")
    _capture_command(commands.add_parser("capture", help="write all that a scan reads into a folder, to be replayed"))
    commands.add_parser("simulate", help="agents of captured machines, in one process; see simulate --help")
    commands.add_parser("version", help="show the version").set_defaults(command=_version)
    return parser


def _run_command(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the agent's configuration (TOML)")
    parser.set_defaults(command=_run)


def _seen_command(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int], text: str) -> None:
    _root_option(parser)
    parser.add_argument(
        "-o", "--output", choices=(text, "json"), default=text, help=f"how to show it (default: {text})"
    )
    parser.set_defaults(command=command)


def _capture_command(parser: argparse.ArgumentParser) -> None:
    _root_option(parser)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that is empty, or not there yet")
    parser.add_argument("--scrub", action="store_true", help="put stand-ins for serials, addresses and names")
    parser.set_defaults(command=_capture)


def _root_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, metavar="DIR", help="a captured machine instead of this host")


@contextmanager
def _host(root: Path | None) -> Iterator[Host]:
    """The host that we run on with a worker for NVIDIA's driver, or the captured machine."""
    if root is not None:
        yield replayed(root)
        return
    from nodeagent.nvml.client import Client
    from nodeagent.root import Root

    files = Root()
    client = Client(files)
    try:
        yield live(client.doors(), root=files)
    finally:
        client.close()


def _run(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a line of its own for every attempt; what failed we say ourselves
    from nodeagent.daemon import main as run

    return run(arguments.config)


def _snapshot(arguments: argparse.Namespace) -> int:
    from nodeagent.observe import scan
    from nodeagent.page import page

    with _host(arguments.root) as host:
        snapshot = scan(host)
    sys.stdout.write(_json(snapshot) if arguments.output == "json" else page(snapshot))
    return 0


def _topology(arguments: argparse.Namespace) -> int:
    from nodeagent.observe import scan
    from nodeagent.topology import matrix

    with _host(arguments.root) as host:
        topology = scan(host).inventory.topology
    sys.stdout.write(_json(topology) if arguments.output == "json" else matrix(topology).rstrip("\n") + "\n")
    return 0


def _capture(arguments: argparse.Namespace) -> int:
    from nodeagent.capture import capture, refuse_full, write

    refuse_full(arguments.folder)
    with _host(arguments.root) as host:
        taken = capture(host, scrub=arguments.scrub)
    write(taken, arguments.folder)
    sys.stdout.write(f"{len(taken.files)} files in {arguments.folder}; nodeagent snapshot --root {arguments.folder}\n")
    return 0


def _version(_arguments: argparse.Namespace) -> int:
    sys.stdout.write(f"nodeagent {version('bedplate')}\n")
    return 0


def _json(message: Message) -> str:
    from google.protobuf.json_format import MessageToJson

    content = MessageToJson(
        message,
        preserving_proto_field_name=True,
        sort_keys=True,
        always_print_fields_with_no_presence=True,  # zero is not absent: NUMA node 0 has a number
    )
    return content + "\n"


if __name__ == "__main__":
    sys.exit(main())
