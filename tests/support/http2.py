"""An HTTP/2 client that shows every frame's effect, and sends whatever a test wants."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame, PingFrame

from .raw import Place, connect


@dataclass
class Answer:
    """What has come on one stream so far."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_whole: bool = False
    reset: ErrorCodes | int | None = None
    informational: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def is_over(self) -> bool:
        return self.is_whole or self.reset is not None


class Http2Client:
    """One connection. Windows are opened as data comes, unless `takes_data` is off."""

    def __init__(
        self, place: Place, *, context: ssl.SSLContext | None = None, window: int | None = None
    ) -> None:
        self.socket: socket.socket = connect(place)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.h2 = H2Connection(
            H2Configuration(
                client_side=True,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        if window is not None:
            self.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
            self.h2.local_settings.acknowledge()
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, int]] = []
        """Last stream and error code of each GOAWAY."""
        self.pings: list[bytes] = []
        self.takes_data = True
        self.answers_pings = True
        self.is_closed = False
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def send(self, *frames: Frame) -> None:
        """Send frames as they are, whatever the protocol says."""
        self.socket.sendall(b"".join(frame.serialize() for frame in frames))

    def fields(self, path: str, method: str = "GET", **headers: str) -> list[tuple[str, str]]:
        pseudo = {":method": method, ":scheme": "http", ":authority": "test", ":path": path}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return [*pseudo.items(), *named.items()]

    def request(self, path: str, form: dict[str, object] | None = None, **headers: str) -> int:
        """Send a whole request; a form makes it a POST. Returns its stream."""
        if form is None:
            return self.begin(self.fields(path, **headers), end_stream=True)
        body = urlencode(form, doseq=True).encode()
        headers = {"content_type": "application/x-www-form-urlencoded", **headers}
        stream = self.begin(self.fields(path, "POST", **headers), end_stream=False)
        self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    def begin(self, fields: list[tuple[str, str]], *, end_stream: bool) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.answers[stream] = Answer()
        self.h2.send_headers(stream, fields, end_stream=end_stream)
        self.flush()
        return stream

    def reset(self, stream: int) -> None:
        self.h2.reset_stream(stream, ErrorCodes.CANCEL)
        self.flush()

    def wait(self, is_met: Callable[[], bool]) -> None:
        """Read until a condition is met."""
        while not is_met():
            if self.is_closed:
                raise EOFError("the server closed the connection")
            self.read()

    def answer(self, stream: int) -> Answer:
        """Read until a stream is over."""
        answer = self.answers[stream]
        self.wait(lambda: answer.is_over)
        return answer

    def get(self, path: str, form: dict[str, object] | None = None) -> Answer:
        return self.answer(self.request(path, form))

    def wait_closed(self) -> None:
        while not self.is_closed:
            self.read()

    def read(self) -> None:
        """Read what has come, and answer it as a client must."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_closed = True
            return
        for frame in self._frames(data):
            if isinstance(frame, GoAwayFrame):  # h2 would take it for the end
                self.goaways.append((frame.last_stream_id, frame.error_code))
                continue
            if isinstance(frame, PingFrame) and "ACK" not in frame.flags and not self.answers_pings:
                continue
            for event in self.h2.receive_data(frame.serialize()):
                self._note(event)
        if not self.is_closed and (out := self.h2.data_to_send()):
            try:
                self.socket.sendall(out)
            except OSError:
                self.is_closed = True

    _buffer = b""

    def _frames(self, data: bytes) -> list[Frame]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + length:
                break
            frame.parse_body(memoryview(self._buffer[9 : 9 + length]))
            self._buffer = self._buffer[9 + length :]
            frames.append(frame)
        return frames

    def _note(self, event: events.Event) -> None:
        match event:
            case events.ResponseReceived():
                answer = self.answers[event.stream_id]
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
                answer.status = int(answer.headers.pop(":status"))
            case events.InformationalResponseReceived():
                status = dict(event.headers)[b":status"]
                self.answers[event.stream_id].informational.append(int(status))
            case events.DataReceived():
                self.answers[event.stream_id].body += event.data
                if self.takes_data:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case events.StreamEnded():
                self.answers[event.stream_id].is_whole = True
            case events.StreamReset():
                self.answers[event.stream_id].reset = event.error_code
            case events.PingAckReceived():
                self.pings.append(event.ping_data)


def make_certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """Make a certificate for this host that signs itself, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def client_context(certificate: Path, *protocols: str) -> ssl.SSLContext:
    """Trust this certificate, and offer these protocols."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.set_alpn_protocols(list(protocols))
    return context
