"""The licences of this program and of all that is shipped with it."""

from importlib.resources import files

_OURS = """\
llm-api, a simple HTTP API for inference with large language models

Licensed under the European Union Public Licence, version 1.2 or later (EUPL-1.2-or-later).
You may use, change and pass on this work under its terms:
https://joinup.ec.europa.eu/collection/eupl/eupl-text-eupl-12

This work is provided "as is", without warranties of any kind.
"""

_NOT_SHIPPED = """\
The Python packages that it needs are installed beside it and are not part of it:
Tornado (Apache-2.0), h2, hpack and hyperframe (MIT), Jinja2 and MarkupSafe
(BSD-3-Clause). Their licences lie in their own installations.
"""


def text() -> str:
    """Return our notice and those of the libraries inside the package."""
    third_party = files("llm_api") / "licenses" / "THIRD-PARTY.txt"
    return "\n".join((_OURS, _NOT_SHIPPED, third_party.read_text(encoding="utf-8")))
