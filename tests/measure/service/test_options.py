"""Options of the service: a token wherever others can reach it, from the environment or a file."""

from __future__ import annotations

import pytest

from limbeck.errors import InputError
from limbeck.measure.service.options import SHORTEST_TOKEN, TOKEN, ServiceOptions, read_token

SECRET = "s" * SHORTEST_TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_needs_no_token(host):
    assert ServiceOptions(host=host).token({}) == ""
    assert ServiceOptions(host=host).token({TOKEN: SECRET}) == SECRET


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "board", "127.0.0.1.evil.example"])
def test_others_need_one(host):
    with pytest.raises(InputError, match="a token is needed; set LIMBECK_TOKEN or give --token-file"):
        ServiceOptions(host=host).token({})
    assert ServiceOptions(host=host).token({TOKEN: SECRET}) == SECRET


def test_a_file_has_the_token(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    assert ServiceOptions(host="0.0.0.0", token_file=file).token({TOKEN: "o" * 20}) == SECRET
    file.write_text(" \n")
    with pytest.raises(InputError, match="is empty"):
        ServiceOptions(token_file=file).token({})
    with pytest.raises(InputError, match="cannot be read"):
        ServiceOptions(token_file=tmp_path / "none").token({})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        ServiceOptions(token_file=file).token({})


@pytest.mark.parametrize("token", ["two words" * 3, "grün" * 5, "line\nbreak" * 3, "x" * 1001])
def test_a_token_fits_a_header(token):
    with pytest.raises(InputError, match="printable ASCII") as refused:
        read_token({TOKEN: token})
    assert token not in str(refused.value)


def test_a_short_token_is_refused_without_showing_it():
    with pytest.raises(InputError, match="at least 16 characters, got 5") as refused:
        ServiceOptions().token({TOKEN: "12345"})
    assert "12345" not in str(refused.value)


def test_half_of_tls_is_refused(tmp_path):
    (tmp_path / "cert.pem").write_text("")
    with pytest.raises(InputError, match="belong together"):
        ServiceOptions(tls_cert=tmp_path / "cert.pem").token({})
    with pytest.raises(InputError, match="--tls-key: there is no file"):
        ServiceOptions(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem").token({})
