"""The one table of options.

Every option of the program stands here once. From its entry come the flag, the
form field, the key in the model config file, the OpenAI-style name, the check
of its range, the help text and the tables of the documentation. Those of the
server itself are in `server_options.py`, to keep the files short.

A generation option has a value on the server, from a flag or the model config
file, and maybe another one in a request. Both are checked by the same code
(`check_generation`) and joined by `merge` into what the engine takes.
"""

import difflib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from llm_api import strconv
from llm_api.option import Combine, Option, OptionError, Scope, Spelling, Value, excerpt
from llm_api.server_options import DAY_SECONDS, INT32_MAX, SERVER_OPTIONS

__all__ = [
    "DEFAULTS",
    "FIELDS",
    "GENERATION",
    "OPTIONS",
    "Combine",
    "Option",
    "OptionError",
    "Scope",
    "Spelling",
    "Value",
    "check_generation",
    "merge",
    "nearest",
    "parse_text",
    "unknown",
]


_generation = partial(Option, scope=Scope.GENERATION, in_config_file=True)
_prompt = partial(Option, scope=Scope.PROMPT, type=str, default="")
_command = partial(Option, scope=Scope.COMMAND)

OPTIONS: Final[tuple[Option, ...]] = (
    *SERVER_OPTIONS,
    _generation(
        name="tokens",
        type=int,
        default=0,
        minimum=0,
        maximum=INT32_MAX,
        openai="max_tokens",
        combine=Combine.LOWER,
        help="tokens to predict; 0 = no limit but the context",
    ),
    _generation(
        name="max-time",
        type=float,
        default=0.0,
        minimum=0,
        maximum=DAY_SECONDS,
        combine=Combine.LOWER,
        help="seconds after which a reply ends, waiting included; 0 = no limit",
    ),
    _generation(
        name="temperature",
        type=float,
        default=0.8,
        minimum=-100,
        maximum=100,
        openai="temperature",
        help="randomness of the reply; 0 or less = always the likeliest token",
    ),
    _generation(
        name="top-k",
        type=int,
        default=40,
        minimum=-1,
        maximum=INT32_MAX,
        help="draw from the K likeliest tokens; 0 or less = off",
    ),
    _generation(
        name="top-p",
        type=float,
        default=0.2,
        minimum=0,
        maximum=1,
        openai="top_p",
        help="draw from the likeliest tokens that reach this probability together; 1 = off",
    ),
    _generation(
        name="min-p",
        type=float,
        default=0.0,
        minimum=0,
        maximum=1,
        help="drop tokens less likely than this share of the likeliest one; 0 = off",
    ),
    _generation(
        name="typical-p",
        type=float,
        default=1.0,
        minimum=0,
        maximum=1,
        help="draw from the most typical tokens that reach this probability together; 1 = off",
    ),
    _generation(
        name="tail-free-sampling-z",
        type=float,
        default=1.0,
        minimum=0,
        maximum=1,
        help="where tail-free sampling cuts the tail of unlikely tokens; 1 = off",
    ),
    _generation(
        name="penalty-repetition",
        type=float,
        default=1.1,
        minimum=0,
        maximum=100,
        above_minimum=True,
        help="penalty on tokens that were used already; 1 = off",
    ),
    _generation(
        name="penalty-frequency",
        type=float,
        default=0.1,
        minimum=-100,
        maximum=100,
        openai="frequency_penalty",
        help="penalty on tokens for each time they were used; 0 = off",
    ),
    _generation(
        name="penalty-presence",
        type=float,
        default=0.0,
        minimum=-100,
        maximum=100,
        openai="presence_penalty",
        help="penalty on tokens that were used at all; 0 = off",
    ),
    _generation(
        name="penalty-last-n",
        type=int,
        default=64,
        minimum=-1,
        maximum=INT32_MAX,
        help="tokens that the penalties look back on; 0 = none, -1 = all",
    ),
    _generation(
        name="mirostat",
        type=int,
        default=0,
        minimum=0,
        maximum=2,
        help="sampling that aims at an entropy; 0 = off, 1 = Mirostat, 2 = Mirostat 2.0",
    ),
    _generation(
        name="mirostat-tau",
        type=float,
        default=5.0,
        minimum=0,
        maximum=100,
        help="entropy that Mirostat aims at",
    ),
    _generation(
        name="mirostat-eta",
        type=float,
        default=0.1,
        minimum=0,
        maximum=1,
        help="learning rate of Mirostat",
    ),
    _generation(
        name="seed",
        type=int,
        default=-1,
        minimum=-1,
        maximum=strconv.INT_MAX,
        openai="seed",
        help="seed of the random draws; -1 = another one for each request",
    ),
    _generation(
        name="n-keep",
        type=int,
        default=0,
        minimum=0,
        maximum=INT32_MAX,
        help="tokens of the prompt kept when a full context is shifted; 0 = no shifting",
    ),
    _generation(
        name="ignore-eos",
        type=bool,
        default=False,
        help="never let the model end its reply",
    ),
    _generation(
        name="stop-regex",
        type=str,
        default=(),
        combine=Combine.ADD,
        help="regular expression; the reply ends before the first match",
    ),
    _generation(
        name="stop",
        type=str,
        default=(),
        openai="stop",
        repeated=True,
        combine=Combine.ADD,
        help="text; the reply ends before it; may be repeated",
    ),
    _prompt(
        name="prompt-template",
        in_config_file=True,
        help="prompt template for /chat, in the language of Go's text/template",
    ),
    _prompt(
        name="prompt-template-file",
        in_config_file=True,
        help="path of a file with a prompt template",
    ),
    _prompt(
        name="prompt-template-type",
        in_config_file=True,
        help="name of a built-in prompt template, or gguf for the model's own",
    ),
    _prompt(name="system-prompt", help="system prompt for /chat"),
    _prompt(
        name="system-prompt-file",
        help="path of a file with the system prompt; white space around it is dropped",
    ),
    _command(
        name="model-config-file",
        type=str,
        default="",
        help="path of a JSON file with options of the model; flags win over it",
    ),
    _command(
        name="license",
        type=bool,
        default=False,
        help="print the licences of this program and of all that is shipped with it",
    ),
)

