"""What the protocol's page promises, one check a promise, each for every transport and node."""

import itertools

from session import Refused, Session

REGISTRY = []
_numbers = itertools.count(1)


def check(function):
    """Registers a check; its name and docstring are the report."""
    REGISTRY.append(function)
    return function


class Context:
    """One check's run on one node over one transport, with users that no other run has."""

    def __init__(self, cluster, kind, node):
        self.cluster = cluster
        self.kind = kind
        self.node = node
        self.prefix = f"u{next(_numbers)}"
        self.sessions = []
        self.client_ids = itertools.count(1)

    def user(self, name):
        return f"{self.prefix}-{name}"

    async def open(self, node=None):
        """A session that has not connected."""
        address = self.cluster.address(self.node if node is None else node)
        session = await Session.open(self.kind, address)
        self.sessions.append(session)
        return session

    async def connect(self, name, node=None, **fields):
        """A session of one of this run's users, on the node under test unless told otherwise."""
        address = self.cluster.address(self.node if node is None else node)
        token = await self.cluster.token(self.user(name))
        session = await Session.connect(self.kind, address, token, **fields)
        self.sessions.append(session)
        return session

    def client_id(self):
        return f"{self.prefix}-c{next(self.client_ids)}"

    async def send(self, session, to, content, **fields):
        """Sends to one of this run's users, under a fresh client id unless one is given."""
        fields.setdefault("client_id", self.client_id())
        return await session.request(
            "send", to=self.user(to), **self.kind.body(content), **fields
        )

    async def post(self, session, conversation, content, **fields):
        """Sends to a conversation."""
        fields.setdefault("client_id", self.client_id())
        return await session.request(
            "send", conversation=conversation, **self.kind.body(content), **fields
        )

    async def group(self, session, *names, **fields):
        """Makes a group of these users and the session's own; gives its id."""
        fields.setdefault("client_id", self.client_id())
        made = await session.request(
            "create_conversation", kind="group", members=[self.user(name) for name in names],
            **fields,
        )
        return made["conversation"]

    async def close(self):
        for session in self.sessions:
            await session.close()


async def refused(code, awaitable, retry=False):
    """That a request is refused with this code."""
    try:
        done = await awaitable
    except Refused as error:
        assert error.code == code, f"refused with {error.code}, not {code}: {error.message}"
        assert error.retry is retry, f"{code} says retry: {error.retry}"
        assert error.message, f"{code} says nothing"
        return
    raise AssertionError(f"not refused with {code}: {done}")


def dense(items, first=1):
    """That items are numbered without a gap."""
    numbers = [item["seq"] for item in items]
    assert numbers == list(range(first, first + len(items))), f"sequences {numbers}"


async def drain(session, after=0, limit=500):
    """A whole queue, pulled page by page."""
    found = []
    while True:
        page = await session.request("pull", after=after, limit=limit, linearizable=True)
        assert len(page["items"]) <= limit, f"{len(page['items'])} items of at most {limit}"
        found += page["items"]
        if not page["more"]:
            return found
        assert page["items"], "more, but no items"
        after = found[-1]["seq"]
