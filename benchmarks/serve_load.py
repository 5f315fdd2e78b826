"""Load on ``deshi serve``: latency at a fixed rate, throughput, memory; client and server on this machine.

    python benchmarks/serve_load.py BUNDLE DATA [--rate 200] [--seconds 20] [--connections 8] [--server-core 0]

BUNDLE is a folder of deshi export, DATA a data bundle (data/NAME) whose users' histories are asked, each without its
last event. ``--seconds 600`` is the ten minutes of the project's goal: median under 2 ms, 99th percentile under 8 ms at
200 requests/s on two cores, and no growth of memory.

Requests leave at fixed moments whether or not earlier ones were answered, and a latency counts from the moment at which
the request was due: a server that halts for a second is seen to do so (a client that waits for answers would not see
it). Locust, the usual tool from the package index, waits and rounds to a millisecond, so the rate is driven by the
small client below. Throughput is measured by wrk (apt-get install wrk) where it is on the path, else by the same client
with every connection asking again at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deshi.data.bundle import Bundle

MEDIAN_BOUND, P99_BOUND, GROWTH_BOUND = 2.0, 8.0, 5.0
HEAD = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
LUA = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local at = 0
request = function()
  at = at %% #bodies + 1
  return wrk.format("POST", "/recommend", {["Content-Type"] = "application/json"}, bodies[at])
end
"""


@dataclass
class Found:
    """What a run has measured: seconds from when a request was due, and from when it left; statuses."""

    due: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


