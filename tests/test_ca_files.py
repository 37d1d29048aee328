"""The files of a change of the root: each step, cut short at each touch of a file, and the files that make no sense."""

import base64
import json
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509

from provisioner import credentials, onroots
from provisioner.errors import BedplateError
from provisioner.keyring import Keyring
from provisioner.pki import fingerprint
from provisioner.rotation import Step, steps

NOW = time.time()


def made(state: Path, *taken: Step) -> Path:
    """A CA after these steps."""
    credentials.init(state, now=NOW)
    for step in taken:
        onroots.take(state, step, NOW)
    return state


def roots(state: Path) -> list[str]:
    return [fingerprint(root).hex() for root in credentials.load(state).roots]


def test_the_three_steps_lead_from_one_root_to_another(tmp_path: Path) -> None:
    old = credentials.load(made(tmp_path))
    onroots.take(tmp_path, Step.TRUST, NOW)
    both = credentials.load(tmp_path)
    assert both.roots == (both.certificate, old.certificate)
    assert (both.server.certificate, both.server.sha256, both.next_sha256) == (old.certificate, old.sha256, both.sha256)
    assert stat.S_IMODE((tmp_path / "ca.next.key").stat().st_mode) == 0o600
    onroots.take(tmp_path, Step.SERVE, NOW)
    new = credentials.load(tmp_path)
    assert (new.server.certificate, new.next_sha256, set(new.roots)) == (both.certificate, b"", set(both.roots))
    onroots.take(tmp_path, Step.DROP, NOW)
    assert credentials.load(tmp_path).roots == (both.certificate,)
    assert not (tmp_path / "ca.next.key").exists()


def test_while_both_are_trusted_the_server_shows_the_old_one_and_clients_get_certificates_of_the_new(
    tmp_path: Path,
) -> None:
    old = credentials.load(made(tmp_path))
    onroots.take(tmp_path, Step.TRUST, NOW)
    both = credentials.load(tmp_path)
    leaf, root = x509.load_pem_x509_certificates(both.issue_server(["localhost"], now=NOW)[0])
    assert root == old.certificate
    leaf.verify_directly_issued_by(old.certificate)
    credentials.write_credential(both, "bob", "viewer", tmp_path / "bob", now=NOW)
    x509.load_pem_x509_certificate((tmp_path / "bob/cert.pem").read_bytes()).verify_directly_issued_by(both.certificate)
    assert len(x509.load_pem_x509_certificates((tmp_path / "bob/ca.pem").read_bytes())) == 2


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("step", Step)
def test_a_step_that_is_cut_off_at_any_touch_of_a_file_leaves_a_ca_that_serves_and_is_taken_again(
    tmp_path: Path, step: Step
) -> None:
    state = made(tmp_path / "state", *list(Step)[: list(Step).index(step)])
    before = credentials.load(state)
    crash = Path(__file__).with_name("crash.py")
    command = [sys.executable, crash, str(state), step.name]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=170, check=True)
    cuts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(cuts) > 4
    for cut in cuts:
        again = tmp_path / f"again-{cut['count']}"
        shutil.copytree(state, again)
        for path in again.glob("ca.*"):
            path.unlink()
        for name, content in cut["left"].items():
            if "ca." in name:
                (again / name).write_bytes(base64.b64decode(content))
                (again / name).chmod(0o600)
        left = credentials.load(again)
        assert set(left.roots) >= {before.certificate}
        if steps(onroots.have(again, NOW))[0] is step:
            onroots.take(again, step, NOW)
        assert credentials.load(again).certificate in left.roots or step is Step.TRUST
        following = [*Step, Step.TRUST][list(Step).index(step) + 1]
        assert steps(onroots.have(again, NOW))[0] is following


def test_a_running_provisioner_takes_what_makes_sense_and_keeps_what_it_had_where_it_does_not(tmp_path: Path) -> None:
    ring = Keyring(made(tmp_path), ["localhost"], time.time)
    assert not ring.look()
    (tmp_path / "ca.pem").write_bytes(b"half of")
    before = ring.now
    assert not ring.look()
    assert ring.now is before
    (tmp_path / "ca.pem").write_bytes(before.authority.roots_pem)
    onroots.take(tmp_path, Step.TRUST, NOW)
    assert ring.look()
    assert not ring.look()
    assert len(ring.now.trusted) == 2
    assert ring.now.changed_at >= before.changed_at


def test_a_next_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    made(tmp_path, Step.TRUST)
    (tmp_path / "ca.next.key").chmod(0o640)
    with pytest.raises(BedplateError, match=r"cannot use .*ca\.next\.key: others can read it"):
        credentials.load(tmp_path)


def test_a_key_that_is_gone_is_restored_and_no_ca_is_made_beside_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(BedplateError, match="there is no CA; make one with"):
        credentials.load(tmp_path)
    made(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(BedplateError, match=r"ca\.key: it is gone; restore ca\.key and ca\.pem, as a pair"):
        credentials.load(tmp_path)
