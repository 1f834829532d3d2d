"""How to ask each kind of server for the same reply, and what its answer means."""

import http.client
import json
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from serving.load import Seen
from serving.replies import read_body


@dataclass(frozen=True)
class Ask:
    """A reply of exactly so many tokens, with the default sampling or greedy."""

    prompt: str
    tokens: int
    greedy: bool = False


@dataclass
class Stream:
    """A reply as its reader saw it. Times are seconds since the load began."""

    sent: float
    pieces: list[tuple[float, str]]
    """Text and when it came; a piece may be of several tokens."""
    tokens: int
    """As the server counted them; of a reply that was cut off, as far as that is known."""
    is_whole: bool = True
    """Whether its end came; else it was cut off."""
    prompt_tokens: int = 0
    """As the server counted them; 0 of a reply that was cut off."""

    @property
    def first(self) -> float:
        """When the first text came."""
        return self.pieces[0][0]

    @property
    def last(self) -> float:
        """When the last text came."""
        return self.pieces[-1][0]

    @property
    def text(self) -> str:
        """All text."""
        return "".join(text for _, text in self.pieces)


class Dialect(Protocol):
    """One kind of server's way to put it."""

    def request(self, ask: Ask) -> str:
        """Return the bytes of a request, as Latin-1."""

    def stream(self, port: int, seen: Seen, *, cut: bool) -> Stream:
        """Read a reply; raises BrokenReplyError. With `cut` it may have been cut off."""


def _post(path: str, content_type: str, body: bytes) -> str:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head + body.decode("latin-1")


class LlmApi:
    """Forms and plain text."""

    def request(self, ask: Ask) -> str:
        """Ask /predict, whose defaults are those that the peer is told."""
        fields: dict[str, object] = {
            "prompt": ask.prompt,
            "tokens": ask.tokens,
            "ignoreEos": "true",
        }
        if ask.greedy:
            fields["temperature"] = 0
        body = urlencode(fields).encode()
        return _post("/predict", "application/x-www-form-urlencoded", body)

    def stream(self, port: int, seen: Seen, *, cut: bool) -> Stream:
        """Read plain text; the number of tokens comes from the post-mortem."""
        body = read_body(seen, cut=cut)
        # A chunk may end inside of a character only if a piece was cut for its length.
        pieces = [(when, data.decode(errors="replace")) for when, data in body.pieces]
        if not body.is_whole:
            # Without drafts, each piece is of one token.
            return Stream(seen.sent, pieces, len(pieces), is_whole=False)
        told = _post_mortem(port, body.headers["x-request-id"])
        tokens, prompt_tokens = int(told["completionTokens"]), int(told["promptTokens"])
        return Stream(seen.sent, pieces, tokens, prompt_tokens=prompt_tokens)


def _post_mortem(port: int, request_id: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/requests/{request_id}")
        told: dict[str, Any] = json.load(connection.getresponse())
    finally:
        connection.close()
    return told


class LlamaServer:
    """JSON and server-sent events."""

    def request(self, ask: Ask) -> str:
        """Ask /completion for the same sampling: only the filters that are on, in our order.

        Greedy is top-k of 1. Temperature 0 alone gives the same text more slowly: it leaves the
        whole vocabulary to the last sampler, which takes 5% of the speed with 49,152 entries and
        13% with 262,144.
        """
        filters: dict[str, object] = (
            {"samplers": ["penalties", "top_k"], "top_k": 1}
            if ask.greedy
            else {
                "samplers": ["penalties", "top_k", "top_p", "temperature"],
                "top_k": 40,
                "top_p": 0.2,
                "temperature": 0.8,
            }
        )
        body = {
            "prompt": ask.prompt,
            "n_predict": ask.tokens,
            "stream": True,
            "ignore_eos": True,
            **filters,
            "repeat_penalty": 1.1,
            "frequency_penalty": 0.1,
            "repeat_last_n": 64,
        }
        return _post("/completion", "application/json", json.dumps(body).encode())

    def stream(self, port: int, seen: Seen, *, cut: bool) -> Stream:  # noqa: ARG002
        """Read events; the last one has the number of tokens."""
        body = read_body(seen, cut=cut)
        pieces = []
        tokens = prompt_tokens = 0
        rest = b""
        for when, data in body.pieces:
            *events, rest = (rest + data).split(b"\n\n")
            for event in events:
                told = json.loads(event.removeprefix(b"data: "))
                tokens = told.get("tokens_predicted", tokens)
                prompt_tokens = told.get("tokens_evaluated", prompt_tokens)
                if told.get("content"):
                    pieces.append((when, told["content"]))
        return Stream(seen.sent, pieces, tokens, body.is_whole, prompt_tokens)
