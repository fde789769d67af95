"""A server small enough to start in 20 ms: `server.py PORT MODE`. Any request gets a 200 or a 503.

Modes: ok; deaf (answers 503 for ever); stubborn (ignores SIGTERM); family (starts a child that
ignores SIGTERM and writes its pid to the file in PIDS, if it is set).
"""

import os
import signal
import socket
import sys


def main(port: int, mode: str) -> None:
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "family" and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(os.environ["PIDS"], "w") as pids:  # noqa: PTH123
            pids.write(f"{os.getpid()}\n")
        while True:
            signal.pause()
    print(f"serving on {port}", flush=True)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        status = "503 Service Unavailable" if mode == "deaf" else "200 OK"
        while True:
            client, _ = listener.accept()
            with client:
                client.recv(4096)
                client.sendall(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\n"
                               "connection: close\r\n\r\n".encode())


main(int(sys.argv[1]), sys.argv[2])
