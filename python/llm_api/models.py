"""Models by name: what stands for MODEL on the command line, to a path.

A name is the path of a GGUF file or ``pkg:PACKAGE[/FILE]``, a GGUF file that an
installed Python package ships. PACKAGE is the distribution's name or the name
under which it is imported; it is never imported here.
"""

import importlib.util
import sys
from pathlib import Path, PurePath
from typing import Final

from llm_api.errors import ModelLoadError
from llm_api.options import nearest
from llm_api.strconv import quote

_PACKAGE_PREFIX: Final = "pkg:"
_HUB_PREFIX: Final = "hf:"
_SUFFIX: Final = ".gguf"


class ModelNameError(ModelLoadError):
    """A name that leads to no file; the text says what to write instead."""


def resolve_model(name: str) -> Path:
    """Return the path that `name` stands for; whether a plain path exists is not looked at."""
    if name.startswith(_HUB_PREFIX):
        raise ModelNameError(
            f"{name}: models from the Hugging Face Hub are not in this version; "
            "download the file and give its path"
        )
    if name.startswith(_PACKAGE_PREFIX):
        return _find_in_package(name, *name.removeprefix(_PACKAGE_PREFIX).split("/", 1))
    return Path(name)


def _find_in_package(name: str, package: str, file: str | None = None) -> Path:
    found = _gguf_files(package)
    if found is None:
        nearest_name = nearest(package, _installed())
        raise ModelNameError(
            f"{name}: no package {quote(package)} is installed; did you mean {nearest_name}?"
        )
    if not found:
        raise ModelNameError(f"{name}: the package has no GGUF file")
    # FILE may be the whole path inside the package or any end of it.
    wanted = PurePath(file).parts if file else ()
    matching = sorted(path for path in found if _ends_with(path, wanted))
    if len(matching) == 1:
        return matching[0]
    files = ", ".join(path.name for path in matching or sorted(found))
    if matching:
        raise ModelNameError(f"{name}: more than one file fits, name one of: {files}")
    raise ModelNameError(f"{name}: no such file in the package, which has: {files}")


def _ends_with(path: Path, parts: tuple[str, ...]) -> bool:
    return path.parts[len(path.parts) - len(parts) :] == parts


def _gguf_files(package: str) -> set[Path] | None:
    """List the GGUF files of an installed package; None where it is not installed."""
    listings = [
        listing
        for listing in (_distributed_files(package), _imported_files(package))
        if listing is not None
    ]
    return set().union(*listings) if listings else None


def _distributed_files(package: str) -> set[Path] | None:
    # Imported late: paths do without it, and it takes as long as all else before a load.
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415

    try:
        found = distribution(package)
    except (PackageNotFoundError, ValueError):
        return None
    files = (file for file in found.files or () if file.suffix == _SUFFIX)
    return {path for file in files if (path := Path(str(file.locate())).resolve()).is_file()}


def _imported_files(package: str) -> set[Path] | None:
    # A top-level name is found without importing anything; a dotted one is not.
    name = package.replace("-", "_")
    if not name.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:
        return None
    if spec is None:
        return None
    folders = map(Path, spec.submodule_search_locations or ())
    return {path.resolve() for folder in folders for path in folder.rglob(f"*{_SUFFIX}")}


def _installed() -> set[str]:
    from importlib.metadata import distributions  # noqa: PLC0415 - as above

    return {distribution.name for distribution in distributions()}


def _main() -> int:
    """Print the path of the model that the only argument names."""
    try:
        [name] = sys.argv[1:]
        print(resolve_model(name))
    except ValueError:
        print("usage: python -m llm_api.models MODEL", file=sys.stderr)
        return 2
    except ModelNameError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
