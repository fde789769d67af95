"""A small API server that behaves as the Kubernetes API does for one HTTPRoute, gateway and all.

It does what the documents of the Kubernetes API and of the Gateway API say: a Status for each refusal,
resourceVersion and generation, merge patches, and a controller that writes the route's status. It was
not recorded from a cluster.
"""

from __future__ import annotations

import copy
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

PATH = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/flights"


def route(**weights: int | None) -> dict[str, Any]:
    refs = [{"group": "", "kind": "Service", "name": f"flights-{name}", "port": 8080,
             **({} if weight is None else {"weight": weight})} for name, weight in weights.items()]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "flights", "namespace": "shop", "generation": 3, "resourceVersion": "8100",
                     "uid": "2f6f6d0a-5b0c-4a39-9e5c-51f3fdc0b7f5"},
        "spec": {
            "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}],
            "hostnames": ["flights.example.com"],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": refs}]}}


class ApiServer:
    """`controller`: what the gateway does with a change: takes (takes it up), rejects, sleeps. `interfere`:
    how many times something writes the status right before a patch comes. `deny`: (status, Status)."""

    def __init__(self) -> None:
        self.reset()
        self._lock = threading.Lock()
        handler = type("Bound", (_Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def reset(self) -> None:
        self.controller = "takes"
        self.interfere = 0
        self.deny: tuple[int, bytes] | None = None
        self.ignores = False
        self.route = route(champion=100, challenger=0)
        self._act()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def weights(self) -> dict[str, float]:
        refs = self.route["spec"]["rules"][0]["backendRefs"]
        found = {ref["name"].removeprefix("flights-"): ref.get("weight", 1) for ref in refs}
        return {name: 100.0 * weight / sum(found.values()) for name, weight in found.items()}

    def edit(self, **weights: int) -> None:
        """As somebody with kubectl would."""
        for ref in self.route["spec"]["rules"][0]["backendRefs"]:
            ref["weight"] = weights[ref["name"].removeprefix("flights-")]
        self._bump(spec=True)
        self._act()

    def patch(self, body: dict[str, Any]) -> tuple[int, bytes]:
        with self._lock:
            if self.interfere:
                self.interfere -= 1
                self._bump(spec=False)
            version = body.get("metadata", {}).get("resourceVersion")
            if version is not None and version != self.route["metadata"]["resourceVersion"]:
                return 409, status(409, "Conflict", (
                    'Operation cannot be fulfilled on httproutes.gateway.networking.k8s.io "flights": the '
                    "object has been modified; please apply your changes to the latest version and try "
                    "again"))
            merged = _merge(self.route, body)
            for rule in merged["spec"]["rules"]:
                for ref in rule["backendRefs"]:
                    if not 0 <= ref.get("weight", 1) <= 1_000_000:
                        return 422, status(422, "Invalid", 'HTTPRoute.gateway.networking.k8s.io "flights" is '
                                           "invalid: spec.rules[0].backendRefs[0].weight: Invalid value")
            if not self.ignores and merged["spec"] != self.route["spec"]:
                self.route = merged
                self._bump(spec=True)
                self._act()
            return 200, json.dumps(self.route).encode()

    def _bump(self, *, spec: bool) -> None:
        meta = self.route["metadata"]
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 7)
        meta["generation"] += spec

    def _act(self) -> None:
        if self.controller == "sleeps":
            return
        seen = {"observedGeneration": self.route["metadata"]["generation"]}
        accepted = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "Accepted"}
        resolved = {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": "Resolved"}
        if self.controller == "rejects":
            resolved |= {"status": "False", "reason": "BackendNotFound",
                         "message": "service shop/flights-challenger not found"}
        self.route["status"] = {"parents": [{
            "controllerName": "example.com/edge", "parentRef": {"name": "edge"},
            "conditions": [accepted | seen, resolved | seen]}]}
        self._bump(spec=False)


def status(code: int, reason: str, message: str) -> bytes:
    return json.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                       "message": message, "reason": reason, "code": code}).encode()


def kubeconfig(folder: Path, port: int) -> Path:
    """A kubeconfig for the server at this port of this machine."""
    path = folder / f"kubeconfig-{port}"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "test", "user": {"token": "a-token"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]}))
    return path


def _merge(old: Any, new: Any) -> Any:
    """RFC 7386."""
    if not isinstance(new, dict):
        return copy.deepcopy(new)
    merged = copy.deepcopy(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: ClassVar[ApiServer]

    def do_GET(self) -> None:
        self._answer(*(self._denied() or (200, json.dumps(self.api.route).encode())))

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-type"] != "application/merge-patch+json":
            self._answer(415, status(415, "UnsupportedMediaType", "the body of the request was in an unknown "
                                     "format - accepted media types include: application/merge-patch+json"))
            return
        self._answer(*(self._denied() or self.api.patch(json.loads(body))))

    def _denied(self) -> tuple[int, bytes] | None:
        path = self.path.partition("?")[0]
        if self.headers["authorization"] != "Bearer a-token":
            return 401, status(401, "Unauthorized", "Unauthorized")
        if path != PATH:
            name = path.rpartition("/")[2]
            return 404, status(404, "NotFound",
                               f'httproutes.gateway.networking.k8s.io "{name}" not found')
        return self.api.deny

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a test that fails shows what it asked."""
