"""Host names and origins on the command line."""

import pytest

from .test_config import refusal, settings


def test_hosts():
    made = settings("-allowed-hosts", "A.example, b", "-allowed-hosts=10.0.0.1,[fe80::1]").server
    assert made.allowed_hosts == {"a.example", "b", "10.0.0.1", "[fe80::1]"}


@pytest.mark.parametrize("text", ["", "a,", "a:80", "http://a", "*", "*.a", "a b", "a..b", "ä"])
def test_bad_hosts(text):
    assert "without scheme and port" in refusal("-allowed-hosts", text)


def test_origins():
    given = "https://A.example:443,http://b:8080, http://[::1]:80", "chrome-extension://abc"
    made = settings("-cors-origins", given[0], "-cors-origins", given[1]).server
    expected = {"https://a.example", "http://b:8080", "http://[::1]", "chrome-extension://abc"}
    assert made.cors_origins == expected


@pytest.mark.parametrize(
    "text", ["", "*", "null", "a.example", "https://a/", "https://*.a", "https://a:b", "https://"]
)
def test_bad_origins(text):
    assert f'cors-origins: "{text}" must be one exact origin' in refusal("-cors-origins", text)
