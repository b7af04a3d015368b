//! `roost bench` against one node: short runs, whose figures must be there, whatever they are.

use serde_json::Value;

use crate::node::Node;

/// A run of half a second among few users.
const SHORT: [&str; 9] = [
    "bench",
    "--json",
    "--users=60",
    "--concurrency=8",
    "--connections=4",
    "--warmup=0.1",
    "--seconds=0.5",
    "--data=roost-data",
    "--label=test",
];

fn bench(node: &Node, arguments: &[&str]) -> Value {
    let lines = node.lines(&[&SHORT[..], arguments].concat());
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(&lines[0]).unwrap()
}

#[test]
fn a_short_run_over_any_transport_tells_rates_latencies_and_costs() {
    let node = Node::start();
    for transport in [&[][..], &["--websocket"], &["--http"]] {
        let run = bench(&node, transport);
        assert_eq!((&run["errors"], &run["first_error"]), (&0.into(), &Value::Null), "{run}");
        for figure in
            ["sends_per_s", "refs_per_s", "rss_mb", "rss_peak_mb", "server_cpu_us_per_send"]
        {
            assert!(run[figure].as_f64().unwrap() > 0.0, "{figure}: {run}");
        }
        for figure in ["mean_us", "p50_us", "p99_us", "p999_us", "max_us", "count"] {
            assert!(run["lat"][figure].as_f64().unwrap() > 0.0, "{figure}: {run}");
        }
        assert!(run["disk_bytes_per_send"].is_number() && run["cpu_servers_pct"][0].is_number());
        assert_eq!(
            (&run["label"], &run["group"], &run["c"]),
            (&"test".into(), &"mix".into(), &8.into())
        );
    }
}

#[test]
fn sends_that_are_due_by_the_clock_keep_their_rate() {
    let node = Node::start();
    let run = bench(&node, &["--rate=200"]);
    assert_eq!((&run["errors"], &run["rate"]), (&0.into(), &200.0.into()), "{run}");
    // Twenty are due in the warm-up and a hundred in the measured time, whatever the machine.
    assert_eq!(run["lat"]["count"], 100);
    assert_eq!(run["all_sends"], 120);
}

#[test]
fn a_few_senders_take_turns_on_more_connections() {
    let node = Node::start();
    let lines = node.lines(&[
        "bench",
        "--json",
        "--users=60",
        "--concurrency=3",
        "--connections=7",
        "--seconds=0.5",
    ]);
    let run: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&run["errors"], &run["c"], &run["conns"]), (&0.into(), &3.into(), &7.into()));
    assert!(run["sends_per_s"].as_f64().unwrap() > 0.0, "{run}");
}

#[test]
fn sends_come_in_bursts_and_to_a_few_more_than_to_others() {
    let node = Node::start();
    let run = bench(&node, &["--rate=200", "--burst=40", "--skew=1.2"]);
    assert_eq!((&run["errors"], &run["burst"]), (&0.into(), &40.into()), "{run}");
    assert_eq!((&run["skew"], &run["all_sends"]), (&1.2.into(), &120.into()));
}

#[test]
fn every_phase_tells_its_figures() {
    let node = Node::start();
    let run = bench(&node, &["--phase=push,pull,connect", "--readers=3"]);
    assert_eq!(run["sends_per_s"], Value::Null);
    let (push, pull, connect) = (&run["push"], &run["pull"], &run["connect"]);
    assert!(push["pushes_per_s"].as_f64().unwrap() > 0.0, "{run}");
    for latency in ["ack_to_push", "send_to_push", "lat"] {
        assert_eq!(push[latency]["count"], push["lat"]["count"], "{run}");
    }
    assert!(pull["pulls_per_s"].as_f64().unwrap() > 0.0, "{run}");
    assert_eq!(
        (&pull["short"], &pull["n"], &pull["concurrency"]),
        (&0.into(), &50.into(), &3.into())
    );
    assert_eq!((&connect["opened"], &connect["alive"]), (&4.into(), &4.into()));
    for phase in [push, pull, connect] {
        assert_eq!(phase["errors"], 0, "{run}");
        assert!(phase["cpu_servers_pct"][0].is_number(), "{run}");
    }
}

#[test]
fn a_repeated_run_finds_the_conversations_of_the_one_before() {
    let node = Node::start();
    let conversations = || -> u64 {
        let status: Value =
            serde_json::from_str(&node.lines(&["status", "--json"]).join("\n")).unwrap();
        status[0]["counts"]["conversations"].as_u64().unwrap()
    };
    bench(&node, &["--group=10"]);
    // Sixty users, each in five groups of ten.
    assert_eq!(conversations(), 30);
    bench(&node, &["--group=10"]);
    assert_eq!(conversations(), 30);
}

#[test]
fn the_table_says_what_the_run_was() {
    let node = Node::start();
    let table =
        node.lines(&["bench", "--users=20", "--concurrency=2", "--seconds=0.3", "--warmup=0"]);
    assert!(table[0].starts_with("20 users, group mix, 200 bytes, 2 in flight"), "{table:?}");
    assert!(table.iter().any(|line| line.starts_with("send: ")), "{table:?}");
    assert!(table.iter().any(|line| line.contains("leads")), "{table:?}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_sent() {
    let node = Node::start();
    for wrong in [
        "--group=1",
        "--users=0",
        "--body=65537",
        "--seconds=x",
        "--phase=nonsense",
        "--rate=0",
        "--burst=5",
        "--skew=9",
        "--concurrency=0",
    ] {
        let output = node.run(&["bench", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
    for (wrong, word) in [
        (&["--users=50", "--group=100"][..], "--users 50"),
        (&["--nodes=2"], "--nodes 2"),
        (&["--seconds=0"], "--seconds 0"),
        (&["--token=x"], "--token"),
    ] {
        let said = node.failure(&[&["bench"], wrong].concat());
        assert!(said.contains(word), "{said}");
    }
}
