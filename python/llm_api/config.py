"""Flags and the model config file, checked once, as one tree of settings.

Nothing behind this module looks at a flag again. Everything it raises is a
`ConfigError` whose text names the flag, or the file and its key.

A value comes from its flag, else from the model config file, else from the
table of options. The three ways to give a prompt template are one value here:
with any of them on the command line, the file's are not looked at. Paths are
relative to the working directory, those in the file as well.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeVar

from llm_api import flags
from llm_api.address import Address, AddressError, UnixAddress, parse_address, parse_mode
from llm_api.api_keys import ApiKeyError, ApiKeys
from llm_api.errors import StopPatternError
from llm_api.limits import Limits, limits_from
from llm_api.models import ModelNameError, resolve_model
from llm_api.options import GENERATION, OPTIONS, Option, OptionError, Scope, Value, unknown
from llm_api.origins import parse_hosts, parse_origins
from llm_api.proxies import TrustedProxies
from llm_api.strconv import quote
from llm_api.templates import (
    BUILTIN_NAMES,
    PromptTemplate,
    TemplateError,
    load_builtin,
    load_go_template,
)
from llm_api.tls import Certificate, CertificateError

MODEL_TEMPLATE: Final = "gguf"
"""The prompt template type that stands for the model's own chat template."""

_TEMPLATES: Final = ("prompt-template", "prompt-template-file", "prompt-template-type")
_CONFIG_KEYS: Final = {option.field: option for option in OPTIONS if option.in_config_file}


class ConfigError(Exception):
    """The program cannot start this way; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the engine is made with; counts are tokens, requests, threads, layers."""

    context: int
    pool: int
    parallel: int
    queue: int
    threads: int
    kernels: Literal["auto", "off"]
    prompt_lookup: bool
    gpu_layers: int
    cache_type_k: str
    cache_type_v: str
    flash_attn: Literal["auto", "on", "off"]
    rope_freq_base: float
    rope_freq_scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What the server is made with; times are seconds."""

    address: Address | UnixAddress
    shutdown_timeout: float
    log_prompts: bool
    metrics: bool = True
    certificate: Certificate | None = None
    api_keys: ApiKeys | None = None
    allowed_hosts: frozenset[str] = frozenset()
    cors_origins: frozenset[str] = frozenset()
    trusted_proxies: TrustedProxies = field(default_factory=TrustedProxies)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSettings:
    """How a conversation becomes a prompt.

    `template` is None where there is none; with `model_template` it is None
    as well, and the one to use comes out of the model.
    """

    system_prompt: str
    template: PromptTemplate | None
    model_template: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that was asked for, checked.

    `model` is the name as given, `generation` is by snake_case key, `effective`
    is every value in use, by camelCase key.
    """

    model: str
    model_path: Path
    server: ServerSettings
    engine: EngineSettings
    chat: ChatSettings
    generation: Mapping[str, Value]
    effective: Mapping[str, Value]

    def as_json(self) -> str:
        """Write the effective configuration, one camelCase key for each option."""
        return json.dumps({"model": self.model, **self.effective}, indent=2)


def load_settings(parsed: flags.Parsed) -> Settings:
    """Check a command line and the files it names. Raises ConfigError."""
    model, model_path = _model(parsed.arguments)
    values = _values(parsed.values)
    _check_stop_rules(values["stop-regex"], values["stop"])
    engine = _engine(values)
    values["pool"] = engine.pool
    return Settings(
        model=model,
        model_path=model_path,
        server=ServerSettings(
            address=_address(values["addr"], values["socket-mode"]),
            shutdown_timeout=values["shutdown-timeout"],
            log_prompts=values["log-prompts"],
            metrics=values["metrics"],
            certificate=_certificate(values["tls-cert"], values["tls-key"]),
            trusted_proxies=_parsed("trusted-proxy", TrustedProxies.parse, values),
            api_keys=_api_keys(values["api-key"], values["api-key-file"]),
            allowed_hosts=_parsed("allowed-hosts", parse_hosts, values),
            cors_origins=_parsed("cors-origins", parse_origins, values),
            limits=limits_from(values),
        ),
        engine=engine,
        chat=_chat(values),
        generation={option.key: values[option.name] for option in GENERATION},
        effective={
            option.field: _shown(option, values[option.name])
            for option in OPTIONS
            if option.scope is not Scope.COMMAND
        },
    )


def _model(arguments: tuple[str, ...]) -> tuple[str, Path]:
    if not arguments:
        raise ConfigError("no arguments")
    if len(arguments) > 1:
        raise ConfigError("too many arguments")
    try:
        return arguments[0], resolve_model(arguments[0])
    except ModelNameError as error:
        raise ConfigError(str(error)) from error


# The table has checked the types of the values, in a way that mypy cannot follow.
_Values = dict[str, Any]
_T = TypeVar("_T")


def _values(given: Mapping[str, object]) -> _Values:
    """Collect the value of every option, by its flag's name."""
    values: _Values = {option.name: option.default for option in OPTIONS}
    if path := given.get("model-config-file"):
        from_file = _read_config_file(str(path))
        # One of them on the command line settles where the template comes from.
        if not given.keys().isdisjoint(_TEMPLATES):
            from_file = {name: from_file[name] for name in from_file.keys() - set(_TEMPLATES)}
        values |= from_file
    for option in OPTIONS:
        if option.name in given:
            try:
                values[option.name] = option.check(given[option.name])
            except ValueError as error:
                raise ConfigError(f"{option.name}: {error}") from None
    return values


