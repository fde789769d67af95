"""The Kubernetes objects of a model server, as plain dicts. Pure.

They stand in a namespace of their own that admits only restricted pods (Kubernetes, "Pod Security
Standards"). The Deployment names no number of replicas: that is the autoscaler's, and applying it again
must not undo it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.errors import UsageError
from engine.reproduce.rendering.settings import USER, Settings

DRAIN_S = 10  # how long the server lets requests end, see engine.serving.model_server
LEAVE_S = 5  # until every node has heard that a pod is no longer asked
STARTS_S = 120  # how long a server may take to load its model
CALLERS = "opsdeck/calls"  # the label of pods and namespaces that may ask


def objects(settings: Settings) -> dict[str, dict[str, Any]]:
    """Each object by its file's name, in the order in which they are applied.

    Raises UsageError without an image by digest, since a tag could name another model tomorrow.
    """
    if settings.image is None:
        raise UsageError("The image that serves is not given by its digest, so what runs could not be told.",
                         where="serving.image",
                         hint="Build it from the Dockerfile (--docker), push it, and give --image "
                              "NAME@sha256:… or write that into serving.image.")
    made = (_namespace(settings), _quota(settings), _policy(settings), _deployment(settings),
            _service(settings), _autoscaler(settings))
    return {f"{at}0-{one['kind'].lower()}.yaml": one for at, one in enumerate(made, 1)}


def _object(settings: Settings, version: str, kind: str, spec: Mapping[str, Any] | None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": settings.name, "namespace": settings.namespace,
                                "labels": _labels(settings)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata,
            **({} if spec is None else {"spec": dict(spec)})}


def _labels(settings: Settings) -> dict[str, str]:
    return {**_selector(settings), "app.kubernetes.io/managed-by": "opsdeck"}


def _selector(settings: Settings) -> dict[str, str]:
    return {"app.kubernetes.io/name": settings.name, "app.kubernetes.io/component": "model-server"}


def _namespace(settings: Settings) -> dict[str, Any]:
    made = _object(settings, "v1", "Namespace", None)
    levels = {f"pod-security.kubernetes.io/{what}": "restricted" for what in ("enforce", "audit", "warn")}
    made["metadata"] = {"name": settings.namespace, "labels": {**_labels(settings), **levels}}
    return made


def _quota(settings: Settings) -> dict[str, Any]:
    """Room for every replica, and for one more while a version is replaced."""
    pods = settings.most + 1
    cpu, memory = _cores(settings.cpu, pods), f"{settings.memory_mb * pods}Mi"
    return _object(settings, "v1", "ResourceQuota", {"hard": {
        "pods": str(pods), "requests.cpu": cpu, "limits.cpu": cpu, "requests.memory": memory,
        "limits.memory": memory, "services.loadbalancers": "0", "services.nodeports": "0",
        "persistentvolumeclaims": "0"}})


def _policy(settings: Settings) -> dict[str, Any]:
    """Asked by labelled callers alone; the server itself asks nobody."""
    calls = {"matchLabels": {CALLERS: settings.name}}
    return _object(settings, "networking.k8s.io/v1", "NetworkPolicy", {
        "podSelector": {"matchLabels": _selector(settings)}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": calls}, {"namespaceSelector": calls}],
                     "ports": [{"protocol": "TCP", "port": settings.port}]}],
        "egress": []})


def _deployment(settings: Settings) -> dict[str, Any]:
    template = {"metadata": {"labels": _labels(settings)}, "spec": {
        "automountServiceAccountToken": False, "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LEAVE_S + DRAIN_S + 5,
        "securityContext": {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                            "seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                                       "whenUnsatisfiable": "ScheduleAnyway",
                                       "labelSelector": {"matchLabels": _selector(settings)}}],
        "containers": [_container(settings)]}}
    return _object(settings, "apps/v1", "Deployment", {
        "selector": {"matchLabels": _selector(settings)}, "revisionHistoryLimit": 5,
        "progressDeadlineSeconds": STARTS_S * 3, "minReadySeconds": 5,
        # Never fewer than before: a new pod is asked only when it is ready, and the old one leaves then.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template})


def _container(settings: Settings) -> dict[str, Any]:
    resources = {"cpu": _cores(settings.cpu), "memory": f"{settings.memory_mb}Mi"}
    wait = ["/opt/environment/bin/python", "-c", f"import time; time.sleep({LEAVE_S})"]
    return {
        "name": "model-server", "image": settings.image, "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": settings.port, "protocol": "TCP"}],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        "startupProbe": {**_ping(), "periodSeconds": 2, "failureThreshold": STARTS_S // 2},
        "readinessProbe": {**_ping(), "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**_ping(), "periodSeconds": 10, "failureThreshold": 6},
        "lifecycle": {"preStop": {"exec": {"command": wait}}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}}


def _ping() -> dict[str, Any]:
    return {"httpGet": {"path": "/ping", "port": "http"}, "timeoutSeconds": 2}


def _service(settings: Settings) -> dict[str, Any]:
    return _object(settings, "v1", "Service", {
        "type": "ClusterIP", "selector": _selector(settings),
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]})


def _autoscaler(settings: Settings) -> dict[str, Any]:
    return _object(settings, "autoscaling/v2", "HorizontalPodAutoscaler", {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": settings.name},
        "minReplicas": settings.least, "maxReplicas": settings.most,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {
            "type": "Utilization", "averageUtilization": settings.target_cpu}}}],
        # Down slowly: a lull of a minute is no reason to load models anew.
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}}})


def _cores(cpu: float, times: int = 1) -> str:
    """Cores as Kubernetes counts them: each one's rounded up to a thousandth, and then so many times that."""
    thousandths = math.ceil(round(cpu * 1000, 6)) * times
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"
