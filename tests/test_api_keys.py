"""API keys as they come from the command line and from a file."""

import hmac

import pytest

from llm_api.api_keys import ApiKeyError, ApiKeys

from .test_config import refusal, settings


def test_keys_of_both_kinds(tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(b"# ours\n\nfirst\r\n  second\t\n#third\n  # fourth")
    keys = ApiKeys(["zeroth"], str(path))
    assert len(keys) == 3
    assert all(keys.accepts(key) for key in ("zeroth", "first", "second"))
    others = ("", "third", "#third", "fourth", "firs", "firstt", "FIRST", "ä", "\ud800")
    assert not any(keys.accepts(key) for key in others)


def test_every_key_is_compared_whichever_is_right(monkeypatch):
    compared = []

    def compare(a, b, real=hmac.compare_digest):
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = ApiKeys(["one", "two", "three"])
    for key in ("one", "three", "none", "o", "x" * 10_000):
        compared.clear()
        keys.accepts(key)
        assert compared == [(32, 32)] * 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no key"),
        (b"# nothing\n\n", "holds no key"),
        (b"good\nSECRET key\n", "line 2: the key has white space"),
        (b"SECRET\xff", "line 1: the key must be of printable ASCII"),
        ("SECRET-ä".encode(), "line 1: the key must be of printable ASCII"),
        (b"SECRET\x07", "line 1: the key must be of printable ASCII"),
        (b"x" * (1 << 20) + b"y", "larger than"),
    ],
    ids=range(7),
)
def test_bad_files(tmp_path, content, reason):
    path = tmp_path / "keys"
    path.write_bytes(content)
    told = refusal("-api-key-file", str(path))
    assert told.startswith(f"api-key-file {path}")
    assert reason in told
    assert "SECRET" not in told


@pytest.mark.parametrize("path", ["/no/such/file", "/", "a\0b"])
def test_unreadable_files(path):
    assert f"api-key-file {path}: cannot be read: " in refusal("-api-key-file", path)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "the key is empty"),
        (" ", "white space"),
        ("a SECRET", "white space"),
        ("SECRET\n", "white space"),
        ("SECRET-ä", "printable ASCII"),
    ],
)
def test_bad_keys(key, reason):
    """An empty key above all: it must not open the server."""
    told = refusal("-api-key", "good", "-api-key", key)
    assert told.startswith("api-key, number 2: ")
    assert reason in told
    assert "SECRET" not in told


def test_keys_are_not_printed(tmp_path):
    path = tmp_path / "keys"
    path.write_text("SECRET3\n")
    made = settings("-api-key", "SECRET1", "-api-key=SECRET2", "-api-key-file", str(path))
    assert '"apiKey": [\n    "***",\n    "***"\n  ]' in made.as_json()
    for text in (made.as_json(), repr(made), str(vars(made.server.api_keys))):
        assert "SECRET" not in text


def test_a_bad_file_changes_nothing(tmp_path):
    path = tmp_path / "keys"
    path.write_text("old")
    keys = ApiKeys(path=str(path))
    path.write_text("new\nbad key")
    with pytest.raises(ApiKeyError, match="line 2"):
        keys.reload()
    assert keys.accepts("old")
    assert not keys.accepts("new")
    path.write_text("new")
    keys.reload()
    assert keys.accepts("new")
    assert not keys.accepts("old")


def test_no_keys_is_no_check():
    assert settings().server.api_keys is None
    assert settings("-api-key", "x").server.api_keys is not None
