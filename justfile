# What everyone runs by hand. `just verify` only looks; `just fix` mends what a tool can mend.
#
# Recipes that follow the tests build with `--workspace`, as the tests do: one package by itself gives its
# dependencies other features, and all of them are compiled again.

export RUSTDOCFLAGS := "-D warnings"

# List the recipes.
default:
    @just --list

# Everything that must hold before a change lands. Changes no file.
verify: lint test doc deny

# Formatting and lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Every test that needs nothing but this repository.
test:
    cargo test --workspace --locked

# The documentation, private items too, since its readers work on them; broken links are errors.
doc:
    cargo doc --workspace --no-deps --document-private-items --locked

# Licences, sources and bans of the dependencies (`deny.toml`). It looks at those for other systems too,
# which no build here has brought.
deny:
    cargo fetch --locked
    cargo deny --locked --offline check bans licenses sources

# Known vulnerabilities. Needs the network: it fetches the advisory database.
advisories:
    cargo deny --locked check advisories

# Mend formatting, and the lints that can be mended by machine.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# The tests that play the real chat trace; DATA is the folder that has it.
trace DATA="../shared/data":
    ROOST_TRACE_DIR="{{ absolute_path(DATA) }}" cargo test --workspace --locked --test processes -- --ignored

# The Python clients, written from the protocol alone, against a cluster whose nodes are killed.
# They need the packages of `.ci/requirements.txt`.
clients:
    cargo build --release --locked
    python3 tests/clients/run.py --binary target/release/roost

# The container image and the three-node compose file, really built and run. As root.
docker:
    docker/check

# Real nodes in network namespaces through kills, pauses, partitions and more, and the verdict on
# what clients saw (`docs/reliability.md`). As root: `just jepsen --all --time 10m`.
jepsen *ARGS:
    cargo run --release --locked -p roost-jepsen -- run {{ ARGS }}

# An engine alone on disks that lose their power: does it keep what it said to be durable? As root:
# `just engines --engine sled --disks 40`.
engines *ARGS:
    cargo run --profile checked --locked -p roost-jepsen -- engines {{ ARGS }}

# A store alone on such disks: does it stand where one that never failed stands? As root.
stores *ARGS:
    cargo run --profile checked --locked -p roost-jepsen -- stores {{ ARGS }}

# Every decoder, fed with what nobody would send; TIME for each.
fuzz TIME="60s" *TARGETS:
    cargo run --locked -p roost-fuzz -- --time {{ TIME }} {{ TARGETS }}

# The benchmarks of the hot pieces, then every phase of `roost bench` against three nodes here.
bench:
    cargo bench --locked -p roost-storage -p roost-protocol --bench store --bench log --bench frames
    cargo build --release --locked --example measure --bin roost
    target/release/examples/measure compare --rounds 1 --pull-seconds 2 --out target/bench.jsonl roost-3,roost-1
    target/release/examples/measure report target/bench.jsonl

# For a night of HOURS hours, as root: real processes through every fault, alone and several at a time, on
# both engines and with three and five nodes; then the fuzzer, then fresh seeds of the simulation.
nightly HOURS="6":
    tests/nightly {{ HOURS }}

# Every bug that is planted on purpose, until the simulation catches it: the table of
# `docs/reliability.md`. Fails if one is missed.
planted SEEDS="800":
    cargo test --workspace --locked --quiet --features roost-sim/planted --test shrink
    "${CARGO_TARGET_DIR:-target}/debug/roost-sim" 1 --all-planted {{ SEEDS }}

# The simulated cluster: one seed (`just sim 7`), or many (`just sim 1 --seeds 1000 --jobs 4`).
sim *ARGUMENTS:
    cargo run --profile checked --locked --quiet -p roost-sim -- {{ ARGUMENTS }}
