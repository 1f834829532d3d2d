"""What a build of the native module needs in its environment.

bindgen looks for libclang where LLVM is installed; ours comes from PyPI, so it
has to be pointed there, and to the C compiler's own headers, which that package
lacks. Run as a program it prints shell exports:

    eval "$(python tools/build_env.py)"
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
from pathlib import Path


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
    if "LIBCLANG_PATH" in env and "BINDGEN_EXTRA_CLANG_ARGS" not in os.environ:
        headers = subprocess.run(
            [os.environ.get("CC", "cc"), "-print-file-name=include"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        env["BINDGEN_EXTRA_CLANG_ARGS"] = f"-isystem {headers}"
    return env


if __name__ == "__main__":
    for name, value in build_env().items():
        print(f"export {name}={shlex.quote(value)}")
