"""The PEP 517 backend: maturin's, with the environment that bindgen needs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import Any

import maturin
from maturin import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from build_env import build_env

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = Mapping[str, Any] | None


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Builds the wheel in a target folder of its own.

    An isolated build's cmake and ninja are gone afterwards, but a kept CMake
    cache would go on naming them and fail the next build.
    """
    os.environ.update(build_env())
    with tempfile.TemporaryDirectory(prefix="llm-api-build-") as target:
        os.environ["CARGO_TARGET_DIR"] = target
        name: str = maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
        return name


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Builds an editable install, likewise."""
    os.environ.update(build_env())
    with tempfile.TemporaryDirectory(prefix="llm-api-build-") as target:
        os.environ["CARGO_TARGET_DIR"] = target
        name: str = maturin.build_editable(wheel_directory, config_settings, metadata_directory)
        return name
