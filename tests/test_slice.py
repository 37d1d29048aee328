"""The whole way, with the real programs: a host discovers itself, enrols, reports, and a person sees it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from tests.running import BIN, Program, Site, agent, site

pytestmark = pytest.mark.slow
MACHINES = Path(__file__).parent / "machines"
PAUSE = Event()


@pytest.fixture
def place(tmp_path: Path) -> Site:
    return site(tmp_path, silent_after_s=1)


def _until(true: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline
        PAUSE.wait(0.1)


def _machines(place: Site) -> list[dict[str, object]]:
    return json.loads(place.bedplate("machines", "-o", "json").stdout)


def _phases(place: Site) -> list[str]:
    return [str(machine["phase"]).removeprefix("PHASE_").lower() for machine in _machines(place)]


def _kinds(place: Site) -> list[str]:
    return [event["kind"] for event in json.loads(place.bedplate("events", "-o", "json").stdout)]


def _connected(program: Program) -> None:
    program.said.clear()
    program.wait_for("STATUS=connected to")


def test_a_captured_machine_enrols_and_is_seen_with_all_that_it_is_made_of(place: Site) -> None:
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(place.folder / "agent", place.token("--uses", "1"), root=MACHINES / "h100") as program:
            _connected(program)
            _until(lambda: bool(_machines(place)[0].get("gpu_count")))
            (machine,) = _machines(place)
            assert (machine["gpu_count"], machine["rdma_count"]) == (8, 12)
            matrix = place.bedplate("machine", "topology", str(machine["hostname"])).stdout
            assert all(f"GPU{number}" in matrix for number in range(8))
            assert program.stop() == 0
        assert "goodbye" in program.text() or "stopping" in program.text()


def test_a_provisioner_that_dies_loses_nothing_and_asks_for_nothing_twice(place: Site) -> None:
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "1")
        with agent(place.folder / "agent", token, root=MACHINES / "dgx2", metrics_listen=_free()) as program:
            _connected(program)
            _until(lambda: bool(_machines(place)[0].get("gpu_count")))
            before = place.bedplate("machine", "show", "-o", "json", str(_machines(place)[0]["machine_id"])).stdout
            provisioner.process.kill()
            provisioner.process.wait()
            with place.run() as again:
                again.wait_for("READY=1")
                _until(lambda: _phases(place) == ["present"] and "stream" in str(_machines(place)[0]["because"]))
                after = place.bedplate("machine", "show", "-o", "json", str(_machines(place)[0]["machine_id"])).stdout
                assert json.loads(after)["snapshot"] == json.loads(before)["snapshot"]
                _until(lambda: "delta 1 of 1" in _explained(program))


def test_a_machine_that_is_cut_off_falls_silent_and_comes_back(place: Site) -> None:
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(place.folder / "agent", place.token("--uses", "1")) as program:
            _connected(program)
            program.process.kill()
            program.process.wait()
        _until(lambda: _phases(place) == ["silent"])
        (machine,) = _machines(place)
        assert "silent for" in str(machine["because"])
        _until(lambda: "machine.silent" in _kinds(place))
        with agent(place.folder / "agent", None) as program:
            _connected(program)
            _until(lambda: _phases(place) == ["present"])
            assert _kinds(place).count("machine.silent") == 1
            assert [kind for kind in _kinds(place) if not kind.startswith("machine.problem.")][-1] == "machine.present"


def test_a_host_that_hangs_with_its_connection_open_falls_silent_too(tmp_path: Path) -> None:
    place = site(tmp_path, silent_after_s=1, keepalive_s=1)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(place.folder / "agent", place.token("--uses", "1")) as program:
            _connected(program)
            os.kill(program.pid, signal.SIGSTOP)
            try:
                _until(lambda: _phases(place) == ["silent"])
            finally:
                os.kill(program.pid, signal.SIGCONT)
            _until(lambda: _phases(place) == ["present"])


def test_a_machine_whose_token_asks_for_review_waits_for_a_person(place: Site) -> None:
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(place.folder / "agent", place.token("--uses", "1", "--review")) as program:
            _until(lambda: _phases(place) == ["pending"])
            program.wait_for("STATUS=not connected: machine m-")
            place.bedplate("machine", "accept", str(_machines(place)[0]["machine_id"]))
            _until(lambda: _phases(place) == ["accepted"])


def test_a_forgotten_machine_is_cut_off_and_its_agent_says_so(place: Site) -> None:
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(place.folder / "agent", place.token("--uses", "1")) as program:
            _connected(program)
            place.bedplate("machine", "forget", "--yes", str(_machines(place)[0]["machine_id"]))
            program.said.clear()
            program.wait_for("STATUS=not connected: ")
            assert _machines(place) == []


def test_an_agent_whose_provisioner_is_away_is_ready_and_says_what_is_missing(place: Site) -> None:
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        token = place.token("--uses", "1")
    with agent(place.folder / "agent", token) as program:
        program.wait_for("READY=1")
        program.wait_for(f"STATUS=not connected: cannot enrol with 127.0.0.1:{place.enrol_port}: nobody listens there")
        assert program.stop() == 0


def test_two_agents_on_one_folder_are_one_too_many(place: Site) -> None:
    with agent(place.folder / "agent", None) as program:
        program.wait_for("READY=1")
        config = place.folder / "agent" / "nodeagent.toml"
        command = [str(BIN / "nodeagent"), "run", "--config", str(config)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("nodeagent: cannot use state folder")
    assert len(second.stderr.splitlines()) == 1


def test_a_hangup_reads_the_configuration_again_and_a_mistake_in_it_changes_nothing(place: Site) -> None:
    with agent(place.folder / "agent", None) as program:
        program.wait_for("READY=1")
        config = place.folder / "agent" / "nodeagent.toml"
        good = config.read_text()
        config.write_text(good + "tick = 3\n")
        os.kill(program.pid, signal.SIGHUP)
        _until(lambda: 'unknown key "tick"' in program.text())
        config.write_text(good)
        os.kill(program.pid, signal.SIGHUP)
        _until(lambda: f"read {config} again" in program.text())
        assert program.process.poll() is None


def test_a_certificate_is_renewed_at_half_of_its_life_and_the_stream_goes_on(tmp_path: Path) -> None:
    place = site(tmp_path, certificate_days=4 / 86400)
    with place.run() as provisioner:
        provisioner.wait_for("READY=1")
        with agent(place.folder / "agent", place.token("--uses", "1"), tick_s=0.2) as program:
            _connected(program)
            identity = place.folder / "agent" / "state" / "identity.json"
            first = json.loads(identity.read_text())
            _until(lambda: json.loads(identity.read_text())["certificate"] != first["certificate"])
            assert json.loads(identity.read_text())["machine_id"] == first["machine_id"]
            assert _phases(place) == ["present"]


def _free() -> str:
    from tests.running import free_ports  # noqa: PLC0415

    return f"127.0.0.1:{free_ports(1)[0]}"


def _explained(program: Program) -> str:
    """What the agent itself says of it, through its socket."""
    import grpc  # noqa: PLC0415

    from bedplate.v1.node_pb2 import ExplainRequest  # noqa: PLC0415
    from bedplate.v1.node_pb2_grpc import NodeAgentStub  # noqa: PLC0415

    config = Path(Path(f"/proc/{program.pid}/cmdline").read_bytes().split(b"\0")[-2].decode()).read_text()
    path = next(line.split('"')[1] for line in config.splitlines() if line.startswith("socket ="))
    with grpc.insecure_channel(f"unix:{path}") as channel:
        return "\n".join(NodeAgentStub(channel).Explain(ExplainRequest(), timeout=5).evidence)
