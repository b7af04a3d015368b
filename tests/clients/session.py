"""One client session, on whatever transport: requests matched to replies, pushes put aside.

Written from the protocol's page alone, so that it finds what only our own client would forgive.
A transport offers `write(envelope)`, `write_raw(bytes)`, `read()` and `abort()`; `read` raises
`Closed` once the server closed the connection.
"""

import asyncio
import base64
import itertools

DEADLINE_S = 20


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, error):
        super().__init__(f"{error.get('code')}: {error.get('message')}")
        self.code = error["code"]
        self.message = error["message"]
        self.retry = error["retry"]


class Closed(Exception):
    """The connection is closed; `code` is the WebSocket's or QUIC's, None where there was none."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed with {code} {reason!r}")
        self.code = code


class Session:
    """A connection on which requests are made, in any number at once."""

    def __init__(self, transport):
        self.transport = transport
        self.ids = itertools.count(1)
        self.pending = {}
        self.inbox = asyncio.Queue()
        self.closing = None
        self.closed = asyncio.get_running_loop().create_future()
        self.reader = asyncio.create_task(self._read())
        self.welcome = None
        self.left = False

    @classmethod
    async def open(cls, kind, address):
        """A session that has not said `connect` yet."""
        return cls(await asyncio.wait_for(kind.open(address), DEADLINE_S))

    @classmethod
    async def connect(cls, kind, address, token, device="d1", device_kind="app", **fields):
        """A session that is connected."""
        session = await cls.open(kind, address)
        session.welcome = await session.request(
            "connect", token=token, device={"id": device, "kind": device_kind}, **fields
        )
        return session

    async def _read(self):
        try:
            while True:
                self._take(await self.transport.read())
        except Closed as closed:
            self._end(closed)
        except Exception as error:  # a server that answers nonsense ends the session, loudly
            self._end(Closed(None, f"unreadable: {error!r}"))

    def _take(self, envelope):
        if "id" in envelope:
            waiter = self.pending.pop(envelope["id"], None)
            if waiter is None:
                raise ValueError(f"a reply to no request: {envelope}")
            if not waiter.done():
                waiter.set_result(envelope)
        elif "items" in envelope:
            for item in envelope["items"]["items"]:
                self.inbox.put_nowait(item)
        elif "closing" in envelope:
            self.closing = envelope["closing"]

    def _end(self, closed):
        if not self.closed.done():
            self.closed.set_result(closed)
        for waiter in self.pending.values():
            if not waiter.done():
                waiter.set_exception(closed)
                waiter.exception()  # a waiter that nobody awaits is no error of its own
        self.pending.clear()
        self.inbox.put_nowait(closed)

    async def begin(self, operation, **fields):
        """Writes a request; the future that comes back is its whole reply envelope."""
        if self.closed.done():
            raise self.closed.result()
        number = next(self.ids)
        waiter = self.pending[number] = asyncio.get_running_loop().create_future()
        await self.transport.write({"id": number, operation: fields})
        return waiter

    async def request(self, operation, **fields):
        """Makes a request and gives its `ok`; raises `Refused`, `Closed` or TimeoutError."""
        waiter = await self.begin(operation, **fields)
        return outcome(await asyncio.wait_for(waiter, DEADLINE_S))

    async def item(self, within_s=DEADLINE_S):
        """The next pushed item."""
        item = await asyncio.wait_for(self.inbox.get(), within_s)
        if isinstance(item, Closed):
            self.inbox.put_nowait(item)
            raise item
        return item

    async def items(self, count, within_s=DEADLINE_S):
        """The next `count` pushed items."""
        return [await self.item(within_s) for _ in range(count)]

    async def messages(self, count, within_s=DEADLINE_S):
        """Pushed items up to and with the next `count` messages, of which it gives the latter."""
        found = []
        while len(found) < count:
            item = await self.item(within_s)
            if item["kind"] == "message":
                found.append(item)
        return found

    async def nothing_more(self, quiet_s=0.4):
        """Whether no item comes, though the server had time to answer a ping and some more."""
        await self.request("ping")
        try:
            item = await self.item(quiet_s)
        except TimeoutError:
            return True
        raise AssertionError(f"an item too many: {item}")

    async def wait_closed(self):
        """How the server closed the connection."""
        return await asyncio.wait_for(asyncio.shield(self.closed), DEADLINE_S)

    async def close(self):
        """Goes without a word; again, it does nothing."""
        if self.left:
            return
        self.left = True
        self.reader.cancel()
        await self.transport.abort()


def outcome(envelope):
    """What a reply's envelope says."""
    if "error" in envelope:
        raise Refused(envelope["error"])
    return envelope["ok"]


def body_of(message):
    """A message's body: str for text, bytes for what is not UTF-8."""
    if "body_base64" in message:
        return base64.b64decode(message["body_base64"], validate=True)
    return message["body"]


def bodies(items):
    """The bodies of the messages among items."""
    return [body_of(item["message"]) for item in items if item["kind"] == "message"]
