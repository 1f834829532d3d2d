"""HTTP/2 frames as they arrive, and how many of them a client may make us look at.

h2 checks what each frame means. It has no opinion on how many there are, holds a frame of any
announced length until it is whole, and forgets the events before an error. So frames are cut
here, counted, and handed to it one by one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from h2.errors import ErrorCodes

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_api.limits import Limits

HEADER_BYTES: Final = 9
MAX_PAYLOAD: Final = 16384
"""The largest frame we take, and the largest we send: what every peer must accept."""

_ACK: Final = 0x1
_END_STREAM: Final = 0x1
_END_HEADERS: Final = 0x4
_SMALL_DATA: Final = 256
_CREDIT_FOR_DATA: Final = 2.0  # some clients update two windows after each frame of ours


class FrameType(IntEnum):
    """The frame types of RFC 9113, section 6."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Violation(Exception):
    """What a client did to lose its connection."""

    def __init__(self, code: ErrorCodes, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Frame(NamedTuple):
    """A whole frame; `data` is all of it, header included."""

    type: int
    flags: int
    stream_id: int
    data: bytes

    @property
    def length(self) -> int:
        """The length of the payload."""
        return len(self.data) - HEADER_BYTES


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def begun(self) -> int | None:
        """The type of the frame that has begun and is not whole; None if that is not known."""
        return self._buffer[3] if len(self._buffer) > 3 else None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and give the frames that are whole now. Raises Violation."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= HEADER_BYTES:
                high, low, kind, flags, stream_id = struct.unpack_from(">BHBBL", buffer, start)
                length = high << 16 | low
                if length > MAX_PAYLOAD:
                    raise Violation(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
                end = start + HEADER_BYTES + length
                if len(buffer) < end:
                    return
                frame = Frame(kind, flags, stream_id & 0x7FFFFFFF, bytes(buffer[start:end]))
                start = end
                yield frame
        finally:
            del buffer[:start]


class Allowance:
    """A number that may be used at once, and comes back with time."""

    def __init__(self, size: float, per_second: float, clock: Callable[[], float]) -> None:
        self._size = size
        self._per_second = per_second
        self._clock = clock
        self._left = size
        self._at = clock()

    def take(self) -> bool:
        """Use one; False if there is none."""
        now = self._clock()
        self.give((now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give(self, number: float) -> None:
        """Give some back, never above the size."""
        self._left = min(self._size, self._left + number)


class Guard:
    """Keeps count of one client's frames against the limits."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._idle = Allowance(limits.idle_frames, limits.idle_frames_per_second, clock)
        self._resets = Allowance(limits.resets, limits.resets_per_second, clock)
        self._has_settings = False
        self._block_frames = 0
        self._block_bytes = 0
        self.blocks = 0
        """Header blocks that have ended."""
        self.is_in_block = False
        """One has begun and not ended."""

    def check(self, frame: Frame) -> None:
        """Look at a frame before anything is done about it. Raises Violation."""
        if not self._has_settings:
            if frame.type != FrameType.SETTINGS or frame.flags & _ACK:
                raise Violation(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._has_settings = True
        if frame.type in (FrameType.HEADERS, FrameType.CONTINUATION):
            self._check_header_block(frame)
        if _brings_nothing(frame) and not self._idle.take():
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def check_unopened(self, frame: Frame, highest: int) -> None:
        """Look at a frame on a stream that is not open. Raises Violation.

        Some may still be under way when a stream is reset; h2 answers each of them.
        """
        if frame.stream_id <= highest:
            if frame.type in (FrameType.DATA, FrameType.HEADERS) and not self._idle.take():
                raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, "too many frames on closed streams")
        elif frame.type == FrameType.RST_STREAM:
            raise Violation(ErrorCodes.PROTOCOL_ERROR, "RST_STREAM on an idle stream")

    def count_reset(self) -> None:
        """Note a request that is over before its reply. Raises Violation."""
        if not self._resets.take():
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, "too many requests given up")

    def note_data_sent(self) -> None:
        """Note a frame of ours that the client may well answer by window updates."""
        self._idle.give(_CREDIT_FOR_DATA)

    def _check_header_block(self, frame: Frame) -> None:
        if frame.type == FrameType.HEADERS:
            self._block_frames = self._block_bytes = 0
        self._block_frames += 1
        self._block_bytes += frame.length
        is_over = (
            self._block_frames > self._limits.header_frames
            or self._block_bytes > self._limits.header_block
        )
        if is_over:
            raise Violation(ErrorCodes.ENHANCE_YOUR_CALM, "a header block over the limit")
        self.is_in_block = not frame.flags & _END_HEADERS
        if not self.is_in_block:
            self.blocks += 1


def _brings_nothing(frame: Frame) -> bool:
    if frame.type == FrameType.HEADERS:
        return False
    if frame.type == FrameType.DATA:
        return frame.length < _SMALL_DATA and not frame.flags & _END_STREAM
    return True
