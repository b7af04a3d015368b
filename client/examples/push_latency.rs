//! How long a message takes from one node's client to another node's, on an idle cluster.
//!
//! ```sh
//! roost dev --nodes 3 --data ./try &
//! cargo run --release -p roost-client --example push_latency -- ./try/keys/ca.crt \
//!     127.0.0.1:7080 "$(roost token alice --data ./try | tail -1)" \
//!     127.0.0.1:7090 "$(roost token bob --data ./try | tail -1)"
//! ```
//!
//! Alice sends from the first address to Bob at the second, one message at a time over QUIC. It
//! prints the time to the acknowledgement and to the push in milliseconds, both measured in this
//! process from the call on.

#![allow(clippy::print_stdout, reason = "figures are its output")]

use std::time::{Duration, Instant};

use roost_client::protocol::request::SendMessage;
use roost_client::protocol::{Push, Target};
use roost_client::{Calls as _, ConnectOptions, Connection, Pushes, Trust};

const USAGE: &str = "push_latency CA_FILE FROM_ADDRESS FROM_TOKEN TO_ADDRESS TO_TOKEN";
const ROUNDS: usize = 500;
/// Between two messages, so that each finds the cluster idle.
const PAUSE: Duration = Duration::from_millis(20);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or(USAGE);
    let authority = std::fs::read(next()?)?;
    let mut options = |device: &str| -> Result<ConnectOptions> {
        let trust = Trust::Authority(authority.as_slice().into());
        Ok(ConnectOptions::new(next()?.parse()?, trust, next()?, device))
    };
    let (from, _) =
        Connection::open(&ConnectOptions { window: Some(0), ..options("push-latency-from")? })
            .await?;
    let (to, mut pushes) = Connection::open(&options("push-latency-to")?).await?;
    let user = to.connected().user.clone();
    drain(&to, &mut pushes).await?;

    let (mut acknowledged, mut pushed) = (Vec::new(), Vec::new());
    let run = std::process::id();
    for round in 0..ROUNDS {
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        let send = from.send(SendMessage {
            target: Target::User(user.clone()),
            client_id: format!("{run}-{round}").into(),
            body: "x".repeat(100).into(),
            content_type: None,
            ttl_ms: None,
        });
        let (ack, push) = tokio::join!(async { send.await.map(|_| began.elapsed()) }, async {
            next_items(&mut pushes).await.map(|last| (last, began.elapsed()))
        },);
        let (last, push) = push?;
        acknowledged.push(ack?);
        pushed.push(push);
        to.ack(last).await?;
    }
    report("acknowledged", acknowledged);
    report("pushed", pushed);
    Ok(())
}

/// Takes what the queue held before.
async fn drain(to: &Connection, pushes: &mut Pushes) -> Result<()> {
    let tail = to.connected().tail;
    let mut cursor = to.connected().cursor;
    while cursor < tail {
        let last = next_items(pushes).await?;
        cursor = to.ack(last).await?.cursor;
    }
    Ok(())
}

/// The last sequence of the next push.
async fn next_items(pushes: &mut Pushes) -> Result<u64> {
    loop {
        if let Push::Items(items) = pushes.next().await.ok_or("the connection ended")?
            && let Some(last) = items.items.last()
        {
            return Ok(last.seq);
        }
    }
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!("{what}: median {:.2} ms, p99 {:.2} ms, of {}", at(0.5), at(0.99), times.len());
}
