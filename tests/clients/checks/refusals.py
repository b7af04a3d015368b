"""What is refused, with which code, and what goes on afterwards."""

from checks import check, drain, refused
from session import Closed, Refused, bodies, outcome
from transports import Quic, WebSocketJson


async def node_goes_on(c):
    """That the node serves somebody else after what one client did."""
    session = await c.connect("witness", device=c.client_id(), window=0)
    assert (await session.request("ping"))["server_time_ms"] > 0


async def closed_for(session, number, code):
    """That the server closes with this number and tells why before."""
    closed = await session.wait_closed()
    assert closed.code == number, f"closed with {closed.code}, not {number}"
    assert session.closing is not None, "no closing push"
    assert session.closing["code"] == code, session.closing
    assert session.closing["message"]
    assert session.closing["reconnect"] is False, session.closing


@check
async def a_bad_token_is_unauthorized(c):
    good = await c.cluster.token(c.user("alice"))
    head, payload, signature = good.split(".")
    forged = ".".join([head, payload, signature[:-6] + "AAAAAA"])
    unsigned = ".".join(["eyJhbGciOiJub25lIn0", payload, ""])
    for token in ("", "nonsense", forged, unsigned):
        session = await c.open()
        try:
            await session.request("connect", token=token, device={"id": "d", "kind": "app"})
            raise AssertionError("connected")
        except Refused as error:
            assert error.code == "unauthorized" and error.retry is False
        except Closed:
            pass
        await closed_for(session, 4001, "unauthorized")
    await node_goes_on(c)


@check
async def anything_before_connect_is_refused(c):
    for operation, fields in (
        ("ping", {}),
        ("send", {"to": "x", "client_id": "y", "body": "z"}),
        ("pull", {"after": 0}),
    ):
        session = await c.open()
        await refused("not_connected", session.request(operation, **fields))
    await node_goes_on(c)


@check
async def an_unknown_operation_is_answered_and_the_connection_goes_on(c):
    session = await c.connect("alice", window=0)
    await refused("unknown_operation", session.request("frobnicate", much=True))
    assert (await session.request("ping"))["server_time_ms"] > 0


@check
async def unknown_fields_are_ignored(c):
    session = await c.connect("alice", window=0, shoe_size=44)
    sent = await session.request(
        "send", to=c.user("bob"), client_id="u1", colour={"a": [1]}, **c.kind.body("hi")
    )
    assert sent["seq"] == 1


@check
async def fields_of_the_wrong_type_are_a_bad_request(c):
    session = await c.connect("alice", window=0)
    body = c.kind.body("x")
    for operation, fields in (
        ("send", {"to": 5, "client_id": "a", **body}),
        ("send", {"client_id": "a", **body}),
        ("send", {"to": "", "client_id": "a", **body}),
        ("send", {"to": "x" * 65, "client_id": "a", **body}),
        ("send", {"to": "x", "client_id": "", **body}),
        ("send", {"to": "x", "client_id": "c" * 65, **body}),
        ("send", {"to": "x", "client_id": "a"}),
        ("ack", {}),
        ("ack", {"seq": -1}),
        ("ack", {"seq": "three"}),
        ("pull", {"after": 0, "limit": "many"}),
        ("history", {"conversation": "x", "before": 1, "after": 1}),
        ("create_conversation", {"kind": "herd", "members": [], "client_id": "a"}),
    ):
        try:
            await refused("bad_request", session.request(operation, **fields))
        except AssertionError as error:
            raise AssertionError(f"{operation} {fields}: {error}") from None
    assert (await session.request("ping"))["server_time_ms"] > 0


@check
async def an_unknown_conversation_is_not_found(c):
    session = await c.connect("alice", window=0)
    await refused("not_found", c.post(session, "g-0-ffffffff", "x"))
    await refused("not_found", session.request("history", conversation="g-0-ffffffff"))
    await refused("not_found", session.request("leave", conversation="g-0-ffffffff"))
    await refused(
        "not_found",
        session.request("add_members", conversation="g-0-ffffffff", members=[c.user("bob")]),
    )
    assert (await session.request("ping"))["server_time_ms"] > 0


@check
async def a_refused_send_leaves_nothing_behind(c):
    session = await c.connect("alice", window=0)
    await refused("too_large", c.send(session, "bob", "x" * (64 * 1024 + 1), client_id="r1"))
    # It took no effect, so its client id is still free.
    sent = await c.send(session, "bob", "small", client_id="r1")
    assert sent["seq"] == 1 and sent["duplicate"] is False
    assert bodies(await drain(session)) == ["small"]


@check
async def a_frame_that_is_no_envelope_closes_the_connection(c):
    for first in (False, True):
        session = await (c.open() if first else c.connect("alice", window=0))
        await session.transport.write_raw(c.kind.nonsense)
        await closed_for(session, 4003, "bad_frame")
    await node_goes_on(c)


@check
async def a_frame_that_is_too_large_closes_the_connection(c):
    for first in (False, True):
        session = await (c.open() if first else c.connect("alice", window=0))
        await session.transport.write_raw(session.transport.oversized())
        await closed_for(session, 4003, "frame_too_large")
    await node_goes_on(c)


@check
async def the_wrong_kind_of_websocket_frame_is_a_bad_frame(c):
    if c.kind is Quic:
        return
    session = await c.connect("alice", window=0)
    frame = c.kind.encode({"id": 900, "ping": {}})
    await session.transport.write_raw(
        frame.encode() if isinstance(frame, str) else frame.decode("latin-1")
    )
    await closed_for(session, 4003, "bad_frame")


@check
async def no_subprotocol_means_json(c):
    if c.kind is not WebSocketJson:
        return
    transport = await WebSocketJson.open(c.cluster.address(c.node), offer=False)
    token = await c.cluster.token(c.user("alice"))
    await transport.write(
        {"id": 1, "connect": {"token": token, "device": {"id": "d", "kind": "web"}}}
    )
    assert outcome(await transport.read())["user"] == c.user("alice")
    await transport.abort()


@check
async def a_frame_in_pieces_is_one_frame(c):
    if c.kind is not Quic:
        return
    session = await c.connect("alice", window=0)
    written = []
    write_raw = session.transport.write_raw

    async def collect(data):
        written.append(data)

    session.transport.write_raw = collect
    pending = [await session.begin("ping") for _ in range(3)]
    for byte in b"".join(written):
        await write_raw(bytes([byte]))
    session.transport.write_raw = write_raw
    for future in pending:
        assert outcome(await future)["server_time_ms"] > 0
