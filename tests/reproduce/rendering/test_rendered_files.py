"""What `opsdeck pipeline render` writes: an image that can be built anew, objects that a cluster takes."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_validate.utils import all_versions

from engine.cli import pipeline_render
from engine.errors import UsageError
from engine.pipeline import deployment
from engine.pipeline.project import reading
from engine.reproduce.rendering import dockerfile, kubernetes, server
from engine.reproduce.rendering.settings import Settings
from tests.serving.harness import call, free_port, wait_for
from tests.serving.onnx_models import write_model

FLIGHTS = Path(deployment.__file__).parents[1] / "demo" / "projects" / "flights"
BASE, IMAGE = (f"example.org/{name}@sha256:{digit * 64}" for name, digit in (("python", "a"), ("late", "b")))
CARRIED = list(dict.fromkeys(".".join(one.split(".")[:2]) for one in all_versions()))
VERSIONS = [CARRIED[-1], CARRIED[-2], CARRIED[-5]]
SETTINGS = Settings(name="late", namespace="flights", base=BASE, image=IMAGE, python="3.11",
                    training="training.lock", cpu=0.5, memory_mb=512, least=2, most=4, port=8080,
                    target_cpu=70)


def call_render(*words: str) -> int:
    parser = argparse.ArgumentParser()
    pipeline_render.configure(parser)
    return pipeline_render.run(parser.parse_args(list(words)))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rendered") / "deploy"
    assert call_render(str(FLIGHTS), "--out", str(out), "--base", BASE, "--image", IMAGE) == 0
    return out


def manifests(folder: Path) -> dict[str, dict[str, Any]]:
    return {(one := yaml.safe_load(path.read_text()))["kind"]: one for path in sorted(folder.glob("*.yaml"))}


def instructions(text: str) -> list[tuple[str, str]]:
    """Each instruction with its argument: comments left out, continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = lines.replace("\\\n", " ")
    return [(name.upper(), rest.strip()) for name, _, rest in
            (line.strip().partition(" ") for line in joined.splitlines() if line.strip())]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cluster_of_each_version_takes_every_object(rendered: Path, version: str) -> None:
    found = manifests(rendered / "kubernetes")
    assert set(found) == {"Namespace", "ResourceQuota", "NetworkPolicy", "Deployment", "Service",
                          "HorizontalPodAutoscaler"}
    for one in found.values():
        assert kubernetes_validate.validate(one, version, strict=True) == version


