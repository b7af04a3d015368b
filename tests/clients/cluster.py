"""A real three-node cluster, started as a user would with `roost dev`, for the clients to use."""

import asyncio
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from session import DEADLINE_S

HOST = "127.0.0.1"
NODES = 3


class Cluster:
    """The processes of `roost dev`, and the HTTP calls that the checks need of them."""

    def __init__(self, binary, data):
        self.binary = binary
        self.data = pathlib.Path(data)
        self.ports = None
        self.process = None
        self.admin = None
        self.tokens = {}

    def start(self):
        """Starts the nodes and waits until each can serve."""
        first = free_ports()
        self.ports = [first + 10 * n for n in range(NODES)]
        log = open(self.data / "dev.log", "wb")
        self.process = subprocess.Popen(
            [self.binary, "dev", "--nodes", str(NODES), "--port", str(first),
             "--data", str(self.data / "nodes")],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )
        for node in range(NODES):
            self.wait_ready(node)
        self.admin = self.token_of_the_command_line("--admin")

    def stop(self):
        """Ends it as Ctrl-C does, then by force, and says whether the first was enough."""
        if self.process is None:
            return True
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(DEADLINE_S) == 0
        except subprocess.TimeoutExpired:
            children = children_of(self.process.pid)
            for pid in [self.process.pid, *children]:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
            return False

    def address(self, node):
        return (HOST, self.ports[node % NODES])

    def token_of_the_command_line(self, *arguments):
        """What `roost token` prints on its last line."""
        done = subprocess.run(
            [self.binary, "token", *arguments, "--data", str(self.data / "nodes")],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S,
        )
        if done.returncode != 0:
            raise AssertionError(f"roost token {arguments}: {done.stderr}")
        return done.stdout.strip().splitlines()[-1]

    def http(self, node, method, path, body=None, token=None):
        """A call's status and its body: parsed where it is JSON."""
        request = urllib.request.Request(f"http://{HOST}:{self.ports[node]}{path}", method=method)
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
                return response.status, parsed(response)
        except urllib.error.HTTPError as error:
            return error.code, parsed(error)

    async def call(self, node, method, path, body=None, token=None):
        """The same, without stopping the others."""
        return await asyncio.to_thread(self.http, node, method, path, body, token)

    async def token(self, user):
        """A user's token, from whichever node answers."""
        if user not in self.tokens:
            deadline = time.monotonic() + DEADLINE_S
            for node in range(10_000):
                try:
                    status, reply = await self.call(
                        node % NODES, "POST", "/v1/tokens", {"user": user}, self.admin
                    )
                    assert status in (200, 201), f"POST /v1/tokens: {status} {reply}"
                    self.tokens[user] = reply["token"]
                    break
                except OSError:
                    assert time.monotonic() < deadline, "no node answers"
                    await asyncio.sleep(0.1)
        return self.tokens[user]

    def wait_ready(self, node):
        """Waits until a node says that it can serve."""
        deadline = time.monotonic() + 2 * DEADLINE_S
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"roost dev ended with {self.process.returncode}")
            try:
                if self.http(node, "GET", "/readyz")[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"node {node + 1} did not become ready")
            time.sleep(0.1)

    def leader(self):
        """Which node leads, as the first one that answers knows it; None where none does."""
        for node in range(NODES):
            try:
                status, reply = self.http(node, "GET", "/v1/cluster", token=self.admin)
            except OSError:
                continue
            if status == 200 and reply.get("leader") is not None:
                return int(reply["leader"]) - 1
        return None

    def kill(self, node):
        """Kills a node as a power cut would; `roost dev` starts it again."""
        pid = listener(self.ports[node])
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid

    def log(self, lines=30):
        """The end of what the nodes printed."""
        text = (self.data / "dev.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def parsed(response):
    text = response.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def free_ports():
    """A first port such that it and its neighbours are free now."""
    for first in range(21_070, 29_000, 40):
        held = []
        try:
            for port in [first + 10 * n + k for n in range(NODES) for k in (0, 1)]:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    held.append(socket.socket(socket.AF_INET, kind))
                    held[-1].bind((HOST, port))
            return first
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise AssertionError("no free ports")


def children_of(parent):
    """The processes that a process started."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def listener(port):
    """The process that listens on a TCP port of the loopback address."""
    inodes = set()
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if any(os.readlink(fd) in inodes for fd in (entry / "fd").iterdir()):
                    return int(entry.name)
            except OSError:
                continue
    return None
