"""The load generator, small: so that the benches of load cannot rot."""

import pytest

from tests.load.measure import stage

MACHINES = 12


@pytest.mark.slow
def test_a_crowd_connects_and_reports_and_all_that_it_said_is_stored_and_acknowledged() -> None:
    with stage(MACHINES) as place, place.crowd() as crowd:
        crowd.ask("connect", port=place.place.port, machines=MACHINES)
        sent = crowd.ask("pace", per_s=100, seconds=2.0)["sent"]
        assert crowd.ask("settle", limit_s=20.0) == {"missing": 0, "lost": 0}
        listed = place.place.machines()
        assert {machine["phase"] for machine in listed} == {"PHASE_PRESENT"}
        assert crowd.ask("snapshots", seconds=0.5)["sent"] > MACHINES
        assert crowd.ask("settle", limit_s=20.0) == {"missing": 0, "lost": 0}
    assert sent > 0


@pytest.mark.slow
def test_the_bare_sink_takes_what_the_same_crowd_sends() -> None:
    with stage(MACHINES) as place, place.sink() as sink, place.crowd() as crowd:
        port = sink.ask("port")["port"]
        crowd.ask("connect", port=port, machines=MACHINES)
        sent = crowd.ask("pace", per_s=100, seconds=1.0)["sent"]
        unary = crowd.ask("unary", port=port, machines=MACHINES, seconds=0.5)["sent"]
        assert sink.ask("taken")["taken"] >= sent + unary
        assert unary > MACHINES