def test_the_schemas_find_what_is_wrong() -> None:
    wrong = kubernetes.objects(SETTINGS)["40-deployment.yaml"]
    wrong["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSecond"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_pod_is_confined_and_probed_and_limited(rendered: Path) -> None:
    spec = manifests(rendered / "kubernetes")["Deployment"]["spec"]["template"]["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] >= 10000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]}}
    assert container["image"] == IMAGE and "env" not in container
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/ping", "port": "http"}
    assert container["resources"]["requests"] == container["resources"]["limits"] != {}


def test_a_pod_that_leaves_has_time_to_answer_what_it_was_asked(rendered: Path) -> None:
    from engine.serving.model_server import _DRAIN_S

    spec = manifests(rendered / "kubernetes")["Deployment"]["spec"]["template"]["spec"]
    assert kubernetes.DRAIN_S >= _DRAIN_S
    assert spec["terminationGracePeriodSeconds"] > kubernetes.LEAVE_S + kubernetes.DRAIN_S


def test_everything_selects_the_same_pods_and_only_labelled_callers_reach_them(rendered: Path) -> None:
    found = manifests(rendered / "kubernetes")
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (found["Deployment"]["spec"]["selector"]["matchLabels"],
                     found["Service"]["spec"]["selector"],
                     found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]):
        assert selector and selector.items() <= labels.items()
    policy = found["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and policy["egress"] == []
    assert all(next(iter(one.values()))["matchLabels"] for one in policy["ingress"][0]["from"])
    assert "replicas" not in found["Deployment"]["spec"], "applying it again would undo the autoscaler"


@given(cpu=st.floats(0.01, 64), memory=st.integers(64, 1 << 16), least=st.integers(1, 50),
       more=st.integers(0, 50))
def test_the_quota_holds_every_replica_and_one_more(cpu: float, memory: int, least: int, more: int) -> None:
    found = {one["kind"]: one for one in kubernetes.objects(dataclasses.replace(
        SETTINGS, cpu=cpu, memory_mb=memory, least=least, most=least + more)).values()}
    hard = found["ResourceQuota"]["spec"]["hard"]
    one = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    pods = found["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] + 1
    assert int(hard["pods"]) == pods
    assert _thousandths(hard["requests.cpu"]) == _thousandths(one["cpu"]) * pods
    assert cpu * 1000 - 1e-5 <= _thousandths(one["cpu"]) < cpu * 1000 + 1
    assert int(hard["limits.memory"].removesuffix("Mi")) == memory * pods


def _thousandths(text: str) -> int:
    return int(text.removesuffix("m")) if text.endswith("m") else int(text) * 1000


def test_the_dockerfile_keeps_the_rules_of_the_trade(rendered: Path) -> None:
    """As hadolint has them: DL3000, 3002, 3003, 3004, 3006, 3007, 3013, 3020, 3025, 3042, 4003, 4004."""
    found = instructions((rendered / "Dockerfile").read_text())
    names = [name for name, _ in found]
    stages = [rest.split()[-1] for name, rest in found if name == "FROM"]
    assert stages == ["serving-packages", "training-packages", "train", "serve"]
    assert all(rest.split()[0] == BASE for name, rest in found if name == "FROM")
    assert "ADD" not in names and "ARG" not in names and names.count("ENTRYPOINT") == 1 and "CMD" not in names
    for name, rest in found:
        if name in ("RUN", "ENTRYPOINT"):
            words = json.loads(rest)
            assert "sudo" not in words and "cd" not in words
            if "pip" in words:
                assert {"--require-hashes", "--no-cache-dir", "--no-deps"} <= set(words)
        if name == "WORKDIR":
            assert rest.startswith("/")
        if name == "ENV":
            assert not re.search(r"(?i)token|secret|password|credential|api_?key", rest)
    last = names[len(names) - names[::-1].index("FROM"):]
    users = [rest for name, rest in found if name == "USER"]
    assert "USER" in last and all(re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user) for user in users)
    assert "HEALTHCHECK" in last


def test_what_is_copied_into_the_image_is_in_the_folder_and_not_ignored(rendered: Path) -> None:
    kept = {line[1:] for line in (rendered / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    for name, rest in instructions((rendered / "Dockerfile").read_text()):
        if name == "COPY" and not rest.startswith("--from"):
            source = json.loads(rest)[0]
            assert source in kept and (source == "model" or (rendered / source).exists())


def test_every_locked_package_in_the_image_has_a_hash_and_no_index_is_named(rendered: Path) -> None:
    for name in ("serving.lock", "training.lock"):
        text = (rendered / name).read_text()
        assert "--hash=sha256:" in text and "://" not in text
    assert (rendered / "training.lock").read_bytes() == (FLIGHTS / "requirements.lock").read_bytes()


def test_rendered_again_it_is_the_same_to_the_byte(
        rendered: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def digest() -> str:
        return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(rendered.rglob("*"))
                                       if path.is_file())).hexdigest()

    before = digest()
    call_render(str(FLIGHTS), "--out", str(rendered), "--base", BASE, "--image", IMAGE)
    assert digest() == before and "nothing changed" in capsys.readouterr().out


def test_the_files_of_the_image_serve_a_model_by_the_entry_point(rendered: Path, tmp_path: Path) -> None:
    """Run with the server's files alone, by the command that the Dockerfile names."""
    model, port = write_model(tmp_path / "model", version="3"), free_port()
    [entry] = [json.loads(rest) for name, rest in instructions((rendered / "Dockerfile").read_text())
               if name == "ENTRYPOINT"]
    there = {"/opt/environment/bin/python": sys.executable, "/model": str(model), "8080": str(port),
             "0.0.0.0": "127.0.0.1"}
    process = subprocess.Popen([there.get(word, word) for word in entry], cwd=rendered / "server",
                               env={"PATH": os.environ["PATH"], "PYTHONPATH": str(rendered / "server")})
    try:
        wait_for(lambda: pinged(port), "the server")
        row = {"distance": [1000.0], "temp": [10.0], "hour": [9]}
        answer = call(port, "POST", "/invocations", {"inputs": row})
        assert answer.status == 200 and answer.json["predictions"][0]["score"] == pytest.approx(11.0)
    finally:
        process.terminate()
        assert process.wait(15) == 0


def pinged(port: int) -> bool:
    try:
        return call(port, "GET", "/ping").status == 200
    except OSError:
        return False


@pytest.mark.parametrize(("given", "said"), [
    ({"base": "python:3.11"}, "python:3.11 is not an image by its digest"),
    ({"image": "late:latest"}, "late:latest is not an image by its digest")])
def test_an_image_by_a_tag_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        deployment.settings(reading.read(FLIGHTS), **given)


def test_without_a_digest_nothing_is_rendered_and_what_to_give_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not given by its digest") as docker:
        call_render(str(FLIGHTS), "--out", str(tmp_path / "out"), "--docker")
    with pytest.raises(UsageError, match="not given by its digest") as cluster:
        call_render(str(FLIGHTS), "--out", str(tmp_path / "out"), "--kubernetes")
    assert "--base" in (docker.value.hint or "") and "--image" in (cluster.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_a_name_that_a_cluster_refuses_is_refused_here(tmp_path: Path) -> None:
    project = reading.read(FLIGHTS)
    with pytest.raises(UsageError, match="cannot name something in Kubernetes"):
        deployment.settings(project.model_copy(update={"model": "a" * 53}))


def test_a_project_without_a_lock_has_no_image_that_trains() -> None:
    text = dockerfile.dockerfile(dataclasses.replace(SETTINGS, training=None))
    assert [rest.split()[-1] for name, rest in instructions(text) if name == "FROM"] == [
        "serving-packages", "serve"]


def test_the_servers_files_are_the_server_and_what_it_imports() -> None:
    names = set(server.files())
    assert "engine/serving/model_server.py" in names and "engine/errors.py" in names
    assert not [name for name in names if not name.startswith(("engine/serving/", "engine/errors.py",
                                                               "engine/__init__.py"))]