GENERATION: Final = tuple(option for option in OPTIONS if option.scope is Scope.GENERATION)

FIELDS: Final[Mapping[str, Option]] = {option.field: option for option in GENERATION}
"""The generation options by form field."""

DEFAULTS: Final[Mapping[str, Value]] = {option.key: option.default for option in GENERATION}
"""The defaults of the generation options, by snake_case key."""

_BY_SPELLING: Final[Mapping[Spelling, Mapping[str, Option]]] = {
    spelling: {name: option for option in GENERATION if (name := option.spelled(spelling))}
    for spelling in Spelling
}


def check_generation(
    values: Mapping[str, object], spelling: Spelling = Spelling.KEY
) -> dict[str, Value]:
    """Check generation options and return them by snake_case key.

    Only the options given are in the result. Raises OptionError, with the
    name as it was given, for an unknown name, a wrong type or a value out of
    range.
    """
    known = _BY_SPELLING[spelling]
    checked: dict[str, Value] = {}
    for name, value in values.items():
        option = known.get(name)
        if option is None:
            raise unknown(name, known)
        try:
            checked[option.key] = option.check(value)
        except ValueError as error:
            raise OptionError(name, str(error)) from None
    return checked


def merge(server: Mapping[str, Value], request: Mapping[str, Value]) -> dict[str, object]:
    """Join the server's generation options with a request's, for the engine.

    Both have been checked; `server` holds every option (`DEFAULTS` will do).
    """
    merged: dict[str, object] = {}
    for option in GENERATION:
        key = option.key
        value = server[key]
        if key in request:
            value = _combine(option.combine, value, request[key])
        merged[key] = list(value) if isinstance(value, tuple) else value
    if merged["seed"] == -1:
        merged["seed"] = None
    return merged


def _combine(combine: Combine, ours: Value, theirs: Value) -> Value:
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return ours + theirs
    if combine is Combine.LOWER and isinstance(ours, int | float):
        assert isinstance(theirs, int | float)
        return min((limit for limit in (ours, theirs) if limit > 0), default=ours)
    return theirs


def parse_text(option: Option, text: str) -> Value:
    """Read the value of a form field. Raises OptionError under the field's name."""
    try:
        return option.check(option.convert(text))
    except ValueError as error:
        reason = str(error)
        if reason == strconv.SYNTAX:
            reason = f"must be {option.type_text}, not {excerpt(text)}"
        elif reason == strconv.RANGE:
            reason = f"{excerpt(text)} is out of range"
        raise OptionError(option.field, reason) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that looks most like `name`."""
    by_plain = {_plain(candidate): candidate for candidate in known}
    matches = difflib.get_close_matches(_plain(excerpt(name)), by_plain, n=1, cutoff=0.0)
    return by_plain[matches[0]]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def unknown(name: str, known: Iterable[str]) -> OptionError:
    """Make the error for a name that is not known; it names the nearest one."""
    shown = excerpt(name)
    shown = name if name and shown == f'"{name}"' else shown
    return OptionError(shown, f"not known; did you mean {nearest(name, known)}?")
