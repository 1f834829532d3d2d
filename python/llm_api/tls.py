"""The certificate that the server shows, and the key that belongs to it."""

import ssl
from dataclasses import dataclass
from typing import Final, NoReturn

__all__ = ["Certificate", "CertificateError"]

_PROTOCOLS: Final = ["h2", "http/1.1"]
# What HTTP/2 allows of TLS 1.2 (RFC 9113, appendix A); TLS 1.3 has its own.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class CertificateError(Exception):
    """A certificate or key that cannot be used; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The paths of a certificate with its chain and of its key, both in PEM."""

    certificate: str
    key: str

    def load(self) -> ssl.SSLContext:
        """Read both files as they are now. Raises CertificateError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(_PROTOCOLS)
        for path in (self.certificate, self.key):
            _check_readable(path)
        try:
            context.load_cert_chain(self.certificate, self.key, password=_refuse_to_ask)
        except ssl.SSLError as error:
            raise CertificateError(self._reason(error)) from error
        return context

    def _reason(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {self.key} is not that of the certificate in {self.certificate}"
        return f"no certificate in {self.certificate}, or no key in {self.key}"


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CertificateError(f"{path}: cannot be read: {reason}") from error


def _refuse_to_ask() -> NoReturn:
    # Without this OpenSSL would ask at the terminal, and again at each reload.
    raise CertificateError("the key needs a password: decrypt it first (openssl pkey -in … -out …)")
