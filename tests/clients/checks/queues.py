"""Reading a queue: push, window, acknowledgement, resuming, pulling, changing the node."""

from checks import check, dense, drain, refused
from session import bodies


async def fill(c, count, to="bob", prefix="message"):
    """Sends `count` messages; gives the bodies and the session."""
    alice = await c.connect("alice", window=0)
    contents = [f"{prefix} {n}" for n in range(1, count + 1)]
    for content in contents:
        await c.send(alice, to, content)
    return contents, alice


@check
async def what_was_missed_comes_first_then_what_comes_live(c):
    contents, alice = await fill(c, 5)
    bob = await c.connect("bob", after=0)
    assert bob.welcome["tail"] >= 5 and bob.welcome["resumed"] is True
    missed = await bob.messages(5)
    assert bodies(missed) == contents
    await c.send(alice, "bob", "live")
    assert bodies(await bob.messages(1)) == ["live"]
    assert await bob.nothing_more()


@check
async def no_more_than_the_window_is_pushed_ahead_of_the_acknowledged(c):
    _, alice = await fill(c, 10)
    bob = await c.connect("bob", after=0, window=3)
    dense(await bob.items(3))
    assert await bob.nothing_more()
    assert (await bob.request("ack", seq=1))["cursor"] == 1
    dense(await bob.items(1), first=4)
    assert await bob.nothing_more()
    assert (await bob.request("ack", seq=4))["cursor"] == 4
    dense(await bob.items(3), first=5)
    assert await bob.nothing_more()
    await c.send(alice, "bob", "still beyond the window")
    assert await bob.nothing_more()


@check
async def the_window_is_256_unless_told_otherwise(c):
    alice = await c.connect("alice", window=0)
    pending = [
        await alice.begin("send", to=c.user("bob"), client_id=f"w{n}", **c.kind.body("x"))
        for n in range(300)
    ]
    for future in pending:
        assert "ok" in await future
    bob = await c.connect("bob", after=0)
    dense(await bob.items(256))
    assert await bob.nothing_more()
    await bob.request("ack", seq=256)
    dense(await bob.items(44), first=257)


@check
async def with_a_window_of_zero_nothing_is_pushed(c):
    contents, alice = await fill(c, 3)
    bob = await c.connect("bob", window=0)
    await c.send(alice, "bob", "also not")
    assert await bob.nothing_more()
    assert bodies(await drain(bob)) == [*contents, "also not"]


@check
async def a_device_goes_on_from_its_cursor_on_every_node(c):
    contents, alice = await fill(c, 6)
    bob = await c.connect("bob", after=0)
    items = await bob.messages(6)
    await bob.request("ack", seq=items[3]["seq"])
    await bob.close()
    for node in (c.node, c.node + 1, c.node + 2):
        again = await c.connect("bob", node=node)
        assert again.welcome["cursor"] == items[3]["seq"], again.welcome
        assert again.welcome["resumed"] is True
        assert bodies(await again.messages(2)) == contents[4:]
        assert await again.nothing_more()
        await again.close()
    # Another device of the same user has a cursor of its own.
    other = await c.connect("bob", device="other")
    assert other.welcome["cursor"] == 0
    assert bodies(await other.messages(6)) == contents


@check
async def a_device_that_was_away_gets_exactly_what_it_missed_then_what_comes(c):
    contents, alice = await fill(c, 3)
    bob = await c.connect("bob", after=0)
    items = await bob.messages(3)
    await bob.request("ack", seq=items[-1]["seq"])
    await bob.close()
    for n in range(4):
        await c.send(alice, "bob", f"missed {n}")
    moved = await c.connect("bob", node=c.node + 1)
    missed = await moved.items(4)
    dense(missed, first=items[-1]["seq"] + 1)
    assert bodies(missed) == [f"missed {n}" for n in range(4)]
    await c.send(alice, "bob", "live")
    assert bodies(await moved.items(1)) == ["live"]
    assert await moved.nothing_more()


@check
async def after_says_where_to_begin_whatever_the_cursor(c):
    contents, _ = await fill(c, 6)
    bob = await c.connect("bob", after=0)
    items = await bob.messages(6)
    await bob.request("ack", seq=items[-1]["seq"])
    await bob.close()
    again = await c.connect("bob", after=items[1]["seq"])
    assert again.welcome["cursor"] == items[-1]["seq"]
    assert bodies(await again.messages(4)) == contents[2:]


@check
async def acknowledging_never_goes_back_and_never_past_the_tail(c):
    await fill(c, 4)
    bob = await c.connect("bob", after=0)
    items = await bob.messages(4)
    tail = items[-1]["seq"]
    assert (await bob.request("ack", seq=tail))["cursor"] == tail
    assert (await bob.request("ack", seq=1))["cursor"] == tail
    await refused("bad_request", bob.request("ack", seq=tail + 1))
    await refused("bad_request", bob.request("ack", seq=2**62))
    assert (await bob.request("ack", seq=tail))["cursor"] == tail


@check
async def pages_of_a_queue_follow_each_other_without_a_gap(c):
    contents, _ = await fill(c, 25)
    bob = await c.connect("bob", window=0)
    items = await drain(bob, limit=7)
    dense(items)
    assert bodies(items) == contents
    page = await bob.request("pull", after=0, limit=7)
    assert len(page["items"]) == 7 and page["more"] is True and page["tail"] >= 25
    past = await bob.request("pull", after=page["tail"] + 10)
    assert past["items"] == [] and past["more"] is False
    await refused("bad_request", bob.request("pull", after=0, limit=501))


@check
async def a_message_is_pushed_to_devices_on_every_node(c):
    devices = [await c.connect("bob", node=n, device=f"d{n}") for n in range(3)]
    alice = await c.connect("alice", window=0)
    await c.send(alice, "bob", "everywhere")
    for device in devices:
        assert bodies(await device.messages(1)) == ["everywhere"]


@check
async def the_same_device_elsewhere_replaces_the_connection(c):
    for step in (0, 1):
        first = await c.connect("bob", device="phone")
        second = await c.connect("bob", node=c.node + step, device="phone")
        closed = await first.wait_closed()
        assert closed.code == 4002, f"closed with {closed.code}"
        assert first.closing and first.closing["code"] == "replaced", first.closing
        assert first.closing["reconnect"] is False
        assert (await second.request("ping"))["server_time_ms"] > 0
        await second.close()
