#!/usr/bin/env python3
"""CPU time per request of `serve` over TLS against nginx (OpenSSL) and hyper, paired by round.

    cargo build --release -p lastbyte-examples --bin serve
    cargo build --release --manifest-path examples/bench/opponents/hyper/Cargo.toml
    examples/bench/compare_tls.py [--rounds 9] [--seconds 1.0] [--only 16k] [--out docs/speed-tls.json]

TLS 1.3 with AES-128-GCM on both sides, the same certificate, keep-alive. As
compare.py otherwise. `handshakes` counts new connections, without resumption,
made by `openssl s_time`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

import compare
from compare import Server, fail, output

# name, connections, bytes of the file, target for the ratio to nginx
WORKLOADS = [
    ("16k", 10, 16 << 10, 0.45),
    ("128k", 10, 128 << 10, 0.45),
    ("1m", 10, 1 << 20, 0.45),
]

HYPER_MANIFEST = os.path.join(compare.ROOT, "examples/bench/opponents/hyper/Cargo.toml")
HYPER = os.path.join(os.path.dirname(HYPER_MANIFEST), "target/release/opponent-hyper")

compare.NGINX = compare.NGINX.replace(
    "server {{ listen 127.0.0.1:{port} backlog=4096; root {dir}/www; }}",
    """server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        root {dir}/www;
        ssl_certificate {dir}/cert.pem;
        ssl_certificate_key {dir}/key.pem;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    }}""",
)


def make_certificate(directory):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"],
        check=True,
        capture_output=True,
    )


def load(server, connections, seconds):
    command = ["taskset", "-c", "1", "h2load", "--h1", "-t1", f"-c{connections}"]
    command += ["--tls13-ciphers=TLS_AES_128_GCM_SHA256", "-D", f"{round(seconds * 1000)}ms"]
    printed = output(*command, f"https://127.0.0.1:{server.port}/{server.path}")
    done = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", printed)
    if not done or int(done[2]) == 0 or int(done[3]) > connections:
        fail(f"{server.name}: the load generator says\n{printed}")
    return int(done[2])


def handshakes(server, _, seconds):
    command = ["taskset", "-c", "1", "openssl", "s_time", "-new", "-tls1_3"]
    command += ["-time", str(max(1, round(seconds))), "-connect", f"127.0.0.1:{server.port}"]
    printed = output(*command)
    done = re.search(r"(\d+) connections in \d+ real seconds", printed)
    if not done or int(done[1]) == 0:
        fail(f"{server.name}: s_time says\n{printed}")
    return int(done[1])


def start_hyper(directory, port):
    if not os.path.exists(HYPER):
        fail(f"build it first: cargo build --release --manifest-path {HYPER_MANIFEST}")
    command = ["taskset", "-c", "0", HYPER, str(port)]
    command += [f"{directory}/cert.pem", f"{directory}/key.pem"]
    process = subprocess.Popen(command)
    time.sleep(0.2)
    if process.poll() is not None:
        fail("opponent-hyper has ended")
    return process


def measure(name, connections, size, target, variants, drive, directory, options):
    port = compare.free_port()
    master, worker = compare.start_nginx(directory, port)
    servers = [Server("nginx", worker, port, name)]
    tls = ["--tls-cert", f"{directory}/cert.pem", "--tls-key", f"{directory}/key.pem"]
    path = f"{size >> 10}kb" if size else name
    try:
        if not options.no_hyper:
            process = start_hyper(directory, port + 1)
            servers.append(Server("hyper, in memory", process.pid, port + 1, path, process))
        for title, path, extra in variants:
            process, own = compare.start_serve(
                directory, "--backend", options.backend, *tls, *extra
            )
            servers.append(Server(title, process.pid, own, path, process))
        per_request = compare.rounds_of(
            servers, connections, drive, name, options.rounds, options.seconds
        )
    finally:
        compare.stop(servers, master)
    result = {"workload": name, "connections": connections, "bytes": size, "target": target}
    result["servers"] = compare.to_nginx(per_request)
    if not options.no_hyper:
        result["to_hyper"] = {
            title: compare.paired(per_request, title, "hyper, in memory") for title, _, _ in variants
        }
    return result


def table(results):
    lines = ["| workload | server | CPU us/request | ratio to nginx (lowest..highest) | target |"]
    lines.append("|---|---|---|---|---|")
    for result in results:
        for name, figures in result["servers"].items():
            span = f"{figures['ratio']:.2f} ({figures['lowest']:.2f}..{figures['highest']:.2f})"
            target = f"<= {result['target']}" if name.endswith("stamps on") else ""
            row = [result["workload"], name, str(figures["us_per_request"]), span, target]
            lines.append("| " + " | ".join(row) + " |")
        for name, ratio in result.get("to_hyper", {}).items():
            lines.append(f"| {result['workload']} | {name}, to hyper | | {ratio:.2f} | <= 1.0 |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of load, per server and round")
    names = [w[0] for w in WORKLOADS] + ["handshakes"]
    parser.add_argument("--only", action="append", help="a workload: " + ", ".join(names))
    parser.add_argument("--backend", default="epoll")
    parser.add_argument("--out", help="write the result as JSON")
    parser.add_argument("--no-hyper", action="store_true", help="without hyper + tokio-rustls")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        os.mkdir(os.path.join(directory, "www"))
        make_certificate(directory)
        for name, _, size, _ in WORKLOADS:
            with open(os.path.join(directory, "www", name), "wb") as file:
                file.write(os.urandom(1 << 10) * (size >> 10))
        for name, connections, size, target in WORKLOADS:
            if options.only and name not in options.only:
                continue
            variants = [
                ("file, stamps on", name, []),
                ("file, stamps off", name, ["--stamps", "off"]),
                ("generated, stamps on", f"{size >> 10}kb", []),
            ]
            results.append(
                measure(name, connections, size, target, variants, load, directory, options)
            )
        if not options.only or "handshakes" in options.only:
            variants = [("stamps on", "", [])]
            results.append(
                measure("handshakes", 1, 0, 1.11, variants, handshakes, directory, options)
            )
    more = {"nginx": output("nginx", "-v"), "openssl": output("openssl", "version")}
    compare.tell(results, table(results), options, backend=options.backend, **more)


if __name__ == "__main__":
    main()
