"""The licences of this program and of all that is shipped with it."""

_NOT_SHIPPED = """\
The Python packages that it needs are installed beside it and are not part of it:
Tornado (Apache-2.0), h2, hpack and hyperframe (MIT), Jinja2 and MarkupSafe
(BSD-3-Clause), prometheus-client (Apache-2.0 and BSD-2-Clause), tqdm (MPL-2.0 and
MIT). Their licences lie in their own installations.
"""


def text() -> str:
    """Return our licence and those of the libraries inside the package."""
    # Imported late: every start imports this module, and few ask for its text.
    from importlib.resources import files  # noqa: PLC0415

    shipped = files("llm_api") / "licenses" / "LICENSES.txt"
    return "\n".join((shipped.read_text(encoding="utf-8"), _NOT_SHIPPED))
