"""Writes our licence and those of all third-party code that is linked into the package.

python tools/licenses.py [--check]

The crates are those that Cargo.lock links into the Python module, build tools
and procedural macros left out; their texts come from the crates themselves.
With --check nothing is written; the exit status is 1 where the file that the
package ships is out of date.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "python" / "llm_api" / "licenses" / "LICENSES.txt"
ROOT_CRATE = "llm-api-python"
LLAMA_CRATE = "llama-cpp-sys-2"
# Of a choice of licences that has MIT in it, MIT is the one we take.
OTHER_CHOICES = re.compile(r"APACHE|UNLICENSE|COPYING", re.IGNORECASE)
LICENSE_FILE = re.compile(r"(LICEN[CS]E|UNLICENSE|COPYING|NOTICE|COPYRIGHT)", re.IGNORECASE)
RULE = "=" * 78

Json = dict[str, Any]


def metadata() -> Json:
    """What Cargo knows of the locked crates, for the most common platform."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: Json = json.loads(done.stdout)
    return result


def linked_crates(data: Json) -> list[Json]:
    """The third-party crates whose code ends up in the module, by name and version."""
    packages = {package["id"]: package for package in data["packages"]}
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    waiting = [key for key, package in packages.items() if package["name"] == ROOT_CRATE]
    linked: set[str] = set()
    while waiting:
        key = waiting.pop()
        is_macro = any("proc-macro" in target["kind"] for target in packages[key]["targets"])
        if key in linked or is_macro:
            continue
        linked.add(key)
        waiting += [
            dependency["pkg"]
            for dependency in nodes[key]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"])
        ]
    ours = set(data["workspace_members"])
    found = [packages[key] for key in linked - ours]
    return sorted(found, key=lambda package: (package["name"], package["version"]))


def license_texts(package: Json) -> list[str]:
    """The texts in the crate's folder that go with the licence we take."""
    folder = Path(package["manifest_path"]).parent
    files = sorted(file for file in folder.iterdir() if LICENSE_FILE.match(file.name))
    if any("MIT" in file.name.upper() for file in files):
        files = [file for file in files if not OTHER_CHOICES.search(file.name)]
    return [file.read_text(encoding="utf-8").strip() for file in files]


def crate_notice(package: Json) -> str:
    """The section of one crate."""
    heading = f"{package['name']} {package['version']}\n{package['license']}"
    if package["repository"]:
        heading += f"\n{package['repository']}"
    texts = license_texts(package) or ["The crate comes without the text of its licence."]
    return "\n\n".join((heading, *texts))


def llama_notices(package: Json) -> list[str]:
    """The sections of llama.cpp, whose sources lie in the crate of its bindings."""
    source = Path(package["manifest_path"]).parent / "llama.cpp"
    llama = (source / "LICENSE").read_text(encoding="utf-8").strip()
    kernels = (source / "ggml/src/ggml-cpu/llamafile/sgemm.cpp").read_text(encoding="utf-8")
    header = kernels.split("\n\n", 1)[0]
    llamafile = "\n".join(line.removeprefix("//").strip() for line in header.splitlines())
    return [
        f"llama.cpp and ggml, as in {LLAMA_CRATE} {package['version']}\nMIT\n"
        f"https://github.com/ggml-org/llama.cpp\n\n{llama}",
        "llamafile's matrix multiplication, inside ggml\nMIT\n"
        f"https://github.com/mozilla-ai/llamafile\n\n{llamafile.strip()}",
    ]


def notices() -> str:
    """The whole file."""
    crates = linked_crates(metadata())
    ours = (ROOT / "LICENSE").read_text(encoding="utf-8").strip()
    sections = [ours, "Third-party code inside this package, with its licences."]
    for package in crates:
        if package["name"] == LLAMA_CRATE:
            sections += llama_notices(package)
    sections += [crate_notice(package) for package in crates]
    sections.append(
        "The standard library of Rust\nMIT OR Apache-2.0\nhttps://github.com/rust-lang/rust\n\n"
        "Copyright (c) The Rust Project Contributors. The MIT licence has the terms printed\n"
        "above."
    )
    return f"\n\n{RULE}\n\n".join(sections) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit status."""
    if arguments not in ([], ["--check"]):
        sys.exit("usage: python tools/licenses.py [--check]")
    text = notices()
    if not arguments:
        OUTPUT.parent.mkdir(exist_ok=True)
        OUTPUT.write_text(text, encoding="utf-8")
        return 0
    current = OUTPUT.exists() and OUTPUT.read_text(encoding="utf-8") == text
    if not current:
        print(f"{OUTPUT.relative_to(ROOT)} is out of date: run `make licenses`", file=sys.stderr)
    return int(not current)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
