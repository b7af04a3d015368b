"""Sending once: replies, order, idempotency, bodies."""

from checks import check, dense, drain, refused
from session import bodies, body_of, outcome


@check
async def connect_says_who_and_where(c):
    session = await c.connect("alice", device="phone", window=0)
    welcome = session.welcome
    assert welcome["user"] == c.user("alice")
    device = welcome["device"]
    assert device == "phone" or device["id"] == "phone", f"device {device!r}"
    for field in ("head", "tail", "cursor", "applied", "server_time_ms"):
        assert isinstance(welcome[field], int), f"{field}: {welcome[field]!r}"
    assert welcome["tail"] == 0 and welcome["cursor"] == 0
    assert isinstance(welcome["resumed"], bool)
    assert "node" in welcome
    limits = welcome["limits"]
    assert limits["max_frame_bytes"] == 1024 * 1024, limits
    assert limits["max_in_flight"] == 1024, limits
    assert any("dedup" in name for name in limits), f"no dedup window among {list(limits)}"


@check
async def a_message_reaches_the_receiver_and_the_senders_own_devices(c):
    alice = await c.connect("alice")
    tablet = await c.connect("alice", device="tablet")
    bob = await c.connect("bob")
    sent = await c.send(alice, "bob", "hello", content_type="text/x-test", client_id="m1")
    assert sent["duplicate"] is False and sent["seq"] == 1 and sent["at_ms"] > 0
    for session in (alice, tablet, bob):
        [item] = await session.messages(1)
        message = item["message"]
        assert item["conversation"] == sent["conversation"]
        assert message["seq"] == 1 and message["at_ms"] == sent["at_ms"]
        assert message["sender"] == c.user("alice") and body_of(message) == "hello"
        assert message["content_type"] == "text/x-test" and message["client_id"] == "m1"


@check
async def a_direct_conversation_is_the_same_from_both_ends(c):
    alice = await c.connect("alice", window=0)
    bob = await c.connect("bob", window=0)
    there = await c.send(alice, "bob", "one")
    back = await c.send(bob, "alice", "two")
    assert there["conversation"] == back["conversation"]
    assert (there["seq"], back["seq"]) == (1, 2)
    again = await c.post(alice, there["conversation"], "three")
    assert again["seq"] == 3 and again["at_ms"] >= back["at_ms"]
    assert bodies(await drain(bob)) == ["one", "two", "three"]


@check
async def the_same_client_id_is_the_same_send_on_any_node(c):
    alice = await c.connect("alice", window=0)
    first = await c.send(alice, "bob", "once", client_id="same")
    for node in (c.node, c.node + 1, c.node + 2):
        elsewhere = await c.connect("alice", node=node, device=f"other{node}", window=0)
        again = await c.send(elsewhere, "bob", "once", client_id="same")
        assert again["duplicate"] is True, again
        for field in ("conversation", "seq", "at_ms"):
            assert again[field] == first[field], f"{field}: {again} is not {first}"
        await refused("client_id_reused", c.send(elsewhere, "bob", "other", client_id="same"))
    # A client id names a send for its sender, not for all.
    bob = await c.connect("bob", window=0)
    reply = await c.send(bob, "alice", "mine", client_id="same")
    assert reply["duplicate"] is False and reply["seq"] == 2
    assert bodies(await drain(alice)) == ["once", "mine"]


@check
async def pipelined_sends_take_effect_in_their_order(c):
    alice = await c.connect("alice", window=0)
    bob = await c.connect("bob", window=0)
    pending = []
    for n in range(200):
        to = "bob" if n % 3 else "carol"
        pending.append(await alice.begin(
            "send", to=c.user(to), client_id=f"p{n}", **c.kind.body(f"message {n}")
        ))
    replies = [outcome(await future) for future in pending]
    for kind in (0, 1):
        numbers = [r["seq"] for n, r in enumerate(replies) if bool(n % 3) == bool(kind)]
        assert numbers == list(range(1, len(numbers) + 1)), f"replies number {numbers}"
    own = await drain(alice)
    dense(own)
    assert bodies(own) == [f"message {n}" for n in range(200)]
    theirs = await drain(bob)
    dense(theirs)
    assert bodies(theirs) == [f"message {n}" for n in range(200) if n % 3]


@check
async def more_requests_than_may_be_open_are_all_answered(c):
    session = await c.connect("alice", window=0)
    pending = [await session.begin("ping") for _ in range(3_000)]
    for future in pending:
        assert outcome(await future)["server_time_ms"] > 0


@check
async def bodies_that_are_not_text_come_back_byte_for_byte(c):
    alice = await c.connect("alice", window=0)
    bob = await c.connect("bob")
    contents = [b"\xff\x00\xfe\x80", "", "grüße 🙂 \u0000 \"quoted\"", bytes(range(256)) * 4]
    for content in contents:
        await c.send(alice, "bob", content)
    got = bodies(await bob.messages(len(contents)))
    assert got == contents, f"{got!r}"


@check
async def the_largest_body_passes_and_a_byte_more_does_not(c):
    alice = await c.connect("alice", window=0)
    largest = "x" * (64 * 1024)
    await c.send(alice, "bob", largest)
    await refused("too_large", c.send(alice, "bob", largest + "x"))
    await c.send(alice, "bob", "after")
    assert [len(body) for body in bodies(await drain(alice))] == [64 * 1024, 5]


@check
async def a_message_past_its_lifetime_reads_as_expired(c):
    alice = await c.connect("alice", window=0)
    await c.send(alice, "bob", "short-lived", ttl_ms=1)
    # The store's clock is the log's: each send moves it on.
    for n in range(100):
        await c.send(alice, "bob", f"later {n}")
        item = (await alice.request("pull", after=0, limit=2, linearizable=True))["items"]
        first = next((i for i in item if i["kind"] in ("message", "expired")), None)
        if first and first["kind"] == "expired":
            assert "message" not in first
            return
    raise AssertionError("still readable")
