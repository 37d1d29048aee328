"""While two roots are trusted: what the old one's key is still worth, and what is made meanwhile holds to the end."""

import contextlib
import json
import time
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bedplate.v1.uplink_pb2 import RenewRequest
from bedplate.v1.uplink_pb2_grpc import UplinkStub
from nodeagent import identity
from nodeagent.identity import Identity
from provisioner import credentials
from provisioner.pki import Authority, MachineIdentity, key_pem, new_key
from provisioner.rotation import TAKEN_S
from tests.enrolment_desk import csr_of
from tests.running import agent, until
from tests.yard import Yard, connected, yard

pytestmark = pytest.mark.slow
MACHINES = Path(__file__).resolve().parent / "machines"


def _renewed(here: Yard, whose: Identity, key: bytes, certificate: bytes) -> bytes:
    """The certificate that somebody gets who shows this one; grpc.RpcError where there is none for him."""
    secure = grpc.ssl_channel_credentials(whose.ca_pem, key, certificate)
    csr = csr_of(load_pem_private_key(key, None))
    with grpc.secure_channel(f"127.0.0.1:{here.place.port}", secure) as channel:
        return UplinkStub(channel).Renew(RenewRequest(csr=csr), timeout=10).credentials.certificate_pem


def _forged(stolen: Authority, whose: Identity) -> tuple[bytes, bytes]:
    """What a thief of the root's key makes for himself: that machine, in its life of now."""
    key, who = new_key(), MachineIdentity(whose.machine_id, whose.incarnation)
    issued = stolen.issue_machine(csr_of(key), who, lifetime_s=86400, now=time.time())
    return key_pem(key), issued.certificate_pem


@pytest.mark.timeout(120)
def test_by_the_root_that_signs_no_more_only_what_was_issued_here_is_renewed(tmp_path: Path) -> None:
    with yard(tmp_path) as here:
        with agent(tmp_path / "one", here.token("token", "--uses", "1"), root=MACHINES / "dgx2") as one:
            connected(one)
        whose = identity.load(tmp_path / "one/state")
        assert whose is not None
        stolen = credentials.load(here.place.folder / "provisioner")
        here.go_on()
        until(lambda: "2 roots are trusted" in here.provisioner.text())
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as refused:
                _renewed(here, whose, *_forged(stolen, whose))
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert refused.value.details() == (
                f"cannot renew the certificate of {whose.machine_id}: it was never issued here; enrol with a join token"
            )
        younger = x509.load_pem_x509_certificate(_renewed(here, whose, whose.key_pem, whose.certificate_pem))
        younger.verify_directly_issued_by(credentials.load(here.place.folder / "provisioner").certificate)
        with pytest.raises(ValueError, match="Issuer"):
            younger.verify_directly_issued_by(stolen.certificate)
        with agent(tmp_path / "one", None, root=MACHINES / "dgx2") as one:
            until(lambda: here.came() == "1 of 1")
            until(here.present)
        (machine,) = here.place.machines()
        assert (machine["machine_id"], machine["incarnation"]) == (whose.machine_id, 1)


@pytest.mark.timeout(180)
def test_a_join_token_made_while_two_roots_are_trusted_lets_machines_in_during_each_step_of_the_change(
    tmp_path: Path,
) -> None:
    with yard(tmp_path) as here, contextlib.ExitStack() as agents:
        here.go_on()
        until(lambda: "2 roots are trusted" in here.provisioner.text())
        taken_at = time.time() + TAKEN_S
        until(
            lambda: time.time() > taken_at
        )  # what is made before may be of the old root alone, and would be waited for
        token = here.token("both", "--uses", "3")
        connected(agents.enter_context(agent(tmp_path / "beside", token, root=MACHINES / "h100")))
        until(lambda: here.came() == "1 of 1")
        here.new_credential("ada", "admin")
        here.place.bedplate("credential", "revoke", "admin", "--yes")

        here.go_on()
        until(lambda: here.provisioner.text().count("2 roots are trusted") == 2)
        connected(agents.enter_context(agent(tmp_path / "served", token, root=MACHINES / "dgx2")))

        here.go_on()
        until(lambda: "1 root is trusted" in here.provisioner.text())
        connected(agents.enter_context(agent(tmp_path / "after", token, root=MACHINES / "vm")))
        until(here.present)
        assert [one["incarnation"] for one in here.place.machines()] == [1, 1, 1]
        (made,) = json.loads(here.place.bedplate("token", "list", "-o", "json").stdout)
        assert made["uses"] == 3
