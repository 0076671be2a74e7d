#!/usr/bin/env python3
"""CPU time per request of `serve` against nginx, paired round by round.

    cargo build --release -p lastbyte-examples --bin serve
    examples/bench/compare.py [--rounds 9] [--seconds 1.5] [--only 16k] [--out docs/speed.json]

Needs nginx and h2load (Debian: nginx-light, nginx-extras or nginx; nghttp2-client). Each server gets
core 0, the load generator core 1. `--bare` adds a C program that makes the same
system calls and nothing else (opponents/bare; needs cc), for what is the kernel's
alone. All servers run throughout; a round loads each
of them for the same time, in an order that turns round every time, and compares
the CPU time per request of each with nginx's in the same round. The figure is
the median of those ratios. Traffic is on loopback, and stops by itself.
"""

import argparse
import json
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# name, connections, bytes of the file, target for the ratio to nginx
WORKLOADS = [
    ("4k", 1000, 4 << 10, 0.55),
    ("16k", 10, 16 << 10, 0.65),
    ("128k", 10, 128 << 10, 1.0),
    ("1m", 10, 1 << 20, 1.0),
    ("16m", 10, 16 << 20, 1.0),
]

NGINX = """
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/nginx.err;
daemon on;
user {user};
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush off;
    keepalive_timeout 600;
    keepalive_requests 1000000000;
    open_file_cache max=1000 inactive=600s;
    open_file_cache_valid 60s;
    default_type application/octet-stream;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{ listen 127.0.0.1:{port} backlog=4096; root {dir}/www; }}
}}
"""


def fail(message):
    sys.exit(f"compare.py: {message}")


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout + done.stderr).strip()


class Server:
    def __init__(self, name, pid, port, path, process=None):
        self.name, self.pid, self.port, self.path, self.process = name, pid, port, path, process

    def cpu_ns(self):
        """CPU time of every thread of the server; none of them ends while it is measured."""
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        ticks = int(fields[11]) + int(fields[12])
        try:
            total = 0
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/schedstat") as file:
                    total += int(file.read().split()[0])
            return total
        except FileNotFoundError:
            return ticks * 10_000_000


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_nginx(directory, port):
    config = os.path.join(directory, "nginx.conf")
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    with open(config, "w") as file:
        file.write(NGINX.format(dir=directory, port=port, user=user))
    subprocess.run(["taskset", "-c", "0", "nginx", "-c", config, "-p", directory], check=True)
    for _ in range(100):
        try:
            with open(os.path.join(directory, "nginx.pid")) as file:
                master = int(file.read())
            with open(f"/proc/{master}/task/{master}/children") as file:
                return master, int(file.read().split()[0])
        except (OSError, ValueError, IndexError):
            time.sleep(0.05)
    fail("nginx did not start: see " + directory)


