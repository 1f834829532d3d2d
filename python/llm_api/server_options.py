"""The part of the table of options that is about the server and its engine."""

import os
from functools import partial
from typing import Final

from llm_api.limits import LIMIT_FLAGS, Limits
from llm_api.option import Option, Scope

INT32_MAX: Final = 2**31 - 1
DAY_SECONDS: Final = 86_400
_THREADS_MAX: Final = 512  # ggml takes no more
_CACHE_TYPES: Final = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_server = partial(Option, scope=Scope.SERVER)


def _limit(name: str, maximum: float, help: str, minimum: float = 1) -> Option:
    default = getattr(Limits(), LIMIT_FLAGS[name])
    return _server(
        name=name,
        type=type(default),
        default=default,
        minimum=0 if isinstance(default, float) else minimum,
        maximum=maximum,
        above_minimum=isinstance(default, float),
        help=help,
    )


SERVER_OPTIONS: Final[tuple[Option, ...]] = (
    _server(
        name="addr",
        type=str,
        default="localhost:8080",
        help="address to serve on: host:port, :port for all interfaces, or unix:path; "
        "port 0 takes a free one",
    ),
    _server(
        name="socket-mode",
        type=str,
        default="0600",
        help="mode of the file of a Unix socket, in octal digits; 0660 lets its group in",
    ),
    _server(
        name="context",
        type=int,
        default=512,
        minimum=2,
        maximum=INT32_MAX,
        in_config_file=True,
        help="tokens of context that one request may use, its prompt and its reply together",
    ),
    _server(
        name="pool",
        type=int,
        default=0,
        minimum=0,
        maximum=INT32_MAX,
        help="tokens of context memory shared by all requests, at least -context; "
        "0 = context times parallel",
    ),
    _server(
        name="parallel",
        type=int,
        default=4,
        minimum=1,
        maximum=256,  # sequences that llama.cpp can tell apart
        help="requests that are worked on at the same time",
    ),
    _server(
        name="queue",
        type=int,
        default=16,
        minimum=0,
        maximum=1_000_000,
        help="requests that may wait; the next one is told that the server is busy",
    ),
    _server(
        name="threads",
        type=int,
        default=min(_cores(), _THREADS_MAX),
        minimum=1,
        maximum=_THREADS_MAX,
        documented_default="number of cores",
        help="CPU threads that compute",
    ),
    _server(
        name="kernels",
        type=str,
        default="auto",
        choices=("auto", "off"),
        help="auto = compute with kernels of our own where this CPU has them; "
        "off = with those of llama.cpp alone",
    ),
    _server(
        name="cache-type-k",
        type=str,
        default="f16",
        choices=_CACHE_TYPES,
        help=f"what keys are stored as in the context memory: {', '.join(_CACHE_TYPES)}",
    ),
    _server(
        name="cache-type-v",
        type=str,
        default="f16",
        choices=_CACHE_TYPES,
        help="what values are stored as; quantized ones need flash attention",
    ),
    _server(
        name="flash-attn",
        type=str,
        default="auto",
        choices=("auto", "on", "off"),
        help="flash attention, which keeps no scores; auto = where the model and its devices can",
    ),
    _server(
        name="prompt-lookup",
        type=bool,
        default=True,
        help="draft what a text repeats, and compute several tokens at once where it holds; a "
        "request that runs alone gets the same reply (beside others replies may part at near ties, "
        "with it and without). Nothing is drafted with -flash-attn off or -gpu-layers; what "
        "llama.cpp computes, with -kernels off or beside ours, has to prove that it computes "
        "several tokens as it does one",
    ),
    _server(
        name="gpu-layers",
        type=int,
        default=0,
        minimum=0,
        maximum=INT32_MAX,
        in_config_file=True,
        help="layers of the model offloaded to an accelerator",
    ),
    _server(
        name="rope-freq-base",
        type=float,
        default=0.0,
        minimum=0,
        maximum=1e12,
        in_config_file=True,
        help="base frequency of RoPE; 0 = what the model file says, else 10000",
    ),
    _server(
        name="rope-freq-scale",
        type=float,
        default=0.0,
        minimum=0,
        maximum=1e6,
        in_config_file=True,
        help="frequency scale of RoPE; 0 = what the model file says, else 1",
    ),
    _server(
        name="shutdown-timeout",
        type=float,
        default=30.0,
        minimum=0,
        maximum=DAY_SECONDS,
        help="seconds that running requests have to end after SIGTERM or SIGINT",
    ),
    _server(
        name="tls-cert",
        type=str,
        default="",
        help="path of a PEM file with the certificate and its chain: serve HTTPS; "
        "SIGHUP reads it again",
    ),
    _server(
        name="tls-key",
        type=str,
        default="",
        help="path of a PEM file with the key of the certificate",
    ),
    _server(
        name="api-key",
        type=str,
        default=(),
        repeated=True,
        secret=True,
        help="key that clients must show; may be repeated; other users of this machine can see "
        "it in the list of processes, those of a file they cannot",
    ),
    _server(
        name="api-key-file",
        type=str,
        default="",
        help="path of a file with such keys, one a line; # begins a comment; SIGHUP reads it again",
    ),
    _server(
        name="allowed-hosts",
        type=str,
        default=(),
        repeated=True,
        help="host names, with commas between, that clients may use for this server beside "
        "localhost; without any, an address that others can reach is served under all names",
    ),
    _server(
        name="cors-origins",
        type=str,
        default=(),
        repeated=True,
        help="origins, with commas between, whose web pages may use this server, "
        "as https://example.com",
    ),
    _limit("max-connections", 1_000_000, "open connections; one more is told 503 and closed"),
    _limit("max-streams", 1_000_000, "open requests of one HTTP/2 connection"),
    _limit(
        "max-per-client",
        1_000_000,
        "requests at work or waiting from one client address (of IPv6 its first 64 bits); "
        "one more is told 429; 0 = no limit",
        minimum=0,
    ),
    _limit("max-header-bytes", 1 << 20, "bytes of headers of a request; more are told 431"),
    _limit("max-body-bytes", 1 << 30, "bytes of body of a request; more are told 413"),
    _limit("max-fields", 1_000_000, "form fields of a request; more are told 400"),
    _limit(
        "max-prompt-bytes",
        1 << 30,
        "bytes of prompt, as the template has made it; more are told 413",
    ),
    _limit("header-timeout", DAY_SECONDS, "seconds to send the headers of a request, else 408"),
    _limit("body-timeout", DAY_SECONDS, "seconds to send the body of a request, else 408"),
    _limit(
        "idle-timeout",
        DAY_SECONDS,
        "seconds that a connection may stay open without a request",
    ),
    _limit(
        "stall-timeout",
        DAY_SECONDS,
        "seconds that a reader may take nothing of its reply before it is cut",
    ),
    _server(
        name="trusted-proxy",
        type=str,
        default=(),
        repeated=True,
        help="address or network of a proxy, or unix for all that come over a Unix socket, "
        "whose X-Forwarded-For is believed; may be repeated",
    ),
    _server(
        name="metrics",
        type=bool,
        default=True,
        help="serve counters and times on /metrics, in the text format of Prometheus",
    ),
    _server(
        name="log-prompts",
        type=bool,
        default=False,
        help="write prompts and replies to the log, which else never holds them",
    ),
)
