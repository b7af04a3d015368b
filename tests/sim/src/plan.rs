//! What a seed decides beforehand: the cluster, its weather, and the faults with their times.
//!
//! Each kind of fault has a number of occurrences of its own, often none, so that seeds differ in
//! kind and not only in detail. The faults stand in a list, so that a failing seed can be run again
//! with some of them left out.

use std::collections::BTreeSet;
use std::fmt;

use roost_protocol::limits::DEDUP_WINDOW_MS;
use roost_storage::fs::sim::Trouble;

use crate::net::{CLIENTS, Place};
use crate::random::Random;

/// Calm time at the beginning, in which the cluster forms.
pub(crate) const CALM_MS: u64 = 2_500;

/// The network's ways.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// How long a message takes, in milliseconds, at least and mostly at most.
    pub(crate) delay_ms: (u64, u64),
    /// Messages of a thousand that are far later.
    pub(crate) late_permille: u64,
    /// Messages of a thousand that are lost.
    pub(crate) lost_permille: u64,
    /// Requests of a thousand that arrive twice.
    pub(crate) doubled_permille: u64,
}

/// Where a bit is flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flip {
    /// In the log, below its newest frame.
    Log,
    /// In the checkpoint journal or a snapshot file.
    State,
}

/// From when on a node that was away counts the operations of its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Its start.
    Start,
    /// A snapshot's arrival.
    Snapshot,
}

/// A fault.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Nodes die; what their disks had not synced is lost, kept or torn.
    Crash { nodes: Vec<Place>, power: bool },
    /// A node's disk has trouble at one of its next operations.
    Disk { node: Place, after: u64, trouble: Trouble },
    /// A node's engine fails at one of its next operations, half done, and at all later ones: what a
    /// full disk is to an engine.
    Engine { node: Place, after: u64 },
    /// A node dies, a bit of its files is flipped, and it is started again.
    Flip { node: Place, place: Flip },
    /// A node is away until the log was purged behind it; then its disk has trouble while it catches
    /// up.
    Away { node: Place, since: Since, after: u64, trouble: Trouble },
    /// A node is told to stop: it sends its clients elsewhere, hands over if it leads, and is started
    /// again.
    Restart { node: Place },
    /// Nodes stand still.
    Pause { nodes: Vec<Place> },
    /// Directions are cut; with `flap_ms`, on and off.
    Cut { directions: BTreeSet<(Place, Place)>, flap_ms: Option<u64> },
    /// A day passes on all clocks, and a little more: the dedup window ends, and lifetimes do.
    Day { by_ms: i64 },
    /// A node's clock jumps.
    Jump { node: Place, by_ms: i64 },
    /// A node's clock runs fast or slow.
    Drift { node: Place, ppm: i64 },
    /// A node's syncs take long.
    SlowDisk { node: Place, sync_ms: u64 },
}

/// A fault, with its time.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// When it begins, in milliseconds.
    pub(crate) at_ms: u64,
    /// How long it lasts.
    pub(crate) for_ms: u64,
    /// What it is.
    pub(crate) kind: Kind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms for {} ms: {:?}", self.at_ms, self.for_ms, self.kind)
    }
}

