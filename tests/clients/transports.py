"""The three ways to reach a node: WebSocket with JSON, WebSocket with MessagePack, and QUIC."""

import asyncio
import base64
import json
import ssl

import msgpack
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio.client import connect as quic_connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived
from websockets.asyncio.client import connect as websocket_connect
from websockets.exceptions import ConnectionClosed

from session import Closed

MAX_FRAME_BYTES = 1024 * 1024
# A QUIC client learns of a dead node only by silence.
HANDSHAKE_S = 5


class WebSocket:
    """What both WebSocket encodings share."""

    name = None
    subprotocol = None

    def __init__(self, socket):
        self.socket = socket

    @classmethod
    async def open(cls, address, offer=True):
        host, port = address
        subprotocols = [cls.subprotocol] if offer else None
        socket = await websocket_connect(
            f"ws://{host}:{port}/v1/ws",
            subprotocols=subprotocols,
            compression=None,
            max_size=4 * MAX_FRAME_BYTES,
            ping_interval=None,
        )
        if offer and socket.subprotocol != cls.subprotocol:
            raise AssertionError(f"asked for {cls.subprotocol}, got {socket.subprotocol}")
        return cls(socket)

    async def write_raw(self, frame):
        try:
            await self.socket.send(frame)
        except ConnectionClosed as error:
            raise self._closed(error) from None

    async def write(self, envelope):
        await self.write_raw(self.encode(envelope))

    async def read(self):
        try:
            frame = await self.socket.recv()
        except ConnectionClosed as error:
            raise self._closed(error) from None
        return self.decode(frame)

    async def abort(self):
        self.socket.transport.abort()

    @staticmethod
    def _closed(error):
        return Closed(error.rcvd.code, error.rcvd.reason) if error.rcvd else Closed(None)


class WebSocketJson(WebSocket):
    """Text frames, one JSON envelope each."""

    name = "websocket-json"
    subprotocol = "roost.v1.json"
    nonsense = '{"id": 1, "ping'

    @staticmethod
    def encode(envelope):
        return json.dumps(envelope)

    @staticmethod
    def decode(frame):
        assert isinstance(frame, str), "JSON travels in text frames"
        return json.loads(frame)

    @staticmethod
    def body(content):
        """The fields that carry a body."""
        if isinstance(content, bytes):
            return {"body_base64": base64.b64encode(content).decode()}
        return {"body": content}

    def oversized(self):
        return "x" * (MAX_FRAME_BYTES + 1)


class WebSocketMsgpack(WebSocket):
    """Binary frames, one MessagePack envelope each."""

    name = "websocket-msgpack"
    subprotocol = "roost.v1.msgpack"
    nonsense = b"\xc1\x00\xff\x93"

    @staticmethod
    def encode(envelope):
        return msgpack.packb(envelope)

    @staticmethod
    def decode(frame):
        assert isinstance(frame, bytes), "MessagePack travels in binary frames"
        return msgpack.unpackb(frame)

    @staticmethod
    def body(content):
        """The fields that carry a body."""
        return {"body": content}

    def oversized(self):
        return b"x" * (MAX_FRAME_BYTES + 1)


class _Stream(QuicConnectionProtocol):
    """Puts the bytes of the one stream, and the connection's end, into a queue."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.events = asyncio.Queue()

    def quic_event_received(self, event):
        if isinstance(event, StreamDataReceived):
            self.events.put_nowait(event.data)
        elif isinstance(event, ConnectionTerminated):
            self.events.put_nowait(Closed(event.error_code, event.reason_phrase))


class Quic:
    """One bidirectional stream; a 4-byte length, then a MessagePack envelope."""

    name = "quic"
    # A frame whose length is right, and whose content is no MessagePack.
    nonsense = b"\x00\x00\x00\x04\xc1\x00\xff\x93"
    leaving = set()

    def __init__(self, context, protocol):
        self.context = context
        self.protocol = protocol
        self.stream = protocol._quic.get_next_available_stream_id()
        self.buffer = b""

    @classmethod
    async def open(cls, address):
        host, port = address
        configuration = QuicConfiguration(is_client=True, alpn_protocols=["roost/1"])
        # How a client comes to trust the node's certificate is the application's matter.
        configuration.verify_mode = ssl.CERT_NONE
        context = quic_connect(host, port, configuration=configuration, create_protocol=_Stream)
        try:
            return cls(context, await asyncio.wait_for(context.__aenter__(), HANDSHAKE_S))
        except ConnectionError:
            raise Closed(None, "no QUIC connection") from None

    async def write_raw(self, data):
        self.protocol._quic.send_stream_data(self.stream, data)
        self.protocol.transmit()

    async def write(self, envelope):
        frame = msgpack.packb(envelope)
        await self.write_raw(len(frame).to_bytes(4, "big") + frame)

    async def read(self):
        while len(self.buffer) < 4 or len(self.buffer) < 4 + self._length():
            event = await self.protocol.events.get()
            if isinstance(event, Closed):
                raise event
            self.buffer += event
        end = 4 + self._length()
        frame, self.buffer = self.buffer[4:end], self.buffer[end:]
        return msgpack.unpackb(frame)

    def _length(self):
        length = int.from_bytes(self.buffer[:4], "big")
        assert length <= 4 * MAX_FRAME_BYTES, f"a frame of {length} bytes"
        return length

    async def abort(self):
        self.protocol.close()
        # Waiting for the peer to have gone too is nobody's business but the library's.
        task = asyncio.ensure_future(self.context.__aexit__(None, None, None))
        self.leaving.add(task)
        task.add_done_callback(self.leaving.discard)

    @staticmethod
    def body(content):
        """The fields that carry a body."""
        return {"body": content}

    def oversized(self):
        # The length alone must do: nothing of what it promises follows.
        return (0x7FFF_FFFF).to_bytes(4, "big")


async def all_have_left():
    """Waits for the connections that are still saying goodbye."""
    await asyncio.gather(*Quic.leaving, return_exceptions=True)


ALL = [WebSocketJson, WebSocketMsgpack, Quic]
