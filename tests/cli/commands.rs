//! The commands around one node.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::node::Node;
use crate::process::{Process, failure, roost, run, signal};

/// A trace of two days, and the file that it is in.
fn trace(folder: &Path) -> String {
    let path = folder.join("chat.tsv");
    let mut text = String::new();
    for day in 1..=2 {
        for line in 0..20 {
            let user = (line * day) % 5;
            text.push_str(&format!(
                "2004-11-0{day}\t12:{line:02}\tsay\tu{user}\tline {line} of day {day}\n"
            ));
        }
    }
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_a_node_proposes_to_try_next_works_as_it_stands() {
    let node = Node::start();
    let called = format!("{} ", env!("CARGO_BIN_EXE_roost"));
    let hints: Vec<_> =
        node.welcome.iter().filter_map(|line| line.trim().strip_prefix(&called)).collect();
    assert_eq!(hints.len(), 4, "{:?}", node.welcome);
    for hint in hints {
        let words: Vec<_> = hint.split_whitespace().map(|word| word.trim_matches('"')).collect();
        let once: &[&str] = if words[0] == "tail" { &["--once"] } else { &[] };
        node.lines(&[&words, once].concat());
    }
}

#[test]
fn a_message_is_sent_once_and_read_from_the_queue_until_acknowledged() {
    let node = Node::start();
    let sent = node.lines(&["send", "--as", "alice", "--to", "bob", "--client-id", "x", "hi"]);
    let words: Vec<_> = sent[0].split(' ').collect();
    assert_eq!((words.len(), words[1]), (3, "1"));
    assert_eq!(
        node.lines(&["send", "--as", "alice", "--to", "bob", "--client-id", "x", "hi"]),
        sent
    );
    let other =
        node.failure(&["send", "--as", "alice", "--to", "bob", "--client-id", "x", "other"]);
    assert!(other.contains("client_id_reused"), "{other}");

    let tail = node.lines(&["tail", "--as", "bob", "--once"]);
    assert_eq!(tail, [format!("1 {} {} alice: hi", words[2], words[0])]);
    assert!(node.lines(&["tail", "--as", "bob", "--once"]).is_empty());
    for transport in [&[][..], &["--websocket"]] {
        let again = node.lines(
            &[&["tail", "--as", "bob", "--once", "--json", "--after", "0"], transport].concat(),
        );
        let item: Value = serde_json::from_str(&again[0]).unwrap();
        assert_eq!((again.len(), &item["message"]["body"]), (1, &"hi".into()));
    }
    node.lines(&["send", "--as", "bob", "--conversation", words[0], "--websocket", "back"]);
    assert!(node.lines(&["tail", "--as", "alice", "--once"])[1].ends_with("bob: back"));
}

#[test]
fn a_text_can_come_from_stdin() {
    let node = Node::start();
    let mut send = roost(node.folder.path());
    send.args(["send", "--as", "alice", "--to", "bob", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null());
    let mut process = Process::start(&mut send);
    process.0.stdin.take().unwrap().write_all(b"two\nlines").unwrap();
    assert!(process.wait().success());
    assert!(node.lines(&["tail", "--as", "bob", "--once"])[0].ends_with(r"alice: two\nlines"));
}

#[test]
fn a_live_tail_shows_what_comes_and_ends_well_when_interrupted() {
    let node = Node::start();
    let mut tail = roost(node.folder.path());
    let mut process = Process::start(tail.args(["tail", "--as", "bob"]).stdout(Stdio::piped()));
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    for text in ["one", "two"] {
        node.lines(&["send", "--as", "alice", "--to", "bob", text]);
        assert!(lines.next().unwrap().unwrap().ends_with(text));
    }
    signal(process.id(), "INT");
    assert!(process.wait().success());
    assert!(node.lines(&["tail", "--as", "bob", "--once"]).is_empty());
}

#[test]
fn a_token_stands_alone_on_the_last_line_and_is_worth_what_it_says() {
    let node = Node::start();
    let admin = node.lines(&["token", "ops", "--admin", "--ttl", "1m"]).pop().unwrap();
    node.lines(&["status", "--token", &admin]);
    let user = node.lines(&["token", "alice"]).pop().unwrap();
    assert!(!node.run(&["status", "--token", &user]).status.success());
    node.lines(&["send", "--as", "alice", "--to", "bob", "--token", &user, "hi"]);
    let wrong =
        node.failure(&["send", "--as", "alice", "--to", "bob", "--token", "nonsense", "hi"]);
    assert!(wrong.contains("unauthorized") && !wrong.contains("nonsense"), "{wrong}");
}

#[test]
fn status_says_where_the_node_stands() {
    let node = Node::start();
    node.lines(&["send", "--as", "alice", "--to", "bob", "hi"]);
    assert!(node.lines(&["status"])[1].contains("leader"));
    let json: Value = serde_json::from_str(&node.lines(&["status", "--json"]).join("\n")).unwrap();
    assert_eq!((&json[0]["role"], &json[0]["counts"]["messages"]), (&"leader".into(), &1.into()));
}

#[test]
fn a_replay_stores_everything_once_and_says_so() {
    let node = Node::start();
    let file = trace(node.folder.path());
    let report = |extra: &[&str]| -> Value {
        let lines = node.lines(&[&["replay", &file, "--json"], extra].concat());
        serde_json::from_str(&lines.join("\n")).unwrap()
    };
    let first = report(&[]);
    assert_eq!(
        (&first["ok"], &first["messages"], &first["users"]),
        (&true.into(), &40.into(), &5.into())
    );
    assert_eq!(first["played"]["known"], 0);
    // Five users in two groups of five, forty messages: a join and twenty messages each.
    assert_eq!(first["queues"]["items"], 5 * 2 * 21);

    let second = report(&["--senders", "1", "--verify-nodes", "all"]);
    assert_eq!((&second["played"]["known"], &second["queues"]["items"]), (&40.into(), &210.into()));
    assert_eq!(report(&["--verify-only"])["ok"], true);
    assert_eq!(report(&["--prefix", "anew"])["played"]["known"], 0);
    let said = node.lines(&["replay", &file, "--limit", "7"]);
    assert!(said.contains(&"lost 0, duplicated 0, out of order 0".to_owned()), "{said:?}");
}

#[test]
fn a_replay_fails_if_a_queue_holds_what_it_should_not() {
    let node = Node::start();
    let file = trace(node.folder.path());
    node.lines(&["replay", &file]);
    node.lines(&["send", "--as", "u1", "--conversation", "g-0-1", "not in the trace"]);
    let output = node.run(&["replay", &file, "--verify-only"]);
    assert!(failure(&output).contains("does not hold what it acknowledged"));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("unexpected 5, altered 0, gaps 0"), "{said}");
}

#[test]
fn a_file_that_is_no_trace_is_refused_by_line() {
    let node = Node::start();
    let path = node.folder.path().join("no.tsv");
    fs::write(&path, "2004-11-01\t12:00\tsay\tu1\tok\nnonsense\n").unwrap();
    assert!(node.failure(&["replay", path.to_str().unwrap()]).contains("line 2"));
    assert!(node.failure(&["replay", "missing.tsv"]).contains("missing.tsv"));
}

#[test]
fn a_node_that_was_stopped_goes_on_with_its_data() {
    let node = Node::start();
    node.lines(&["send", "--as", "alice", "--to", "bob", "hi"]);
    let token = node.lines(&["token", "alice"]).pop().unwrap();
    let node = Node::start_in(node.stop());
    node.lines(&["send", "--as", "alice", "--to", "bob", "--token", &token, "again"]);
    assert_eq!(node.lines(&["tail", "--as", "bob", "--once"]).len(), 2);
}

#[test]
fn keys_made_ahead_are_kept_and_used() {
    let folder = TempDir::new().unwrap();
    let init = || {
        let arguments = ["keys", "init", "--data", "roost-data", "--nodes", "1=10.0.0.1:7071"];
        let output = roost(folder.path()).args(arguments).output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    assert_eq!(init(), init());
    let authority = folder.path().join("roost-data/keys/ca.crt");
    let before = fs::read(&authority).unwrap();
    let node = Node::start_in(folder);
    node.lines(&["send", "--as", "alice", "--to", "bob", "hi"]);
    assert_eq!(fs::read(node.folder.path().join("roost-data/keys/ca.crt")).unwrap(), before);
}

#[test]
fn what_cannot_work_is_said_in_one_line() {
    let folder = TempDir::new().unwrap();
    let run = |arguments: &[&str]| run(folder.path(), arguments);
    let no_keys = failure(&run(&["token", "alice"]));
    assert!(no_keys.contains("--data") && no_keys.contains("roost serve"), "{no_keys}");
    assert!(run(&["keys", "init", "--data", "roost-data"]).status.success());
    let nobody = failure(&run(&["status", "--addr", "127.0.0.1:9"]));
    assert!(nobody.contains("no node answers"), "{nobody}");
    for wrong in [&["send", "--as", "alice", "hi"][..], &["tail"], &["nonsense"], &["token", ""]] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    fs::write(folder.path().join("roost.toml"), "lisen = '127.0.0.1:1'\n").unwrap();
    assert!(failure(&run(&["serve"])).contains("lisen"));
}
