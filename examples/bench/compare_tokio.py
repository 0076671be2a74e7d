#!/usr/bin/env python3
"""CPU time per answer on tokio through lastbyte, against `write_all`, paired by round.

    cargo build --release --manifest-path examples/bench/opponents/tokio/Cargo.toml
    examples/bench/compare_tokio.py [--rounds 9] [--seconds 0.7] [--out docs/speed-tokio.json]

One core for the server, which has a runtime of one thread, the other for the load
(`h2load --h1`). All variants answer from the same shared memory.
"""

import argparse
import os
import subprocess
import sys
import time

import compare
from compare import Server, fail

# bytes, connections
WORKLOADS = [(4 << 10, 100), (16 << 10, 10), (128 << 10, 10)]
VARIANTS = [("plain", None)]
VARIANTS += [(how, backend) for backend in ("epoll", "io_uring") for how in ("unwatched", "acked")]

MANIFEST = os.path.join(compare.ROOT, "examples/bench/opponents/tokio/Cargo.toml")
BINARY = os.path.join(os.path.dirname(MANIFEST), "target/release/opponent-tokio")


def start(size, how, backend):
    port = compare.free_port()
    command = ["taskset", "-c", "0", BINARY, str(port), str(size), how]
    process = subprocess.Popen(command + ([backend] if backend else []))
    time.sleep(0.2)
    if process.poll() is not None:
        fail("opponent-tokio has ended")
    name = f"lastbyte, {backend}, {how}" if backend else "write_all"
    return Server(name, process.pid, port, "", process)


def measure(size, connections, rounds, seconds):
    servers = []
    try:
        for variant in VARIANTS:
            servers.append(start(size, *variant))
        name = f"{size >> 10} KiB"
        per_answer = compare.rounds_of(servers, connections, compare.load, name, rounds, seconds)
    finally:
        for server in servers:
            server.process.kill()
            server.process.wait()
    figures = compare.against(per_answer, "write_all")
    return {"bytes": size, "connections": connections, "servers": figures}


def table(results):
    lines = ["| answer | server | CPU us/answer | ratio to write_all (lowest..highest) |"]
    lines.append("|---|---|---|---|")
    for result in results:
        load = f"{result['bytes'] >> 10} KiB, {result['connections']} connections"
        for name, figures in result["servers"].items():
            span = f"{figures['ratio']:.2f} ({figures['lowest']:.2f}..{figures['highest']:.2f})"
            lines.append(f"| {load} | {name} | {figures['us_per_request']} | {span} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.7, help="of load, per server and round")
    parser.add_argument("--out", help="write the result as JSON")
    options = parser.parse_args()
    if not os.path.exists(BINARY):
        fail(f"build it first: cargo build --release --manifest-path {MANIFEST}")
    results = [measure(*load, options.rounds, options.seconds) for load in WORKLOADS]
    compare.tell(results, table(results), options)


if __name__ == "__main__":
    sys.exit(main())
