"""The h2 library, set up for a server that does some things itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame, SettingsFrame

from llm_api.server.http2.preface import PREFACE

if TYPE_CHECKING:
    from llm_api.limits import Limits

_NO_LIMIT: Final = (1 << 31) - 1
_HEADER_TABLE_BYTES: Final = 4096


class _Protocol(H2Connection):
    MAX_CLOSED_STREAMS = 1024  # what is remembered of streams that were reset


def make_protocol(limits: Limits) -> H2Connection:
    """Make the server's half of a connection whose preface has been read.

    The limit on open streams is announced, but not enforced by h2: it would close the
    connection of a client that goes over it.
    """
    h2 = _Protocol(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            # Ours are right as they are.
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    h2.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.headers,
        },
    )
    h2.initiate_connection()
    h2.local_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = _NO_LIMIT
    h2.local_settings.acknowledge()
    h2.decoder.max_header_list_size = limits.header_block
    h2.receive_data(PREFACE)
    return h2


def cap_header_table(h2: H2Connection) -> None:
    """Keep what is remembered of sent headers small, however much the client would allow."""
    h2.encoder.header_table_size = min(h2.encoder.header_table_size, _HEADER_TABLE_BYTES)


def turn_away(reason: bytes) -> bytes:
    """Make what a client is sent that gets no connection."""
    return SettingsFrame(0).serialize() + goaway(ErrorCodes.ENHANCE_YOUR_CALM, 0, reason)


def goaway(code: ErrorCodes, last_stream_id: int, reason: bytes = b"") -> bytes:
    """Make the frame that ends a connection."""
    frame = GoAwayFrame(0, last_stream_id, code, reason)
    return frame.serialize()
