"""What a build of the native module needs in its environment.

bindgen looks for libclang where LLVM is installed; ours comes from PyPI, so it
has to be pointed there, and to the C compiler's own headers, which that package
lacks. And Cargo does not see what we change in llama.cpp (rust/engine/llama),
which it is told here. Run as a program it prints shell exports:

    eval "$(python tools/build_env.py)"
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import subprocess
from pathlib import Path

_LLAMA = Path(__file__).parent.parent / "rust" / "engine" / "llama"


def build_env() -> dict[str, str]:
    """The variables to add; those that are set already are left alone."""
    env: dict[str, str] = {}
    if "LIBCLANG_PATH" not in os.environ:
        # Only our own: a system libclang is found by bindgen itself.
        spec = importlib.util.find_spec("clang")
        for folder in (spec.submodule_search_locations or []) if spec else []:
            native = Path(folder) / "native"
            if any(native.glob("libclang*")):
                env["LIBCLANG_PATH"] = str(native)
                break
    if "BINDGEN_EXTRA_CLANG_ARGS" not in os.environ:
        # One of few variables whose change makes llama-cpp-sys-2 build again,
        # which then compiles what the changes are about and no more.
        arguments = [f"-DLLM_API_CHANGES={_changes()}"]
        if "LIBCLANG_PATH" in env:
            headers = subprocess.run(
                [os.environ.get("CC", "cc"), "-print-file-name=include"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
            arguments.append(f"-isystem {headers}")
        env["BINDGEN_EXTRA_CLANG_ARGS"] = " ".join(arguments)
    return env


def _changes() -> str:
    """Names all that we change in llama.cpp, which is another name after each change of it."""
    files = sorted(_LLAMA.iterdir())
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


if __name__ == "__main__":
    for name, value in build_env().items():
        print(f"export {name}={shlex.quote(value)}")
