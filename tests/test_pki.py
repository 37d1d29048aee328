"""Certificates say who somebody is, what for and until when; and the CA's files are made once."""

import stat
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from provisioner import credentials
from provisioner.errors import BedplateError
from provisioner.pki import CsrError, MachineIdentity, PersonIdentity, Role, authority, identity, new_key

NOW = 1_800_000_000.0
CA = authority(new_key(), now=NOW)
WHO = MachineIdentity("m-4kq7zt2x", 3)


def csr(key, digest=hashes.SHA256(), subject="whatever"):  # noqa: B008 - a constant
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    evil = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("bedplate:person:mallory:admin")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(evil, critical=False)
    return builder.sign(key, digest).public_bytes(serialization.Encoding.DER)


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_a_machines_certificate_says_who_it_is_and_that_it_is_a_client_for_a_week():
    issued = CA.issue_machine(csr(new_key()), WHO, lifetime_s=7 * 86400, now=NOW)
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["bedplate:machine:m-4kq7zt2x:3"]
    assert len(list(names)) == 1
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert extension(certificate, x509.BasicConstraints).value.ca is False
    assert certificate.not_valid_before_utc.timestamp() == NOW - 3600
    assert certificate.not_valid_after_utc.timestamp() == issued.not_after == NOW + 7 * 86400
    assert f"{certificate.serial_number:032x}" == issued.serial_number
    certificate.verify_directly_issued_by(CA.certificate)


def test_what_a_csr_says_of_itself_is_ignored():
    issued = CA.issue_machine(csr(new_key(), subject="m-root"), WHO, lifetime_s=60, now=NOW)
    assert b"mallory" not in x509.load_pem_x509_certificate(issued.certificate_pem).public_bytes(
        serialization.Encoding.DER
    )


def test_a_csr_that_is_not_signed_with_its_own_key_gets_nothing():
    der = bytearray(csr(new_key()))
    der[-1] ^= 1
    with pytest.raises(CsrError, match="not signed with its own key"):
        CA.issue_machine(bytes(der), WHO, lifetime_s=60, now=NOW)


@pytest.mark.parametrize(
    ("der", "line"),
    [
        (b"", "not PKCS #10"),
        (b"0" * 5000, "may have 4096"),
        (b"\x30\x03\x02\x01\x00", "not PKCS #10"),
        (csr(ed25519.Ed25519PrivateKey.generate(), None), "not P-256 or P-384"),
        (csr(rsa.generate_private_key(65537, 2048)), "not P-256 or P-384"),
        (csr(ec.generate_private_key(ec.SECP521R1())), "not P-256 or P-384"),
    ],
    ids=["empty", "too large", "something else", "Ed25519", "RSA", "P-521"],
)
def test_a_csr_that_is_none_or_of_another_kind_of_key_gets_nothing(der, line):
    with pytest.raises(CsrError, match=line):
        CA.issue_machine(der, WHO, lifetime_s=60, now=NOW)


def test_a_p384_key_is_taken():
    assert CA.issue_machine(csr(ec.generate_private_key(ec.SECP384R1())), WHO, lifetime_s=60, now=NOW).certificate_pem


def test_no_certificate_outlives_its_ca():
    issued = CA.issue_machine(csr(new_key()), WHO, lifetime_s=100 * 365 * 86400, now=NOW)
    assert issued.not_after == CA.certificate.not_valid_after_utc.timestamp()


def test_serial_numbers_are_random_and_of_128_bits():
    serials = {CA.issue_person(PersonIdentity("a", Role.VIEWER), now=NOW)[0] for _ in range(8)}
    numbers = {x509.load_pem_x509_certificate(pem).serial_number for pem in serials}
    assert len(numbers) == 8
    assert all(number.bit_length() == 128 for number in numbers)


