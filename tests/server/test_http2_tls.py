"""TLS: which protocol is spoken, which versions are, and certificates that change."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from llm_api.config import ConfigError
from llm_api.limits import Limits
from llm_api.tls import Certificate, CertificateError

from ..support.http2 import Http2Client, client_context, make_certificate
from ..support.scripted import SECONDS, ScriptedEngine, echo
from ..support.serving import Served, make_settings
from .conftest import Serve
from .test_lifecycle import process


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def certificate(files: tuple[Path, Path]) -> Certificate:
    return Certificate(str(files[0]), str(files[1]))


@pytest.fixture
def secure(serve: Serve, certificate: Certificate) -> Served:
    return serve(ScriptedEngine(echo), make_settings(certificate=certificate))


def test_http2_by_alpn(secure: Served, files: tuple[Path, Path]) -> None:
    context = client_context(files[0], "h2", "http/1.1")
    with Http2Client(secure.port, context=context) as client:
        assert client.socket.selected_alpn_protocol() == "h2"
        assert client.get("/predict", {"prompt": "over TLS"}).text == "over TLS"


def test_wrong_preface(secure: Served, files: tuple[Path, Path]) -> None:
    context = client_context(files[0], "h2")
    with context.wrap_socket(connect(secure.port), server_hostname="localhost") as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while piece := client.recv(1000):
            data += piece
    assert GoAwayFrame(0, 0, ErrorCodes.PROTOCOL_ERROR).serialize() in data


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), SECONDS)


@pytest.mark.parametrize(
    ("options", "version"), [([], "2"), (["--http1.1"], "1.1"), (["--no-alpn"], "1.1")]
)
@pytest.mark.parametrize("tls", [["--tls-max", "1.2"], ["--tlsv1.3"]])
def test_curl(
    secure: Served, files: tuple[Path, Path], options: list[str], version: str, tls: list[str]
) -> None:
    command = ["curl", "-sS", *options, *tls, "--cacert", str(files[0]), "-d", "prompt=a b"]
    command += ["-w", " %{http_version}", f"https://localhost:{secure.port}/predict"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"a b {version}"


def test_old_versions_are_refused(secure: Served) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError), Http2Client(secure.port, context=context):
        pass


def test_one_connection_too_many(
    serve: Serve, certificate: Certificate, files: tuple[Path, Path]
) -> None:
    settings = make_settings(certificate=certificate)
    served = serve(settings=settings, limits=Limits(connections=1))
    context = client_context(files[0], "h2")
    with Http2Client(served.port, context=context) as first:
        assert first.get("/health").status == 200
        with Http2Client(served.port, context=context) as second:
            second.wait_closed()
            assert second.goaways == [(0, ErrorCodes.ENHANCE_YOUR_CALM)]


def test_handshake_that_does_not_come(serve: Serve, certificate: Certificate) -> None:
    settings = make_settings(certificate=certificate)
    served = serve(settings=settings, limits=Limits(header_timeout=0.2, connections=1))
    with connect(served.port) as silent:
        assert silent.recv(1) == b""


def test_reload(tmp_path: Path) -> None:
    paths = make_certificate(tmp_path)
    other = make_certificate(tmp_path, "other")
    context, new_context = (client_context(pair[0], "h2") for pair in (paths, other))
    with process(certificate=paths) as server, Http2Client(server.port, context=context) as old:
        assert old.get("/health").status == 200
        paths[1].write_bytes(other[1].read_bytes())
        server.signal(signal.SIGHUP)
        server.read_log("the old certificate stays in use: the key in .* is not that of")
        with Http2Client(server.port, context=context) as client:
            assert client.get("/health").status == 200
        paths[0].write_bytes(other[0].read_bytes())
        server.signal(signal.SIGHUP)
        server.read_log("read again")
        with Http2Client(server.port, context=new_context) as client:
            assert client.get("/health").status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            Http2Client(server.port, context=context)
        assert old.get("/health").status == 200, "who is connected stays so"


class TestFiles:
    def test_mismatch(self, tmp_path: Path) -> None:
        one, other = make_certificate(tmp_path), make_certificate(tmp_path, "other")
        with pytest.raises(CertificateError, match=r"the key in .*other\.key is not that of"):
            Certificate(str(one[0]), str(other[1])).load()

    def test_missing(self, files: tuple[Path, Path]) -> None:
        with pytest.raises(CertificateError, match=r"no-such: cannot be read: No such file"):
            Certificate(str(files[0]), "no-such").load()

    def test_swapped(self, files: tuple[Path, Path]) -> None:
        with pytest.raises(CertificateError, match=r"no certificate in .*\.key"):
            Certificate(str(files[1]), str(files[0])).load()

    def test_password(self, files: tuple[Path, Path], tmp_path: Path) -> None:
        locked = tmp_path / "locked.key"
        command = ["openssl", "pkey", "-in", str(files[1]), "-out", str(locked)]
        command += ["-aes256", "-passout", "pass:secret"]
        subprocess.run(command, check=True, capture_output=True)
        with pytest.raises(CertificateError, match="needs a password"):
            Certificate(str(files[0]), str(locked)).load()


class TestFlags:
    @staticmethod
    def load(*arguments: str) -> object:
        from llm_api import flags
        from llm_api.config import load_settings
        from llm_api.options import OPTIONS

        argv = [*arguments, "model.gguf"]
        parsed = flags.parse(tuple(option.flag for option in OPTIONS), argv)
        return load_settings(parsed).server.certificate

    def test_both(self, certificate: Certificate) -> None:
        given = ("-tls-cert", certificate.certificate, "-tls-key", certificate.key)
        assert self.load(*given) == certificate

    def test_none(self) -> None:
        assert self.load() is None

    @pytest.mark.parametrize("name", ["-tls-cert", "-tls-key"])
    def test_one(self, name: str) -> None:
        with pytest.raises(ConfigError, match="-tls-cert and -tls-key must be given together"):
            self.load(name, "x.pem")

    def test_bad_file(self, certificate: Certificate) -> None:
        with pytest.raises(ConfigError, match=r"TLS: no-such: cannot be read"):
            self.load("-tls-cert", "no-such", "-tls-key", certificate.key)