def _read_config_file(path: str) -> _Values:
    """Read a model config file; the result is by flag name."""
    where = f"model config file {quote(path)}"
    text = _read(path, where)
    values: _Values = {}
    try:
        document = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
        if not isinstance(document, dict):
            raise ConfigError(f"{where}: must be a JSON object")
        for key, value in document.items():
            option = _CONFIG_KEYS.get(key)
            if option is None:
                raise unknown(key, _CONFIG_KEYS)
            try:
                values[option.name] = option.check(value)
            except ValueError as error:
                raise OptionError(key, str(error)) from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    return values


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise OptionError(key, "given more than once")
        values[key] = value
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


def _address(text: str, mode: str) -> Address | UnixAddress:
    try:
        socket_mode = parse_mode(mode)
    except AddressError as error:
        raise ConfigError(f"socket-mode {quote(mode)}: {error}") from None
    try:
        return parse_address(text, socket_mode)
    except AddressError as error:
        raise ConfigError(f"addr {quote(text)}: {error}") from None


def _certificate(path: str, key_path: str) -> Certificate | None:
    if not path and not key_path:
        return None
    if not path or not key_path:
        raise ConfigError("-tls-cert and -tls-key must be given together")
    certificate = Certificate(path, key_path)
    try:
        certificate.load()
    except CertificateError as error:
        raise ConfigError(f"TLS: {error}") from error
    return certificate


def _api_keys(keys: tuple[str, ...], path: str) -> ApiKeys | None:
    try:
        return ApiKeys(keys, path) if keys or path else None
    except ApiKeyError as error:
        raise ConfigError(str(error)) from error


def _parsed(flag: str, parse: Callable[[Iterable[str]], _T], values: _Values) -> _T:
    try:
        return parse(values[flag])
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from None


def _engine(values: _Values) -> EngineSettings:
    context, pool, parallel = values["context"], values["pool"], values["parallel"]
    if pool == 0:
        pool = context * parallel
    elif pool < context:
        raise ConfigError(f"pool: must be at least the context ({context} tokens), not {pool}")
    return EngineSettings(
        context=context,
        pool=pool,
        parallel=parallel,
        queue=values["queue"],
        threads=values["threads"],
        kernels=values["kernels"],
        prompt_lookup=values["prompt-lookup"],
        gpu_layers=values["gpu-layers"],
        cache_type_k=values["cache-type-k"],
        cache_type_v=values["cache-type-v"],
        flash_attn=values["flash-attn"],
        rope_freq_base=values["rope-freq-base"],
        rope_freq_scale=values["rope-freq-scale"],
    )


def _chat(values: _Values) -> ChatSettings:
    system_prompt = _system_prompt(values)
    template_type = values["prompt-template-type"]
    template = _template(values)
    if template is not None and template.needs_system_prompt and not system_prompt:
        raise ConfigError(
            f"prompt template type {quote(template_type)} needs a system prompt: "
            "give -system-prompt or -system-prompt-file"
        )
    return ChatSettings(
        system_prompt=system_prompt,
        template=template,
        model_template=template_type == MODEL_TEMPLATE,
    )


def _system_prompt(values: _Values) -> str:
    text, path = values["system-prompt"], values["system-prompt-file"]
    if text and path:
        raise ConfigError("only one of -system-prompt and -system-prompt-file can be given")
    return _read(path, f"system prompt file {quote(path)}").strip() if path else str(text)


def _template(values: _Values) -> PromptTemplate | None:
    given = [name for name in _TEMPLATES if values[name]]
    if len(given) > 1:
        names = " and ".join(f"-{name}" for name in given)
        raise ConfigError(f"only one of {names} can be given")
    source, path, name = (values[name] for name in _TEMPLATES)
    if name == MODEL_TEMPLATE or not given:
        return None
    if name:
        if name not in BUILTIN_NAMES:
            known = ", ".join([*BUILTIN_NAMES, MODEL_TEMPLATE])
            raise ConfigError(f"unknown prompt template type {quote(name)}; known are {known}")
        return load_builtin(name)
    where = f"prompt template file {quote(path)}" if path else "prompt template"
    try:
        return load_go_template(_read(path, where) if path else source)
    except TemplateError as error:
        raise bad_template(where, error) from error


def bad_template(where: str, error: TemplateError) -> ConfigError:
    """Make the error for a template that does not parse; `where` says which one."""
    line = f", line {error.line}" if error.line else ""
    return ConfigError(f"{where}{line}: {error.reason}")


def _check_stop_rules(patterns: tuple[str, ...], literals: tuple[str, ...]) -> None:
    if not patterns and not literals:
        return
    from llm_api._native import check_stop  # noqa: PLC0415 - not needed for most command lines

    try:
        check_stop(list(patterns), list(literals))
    except StopPatternError as error:
        raise ConfigError(f"stop-regex: {error}") from error


def _read(path: str, where: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or a path that no file can have
        raise ConfigError(f"{where}: cannot be read: {error}") from error


def _shown(option: Option, value: Value) -> Value:
    """Hide secrets, and undo the tuple of an option that is given once and adds up."""
    if option.secret and isinstance(value, tuple):
        return ("***",) * len(value)
    if option.repeated or not isinstance(value, tuple) or len(value) > 1:
        return value
    return value[0] if value else ""