/// All that a seed decides beforehand.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Nodes, numbered from 1.
    pub(crate) nodes: u64,
    /// How long one turn of every node is.
    pub(crate) tick_ms: u64,
    /// When the faults end.
    pub(crate) faults_end_ms: u64,
    /// Users, each with a device or two.
    pub(crate) users: u64,
    /// Sessions that clients keep.
    pub(crate) clients: u64,
    /// A client's pause between two calls, at most.
    pub(crate) pause_ms: u64,
    /// The network's ways.
    pub(crate) weather: Weather,
    /// How long a sync takes at most.
    pub(crate) sync_ms: u64,
    /// Entries after which a checkpoint is due.
    pub(crate) checkpoint_entries: u64,
    /// Entries kept in the log behind a checkpoint.
    pub(crate) log_keep_entries: u64,
    /// A log segment's size.
    pub(crate) segment_bytes: u64,
    /// The store's bound on dirty memory.
    pub(crate) dirty_bytes: usize,
    /// Whether the engine takes a checkpoint as a whole.
    pub(crate) whole_checkpoints: bool,
    /// How long a node takes to install a snapshot; meanwhile it answers nothing that is Raft's.
    pub(crate) install_ms: u64,
    /// Commands that a node takes in at a time.
    pub(crate) max_commands: usize,
    /// How long a client may read nothing, in milliseconds.
    pub(crate) write_timeout_ms: u64,
    /// The faults, by time.
    pub(crate) faults: Vec<Fault>,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed).fork("plan");
        let nodes = if random.percent(20) { 5 } else { 3 };
        let faults_end_ms = CALM_MS + random.within(8_000, 25_000);
        let quiet = random.percent(25);
        let weather = Weather {
            delay_ms: (1, random.within(1, 15)),
            late_permille: if quiet { 0 } else { random.within(0, 15) },
            lost_permille: if quiet { 0 } else { random.within(0, 15) },
            doubled_permille: if quiet { 0 } else { random.within(0, 25) },
        };
        let mut plan = Self {
            nodes,
            tick_ms: random.within(3, 8),
            faults_end_ms,
            users: random.within(3, 7),
            clients: random.within(3, 9),
            pause_ms: *random.pick(&[20, 60, 150, 400]),
            weather,
            sync_ms: random.within(0, 8),
            checkpoint_entries: *random.pick(&[5, 20, 80, 400]),
            log_keep_entries: *random.pick(&[0, 5, 30, 200, 5_000]),
            segment_bytes: *random.pick(&[8 * 1024, 32 * 1024, 256 * 1024]),
            dirty_bytes: *random.pick(&[16 * 1024, 256 * 1024, 4 * 1024 * 1024]),
            whole_checkpoints: Random::new(seed).fork("whole checkpoints").percent(50),
            install_ms: *Random::new(seed).fork("install").pick(&[0, 0, 100, 900, 2_500]),
            max_commands: *random.pick(&[2, 5, 64, 16_384]),
            write_timeout_ms: *random.pick(&[1_000, 20_000]),
            faults: Vec::new(),
        };
        plan.draw_faults(&mut random);
        // Streams of their own: what else a seed decides is older than these.
        plan.draw_engine_faults(&mut Random::new(seed).fork("engine"));
        plan.draw_snapshot_faults(&mut Random::new(seed).fork("snapshot"));
        plan.draw_restarts(&mut Random::new(seed).fork("restart"));
        plan.faults.sort_by_key(|fault| fault.at_ms);
        plan
    }

    /// How many nodes may lose what they fsynced.
    fn minority(&self) -> u64 {
        (self.nodes - 1) / 2
    }

    fn draw_faults(&mut self, random: &mut Random) {
        let mut faults = Vec::new();
        let kinds: [(&str, u64); 10] = [
            ("crash", 6),
            ("disk", 4),
            ("flip", self.minority()),
            ("away", 2),
            ("pause", 5),
            ("cut", 5),
            ("jump", 4),
            ("drift", 2),
            ("slow", 3),
            ("day", 1),
        ];
        for (name, most) in kinds {
            let count = if random.percent(45) { 0 } else { random.within(1, most) };
            let mut flipped = BTreeSet::new();
            for _ in 0..count {
                let kind = self.draw(random, name);
                if let Kind::Flip { node, .. } = &kind
                    && !flipped.insert(*node)
                {
                    continue;
                }
                let long = matches!(kind, Kind::Away { .. });
                let at_ms = random.within(CALM_MS, self.faults_end_ms);
                let for_ms =
                    if long { random.within(3_000, 9_000) } else { random.within(40, 4_000) };
                faults.push(Fault { at_ms, for_ms, kind });
            }
        }
        self.faults = faults;
    }

    fn draw_engine_faults(&mut self, random: &mut Random) {
        let count = if random.percent(60) { 0 } else { random.within(1, 3) };
        for _ in 0..count {
            let at_ms = random.within(CALM_MS, self.faults_end_ms);
            let for_ms = random.within(1_000, 6_000);
            let node = random.within(1, self.nodes);
            let kind = Kind::Engine { node, after: random.within(0, 12) };
            self.faults.push(Fault { at_ms, for_ms, kind });
        }
    }

    /// Early, so that the snapshot comes before the faults end, and with a log so short that it must.
    fn draw_snapshot_faults(&mut self, random: &mut Random) {
        let count = if random.percent(75) { 0 } else { random.within(1, 2) };
        for _ in 0..count {
            self.checkpoint_entries = *random.pick(&[5, 20]);
            self.log_keep_entries = *random.pick(&[0, 5]);
            let at_ms = random.within(CALM_MS, CALM_MS + (self.faults_end_ms - CALM_MS) / 2);
            let for_ms = random.within(1_500, 6_000);
            let node = random.within(1, self.nodes);
            let trouble =
                *random.pick(&[Trouble::Eio, Trouble::Eio, Trouble::Power, Trouble::Full]);
            let after = random.within(0, 8);
            let kind = Kind::Away { node, since: Since::Snapshot, after, trouble };
            self.faults.push(Fault { at_ms, for_ms, kind });
        }
    }

    /// One node now and then, or all in turn, as an upgrade does.
    fn draw_restarts(&mut self, random: &mut Random) {
        if random.percent(60) {
            return;
        }
        let mut restart = |at_ms, node, random: &mut Random| {
            let for_ms = random.within(40, 3_000);
            self.faults.push(Fault { at_ms, for_ms, kind: Kind::Restart { node } });
        };
        if random.percent(50) {
            let mut at_ms = random.within(CALM_MS, self.faults_end_ms);
            let pause_ms = random.within(200, 5_000);
            for node in 1..=self.nodes {
                restart(at_ms, node, random);
                at_ms += pause_ms;
            }
        } else {
            for _ in 0..random.within(1, 4) {
                let at_ms = random.within(CALM_MS, self.faults_end_ms);
                restart(at_ms, random.within(1, self.nodes), random);
            }
        }
    }

    fn draw(&self, random: &mut Random, name: &str) -> Kind {
        let node = random.within(1, self.nodes);
        match name {
            "crash" => Kind::Crash { nodes: self.some(random), power: random.percent(70) },
            "disk" => {
                let trouble = *random.pick(&[Trouble::Eio, Trouble::Full, Trouble::Power]);
                Kind::Disk { node, after: random.within(1, 60), trouble }
            }
            "flip" => Kind::Flip { node, place: *random.pick(&[Flip::Log, Flip::State]) },
            "away" => {
                let trouble =
                    *random.pick(&[Trouble::Power, Trouble::Power, Trouble::Eio, Trouble::Full]);
                Kind::Away { node, since: Since::Start, after: random.within(1, 40), trouble }
            }
            "pause" => Kind::Pause { nodes: self.some(random) },
            "cut" => {
                let flap_ms = random.percent(25).then(|| random.within(50, 700));
                Kind::Cut { directions: self.directions(random), flap_ms }
            }
            "jump" => {
                let by_ms = random.within(1, *random.clone().pick(&[500, 30_000, 2 * 3_600_000]));
                let by_ms = i64::try_from(by_ms).expect("hours in milliseconds");
                Kind::Jump { node, by_ms: if random.percent(50) { by_ms } else { -by_ms } }
            }
            "day" => {
                let more = random.within(0, 3_600_000);
                let by_ms = DEDUP_WINDOW_MS + more;
                Kind::Day { by_ms: i64::try_from(by_ms).expect("a day in milliseconds") }
            }
            "drift" => {
                let ppm = i64::try_from(random.within(1, 200_000)).expect("parts of a million");
                Kind::Drift { node, ppm: if random.percent(50) { ppm } else { -ppm } }
            }
            _ => Kind::SlowDisk { node, sync_ms: random.within(20, 900) },
        }
    }

    /// One node, several, or all.
    fn some(&self, random: &mut Random) -> Vec<Place> {
        let mut nodes: Vec<Place> = (1..=self.nodes).collect();
        random.shuffle(&mut nodes);
        let count = match random.within(0, 9) {
            0 => self.nodes,
            1 | 2 => random.within(1, self.nodes),
            _ => 1,
        };
        nodes.truncate(usize::try_from(count).expect("a few nodes"));
        nodes
    }

    /// Which directions a partition cuts: one node off, a split, a ring, one way, or any.
    fn directions(&self, random: &mut Random) -> BTreeSet<(Place, Place)> {
        let mut nodes: Vec<Place> = (1..=self.nodes).collect();
        random.shuffle(&mut nodes);
        let with_clients = random.percent(40);
        let sides = |at: usize| nodes.split_at(at);
        let mut cut = BTreeSet::new();
        let mut both = |a: Place, b: Place| cut.extend([(a, b), (b, a)]);
        match random.within(0, 4) {
            0 => nodes[1..].iter().for_each(|&other| both(nodes[0], other)),
            1 => {
                let (few, many) = sides(nodes.len() / 2);
                few.iter().for_each(|&a| many.iter().for_each(|&b| both(a, b)));
            }
            2 => {
                // Each node hears its neighbours in the ring only.
                for (i, &a) in nodes.iter().enumerate() {
                    for (j, &b) in nodes.iter().enumerate().skip(i + 1) {
                        if j - i != 1 && !(i == 0 && j == nodes.len() - 1 && nodes.len() > 3) {
                            both(a, b);
                        }
                    }
                }
            }
            3 => cut.extend(nodes[1..].iter().map(|&other| (nodes[0], other))),
            _ => cut.extend(nodes[1..].iter().map(|&other| (other, nodes[0]))),
        }
        if with_clients {
            cut.extend([(CLIENTS, nodes[0]), (nodes[0], CLIENTS)]);
        }
        cut
    }
}
