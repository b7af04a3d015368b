"""The HTTP interface for the application's back end; the same on every transport, so run once."""

from checks import check, drain, refused
from session import Closed, Refused, Session, bodies
from transports import WebSocketJson


def over_http(function):
    """A check of HTTP runs once a node, not once a transport."""

    async def once(c):
        if c.kind is WebSocketJson:
            await function(c)

    once.__name__ = function.__name__
    return check(once)


async def ok(c, method, path, body=None, status=(200, 201, 204)):
    got, reply = await c.cluster.call(c.node, method, path, body, c.cluster.admin)
    assert got in status, f"{method} {path}: {got} {reply}"
    return reply


@over_http
async def health_and_metrics_need_no_token(c):
    for path in ("/healthz", "/readyz"):
        status, _ = await c.cluster.call(c.node, "GET", path)
        assert status == 200, f"{path}: {status}"
    status, metrics = await c.cluster.call(c.node, "GET", "/metrics")
    assert status == 200 and "# TYPE roost_" in metrics, metrics[:200]


@over_http
async def the_interface_is_the_administrators(c):
    user = await c.cluster.token(c.user("alice"))
    for method, path, body in (
        ("POST", "/v1/tokens", {"user": "x"}),
        ("POST", "/v1/conversations", {"kind": "group", "members": [], "client_id": "x"}),
        ("GET", "/v1/users/x/queue", None),
        ("GET", "/v1/cluster", None),
    ):
        for token, expected in ((None, (401,)), ("nonsense", (401,)), (user, (401, 403))):
            status, reply = await c.cluster.call(c.node, method, path, body, token)
            assert status in expected, f"{method} {path}: {status} {reply}"


@over_http
async def the_command_lines_token_connects(c):
    user = c.user("cli")
    token = c.cluster.token_of_the_command_line(user)
    session = await Session.connect(c.kind, c.cluster.address(c.node), token, window=0)
    c.sessions.append(session)
    assert session.welcome["user"] == user


@over_http
async def a_token_may_be_for_one_device_alone(c):
    reply = await ok(c, "POST", "/v1/tokens", {"user": c.user("x"), "device": "d7", "ttl_s": 60})
    address = c.cluster.address(c.node)
    session = await Session.connect(c.kind, address, reply["token"], device="d7", window=0)
    c.sessions.append(session)
    other = await c.open()
    try:
        await other.request(
            "connect", token=reply["token"], device={"id": "d8", "kind": "app"}, window=0
        )
    except (Refused, Closed):
        return
    raise AssertionError("another device connected with it")


@over_http
async def a_back_end_makes_fills_and_deletes_a_conversation(c):
    made = await ok(c, "POST", "/v1/conversations", {
        "kind": "group", "members": [c.user("alice"), c.user("bob")], "name": "by the back end",
        "client_id": c.client_id(),
    })
    group = made["conversation"]
    shown = await ok(c, "GET", f"/v1/conversations/{group}")
    assert shown["kind"] == "group" and shown["name"] == "by the back end", shown
    await ok(c, "PUT", f"/v1/conversations/{group}/members/{c.user('carol')}", {})
    body = {"sender": c.user("alice"), "client_id": "h1", "body": "on behalf"}
    sent = await ok(c, "POST", f"/v1/conversations/{group}/messages", body)
    assert sent["seq"] == 1 and sent["duplicate"] is False, sent
    again = await ok(c, "POST", f"/v1/conversations/{group}/messages", body)
    assert again["seq"] == 1 and again["duplicate"] is True, again
    await ok(c, "DELETE", f"/v1/conversations/{group}/members/{c.user('bob')}")

    page = await ok(c, "GET", f"/v1/users/{c.user('carol')}/queue?after=0&limit=100")
    assert bodies(page["items"]) == ["on behalf"], page
    carol = await c.connect("carol", window=0)
    assert bodies(await drain(carol)) == ["on behalf"]
    bob = await c.connect("bob", window=0)
    await refused("not_a_member", c.post(bob, group, "no longer"))

    await ok(c, "DELETE", f"/v1/conversations/{group}")
    status, _ = await c.cluster.call(
        c.node, "GET", f"/v1/conversations/{group}", None, c.cluster.admin
    )
    assert status == 404, status
    await refused("not_found", c.post(carol, group, "too late"))


@over_http
async def the_cluster_is_shown_with_its_leader(c):
    shown = await ok(c, "GET", "/v1/cluster")
    assert shown["leader"] in (1, 2, 3), shown
    assert len(shown["nodes"]) == 3, shown


@over_http
async def what_is_not_there_is_not_found(c):
    status, _ = await c.cluster.call(
        c.node, "GET", "/v1/conversations/g-0-ffffffff", None, c.cluster.admin
    )
    assert status == 404, status
    status, _ = await c.cluster.call(c.node, "GET", "/v1/nothing", None, c.cluster.admin)
    assert status == 404, status
    status, reply = await c.cluster.call(c.node, "POST", "/v1/tokens", {}, c.cluster.admin)
    assert status in (400, 422), f"{status} {reply}"