class Server:
    """``deshi serve`` as a process; its figures come from /proc."""

    def __init__(self, bundle: Path, core: int | None) -> None:
        pinned = ["taskset", "-c", str(core)] if core is not None else []
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self._process = subprocess.Popen(
            [*pinned, sys.executable, "-m", "deshi", "serve", f"bundle={bundle}", "port=0"],
            stdout=subprocess.DEVNULL, stderr=self._log, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.port = self._wait()

    def _wait(self) -> int:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            for line in Path(self._log.name).read_text().splitlines():
                if "running on" in line:
                    return int(json.loads(line)["message"].split()[3].rpartition(":")[2])
            time.sleep(0.1)
        raise SystemExit(f"deshi serve did not start: {Path(self._log.name).read_text()}")

    def memory(self) -> float:
        """Resident MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def seconds(self) -> float:
        """CPU seconds, all threads."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Stop it as an orchestrator does, and return its exit code."""
        self._process.terminate()
        return self._process.wait(30)


class Connection:
    """A kept-alive HTTP/1.1 connection that knows just enough to ask and to find an answer's end."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes) -> str:
        """Send one request; the status of its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(HEAD % len(body) + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        lines = answer.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        await reader.readexactly(length)
        return answer.split()[1].decode()


def bodies_of(data: Bundle) -> list[bytes]:
    """A request for each user with two events or more, in a fixed random order."""
    ids = np.array(data.vocabulary["item_id"].to_list())
    users = np.random.default_rng(0).permutation(data.n_users)
    histories = [ids[data.history(int(user))[:-1]].tolist() for user in users]
    return [json.dumps({"history": history, "k": 10}).encode() for history in histories if history]


async def at_rate(port: int, bodies: list[bytes], rate: float, seconds: float, connections: int) -> Found:
    """Requests at fixed moments, spread over the connections as these become free."""
    found, queue = Found(), asyncio.Queue[tuple[float, bytes] | None]()

    async def work() -> None:
        connection = Connection(port)
        while (task := await queue.get()) is not None:
            due, body = task
            left = time.perf_counter()
            try:
                status = await connection.ask(body)
            except (OSError, asyncio.IncompleteReadError) as error:
                status, connection = type(error).__name__, Connection(port)
            now = time.perf_counter()
            found.due.append(now - due)
            found.sent.append(now - left)
            found.statuses[status] += 1

    workers = [asyncio.ensure_future(work()) for _ in range(connections)]
    begin = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = begin + number / rate
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        # Now and not the moment planned: timers come up to a millisecond late, which isn't the server's doing.
        queue.put_nowait((time.perf_counter(), bodies[number % len(bodies)]))
    for _ in workers:
        queue.put_nowait(None)
    await asyncio.gather(*workers)
    return found


async def closed(port: int, bodies: list[bytes], seconds: float, connections: int) -> float:
    """Requests/s where every connection asks again as soon as it is answered."""
    end, done = time.perf_counter() + seconds, 0

    async def work(first: int) -> None:
        nonlocal done
        connection, number = Connection(port), first
        while time.perf_counter() < end:
            await connection.ask(bodies[number % len(bodies)])
            number, done = number + connections, done + 1

    await asyncio.gather(*(work(first) for first in range(connections)))
    return done / seconds


def by_wrk(port: int, bodies: list[bytes], seconds: int, connections: int) -> str:
    """What wrk says of the same requests."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bodies").write_bytes(b"\n".join(bodies))
        script = Path(folder) / "ask.lua"
        script.write_text(LUA % (Path(folder) / "bodies"))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def report(found: Found, rate: float, seconds: float, cpu: float) -> bool:
    """Print the latencies; whether they keep to the bounds."""
    due, sent = np.array(found.due) * 1000, np.array(found.sent) * 1000
    print(f"{len(due):,} requests at {rate:g}/s in {seconds:g} s; statuses {dict(found.statuses)}")
    for name, values in (("from the moment due", due), ("from the moment sent", sent)):
        p50, p90, p99, p999 = np.percentile(values, [50, 90, 99, 99.9])
        print(f"{name}: p50 {p50:.2f}, p90 {p90:.2f}, p99 {p99:.2f}, p99.9 {p999:.2f}, most {values.max():.2f} ms")
    print(f"server: {cpu / len(due) * 1000:.2f} ms of CPU a request")
    good = np.percentile(due, 50) < MEDIAN_BOUND and np.percentile(due, 99) < P99_BOUND
    print(f"asked: p50 under {MEDIAN_BOUND:g} ms and p99 under {P99_BOUND:g} ms: {'met' if good else 'missed'}")
    return bool(good) and set(found.statuses) == {"200"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the fixed rate; 600 for ten minutes")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--throughput-seconds", type=int, default=10, help="0 leaves it out")
    parser.add_argument("--server-core", type=int, default=None, help="pin the server to one core")
    arguments = parser.parse_args()
    bodies = bodies_of(Bundle.load(arguments.data))
    events = np.array([body.count(b",") for body in bodies])
    print(f"{len(bodies):,} histories, median {np.median(events):.0f} events, longest {events.max()}")
    server = Server(arguments.bundle, arguments.server_core)
    try:
        asyncio.run(at_rate(server.port, bodies, arguments.rate, 3, arguments.connections))
        memory, cpu = server.memory(), server.seconds()
        found = asyncio.run(at_rate(server.port, bodies, arguments.rate, arguments.seconds, arguments.connections))
        good = report(found, arguments.rate, arguments.seconds, server.seconds() - cpu)
        if arguments.throughput_seconds:
            if shutil.which("wrk"):
                print(by_wrk(server.port, bodies, arguments.throughput_seconds, arguments.connections))
            else:
                rate = asyncio.run(closed(server.port, bodies, arguments.throughput_seconds, arguments.connections))
                print(f"throughput (own client, {arguments.connections} connections): {rate:,.0f} requests/s")
        after = server.memory()
        print(f"memory: {memory:.1f} MiB after the warm-up, {after:.1f} MiB at the end ({after - memory:+.1f})")
        return 0 if good and after - memory < GROWTH_BOUND else 1
    finally:
        print(f"stopped, exit code {server.stop()}")


if __name__ == "__main__":
    sys.exit(main())
