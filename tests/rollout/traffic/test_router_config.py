"""What `router:` may say in opsdeck.yaml: problems with their lines, paths, and the variants of each kind."""

from pathlib import Path

import pytest

from engine.config_doubts import doubts
from engine.config_file import EXAMPLE, check, load
from engine.config_routers import GatewayApi, HAProxy, variants
from engine.located import load as read
from engine.procedures.actions import Router
from engine.rollout.traffic.adapters import make
from engine.rollout.traffic.router import DetailedRouter, ObservedRouter

HAPROXY = "kind: haproxy, socket: run/h.sock, backend: flights, servers: {champion: s1, challenger: s2}"


def problems(tmp_path: Path, router: str, more: str = "") -> list[str]:
    path = tmp_path / "opsdeck.yaml"
    path.write_text(f"services:\n  flights:\n    router: {{{router}}}\n{more}")
    return [str(problem).removeprefix(f"{path}:") for problem in check(path)[1]]


@pytest.mark.parametrize(("router", "words"), [
    (HAPROXY.replace("flights,", "'flights;shutdown sessions server flights/s1',"), "names in HAProxy have"),
    (HAPROXY.replace("s2", "s1"), "two variants have the same name there"),
    (HAPROXY.replace("champion: s1", "blue: s1"), "`champion` is not among the router's"),
    (HAPROXY.replace("run/h.sock", "/" + "x" * 107), "at most 107 bytes"),
    (HAPROXY.replace("backend", "backends"), "unknown key `backends`"),
    (HAPROXY.replace("haproxy", "hapoxy"), "there is no `hapoxy`\n  did you mean `haproxy`?"),
    ("socket: x", "`kind` is missing in `router`"),
    ("kind: route53, zone: z, name: n, identifiers: {}", "`identifiers`: it names no variant"),
    ("kind: gateway-api, route: Flights, services: {champion: a}", "names in Kubernetes have"),
    ("kind: alb, target_groups: {champion: a}", "either the ARN of a rule or that of a listener"),
    ("kind: sagemaker, endpoint: e, variants: {champion: a}, endpoint_url: zzz", "'zzz' is not an HTTP"),
    ("kind: haproxy, backend: a, servers: {champion: a}", "`socket` is missing")])
def test_what_cannot_be_is_told_with_its_line(tmp_path: Path, router: str, words: str) -> None:
    found = problems(tmp_path, router)
    assert [line for line in found if words in line and line.startswith("3:")], found


def test_a_service_has_one_router(tmp_path: Path) -> None:
    found = problems(tmp_path, HAPROXY, "    gateway: {admin: g.sock}\n")
    assert found == ["3: a service has a `gateway` or a `router`, not both"]


def test_what_this_machine_lacks_is_doubted(tmp_path: Path) -> None:
    path = tmp_path / "opsdeck.yaml"
    path.write_text(f"services:\n  flights:\n    router: {{{HAPROXY}}}\n  fares:\n    router:\n      {{kind: "
                    "gateway-api, route: fares, services: {champion: a}, kubeconfig: k/config}\n")
    found = doubts(load(path), read(path), actions=[], procedures=[])
    assert [(doubt.line, doubt.message) for doubt in found] == [
        (3, f"there is no socket {tmp_path}/run/h.sock"), (6, f"there is no file {tmp_path}/k/config")]
    assert {doubt.level for doubt in found} == {"warning"}


def test_paths_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "opsdeck.yaml"
    path.write_text(f"services:\n  flights:\n    router: {{{HAPROXY}}}\n  fares:\n    router:\n      {{kind: "
                    "gateway-api, route: fares, services: {champion: a}, kubeconfig: k/config}\n")
    routers = {name: service.router for name, service in load(path).services.items()}
    assert isinstance(routers["flights"], HAProxy) and isinstance(routers["fares"], GatewayApi)
    assert routers["flights"].socket == tmp_path / "run/h.sock"
    assert routers["fares"].kubeconfig == tmp_path / "k/config"


def test_there_is_an_adapter_for_each_kind() -> None:
    counting = {}
    for name, service in load(EXAMPLE).services.items():
        if service.router is not None:
            router: Router = make(name, service.router)
            assert isinstance(router, DetailedRouter)
            assert set(variants(service.router)) == {"champion", "challenger"}
            counting[service.router.kind] = isinstance(router, ObservedRouter)
    assert set(counting) == {"haproxy", "gateway-api", "sagemaker", "route53", "alb"}
    assert counting["haproxy"] and not counting["gateway-api"]
