"""nginx with the configuration that the documentation recommends, before a server of a test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .raw import Place

_CONFIGURATION = Path(__file__).parents[2] / "contrib" / "nginx.conf"

_SECONDS = 30

_MAIN = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    default_type text/plain;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/llm-api.conf;
}}
"""


def find(cache: Path) -> str:
    """Find nginx, or unpack Debian's where apt can get it. Raises LookupError with the reason."""
    kept = cache / "usr/sbin/nginx"
    for name in ("nginx", "/usr/sbin/nginx", str(kept)):
        if found := shutil.which(name):
            return found
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise LookupError("nginx is not on this machine, nor is apt-get")
    command = ["apt-get", "-o", "Acquire::Retries=0", "download", "nginx"]
    try:
        subprocess.run(command, cwd=cache, capture_output=True, timeout=_SECONDS, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        raise LookupError(f"nginx is not on this machine, and for apt-get: {error}") from error
    package = next(cache.glob("nginx_*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, cache], check=True)
    tried = subprocess.run([kept, "-v"], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise LookupError(f"nginx does not run here: {tried.stderr.strip()[-200:]}")
    return str(kept)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _configuration(place: Place, certificate: tuple[Path, Path], port: int) -> str:
    """The recommended one, with nothing replaced but addresses and paths."""
    text = _CONFIGURATION.read_text()
    upstream = f"unix:{place}" if isinstance(place, str) else f"127.0.0.1:{place}"
    for old, new in (
        ("127.0.0.1:8080", upstream),
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("/etc/ssl/certs/llm.example.pem", str(certificate[0])),
        ("/etc/ssl/private/llm.example.key", str(certificate[1])),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextmanager
def before(
    program: str, place: Place, certificate: tuple[Path, Path], folder: Path
) -> Iterator[int]:
    """Run nginx before a server; gives its port."""
    port = _free_port()
    (folder / "llm-api.conf").write_text(_configuration(place, certificate, port))
    (folder / "main.conf").write_text(_MAIN.format(folder=folder))
    command = [program, "-p", str(folder), "-e", "stderr", "-c", str(folder / "main.conf")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        log: list[str] = []
        for line in process.stderr:
            log.append(line)
            if "event method" in line:  # it listens by now
                break
        else:
            raise AssertionError(log)
        reader = threading.Thread(target=log.extend, args=(process.stderr,))
        reader.start()
        try:
            yield port
        finally:
            process.kill()
            reader.join()
