"""What one client does: requests whose replies are known, and all that a client can do wrong."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from hyperframe.frame import DataFrame, PingFrame

from ..support.http2 import Http2Client
from ..support.raw import Raw, Response
from .process import KEY

_WORDS = "ash birch cedar dogwood elm fir ginkgo hazel ivy juniper Küche λόγος 木 🌲".split()
_AUTH = {"X-Api-Key": KEY}
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Tally:
    """What all clients have seen; used from many threads."""

    good: Counter[str] = field(default_factory=Counter)
    """Requests that got just what they asked for, by kind."""
    broken: int = 0
    """Good requests whose reply visibly broke, or that got a 500, as faults make it."""
    provoked: Counter[str] = field(default_factory=Counter)
    """What was done wrong on purpose, by kind."""
    failures: list[str] = field(default_factory=list)
    """What should not have happened."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note_reply(self, kind: str, status: int | None, text: str, is_whole: bool, wanted: str):
        with self.lock:
            if status == 200 and is_whole and text == wanted:
                self.good[kind] += 1
            elif (status == 200 and not is_whole and wanted.startswith(text)) or (
                status == 500 and text == "inference failed\n"
            ):
                self.broken += 1
            else:
                self.failures.append(f"{kind}: {status}, whole: {is_whole}, {text[:80]!r}")

    def note_provoked(self, kind: str, is_right: bool, seen: object) -> None:
        with self.lock:
            self.provoked[kind] += 1
            if not is_right:
                self.failures.append(f"{kind}: {seen!r}"[:200])