def start_serve(directory, *options):
    binary = os.path.join(ROOT, "target", "release", "serve")
    if not os.path.exists(binary):
        fail("build it first: cargo build --release -p lastbyte-examples --bin serve")
    command = ["taskset", "-c", "0", binary, "--listen", "127.0.0.1:0", "--threads", "1"]
    command += ["--dir", os.path.join(directory, "www"), "--no-log", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if found:
            return process, int(found[1])
    fail("serve did not say where it listens")


def start_bare(directory, name, backend, stamps):
    """What the kernel takes for the same calls, without this project's code."""
    binary = os.path.join(directory, "bare")
    if not os.path.exists(binary):
        source = os.path.join(ROOT, "examples/bench/opponents/bare/bare.c")
        subprocess.run(["cc", "-O2", "-Wall", "-Werror", "-o", binary, source], check=True)
    port = free_port()
    file = os.path.join(directory, "www", name)
    command = ["taskset", "-c", "0", binary, str(port), file, backend, stamps]
    process = subprocess.Popen(command)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        if process.poll() is not None:
            break
        time.sleep(0.05)
    process.kill()
    fail("bare did not start")


def load(server, connections, seconds):
    command = ["taskset", "-c", "1", "h2load", "--h1", "-t1", f"-c{connections}"]
    command += ["-D", f"{round(seconds * 1000)}ms", f"http://127.0.0.1:{server.port}/{server.path}"]
    printed = output(*command)
    done = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", printed)
    if not done or int(done[2]) == 0 or int(done[3]) > connections:
        fail(f"{server.name}: the load generator says\n{printed}")
    return int(done[2])


def rounds_of(servers, connections, drive, name, rounds, seconds):
    """Microseconds of CPU per request of each server, round by round, there and back."""
    per_request = {server.name: [] for server in servers}
    for server in servers:
        drive(server, connections, 0.5)
    for n in range(rounds):
        for server in servers if n % 2 == 0 else servers[::-1]:
            before = server.cpu_ns()
            done = drive(server, connections, seconds)
            time.sleep(0.02)
            per_request[server.name].append((server.cpu_ns() - before) / done / 1000)
        print(f"\r{name}: round {n + 1} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return per_request


def stop(servers, master):
    for server in servers:
        if server.process:
            server.process.kill()
            server.process.wait()
    os.kill(master, signal.SIGTERM)


def to_nginx(per_request):
    return against(per_request, "nginx")


def against(per_request, other):
    figures = {}
    for name, own in per_request.items():
        ratios = sorted(a / b for a, b in zip(own, per_request[other]))
        figures[name] = {
            "us_per_request": round(statistics.median(own), 2),
            "ratio": round(statistics.median(ratios), 3),
            "lowest": round(ratios[0], 3),
            "highest": round(ratios[-1], 3),
        }
    return figures


def paired(per_request, one, other):
    ratios = (a / b for a, b in zip(per_request[one], per_request[other]))
    return round(statistics.median(ratios), 3)


def measure(workload, directory, rounds, seconds, backends, bare):
    name, connections, size, target = workload
    port = free_port()
    master, worker = start_nginx(directory, port)
    servers = [Server("nginx", worker, port, name)]
    generated = f"{size >> 10}kb"
    variants = []
    for backend in backends:
        prefix = f"{backend}: " if len(backends) > 1 else ""
        for kind, path in (("file", name), ("generated", generated)):
            for stamps in ("on", "off"):
                options = ["--backend", backend, "--stamps", stamps]
                variants.append((f"{prefix}{kind}, stamps {stamps}", path, options))
    try:
        for title, path, options in variants:
            process, own = start_serve(directory, *options)
            servers.append(Server(title, process.pid, own, path, process))
        for backend in backends if bare else ():
            for stamps, word in (("on", "stamps"), ("off", "plain")):
                process, own = start_bare(directory, name, backend, word)
                title = f"{backend}: bare, stamps {stamps}"
                servers.append(Server(title, process.pid, own, name, process))
        per_request = rounds_of(servers, connections, load, name, rounds, seconds)
    finally:
        stop(servers, master)
    result = {"workload": name, "connections": connections, "bytes": size, "target": target}
    result["servers"] = to_nginx(per_request)

    first = backends[0]
    result["stamp_cost"], result["to_first_backend"] = {}, {}
    for backend in backends:
        prefix = f"{backend}: " if len(backends) > 1 else ""
        for kind in ("file", "generated"):
            on = f"{prefix}{kind}, stamps on"
            cost = paired(per_request, on, f"{prefix}{kind}, stamps off") - 1
            result["stamp_cost"][f"{prefix}{kind}"] = round(cost, 3)
            if backend != first:
                result["to_first_backend"][on] = paired(per_request, on, f"{first}: {kind}, stamps on")
    return result


def table(results):
    lines = ["| workload | server | CPU us/request | ratio to nginx (lowest..highest) | target |"]
    lines.append("|---|---|---|---|---|")
    for result in results:
        title = f"{result['workload']}, {result['connections']} connections"
        for name, figures in result["servers"].items():
            span = f"{figures['ratio']:.2f} ({figures['lowest']:.2f}..{figures['highest']:.2f})"
            ours = name.endswith("stamps on") and "bare" not in name
            target = f"<= {result['target']}" if ours else ""
            lines.append(f"| {title} | {name} | {figures['us_per_request']} | {span} | {target} |")
        costs = ", ".join(f"{k} {cost:+.1%}" for k, cost in result["stamp_cost"].items())
        lines.append(f"| {title} | stamps on against off: {costs} | | | |")
        for name, ratio in result["to_first_backend"].items():
            lines.append(f"| {title} | {name}, against the first backend's: {ratio:.2f} | | | |")
    return "\n".join(lines)


def tell(results, rendered, options, **more):
    """Prints what was measured, where, and how, and writes it as JSON if that is wished for."""
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "cpu": next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if "model name" in l), "?"),
        "congestion_control": open("/proc/sys/net/ipv4/tcp_congestion_control").read().strip(),
        "h2load": output("h2load", "--version"),
        "rustc": output("rustc", "--version"),
        "commit": output("git", "-C", ROOT, "rev-parse", "--short", "HEAD"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        **more,
    }
    print(json.dumps(about, indent=1))
    print(rendered)
    if options.out:
        with open(options.out, "w") as file:
            json.dump({"about": about, "results": results}, file, indent=1)
            file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="of load, per server and round")
    parser.add_argument("--only", action="append", help="a workload: " + ", ".join(w[0] for w in WORKLOADS))
    parser.add_argument("--backend", default="epoll", help="one, or several to be compared, separated by commas")
    parser.add_argument("--bare", action="store_true", help="with the same calls made by a C program")
    parser.add_argument("--out", help="write the result as JSON")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        os.mkdir(os.path.join(directory, "www"))
        for name, _, size, _ in WORKLOADS:
            with open(os.path.join(directory, "www", name), "wb") as file:
                file.write(os.urandom(1 << 10) * (size >> 10))
        for workload in WORKLOADS:
            if not options.only or workload[0] in options.only:
                results.append(
                    measure(
                        workload, directory, options.rounds, options.seconds,
                        options.backend.split(","), options.bare,
                    )
                )
    tell(results, table(results), options, nginx=output("nginx", "-v"), backend=options.backend)


if __name__ == "__main__":
    main()
