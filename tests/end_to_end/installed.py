"""An installation that other users of the machine can read, a system engine in it as systemd starts one, and
a registry on a server of its own that wants a password."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.serving.harness import free_port

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "engine" / "daemon" / "opsdeck.service"
PACKAGES = ("engine", "console", "runbooks")
# How this machine reaches packages; the engine passes them on to uv.
REACHES = ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "SSL_CERT_FILE", "SSL_CERT_DIR",
           "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
REGISTRY_USER, REGISTRY_PASSWORD = "engine", "the-registrys-password-4711"


def install(folder: Path) -> Path:
    """This environment's packages and the project's own, under an interpreter that anybody may execute; the
    new interpreter."""
    base = next((one for one in (Path(getattr(sys, "_base_executable", sys.executable)).resolve(),
                                 Path("/usr/bin/python3.11")) if one.exists() and _reachable(one)), None)
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv is not None and base is not None, "needs uv, and a Python 3.11 that other users can execute"
    venv = folder / "venv"
    subprocess.run([uv, "venv", "-q", "--python", base, venv], check=True, cwd=folder)
    packages = venv / "lib" / "python3.11" / "site-packages"
    packages.rmdir() if not any(packages.iterdir()) else shutil.rmtree(packages)
    ours = sysconfig.get_path("purelib")
    if subprocess.run(["cp", "-al", ours, packages], check=False, capture_output=True).returncode:
        subprocess.run(["cp", "-a", ours, packages], check=True)
    for link in packages.glob("*editable*"):
        link.unlink()
    for name in PACKAGES:
        shutil.rmtree(packages / name, ignore_errors=True)
        shutil.copytree(ROOT / name, packages / name)
    subprocess.run([uv, "pip", "install", "-q", "--python", venv / "bin" / "python", "uv"], check=True,
                   cwd=folder)
    shutil.copy(ROOT / "tests" / "end_to_end" / "system_engine.py", folder)
    return venv / "bin" / "python"


def _reachable(path: Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in (path, *path.parents))


@contextmanager
def engine(python: Path, home: Path, user: str) -> Iterator[None]:
    """A system engine of `home`, as `user` with the capabilities of the unit, until the block ends."""
    caps = next(line for line in UNIT.read_text().splitlines() if line.startswith("AmbientCapabilities="))
    given = ",".join(["-all", *(f"+{one.lower().removeprefix('cap_')}" for one in
                                caps.partition("=")[2].split())])
    become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", f"--inh-caps={given}",
              f"--ambient-caps={given}", f"--bounding-set={given}"]
    environ = {name: os.environ[name] for name in REACHES if name in os.environ} | {
        "PATH": "/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8",
        "MLFLOW_TRACKING_USERNAME": REGISTRY_USER, "MLFLOW_TRACKING_PASSWORD": REGISTRY_PASSWORD}
    process = subprocess.Popen([*become, python, python.parents[2] / "system_engine.py", home], umask=0o077,
                               cwd="/", env=environ, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def end_all(folder: Path) -> None:
    """End what runs out of a folder: services outlive their engine."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with suppress(OSError):
                if os.fsencode(folder) in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)


@contextmanager
def registry(python: Path, folder: Path, user: str) -> Iterator[str]:
    """MLflow's own server as `user`, behind a door that wants a password; its address."""
    port = free_port()
    server = subprocess.Popen(
        ["setpriv", "--reuid", user, "--regid", user, "--init-groups", python, "-m", "mlflow", "server",
         "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
         "--artifacts-destination", folder / "artifacts", "--serve-artifacts", "--host", "127.0.0.1",
         "--port", str(port), "--workers", "1"],
        cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": str(folder)}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_it_answers(f"http://127.0.0.1:{port}/health")
        with _door(port) as address:
            yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def until_it_answers(url: str, within: float = 60.0) -> None:
    end = time.monotonic() + within
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            assert time.monotonic() < end, f"{url} does not answer"


@contextmanager
def _door(port: int) -> Iterator[str]:
    wanted = "Basic " + base64.b64encode(f"{REGISTRY_USER}:{REGISTRY_PASSWORD}".encode()).decode()

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/health" and self.headers.get("Authorization") != wanted:
                self.answer(401, b"who are you")
                return
            inside = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            inside.request(self.command, self.path, body, {
                name: value for name, value in self.headers.items()
                if name.lower() not in ("authorization", "host")})
            got = inside.getresponse()
            self.answer(got.status, got.read(), got.headers.get("Content-Type"))
            inside.close()

        def answer(self, status: int, body: bytes, kind: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on

        def log_message(self, format: str, *args: object) -> None:
            pass

    door = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.server_port}"
    finally:
        door.shutdown()
        door.server_close()
        thread.join(10)
