"""Certificates of people and tools: those that there are, and taking them back. Pure, over what the audit and the world
say.

Rule 1: a name takes back all that was made for it until now; what is made later is good. So nobody is locked out for
        good, and the list need not be complete.
Rule 2: one serial number takes back one certificate, known here or not: it is read off the certificate itself.
"""

import re
from collections.abc import Sequence

from bedplate.v1 import fleet_pb2 as pb
from provisioner.access import Caller
from provisioner.brief import moment
from provisioner.issued import Credential
from provisioner.service.ledger import Ledger
from provisioner.service.refusals import invalid, not_found
from provisioner.world import Change, CredentialRevoked, Noted

SERIAL = re.compile(r"[0-9a-f]{1,40}", re.ASCII)


def listed(found: Sequence[Credential], name: str) -> pb.ListCredentialsResponse:
    return pb.ListCredentialsResponse(credentials=[told(one) for one in found if name in {"", one.name}])


def told(one: Credential) -> pb.Credential:
    return pb.Credential(
        name=one.name,
        role=one.role,
        serial_number=one.serial_number,
        made_at=moment(one.made_at),
        made_by=one.made_by,
        expires_at=moment(one.expires_at),
        revoked_at=moment(one.revoked_at),
    )


def subject(request: pb.RevokeCredentialRequest) -> CredentialRevoked:
    """What is to be taken back, not dated yet."""
    serial = request.serial_number.lower().replace(":", "")
    if bool(request.name) == bool(serial):
        raise invalid("name", "cannot revoke credential: give a name or a serial number, one of the two")
    if serial and not SERIAL.fullmatch(serial):
        raise invalid("serial_number", "cannot revoke credential: a serial number has at most 40 hexadecimal digits")
    return CredentialRevoked(request.name, serial.zfill(32) if serial else "", 0.0)


def revoke(
    ledger: Ledger, who: Caller, what: CredentialRevoked, found: Sequence[Credential]
) -> tuple[pb.RevokeCredentialResponse, Sequence[Change]]:
    meant = [one for one in found if what.name in {"", one.name} and what.serial_number in {"", one.serial_number}]
    if what.name and not meant:
        raise not_found("credential", what.name[:100])
    before, now = ledger.world.revoked.get((what.name, what.serial_number)), ledger.now()
    if before is not None and all(one.revoked_at is not None for one in meant):
        return pb.RevokeCredentialResponse(credentials=[told(one) for one in meant]), ()
    change = CredentialRevoked(what.name, what.serial_number, now)
    subject_ = f"all certificates that {what.name} has" if what.name else f"the certificate {what.serial_number}"
    noted = Noted("credential.revoked", "", "", f"{who} took back {subject_}", str(who), now)
    after = ledger.world.after([(ledger.world.revision, change)])
    return pb.RevokeCredentialResponse(credentials=[told(one.under(after.revoked)) for one in meant]), (change, noted)
