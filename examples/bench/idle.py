#!/usr/bin/env python3
"""Memory of `serve` per idle connection: opens them, asks each for 4 KiB once, and waits.

    cargo build --release -p lastbyte-examples --bin serve
    examples/bench/idle.py [--connections 10000] [--backend epoll] [--tls]

Both processes need as many descriptors as there are connections (`ulimit -n`).
"""

import argparse
import os
import re
import resource
import socket
import ssl
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def anonymous_kib(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"RssAnon:\s+(\d+) kB", file.read())[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--backend", default="epoll")
    parser.add_argument("--tls", action="store_true", help="over TLS 1.3")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < options.connections + 100:
        sys.exit(f"idle.py: only {hard} descriptors may be open; raise `ulimit -Hn`")
    binary = os.path.join(ROOT, "target", "release", "serve")
    command = [binary, "--listen", "127.0.0.1:0", "--no-log", "--threads", "1"]
    command += ["--backend", options.backend, "--idle-timeout", "600"]
    command += ["--max-connections", str(options.connections)]
    if options.tls:
        command += ["--tls", "self-signed"]
        terms = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        terms.check_hostname, terms.verify_mode = False, ssl.CERT_NONE
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        port = next(int(m[1]) for m in (re.search(r"127\.0\.0\.1:(\d+)", l) for l in server.stdout) if m)
        before = anonymous_kib(server.pid)
        clients = []
        for n in range(options.connections):
            # An address of its own for every few thousand, for want of ports.
            client = socket.socket()
            client.bind((f"127.0.1.{1 + n // 5000}", 0))
            client.connect(("127.0.0.1", port))
            clients.append(terms.wrap_socket(client) if options.tls else client)
        for client in clients:
            client.sendall(b"GET /4kb HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            client.settimeout(30)
            left = None
            data = b""
            while left is None or len(data) < left:
                part = client.recv(65536)
                if not part:
                    sys.exit("idle.py: a connection was closed")
                data += part
                if left is None and b"\r\n\r\n" in data:
                    left = data.index(b"\r\n\r\n") + 4 + 4096
        time.sleep(1.5)
        after = anonymous_kib(server.pid)
        transport = "TLS" if options.tls else "plain"
        print(f"{options.connections} idle {transport} connections on {options.backend}: {after - before} KiB,")
        print(f"{(after - before) / options.connections:.2f} KiB of anonymous memory each")
    finally:
        server.kill()


main()