class Client:
    """Does one thing after the other, by the numbers that its seed gives."""

    def __init__(self, port: int, seed: str, tally: Tally) -> None:
        self._port = port
        self._random = Random(seed)
        self._tally = tally
        self._name = seed
        self._count = 0
        self._good: list[Callable[[], None]] = [
            self.predict, self.predict_with_stop, self.chat, self.http_1_0, self.http_2,
            self.slow_reader,
        ]  # fmt: skip
        self._bad: list[Callable[[], None]] = [
            self.cancel, self.cancel_http_2, self.half_closed, self.half_a_request,
            self.malformed, self.refused, self.bad_frames,
        ]  # fmt: skip

    def run(self, until: float) -> None:
        """Go on until that time of the monotonic clock."""
        while time.monotonic() < until:
            one = self._random.choice(self._good if self._random.random() < 0.6 else self._bad)
            try:
                one()
            except Exception as error:
                with self._tally.lock:
                    self._tally.failures.append(f"{one.__name__}: {error!r}"[:300])

    def _prompt(self, words: int = 0) -> str:
        """Something that nobody else asks."""
        self._count += 1
        count = words or self._random.randint(1, 60)
        return f"{self._name}-{self._count} {' '.join(self._random.choices(_WORDS, k=count))}"

    def _ask(self, raw: Raw, path: str, fields: dict[str, object], version: str) -> Response:
        raw.request(path, fields | {"temperature": 0}, version=version, headers=_AUTH)
        return raw.response()

    def _note(self, kind: str, reply: Response, wanted: str) -> None:
        text = reply.body.decode(errors="replace")
        self._tally.note_reply(kind, reply.status, text.rstrip("\ufffd"), reply.is_whole, wanted)

    # What is right.

    def predict(self) -> None:
        with Raw(self._port) as raw:
            for _ in range(self._random.randint(1, 4)):
                prompt = self._prompt()
                reply = self._ask(raw, "/predict", {"prompt": prompt}, "HTTP/1.1")
                self._note("predict on HTTP/1.1", reply, prompt)
                if not reply.is_whole:
                    break

    def predict_with_stop(self) -> None:
        prompt, stop = self._prompt(), self._random.choice(_WORDS)
        with Raw(self._port) as raw:
            reply = self._ask(raw, "/predict", {"prompt": prompt, "stop": stop}, "HTTP/1.1")
        self._note("predict with a stop", reply, prompt.split(stop)[0])

    def chat(self) -> None:
        messages = [self._prompt(5) for _ in range(self._random.choice((1, 3, 5)))]
        with Raw(self._port) as raw:
            reply = self._ask(raw, "/chat", {"messages": messages}, "HTTP/1.1")
        self._note("chat on HTTP/1.1", reply, "|".join(messages) + "\n")

    def http_1_0(self) -> None:
        prompt = self._prompt()
        with Raw(self._port) as raw:
            raw.request(
                "/predict", {"prompt": prompt, "temperature": 0}, version="HTTP/1.0", headers=_AUTH
            )
            try:
                reply = raw.response()
            except ConnectionResetError:  # which is how a break looks here
                self._tally.note_reply("predict on HTTP/1.0", 200, "", False, prompt)
                return
        self._note("predict on HTTP/1.0", reply, prompt)

    def http_2(self) -> None:
        with Http2Client(self._port) as client:
            wanted = {}
            for _ in range(self._random.randint(1, 6)):
                prompt = self._prompt()
                if self._random.random() < 0.5:
                    fields, path = {"prompt": prompt}, "/predict"
                else:
                    fields, path = {"messages": prompt}, "/chat"
                stream = client.request(path, fields | {"temperature": 0}, x_api_key=KEY)
                wanted[stream] = prompt if path == "/predict" else prompt + "\n"
            for stream, text in wanted.items():
                answer = client.answer(stream)
                seen = answer.body.decode(errors="replace").rstrip("\ufffd")
                self._tally.note_reply("HTTP/2", answer.status, seen, answer.is_whole, text)

    def slow_reader(self) -> None:
        prompt = self._prompt(200)
        with Raw(self._port, receive_buffer=16 << 10) as raw:
            headers = _AUTH | {"Connection": "close"}  # the end of a short reply can be read too
            raw.request("/predict", {"prompt": prompt, "temperature": 0}, headers=headers)
            for _ in range(20):
                time.sleep(0.01)
                raw._buffer += raw.socket.recv(16)
            reply = raw.response()
        self._note("a slow reader", reply, prompt)

    # What is wrong.

    def cancel(self) -> None:
        with Raw(self._port) as raw:
            raw.request("/predict", {"prompt": self._prompt(300)}, headers=_AUTH)
            if self._random.random() < 0.7:
                raw.read()
            if self._random.random() < 0.5:
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._tally.note_provoked("left", True, None)

    def cancel_http_2(self) -> None:
        with Http2Client(self._port) as client:
            lost = client.request("/predict", {"prompt": self._prompt(300)}, x_api_key=KEY)
            prompt = self._prompt()
            kept = client.request("/predict", {"prompt": prompt, "temperature": 0}, x_api_key=KEY)
            if self._random.random() < 0.5:
                client.wait(lambda: bool(client.answers[lost].body) or client.answers[lost].is_over)
            if not client.answers[lost].is_over:
                client.reset(lost)
            answer = client.answer(kept)
        seen = answer.body.decode(errors="replace").rstrip("\ufffd")
        self._tally.note_reply("beside a reset", answer.status, seen, answer.is_whole, prompt)
        self._tally.note_provoked("reset", True, None)

    def half_closed(self) -> None:
        with Raw(self._port) as raw:
            raw.request("/predict", {"prompt": self._prompt(300)}, headers=_AUTH)
            raw.socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                raw.read_all()
        self._tally.note_provoked("half-closed", True, None)

    def half_a_request(self) -> None:
        text = b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Api-Key: " + KEY.encode()
        text += (
            b"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\np"
        )
        with Raw(self._port) as raw:
            raw.send(text[: self._random.randint(1, len(text))])
        self._tally.note_provoked("half a request", True, None)

    def malformed(self) -> None:
        garbage = self._random.randbytes(self._random.randint(1, 200)) + b"\r\n\r\n"
        with Raw(self._port) as raw:
            raw.send(self._random.choice((garbage, b"GET / HTTP/9\r\n\r\n", b"GET\r\n\r\n")))
            raw.socket.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                seen = raw.read_all()
                is_right = not seen or seen.startswith(b"HTTP/1.1 400")
                self._tally.note_provoked("malformed", is_right, seen[:80])

    def refused(self) -> None:
        form = "application/x-www-form-urlencoded"
        path, headers, body, status = self._random.choice((
            ("/predict", _AUTH | {"Content-Type": form}, b"prompt=x&tempratur=1", 400),
            ("/predict", _AUTH | {"Content-Type": form}, b"prompt=", 400),
            ("/predict", {"Content-Type": form}, b"prompt=x", 401),
            ("/predict", _AUTH | {"Content-Type": "text/plain"}, b"x", 415),
            ("/nowhere", _AUTH | {"Content-Type": form}, b"prompt=x", 404),
            ("/predict", _AUTH | {"Content-Type": form}, b"prompt=" + b"x" * (2 << 20), 413),
        ))  # fmt: skip
        with Raw(self._port) as raw:
            raw.request(path, headers=headers, body=body)
            seen = raw.response().status
        self._tally.note_provoked(f"refused {status}", seen == status, seen)

    def bad_frames(self) -> None:
        with Http2Client(self._port) as client:
            bad = DataFrame(99, b"x") if self._random.random() < 0.5 else PingFrame(0, b"x" * 8)
            client.request("/predict", {"prompt": self._prompt(100)}, x_api_key=KEY)
            with contextlib.suppress(OSError):
                client.send(bad)
                if isinstance(bad, DataFrame):
                    client.wait_closed()
        self._tally.note_provoked("bad frames", True, None)
