"""The program: command line in, exit status out."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TextIO

from llm_api import flags, licenses
from llm_api.config import ChatSettings, ConfigError, Settings, bad_template, load_settings
from llm_api.errors import LlmApiError
from llm_api.options import OPTIONS
from llm_api.templates import PromptTemplate, TemplateError, load_gguf

if TYPE_CHECKING:
    from llm_api.engine import Engine, Loading
    from llm_api.server.loading import Model

_FLAGS = tuple(option.flag for option in OPTIONS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with these arguments, those of the process by default.

    Returns the exit status: 0 after a clean end, 1 after a fatal error, 2 for a
    command line that cannot be read.
    """
    try:
        parsed = flags.parse(_FLAGS, sys.argv[1:] if argv is None else argv)
    except flags.HelpRequested:
        _print_usage(sys.stderr)
        return 0
    except flags.FlagError as error:
        print(error, file=sys.stderr)
        _print_usage(sys.stderr)
        return 2
    if parsed.values.get("license"):
        print(licenses.text(), end="")
        return 0
    try:
        return _run(parsed)
    except (ConfigError, LlmApiError) as error:
        print(f"FATAL ERROR: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _print_usage(file: TextIO) -> None:
    print("Usage: llm-api [flags] MODEL", file=file)
    print(flags.usage(_FLAGS), end="", file=file)


def _run(parsed: flags.Parsed) -> int:
    settings = load_settings(parsed)
    print(settings.as_json(), flush=True)
    # Imported late: what is said above needs no inference library to load.
    from llm_api.server import ServeError, serve  # noqa: PLC0415

    try:
        return serve(settings, partial(_load, settings))
    except ServeError as error:
        raise ConfigError(str(error)) from error


def _load(settings: Settings, loading: "Loading") -> "Model":
    """Do all that takes long. Raises ConfigError or what the engine raises."""
    from llm_api import _native  # noqa: PLC0415
    from llm_api.engine import Engine  # noqa: PLC0415
    from llm_api.server.loading import Model  # noqa: PLC0415

    _native.end_on_crash()
    wanted = settings.engine
    engine = Engine(
        settings.model_path,
        context=wanted.context,
        pool=wanted.pool,
        parallel=wanted.parallel,
        queue=wanted.queue,
        threads=wanted.threads,
        kernels=wanted.kernels,
        prompt_lookup=wanted.prompt_lookup,
        gpu_layers=wanted.gpu_layers,
        cache_type_k=wanted.cache_type_k,
        cache_type_v=wanted.cache_type_v,
        flash_attn=wanted.flash_attn,
        rope_freq_base=wanted.rope_freq_base,
        rope_freq_scale=wanted.rope_freq_scale,
        loading=loading,
    )
    try:
        if settings.generation["n_keep"] and not engine.info["can_shift"]:
            raise ConfigError("n-keep: this model cannot shift its context, so it must be 0")
        return Model(engine, _prompt_template(settings.chat, engine))
    except ConfigError:
        engine.close()
        raise


def _prompt_template(chat: ChatSettings, engine: "Engine") -> PromptTemplate | None:
    if not chat.model_template:
        return chat.template
    if engine.chat_template is None:
        raise ConfigError("the model has no chat template; give another -prompt-template-type")
    try:
        return load_gguf(engine.chat_template, engine.bos_text, engine.eos_text)
    except TemplateError as error:
        raise bad_template("the model's chat template", error) from error
