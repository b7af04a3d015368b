"""Clients of every kind that go on while nodes are killed, and what they must then have seen."""

import asyncio
import itertools
import random
import time

import transports
from checks import dense, drain
from session import Closed, Refused, Session, bodies

SECONDS = 20
FINISH_S = 90
KILL_EVERY_S = 3
# How long a node that took a request may be silent before it counts as dead.
PATIENCE_S = 4


class Roamer:
    """A user that keeps a connection to some node, whichever lives."""

    def __init__(self, cluster, kind, user, first):
        self.cluster = cluster
        self.kind = kind
        self.user = user
        self.nodes = itertools.count(first)
        self.session = None

    async def connected(self, deadline, **fields):
        """The session, or a new one on the next node."""
        token = await self.cluster.token(self.user)
        while self.session is None or self.session.closed.done():
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.user} finds no node that takes it")
            address = self.cluster.address(next(self.nodes))
            try:
                self.session = await Session.connect(self.kind, address, token, **fields)
            except (OSError, Closed, TimeoutError, Refused, EOFError) as error:
                if isinstance(error, Refused) and not error.retry:
                    raise
                await asyncio.sleep(0.05)
            except Exception as error:
                # The WebSocket library has exceptions of its own for a half-done handshake.
                if not type(error).__module__.startswith("websockets"):
                    raise
                await asyncio.sleep(0.05)
        return self.session

    async def leave(self):
        if self.session is not None:
            await self.session.close()
            self.session = None


async def send_until_acknowledged(roamer, deadline, fields):
    """Sends again under the same client id, to any node, until the outcome is known."""
    while True:
        session = await roamer.connected(deadline, window=0)
        try:
            return await asyncio.wait_for(session.request("send", **fields), PATIENCE_S)
        except Refused as error:
            if not error.retry:
                raise
            await asyncio.sleep(0.05)
        except (Closed, TimeoutError):
            await roamer.leave()
        if time.monotonic() > deadline:
            raise AssertionError(f"{fields['client_id']} was never acknowledged")


async def talk(roamer, conversation, stop, deadline):
    """Sends one message after the other until told to stop; gives the acknowledged ones."""
    sent = []
    for number in itertools.count(1):
        if stop.is_set():
            await roamer.leave()
            return sent
        text = f"{roamer.user} {number}"
        reply = await send_until_acknowledged(roamer, deadline, {
            "conversation": conversation, "client_id": text, **roamer.kind.body(text),
        })
        sent.append((reply["seq"], text))
    return sent


async def listen(roamer, expected, deadline):
    """Follows a queue and acknowledges, over as many connections as it takes."""
    seen = []
    while True:
        # What it really has, the device knows better than its last acknowledgement.
        session = await roamer.connected(deadline, after=len(seen))
        try:
            while True:
                item = await session.item(within_s=1)
                assert item["seq"] == len(seen) + 1, (
                    f"{roamer.user} was pushed {item['seq']} after {len(seen)}"
                )
                seen.append(item)
                if item["seq"] % 5 == 0:
                    await session.request("ack", seq=item["seq"])
        except (Closed, Refused, TimeoutError):
            done = expected.done() and len(bodies(seen)) >= expected.result()
            if done or time.monotonic() > deadline:
                await roamer.leave()
                return seen
            if not await answers(session):
                await roamer.leave()


async def answers(session):
    """Whether the node still lives; over QUIC, a killed one is only silent."""
    try:
        await asyncio.wait_for(session.request("ping"), PATIENCE_S)
        return True
    except (Closed, Refused, TimeoutError):
        return False


async def kill_in_turn(cluster, stop, chance):
    """Kills a node every few seconds: each in turn, then whichever leads, then all."""
    killed = []
    victims = itertools.cycle([[0], [1], [2], ["leader"], [0, 1, 2], ["leader"]])
    while not stop.is_set():
        await asyncio.sleep(KILL_EVERY_S * chance.uniform(0.7, 1.3))
        for victim in next(victims):
            node = await asyncio.to_thread(cluster.leader) if victim == "leader" else victim
            if node is not None and await asyncio.to_thread(cluster.kill, node):
                killed.append(f"{node + 1}{' (leader)' if victim == 'leader' else ''}")
    return killed


async def run(cluster, seed, prefix):
    """The whole scene, with users of its own; gives a line of report."""
    chance = random.Random(seed)
    began = time.monotonic()
    deadline = began + SECONDS + FINISH_S
    users = [f"{prefix}-{kind.name}" for kind in transports.ALL]
    owner = Roamer(cluster, transports.WebSocketJson, users[0], 0)
    session = await owner.connected(deadline, window=0, device="maker")
    group = (await session.request(
        "create_conversation", kind="group", members=users[1:], client_id="the group"
    ))["conversation"]
    await owner.leave()

    stop = asyncio.Event()
    expected = asyncio.get_running_loop().create_future()
    talkers, listeners = [], []
    for n, (user, kind) in enumerate(zip(users, transports.ALL)):
        talkers.append(asyncio.create_task(talk(Talker(cluster, kind, user, n), group, stop, deadline)))
        listeners.append(asyncio.create_task(listen(Roamer(cluster, kind, user, n + 1), expected, deadline)))
    killer = asyncio.create_task(kill_in_turn(cluster, stop, chance))
    await asyncio.sleep(SECONDS)
    stop.set()
    killed = await killer
    acknowledged = sorted(pair for sent in await asyncio.gather(*talkers) for pair in sent)
    expected.set_result(len(acknowledged))
    heard = await asyncio.gather(*listeners)

    numbers = [seq for seq, _ in acknowledged]
    assert numbers == list(range(1, len(numbers) + 1)), f"the group's sequence: {numbers}"
    texts = [text for _, text in acknowledged]
    for user, items in zip(users, heard):
        dense(items)
        assert bodies(items) == texts, f"{user} was pushed something else than was acknowledged"
    for node in range(3):
        await asyncio.to_thread(cluster.wait_ready, node)
        for kind, user in zip(transports.ALL, users):
            token = await cluster.token(user)
            reader = await Session.connect(
                kind, cluster.address(node), token, device="reader", window=0
            )
            items = await drain(reader)
            dense(items)
            assert bodies(items) == texts, f"{user}'s queue on node {node + 1} differs"
            await reader.close()
    return f"{len(texts)} messages to {len(users)} queues; killed: {', '.join(killed)}"


class Talker(Roamer):
    """A roamer whose device is not the listener's, which it would replace."""

    async def connected(self, deadline, **fields):
        return await super().connected(deadline, device="talker", **fields)