def test_the_ca_signs_leaves_and_nothing_below_them():
    constraints = extension(CA.certificate, x509.BasicConstraints)
    usage = extension(CA.certificate, x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    assert CA.certificate.not_valid_after_utc - CA.certificate.not_valid_before_utc > timedelta(days=3650)


def test_the_servers_chain_ends_in_the_ca_and_carries_its_names():
    chain, _key = CA.issue_server(["provisioner.example", "127.0.0.1", "[::1]", "127.0.0.1"], now=NOW)
    leaf, root = x509.load_pem_x509_certificates(chain)
    names = extension(leaf, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["provisioner.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert list(extension(leaf, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert root == CA.certificate


def test_a_host_whose_clock_is_two_hours_behind_takes_the_servers_certificate():
    chain, _key = CA.issue_server(["localhost"], now=NOW)
    assert all(one.not_valid_before_utc.timestamp() < NOW - 7200 for one in x509.load_pem_x509_certificates(chain))


@pytest.mark.parametrize("name", ["", "a b", "x/../y", "-dash", "é"])
def test_a_name_that_no_server_can_have_is_refused(name):
    with pytest.raises(BedplateError, match="no host name and no address"):
        CA.issue_server([name], now=NOW)


@pytest.mark.parametrize(
    ("uri", "who"),
    [
        ("bedplate:machine:m-4kq7zt2x:3", WHO),
        ("bedplate:person:alice@example.com:admin", PersonIdentity("alice@example.com", Role.ADMIN)),
        ("bedplate:machine:m-4kq7zt2x:0", None),
        ("bedplate:machine:m-4kq7zt2x:03", None),
        ("bedplate:machine:m-4kq7zt2x:٣", None),
        ("bedplate:machine:m-4kq7zt2x:3\n", None),
        ("bedplate:machine:m-4KQ7ZT2X:3", None),
        ("bedplate:machine:m-4kq7zt2x", None),
        ("bedplate:person:alice:root", None),
        ("bedplate:person:alice:admin:viewer", None),
        ("bedplate:person::admin", None),
        ("spiffe://bedplate/alice", None),
    ],
)
def test_an_identity_is_read_strictly(uri, who):
    assert identity(uri) == who
    assert who is None or str(who) == uri


@pytest.mark.parametrize("name", ["", "Alice", "a:admin", "x" * 64, "a b", "-a"])
def test_a_person_whose_name_could_be_read_as_something_else_gets_no_credential(name):
    with pytest.raises(BedplateError, match="a name is 1 to 63"):
        CA.issue_person(PersonIdentity(name, Role.VIEWER), now=NOW)


def test_init_makes_the_ca_and_the_first_admin_for_their_owner_alone(tmp_path):
    state = tmp_path / "state"
    made = credentials.init(state, now=NOW)
    files = {str(path.relative_to(state)): stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*")}
    assert files == {
        "ca.key": 0o600,
        "ca.pem": 0o600,
        "admin": 0o700,
        "admin/ca.pem": 0o600,
        "admin/cert.pem": 0o600,
        "admin/key.pem": 0o600,
    }
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert credentials.load(state).sha256 == made.sha256
    certificate = x509.load_pem_x509_certificate((state / "admin/cert.pem").read_bytes())
    uris = extension(certificate, x509.SubjectAlternativeName).value.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == ["bedplate:person:admin:admin"]


def test_a_second_init_says_that_there_is_a_ca_and_touches_nothing(tmp_path):
    credentials.init(tmp_path, now=NOW)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BedplateError, match="there is one already"):
        credentials.init(tmp_path, now=NOW)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_init_that_was_cut_short_is_finished_with_the_same_key(tmp_path):
    credentials.init(tmp_path, now=NOW)
    key = (tmp_path / "ca.key").read_bytes()
    (tmp_path / "ca.pem").unlink()
    credentials.init(tmp_path, now=NOW)
    assert (tmp_path / "ca.key").read_bytes() == key
    credentials.load(tmp_path)


def test_a_ca_key_that_others_can_read_is_refused(tmp_path):
    credentials.init(tmp_path, now=NOW)
    (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(BedplateError, match="others can read it"):
        credentials.load(tmp_path)


def test_a_folder_without_a_ca_says_how_to_make_one(tmp_path):
    with pytest.raises(BedplateError, match="provisioner init"):
        credentials.load(tmp_path)


def test_a_ca_and_a_key_that_do_not_belong_together_are_refused(tmp_path):
    credentials.init(tmp_path / "a", now=NOW)
    credentials.init(tmp_path / "b", now=NOW)
    (tmp_path / "a/ca.pem").write_bytes((tmp_path / "b/ca.pem").read_bytes())
    with pytest.raises(BedplateError, match="restore the pair"):
        credentials.load(tmp_path / "a")


def test_all_roots_of_the_bundle_are_trusted_and_the_one_of_the_key_signs(tmp_path):
    old, new = credentials.init(tmp_path / "old", now=NOW), credentials.init(tmp_path / "new", now=NOW)
    (tmp_path / "new/ca.pem").write_bytes(old.roots_pem + new.roots_pem)
    loaded = credentials.load(tmp_path / "new")
    assert loaded.sha256 == new.sha256
    assert set(loaded.roots) == {old.certificate, new.certificate}
    assert len(x509.load_pem_x509_certificates(loaded.roots_pem)) == 2


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_ca_file_that_is_none_is_one_line(tmp_path, content):
    credentials.init(tmp_path, now=NOW)
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(BedplateError, match=r"^cannot read .*ca\.pem: it holds no certificate in PEM$"):
        credentials.load(tmp_path)


def test_a_credential_is_not_written_over_another(tmp_path):
    ca = credentials.init(tmp_path / "state", now=NOW)
    credentials.write_credential(ca, "bob", "viewer", tmp_path / "bob", now=NOW)
    with pytest.raises(BedplateError, match="there is one already"):
        credentials.write_credential(ca, "eve", "admin", tmp_path / "bob", now=NOW)
    with pytest.raises(BedplateError, match="the role is one of viewer, operator, admin"):
        credentials.write_credential(ca, "eve", "root", tmp_path / "eve", now=NOW)


def test_a_state_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BedplateError, match=r"^cannot make the folder .*: Not a directory$"):
        credentials.init(tmp_path / "file" / "state", now=NOW)
