//! The HTTP API, against a node.

use crate::support::{TestNode, bodies, code};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_end_runs_a_conversation() {
    let node = TestNode::start().await;
    let admin = node.admin();
    let call = async |method: &str, path: &str, body: Option<Value>| {
        node.http(method, path, Some(&admin), body).await
    };

    let wanted = json!({ "owner": "alice", "kind": "group", "members": ["bob"], "name": "Lunch",
        "retention": { "ttl_ms": 60_000 }, "client_id": "g1" });
    let (status, created) = call("POST", "/v1/conversations", Some(wanted.clone())).await;
    assert_eq!((status, &created["duplicate"]), (201, &json!(false)), "{created}");
    let (status, again) = call("POST", "/v1/conversations", Some(wanted)).await;
    assert_eq!((status, &again["conversation"]), (200, &created["conversation"]));
    let path = format!("/v1/conversations/{}", created["conversation"].as_str().unwrap());

    let (status, members) = call("PUT", &format!("{path}/members/carol"), None).await;
    assert_eq!((status, &members["members"]), (200, &json!(3)));
    let (status, members) = call("DELETE", &format!("{path}/members/bob"), None).await;
    assert_eq!((status, &members["members"]), (200, &json!(2)));
    let (status, shown) = call("GET", &path, None).await;
    assert_eq!((status, &shown["kind"], &shown["name"]), (200, &json!("group"), &json!("Lunch")));
    assert_eq!(shown["retention"], json!({ "ttl_ms": 60_000 }));
    let users: Vec<_> =
        shown["members"].as_array().unwrap().iter().map(|member| &member["user"]).collect();
    assert_eq!(users, ["alice", "carol"]);

    let messages = format!("{path}/messages");
    let message = json!({ "sender": "alice", "client_id": "m1", "body": "hi" });
    assert_eq!(call("POST", &messages, Some(message.clone())).await.0, 201);
    let (status, sent) = call("POST", &messages, Some(message)).await;
    assert_eq!((status, &sent["duplicate"]), (200, &json!(true)));
    let other = json!({ "sender": "alice", "client_id": "m1", "body": "ho" });
    let (status, refused) = call("POST", &messages, Some(other)).await;
    assert_eq!((status, code(&refused)), (409, "client_id_reused"));
    let bytes = json!({ "sender": "alice", "client_id": "m2", "body_base64": "/w==" });
    assert_eq!(call("POST", &messages, Some(bytes)).await.0, 201);
    let stranger = json!({ "sender": "bob", "client_id": "m3", "body": "hi" });
    let (status, refused) = call("POST", &messages, Some(stranger)).await;
    assert_eq!((status, code(&refused)), (403, "not_a_member"));

    let (status, page) = call("GET", "/v1/users/carol/queue?after=0&limit=100", None).await;
    let items = page["items"].as_array().unwrap();
    assert_eq!((status, bodies(items)), (200, vec!["hi"]));
    assert_eq!(items.last().unwrap()["message"]["body_base64"], "/w==");
    let local = call("GET", "/v1/users/carol/queue?local=true", None).await.1;
    assert_eq!(local["tail"], page["tail"]);

    let (status, gone) = call("DELETE", &path, None).await;
    assert_eq!((status, &gone["deleted"]), (200, &json!(true)));
    assert_eq!(call("GET", &path, None).await.0, 404);
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_the_api_lets_its_user_in() {
    let node = TestNode::start().await;
    let wanted = json!({ "user": "alice", "device": "phone", "ttl_s": 60 });
    let (status, token) = node.http("POST", "/v1/tokens", Some(&node.admin()), Some(wanted)).await;
    assert_eq!(status, 201);
    let mut client = node.websocket().await;
    let reply = client.connect(token["token"].as_str().unwrap(), "phone", json!({})).await;
    assert_eq!(reply["ok"]["user"], "alice");
    let (status, devices) =
        node.http("GET", "/v1/users/alice/devices", Some(&node.admin()), None).await;
    assert_eq!(status, 200);
    assert_eq!(devices["devices"][0]["id"], "phone");
    assert_eq!(devices["devices"][0]["kind"], "app");
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_are_served() {
    let node = TestNode::start().await;
    let user = node.token("alice");
    for (method, path) in [
        ("GET", "/v1/cluster"),
        ("POST", "/v1/tokens"),
        ("GET", "/v1/users/alice/queue"),
        ("DELETE", "/v1/conversations/g-0-1"),
    ] {
        for (token, status, expected) in [
            (None, 401, "unauthorized"),
            (Some("nonsense"), 401, "unauthorized"),
            (Some(&*user), 403, "forbidden"),
        ] {
            let (found, answer) = node.http(method, path, token, None).await;
            assert_eq!((found, code(&answer)), (status, expected), "{method} {path}");
        }
    }
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_is_told_in_json() {
    let node = TestNode::start().await;
    let admin = node.admin();
    let large = "x".repeat(64 * 1024 + 1);
    let huge = "x".repeat(1024 * 1024 + 1);
    let message = |body: &str| Some(json!({ "sender": "a", "client_id": "1", "body": body }));
    for (method, path, body, status, expected) in [
        ("GET", "/nothing", None, 404, "not_found"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("PATCH", "/v1/cluster", None, 405, "bad_request"),
        ("GET", "/v1/conversations/g-none", None, 404, "not_found"),
        ("POST", "/v1/tokens", Some(json!({})), 400, "bad_request"),
        ("POST", "/v1/tokens", Some(json!({ "user": "a", "ttl_s": 0 })), 400, "bad_request"),
        ("POST", "/v1/tokens", Some(json!({ "user": "" })), 400, "bad_request"),
        ("GET", "/v1/users/alice/queue?limit=501", None, 400, "bad_request"),
        ("GET", "/v1/users/alice/queue?limit=x", None, 400, "bad_request"),
        ("POST", "/v1/conversations/g-none/messages", message("hi"), 404, "not_found"),
        ("POST", "/v1/conversations/g-none/messages", message(&large), 413, "too_large"),
        ("POST", "/v1/conversations/g-none/messages", message(&huge), 413, "too_large"),
    ] {
        let (found, answer) = node.http(method, path, Some(&admin), body).await;
        assert_eq!((found, code(&answer)), (status, expected), "{method} {path}");
    }
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_shows_its_health_and_numbers() {
    let node = TestNode::start().await;
    assert_eq!(node.http("GET", "/healthz", None, None).await.0, 200);
    assert_eq!(node.http("GET", "/openapi.json", None, None).await.1["openapi"], "3.1.0");
    let mut alice = node.client("alice", "phone").await;
    alice.ask(2, "send", json!({ "to": "bob", "client_id": "1", "body": "hi" })).await;

    let (status, cluster) = node.http("GET", "/v1/cluster", Some(&node.admin()), None).await;
    assert_eq!((status, &cluster["role"], &cluster["leader"]), (200, &json!("leader"), &json!(1)));
    assert_eq!(cluster["counts"]["messages"], 1);
    assert_eq!(cluster["digest"]["applied"], cluster["applied"]);
    assert_eq!(cluster["connected_devices"], 1);

    let Value::String(metrics) = node.http("GET", "/metrics", None, None).await.1 else {
        panic!("no text")
    };
    for line in [
        r#"roost_requests_total{operation="send",code="ok"} 1"#,
        r#"roost_sessions{transport="websocket"} 1"#,
        r#"roost_stored{kind="messages"} 1"#,
        "roost_is_leader 1",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    node.node.shutdown().await;
}
