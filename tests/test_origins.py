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


def test_origins_as_browsers_write_them():
    made = settings("-cors-origins", "http://[0:0::1]:080,https://a:0443,http://x.:8080").server
    assert made.cors_origins == {"http://[::1]", "https://a", "http://x.:8080"}


@pytest.mark.parametrize(
    ("text", "likely"),
    [
        ("", "https://example.com"),
        ("*", "https://example.com"),
        ("null", "https://example.com"),
        ("https://", "https://example.com"),
        ("https://*.a", "https://example.com"),
        ("https://a:b", "https://example.com"),
        ("https://a:70000", "https://example.com"),
        ("https://a b", "https://example.com"),
        ("https://a..b", "https://example.com"),
        ("http://[:::]", "https://example.com"),
        ("a.example", "https://a.example"),
        ("a.example:8443/x", "https://a.example:8443"),
        ("//a.example", "https://example.com"),
        ("https://a/", "https://a"),
        ("http://a.example:80/app?x#y", "http://a.example"),
        ("https://user:word@a.example", "https://a.example"),
        (
            "https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example",
            "https://xn--bcher-kva.example",
        ),
    ],
)
def test_bad_origins(text, likely):
    """The error says what to write."""
    message = f'cors-origins: "{text}" must be one exact origin, as {likely}'
    assert refusal("-cors-origins", text).endswith(message)
