"""Runs clients that know nothing but the protocol against a real cluster, with kills in between.

    python3 tests/clients/run.py --binary target/release/roost [--only NAME] [--keep]

Starts `roost dev --nodes 3` on ports of its own with a fresh data folder; runs every check over
every transport against every node; lets all clients talk while nodes are killed; runs the checks
again on what came back. Fails loudly; the last line counts. Needs the packages of
`.ci/requirements.txt`.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import traceback

import faults
import transports
from checks import REGISTRY, Context
from checks import conversations, http, queues, refusals, sending  # noqa: F401  (they register)
from cluster import NODES, Cluster

CHECK_S = 60
# Checks that run at a time: each has users of its own, so they only share the nodes.
AT_ONCE = 4
# Characters of an error that are shown in its line; the end of the report has all.
SHOWN = 300


class Report:
    """What passed and what did not."""

    def __init__(self):
        self.passed = 0
        self.failures = []

    async def run(self, name, awaitable):
        began = time.monotonic()
        try:
            note = await asyncio.wait_for(awaitable, CHECK_S * 3)
            self.passed += 1
            print(f"ok     {name} ({time.monotonic() - began:.1f} s){': ' + note if note else ''}",
                  flush=True)
        except Exception as error:
            self.failures.append((name, error))
            print(f"FAILED {name} ({time.monotonic() - began:.1f} s): {short(error)}", flush=True)


def short(error):
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


async def run_check(function, cluster, kind, node):
    context = Context(cluster, kind, node)
    try:
        await asyncio.wait_for(function(context), CHECK_S)
    finally:
        await context.close()


async def conformance(report, cluster, label, checks):
    """Every check over every transport on every node."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(function, kind, node):
        name = f"{label}: {function.__name__} [{kind.name}, node {node + 1}]"
        async with slots:
            await report.run(name, run_check(function, cluster, kind, node))

    await asyncio.gather(*(
        one(function, kind, node)
        for function in checks
        for kind in transports.ALL
        for node in range(NODES)
    ))


async def everything(report, cluster, only):
    checks = [function for function in REGISTRY if only in function.__name__]
    await conformance(report, cluster, "calm", checks)
    if only in ("", "faults"):
        await with_faults(report, cluster, checks)
    await transports.all_have_left()


async def with_faults(report, cluster, checks):
    for seed in (1, 2):
        name = f"faults: nodes killed while every transport talks (seed {seed})"
        await report.run(name, faults.run(cluster, seed, f"f{seed}"))
    for node in range(NODES):
        await asyncio.to_thread(cluster.wait_ready, node)
    await conformance(report, cluster, "afterwards", checks)


def summary(report, cluster, took_s):
    for name, error in report.failures:
        print(f"\n--- {name}")
        print("".join(traceback.format_exception(error)))
    if report.failures:
        print(f"\n--- the end of what the nodes printed\n{cluster.log()}")
    print(f"\nclients: {took_s:.0f} s")
    print(f"{report.passed} passed, {len(report.failures)} failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the roost binary")
    parser.add_argument("--only", default="", help="only checks whose name contains this")
    parser.add_argument("--keep", action="store_true", help="keep the nodes' data and log")
    arguments = parser.parse_args()

    began = time.monotonic()
    report = Report()
    folder = tempfile.mkdtemp(prefix="roost-clients-")
    cluster = Cluster(arguments.binary, folder)
    try:
        cluster.start()
        asyncio.run(everything(report, cluster, arguments.only))
    except Exception as error:
        report.failures.append(("the run itself", error))
    finally:
        if not cluster.stop():
            report.failures.append(("Ctrl-C ends roost dev", AssertionError("it did not, or not with 0")))
    summary(report, cluster, time.monotonic() - began)
    if arguments.keep:
        print(f"data and log: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if report.failures or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
