"""Contexts: the file that says which provisioner, and what a person reads when it is wrong."""

import stat
from pathlib import Path

import pytest

from provisioner.cli import contexts
from provisioner.cli.contexts import Context, Contexts
from provisioner.cli.refusals import RefusedError, Status, refused
from provisioner.cli.snapshots import read

LAB = Context("lab", "127.0.0.1:7443", "/c/ca.pem", "/c/cert.pem", "/c/key.pem")


def _refusal(call, *arguments):
    with pytest.raises(RefusedError) as caught:
        call(*arguments)
    return str(caught.value), caught.value.exit_code


def test_what_is_saved_is_what_is_loaded(tmp_path):
    odd = Context("odd.name-1", "[::1]:7443", '/a "b"/c\\d/ca\n.pem', "/ü/cert.pem", "/key.pem")
    saved = Contexts(tmp_path / "deep/config.toml").adding(LAB, use=False).adding(odd, use=False)
    contexts.save(saved)
    assert contexts.load(saved.path) == saved
    assert saved.current == "lab"


def test_the_file_is_its_owner_s_alone_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "bedplate/config.toml"
    contexts.save(Contexts(path).adding(LAB, use=True))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["config.toml"]


def test_the_file_lies_where_xdg_says(tmp_path):
    assert contexts.place({"XDG_CONFIG_HOME": "/x", "HOME": "/h"}) == Path("/x/bedplate/config.toml")
    assert contexts.place({"XDG_CONFIG_HOME": "not/absolute", "HOME": "/h"}) == Path("/h/.config/bedplate/config.toml")


def test_no_context_says_how_to_make_one(tmp_path):
    line, code = _refusal(contexts.load(tmp_path / "none.toml").choose, "")
    assert line.startswith("cannot reach a provisioner: there is no context yet; make one: bedplate context add NAME")
    assert code == 2


def test_an_unknown_context_lists_those_that_there_are():
    line, code = _refusal(Contexts(Path("x")).adding(LAB, use=True).choose, "prod")
    assert line.startswith("cannot use context prod: there is none of that name; there are: lab")
    assert code == 2


def test_a_context_that_was_current_and_removed_leaves_none_chosen():
    other = Context("b", "h:1", "c", "c", "k")
    left = Contexts(Path("x")).adding(LAB, use=True).adding(other, use=False).without("lab")
    assert _refusal(left.choose, "")[0].startswith("cannot reach a provisioner: no context is chosen; there are: b")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("current = ", "Invalid value"),
        ("currant = 'lab'", "unknown field `currant`"),
        ("current = 7", "Expected `str`, got `int`"),
        ("[contexts.lab]\naddress = 'h:1'\nca = 'a'\ncert = 'b'", "missing required field `key`"),
        ("[contexts]\nlab = 7", "Expected `object`, got `int`"),
    ],
)
def test_a_garbled_file_is_one_line_with_its_path_and_a_cure(tmp_path, text, cause):
    path = tmp_path / "config.toml"
    path.write_text(text)
    line, code = _refusal(contexts.load, path)
    assert line.startswith(f"cannot read contexts: {path}: ")
    assert cause in line
    assert line.endswith("mend it, or remove it and add the contexts again")
    assert "\n" not in line
    assert code == 2


def test_a_file_that_is_not_text_is_said_to_be_none(tmp_path):
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe")
    assert _refusal(contexts.load, path) == (f"cannot read contexts: {path}: it is not UTF-8", 2)
    assert "Is a directory" in _refusal(contexts.load, tmp_path)[0]


def test_a_context_is_made_of_a_name_an_address_and_files_that_are_there_and_a_key_of_one_s_own(tmp_path):
    files = {key: tmp_path / f"{key}.pem" for key in ("ca", "cert", "key")}
    assert "ca.pem: no such file" in _refusal(contexts.checked, "lab", "h:1", files)[0]
    for path in files.values():
        path.touch(mode=0o640)
    assert "key.pem: others can read it; `chmod 600` it" in _refusal(contexts.checked, "lab", "h:1", files)[0]
    files["key"].chmod(0o600)
    assert contexts.checked("lab", "[::1]:7443", files).ca == str(tmp_path / "ca.pem")
    for address in ("host", "host:", "host:0", "host:70000", "http://h:1", "h h:1"):
        assert "is no HOST:PORT" in _refusal(contexts.checked, "lab", address, files)[0]
    assert "a name has letters" in _refusal(contexts.checked, "-x", "h:1", files)[0]


def test_a_status_becomes_a_line_and_an_exit_code():
    told = {
        "NOT_FOUND": (3, "cannot show machine x: no machine x; see `bedplate machines`"),
        "INVALID_ARGUMENT": (2, "cannot show machine x: no machine x"),
        "FAILED_PRECONDITION": (1, "cannot show machine x: no machine x"),
        "PERMISSION_DENIED": (5, "cannot show machine x: no machine x; ask for credentials with a role that may"),
        "UNAUTHENTICATED": (5, "cannot show machine x: no machine x; this context's certificate"),
    }
    for code, (number, line) in told.items():
        error = refused("show machine x", Status(code, "no machine\nx"))
        assert str(error).startswith(line)
        assert error.exit_code == number


def test_who_is_refused_whatever_its_role_is_not_told_to_ask_for_one():
    revoked = Status("PERMISSION_DENIED", "it was revoked: another is made on the host", reason="CREDENTIAL_REVOKED")
    assert str(refused("list machines", revoked)) == (
        "cannot list machines: it was revoked: another is made on the host"
    )
    low = Status("PERMISSION_DENIED", "bob may not; it takes the role admin", reason="ROLE_TOO_LOW")
    assert str(refused("make it", low)) == "cannot make it: bob may not; it takes the role admin"


def test_what_the_server_says_to_do_goes_before_what_this_program_would_say():
    assert str(refused("do it", Status("NOT_FOUND", "cannot find x: gone; look elsewhere"))) == (
        "cannot find x: gone; look elsewhere"
    )
    assert str(refused("list", Status("NOT_FOUND", "none", help=("ask bob",)))) == "cannot list: none; ask bob"
    broken = Status("INVALID_ARGUMENT", "bad filter", violations=("at 3: no field",))
    assert str(refused("list machines", broken)) == "cannot list machines: bad filter; at 3: no field"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("{", "it is not JSON"),
        ("[]", "it is not an object"),
        ("{}", "it holds no inventory"),
        ('{"inventory": {"gpus": 7}}', "gpus"),
    ],
)
def test_a_snapshot_that_is_none_is_one_line_that_says_what_to_give(tmp_path, text, cause):
    path = tmp_path / "x.json"
    path.write_text(text)
    line, code = _refusal(read, str(path))
    assert line.startswith(f"cannot read snapshot {path}: ")
    assert cause in line
    assert line.endswith("give it what `nodeagent snapshot -o json` prints")
    assert code == 2


def test_a_folder_without_a_golden_snapshot_says_what_to_try(tmp_path):
    assert f"nodeagent snapshot --root {tmp_path}" in _refusal(read, str(tmp_path))[0]
    assert "No such file" in _refusal(read, str(tmp_path / "x.json"))[0]
