"""A join token is one string that both ends read alike; it lets in whom it should, for as long as it should."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent import meeting
from nodeagent.errors import BedplateError as AgentError
from provisioner import tokens
from provisioner.errors import BedplateError
from provisioner.world import TokenFacts

NOW = 1_800_000_000.0
MINTED = tokens.mint()
TEXT = tokens.encode(MINTED, ["provisioner.example:7444", "[::1]:7444"], b"\xab" * 32)
FACTS = TokenFacts(MINTED.token_id, MINTED.secret_sha256, NOW, NOW + 3600, 2, review=False, created_by="ada (admin)")


def test_both_ends_read_what_was_written():
    for decode in (tokens.decode, meeting.decode):
        token = decode(f"  {TEXT}\n")
        assert (token.token_id, token.secret) == (MINTED.token_id, MINTED.secret)
        assert (list(token.addresses), token.ca_sha256) == (["provisioner.example:7444", "[::1]:7444"], b"\xab" * 32)


def test_it_is_one_word_that_a_shell_takes_as_it_is():
    assert TEXT.startswith("bedplate1.")
    assert set(TEXT) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@pytest.mark.parametrize("decode", [tokens.decode, meeting.decode])
@pytest.mark.parametrize(
    "text",
    ["", "hunter2", TEXT.removeprefix("bedplate1."), "bedplate2." + TEXT[10:]],
    ids=["nothing", "a password", "no prefix", "another prefix"],
)
def test_what_is_no_token_is_said_to_be_none(decode, text):
    with pytest.raises((BedplateError, AgentError), match=r"does not begin with 'bedplate1\.'; make another"):
        decode(text)


@pytest.mark.parametrize("decode", [tokens.decode, meeting.decode])
@pytest.mark.parametrize(
    "text",
    [TEXT[:-1], TEXT[:-5], TEXT[:10], TEXT[:11], TEXT[:30] + " " + TEXT[30:], TEXT + "é", "bedplate1." + "A" * 9999],
    ids=["one less", "five less", "the prefix", "one letter", "a blank", "a letter of another kind", "far too long"],
)
def test_a_token_that_was_cut_short_or_changed_says_so_and_is_not_shown(decode, text):
    with pytest.raises((BedplateError, AgentError), match="copy all of it again") as caught:
        decode(text)
    assert TEXT[12:30] not in str(caught.value)


def test_a_last_letter_that_says_the_same_in_other_bits_is_no_letter_of_it() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for decode, error in ((tokens.decode, BedplateError), (meeting.decode, AgentError)):
        for letter in set(alphabet) - {TEXT[-1]}:
            with pytest.raises(error):
                decode(TEXT[:-1] + letter)


@given(st.integers(10, len(TEXT) - 1), st.sampled_from("abcXYZ019-_"))
def test_no_changed_letter_goes_unnoticed(place, letter):
    changed = TEXT[:place] + letter + TEXT[place + 1 :]
    if changed != TEXT:
        for decode, error in ((tokens.decode, BedplateError), (meeting.decode, AgentError)):
            with pytest.raises(error):
                decode(changed)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoders(content):
    text = tokens.PREFIX + content.decode("latin-1")
    for decode, error in ((tokens.decode, BedplateError), (meeting.decode, AgentError)):
        with pytest.raises(error):
            decode(text)


def test_what_is_kept_is_not_the_secret():
    assert MINTED.secret_sha256 == hashlib.sha256(MINTED.secret).digest()
    assert len(MINTED.secret) == 32
    assert str(MINTED.secret) not in repr(MINTED)


def test_two_tokens_are_never_alike():
    minted = [tokens.mint() for _ in range(100)]
    assert len({one.token_id for one in minted}) == len({one.secret for one in minted}) == 100


@pytest.mark.parametrize(
    ("facts", "secret", "key", "now", "reason"),
    [
        (FACTS, MINTED.secret, b"k", NOW, None),
        (None, MINTED.secret, b"k", NOW, "TOKEN_UNKNOWN"),
        (FACTS, b"", b"k", NOW, "TOKEN_UNKNOWN"),
        (FACTS, MINTED.secret[:-1], b"k", NOW, "TOKEN_UNKNOWN"),
        (FACTS, MINTED.secret, b"k", NOW + 3600, "TOKEN_EXPIRED"),
        (replace(FACTS, revoked_at=NOW), MINTED.secret, b"k", NOW, "TOKEN_REVOKED"),
        (replace(FACTS, used_by=frozenset({b"a"})), MINTED.secret, b"k", NOW, None),
        (replace(FACTS, used_by=frozenset({b"a", b"b"})), MINTED.secret, b"k", NOW, "TOKEN_USED_UP"),
        (replace(FACTS, used_by=frozenset({b"a", b"b"})), MINTED.secret, b"a", NOW, None),
        (replace(FACTS, used_by=frozenset({b"a"}), uses_allowed=0), MINTED.secret, b"k", NOW, None),
        (replace(FACTS, revoked_at=NOW), b"wrong", b"k", NOW + 3600, "TOKEN_UNKNOWN"),
    ],
    ids=range(11),
)
def test_whom_a_token_lets_in(facts, secret, key, now, reason):
    flaw = tokens.flaw(facts, secret, key, now)
    assert (flaw and flaw.reason) == reason
    assert flaw is None or flaw.line.endswith("make another with `bedplate token create`")


def test_the_line_says_when_it_was_over():
    flaw = tokens.flaw(FACTS, MINTED.secret, b"k", NOW + 7200)
    assert f"join token {MINTED.token_id} expired at 2027-01-15 09:00 UTC" in flaw.line
