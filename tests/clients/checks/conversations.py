"""Conversations: groups and their members, history, the list of one's own."""

from checks import check, dense, drain, refused
from session import bodies, body_of


@check
async def members_come_and_go(c):
    alice = await c.connect("alice", window=0)
    bob = await c.connect("bob", window=0)
    carol = await c.connect("carol", window=0)
    group = await c.group(alice, "bob", name="a group")
    await c.post(bob, group, "from a member")
    await refused("not_a_member", c.post(carol, group, "from outside"))
    await refused("not_a_member", carol.request("history", conversation=group))

    added = await alice.request("add_members", conversation=group, members=[c.user("carol")])
    assert added["members"] == 3, added
    await c.post(carol, group, "now inside")
    removed = await alice.request("remove_members", conversation=group, members=[c.user("bob")])
    assert removed["members"] == 2, removed
    await refused("not_a_member", c.post(bob, group, "no longer"))
    left = await carol.request("leave", conversation=group)
    assert left["members"] == 1, left
    await refused("not_a_member", c.post(carol, group, "gone"))
    await c.post(alice, group, "alone")

    assert bodies(await drain(alice)) == ["from a member", "now inside", "alone"]
    assert bodies(await drain(bob)) == ["from a member", "now inside"]
    assert bodies(await drain(carol)) == ["now inside"]


@check
async def membership_changes_are_items_of_the_queue(c):
    alice = await c.connect("alice", window=0)
    bob = await c.connect("bob")
    group = await c.group(alice, "bob")
    await alice.request("add_members", conversation=group, members=[c.user("carol")])
    await alice.request("remove_members", conversation=group, members=[c.user("carol")])
    await c.post(alice, group, "the end")
    seen = []
    while not seen or seen[-1]["kind"] != "message":
        seen.append(await bob.item())
    dense(seen)
    changes = [item for item in seen if item["kind"] == "member"]
    assert all(item["conversation"] == group for item in changes)
    of_carol = [item["change"] for item in changes if item["user"] == c.user("carol")]
    assert len(of_carol) == 2 and of_carol[0] != of_carol[1], f"{changes}"
    assert any(item["user"] == c.user("bob") for item in changes), f"{changes}"


@check
async def making_a_conversation_twice_with_one_client_id_makes_one(c):
    alice = await c.connect("alice", window=0)
    first = await c.group(alice, "bob", client_id="make")
    elsewhere = await c.connect("alice", node=c.node + 1, device="d2", window=0)
    assert await c.group(elsewhere, "bob", client_id="make") == first
    assert await c.group(alice, "bob", client_id="make another") != first


@check
async def only_who_may_changes_the_members(c):
    alice = await c.connect("alice", window=0)
    bob = await c.connect("bob", window=0)
    mallory = await c.connect("mallory", window=0)
    group = await c.group(alice, "bob", "carol")
    me = [c.user("mallory")]
    await refused("not_a_member", mallory.request("add_members", conversation=group, members=me))
    await refused("not_a_member", mallory.request("leave", conversation=group))
    await refused(
        "forbidden",
        bob.request("remove_members", conversation=group, members=[c.user("carol")]),
    )


@check
async def history_pages_in_both_directions(c):
    alice = await c.connect("alice", window=0)
    bob = await c.connect("bob", window=0)
    group = await c.group(alice, "bob")
    for n in range(1, 24):
        await c.post(alice, group, f"message {n}")
    # Bob has seen all of it, so that every later read of his shows it.
    await drain(bob)

    async def page(**fields):
        reply = await bob.request("history", conversation=group, **fields)
        numbers = [message["seq"] for message in reply["messages"]]
        assert numbers == sorted(numbers), numbers
        assert [body_of(m) for m in reply["messages"]] == [f"message {n}" for n in numbers]
        return numbers, reply["more"]

    assert await page(limit=5) == ([19, 20, 21, 22, 23], True)
    assert await page(before=19, limit=5) == ([14, 15, 16, 17, 18], True)
    assert await page(before=4, limit=5) == ([1, 2, 3], False)
    assert await page(after=0, limit=5) == ([1, 2, 3, 4, 5], True)
    assert await page(after=20, limit=5) == ([21, 22, 23], False)
    assert await page(after=23) == ([], False)
    assert await page() == (list(range(1, 24)), False)


@check
async def the_list_of_conversations_is_whole_page_by_page(c):
    alice = await c.connect("alice", window=0)
    bob = await c.connect("bob", window=0)
    groups = {}
    for n in range(7):
        group = await c.group(alice, "bob", name=f"group {n}")
        for m in range(n):
            await c.post(alice, group, f"{n}.{m}")
        groups[group] = n
    direct = (await c.send(alice, "bob", "direct"))["conversation"]
    await drain(bob)

    found, after = {}, None
    while True:
        fields = {"limit": 3} if after is None else {"limit": 3, "after": after}
        page = await bob.request("conversations", **fields)
        assert len(page["conversations"]) <= 3
        for one in page["conversations"]:
            assert one["id"] not in found, f"{one['id']} twice"
            found[one["id"]] = one
        if not page["more"]:
            break
        after = page["next"]
    assert set(found) == {*groups, direct}
    for group, n in groups.items():
        one = found[group]
        assert one["kind"] == "group" and one["name"] == f"group {n}", one
        assert one["role"] == "member" and one["tail"] == n and one["unread"] == n, one
        if n:
            assert body_of(one["last"]) == f"{n}.{n - 1}" and one["last"]["seq"] == n, one
        else:
            assert one.get("last") is None, one
    assert found[direct]["kind"] == "direct" and found[direct]["tail"] == 1
    own = (await alice.request("conversations"))["conversations"]
    assert {one["role"] for one in own if one["kind"] == "group"} == {"owner"}
    assert all(one["unread"] == 0 for one in own), "sending reads"
