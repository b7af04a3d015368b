//! The machines' network: a namespace and an address for each node, one bridge, and nftables to cut
//! it. The runner itself, and so every client, is on the bridge's own address.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::shell::{sh, with_input};

/// The port for clients, on every node.
pub(crate) const CLIENT_PORT: u16 = 25_070;
/// The port for peers, on every node.
pub(crate) const PEER_PORT: u16 = 25_071;

/// A node's address.
pub(crate) fn address(node: u64) -> String {
    format!("10.77.0.{node}")
}

/// Where all of them are.
pub(crate) const SUBNET: &str = "10.77.0.0/24";
/// Where the clients are.
pub(crate) const CLIENTS: &str = "10.77.0.254";

/// The command that runs another one where a node is.
pub(crate) fn at(node: u64) -> String {
    format!("ip netns exec n{node}")
}

/// Makes the bridge and the nodes' namespaces. The names are private to the sandbox.
pub(crate) async fn make(nodes: u64) -> anyhow::Result<()> {
    // `ip netns` keeps its names below /run.
    sh("mount -t tmpfs tmpfs /run").await?;
    sh("ip link set lo up").await?;
    sh("ip link add br0 type bridge").await?;
    sh(&format!("ip addr add {CLIENTS}/24 dev br0")).await?;
    sh("ip link set br0 up").await?;
    for node in 1..=nodes {
        sh(&format!("ip netns add n{node}")).await?;
        sh(&format!("ip link add v{node} type veth peer name eth0 netns n{node}")).await?;
        sh(&format!("ip link set v{node} master br0 up")).await?;
        sh(&format!("ip -n n{node} addr add {}/24 dev eth0", address(node))).await?;
        sh(&format!("ip -n n{node} link set eth0 up")).await?;
        sh(&format!("ip -n n{node} link set lo up")).await?;
        with_input(&format!("{} nft -f -", at(node)), RULES).await?;
    }
    Ok(())
}

const RULES: &str = "\
table inet jepsen {
    set cut {
        type ipv4_addr
    }
    chain in {
        type filter hook input priority 0
        policy accept
        ip saddr @cut drop
    }
}
";

/// From now on a node hears nothing from these nodes; 0 stands for the clients.
pub(crate) async fn deafen(node: u64, to: &BTreeSet<u64>) -> anyhow::Result<()> {
    let mut script = "flush set inet jepsen cut\n".to_owned();
    for &other in to {
        let address = if other == 0 { CLIENTS.to_owned() } else { address(other) };
        // Writing into a string cannot fail.
        let _ = writeln!(script, "add element inet jepsen cut {{ {address} }}");
    }
    with_input(&format!("{} nft -f -", at(node)), &script).await?;
    Ok(())
}
