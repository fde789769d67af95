"""An Application Load Balancer as a router: real boto3 over HTTP against moto's server, through a meddler."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from engine.config_routers import Alb
from engine.errors import ActionFailed
from engine.rollout.traffic.alb import AlbRouter
from tests.rollout.traffic.contract import ALL, CANARY, NONE, Contract, Part, near
from tests.rollout.traffic.meddler import Meddler, http_answer
from tests.rollout.traffic.moto_server import REGION, Moto, aside, serving, url

XMLNS = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"
REFUSED = (f'<ErrorResponse xmlns="{XMLNS}"><Error><Type>Sender</Type><Code>InvalidLoadBalancerAction</Code>'
           "<Message>The action is frozen.</Message></Error></ErrorResponse>").encode()
STICKY = {"Enabled": True, "DurationSeconds": 300}
OIDC = {"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": {
    "Issuer": "https://id.example.com", "AuthorizationEndpoint": "https://id.example.com/a",
    "TokenEndpoint": "https://id.example.com/t", "UserInfoEndpoint": "https://id.example.com/u",
    "ClientId": "opsdeck"}}


@dataclass
class Balancer:
    """What there is in moto: a listener with one rule, and target groups by variant."""

    listener: str
    rule: str
    groups: dict[str, str]
    third: str


def changes(request: bytes) -> bool:
    return b"Action=Modify" in request


def lied(request: bytes) -> bytes:
    verb = b"ModifyRule" if b"ModifyRule" in request else b"ModifyListener"
    inner = b"Rules" if verb == b"ModifyRule" else b"Listeners"
    return http_answer("200 OK", b'<%b xmlns="%b"><%b><%b/></%b></%b>' % (
        verb + b"Response", XMLNS.encode(), verb + b"Result", inner, verb + b"Result", verb + b"Response"),
        "text/xml")


class AlbPart(Part):
    step = 100 / 999
    refusal = "The action is frozen"
    router: AlbRouter

    def __init__(self, moto: Moto, balancer: Balancer, *, by_listener: bool = False) -> None:
        self.api, self.balancer, self._clients = moto.client("elbv2"), balancer, moto.clients
        self.by_listener = by_listener
        self.meddler = Meddler(
            back=moto.address, front=moto.front, changes=changes, lied=lied,
            garbage=http_answer("200 OK", b"<html>", "text/xml"),
            refusal=http_answer("400 Bad Request", REFUSED, "text/xml"))

    def connect(self, groups: dict[str, str] | None = None, **place: str) -> AlbRouter:
        place = place or ({"listener": self.balancer.listener} if self.by_listener
                          else {"rule": self.balancer.rule})
        self.router = AlbRouter(
            {"flights": Alb.model_validate({
                "kind": "alb", "region": REGION, "endpoint_url": url(self.meddler), **place,
                "target_groups": groups or self.balancer.groups})},
            self._clients, settle_s=0.3, poll_s=0.02)
        return self.router

    def actions(self) -> list[dict[str, Any]]:
        if self.by_listener:
            found = self.api.describe_listeners(ListenerArns=[self.balancer.listener])["Listeners"]
            return list(found[0]["DefaultActions"])
        return list(self.api.describe_rules(RuleArns=[self.balancer.rule])["Rules"][0]["Actions"])

    def set_actions(self, *actions: dict[str, Any]) -> None:
        if self.by_listener:
            self.api.modify_listener(ListenerArn=self.balancer.listener, DefaultActions=list(actions))
        else:
            self.api.modify_rule(RuleArn=self.balancer.rule, Actions=list(actions))

    def weights(self) -> dict[str, int]:
        there = {group["TargetGroupArn"]: group["Weight"] for action in self.actions()
                 if action["Type"] == "forward" for group in action["ForwardConfig"]["TargetGroups"]}
        return {name: there.get(arn, 0) for name, arn in self.balancer.groups.items()}

    async def in_force(self) -> dict[str, float]:
        weights = await aside(self.weights)
        return {name: weight * 100 / sum(weights.values()) for name, weight in weights.items()}

    async def set_directly(self, weights: dict[str, float]) -> None:
        groups = [(self.balancer.groups[name], round(weight * 5)) for name, weight in weights.items()]
        await aside(lambda: self.set_actions(forward(*groups)))


def forward(*groups: tuple[str, int], **more: Any) -> dict[str, Any]:
    return {"Type": "forward", "Order": 2, "ForwardConfig": {
        "TargetGroups": [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in groups],
        "TargetGroupStickinessConfig": STICKY, **more}}


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with serving() as moto:
        yield moto


@pytest.fixture(scope="module")
def balancer(moto: Moto) -> Balancer:
    ec2, api = moto.client("ec2"), moto.client("elbv2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=f"{REGION}{zone}")[
        "Subnet"]["SubnetId"] for i, zone in enumerate("ab")]
    front = api.create_load_balancer(Name="flights", Subnets=subnets)["LoadBalancers"][0]["LoadBalancerArn"]
    blue, green, third = (
        api.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=vpc)[
            "TargetGroups"][0]["TargetGroupArn"] for name in ("blue", "green", "third"))
    listener = api.create_listener(
        LoadBalancerArn=front, Protocol="HTTP", Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": blue}])["Listeners"][0]["ListenerArn"]
    rule = api.create_rule(ListenerArn=listener, Priority=7, Actions=[forward((blue, 1))],
                           Conditions=[{"Field": "path-pattern", "Values": ["/invocations"]}])
    return Balancer(listener=listener, rule=rule["Rules"][0]["RuleArn"], third=third,
                    groups={"champion": blue, "challenger": green})


async def _part(part: AlbPart) -> AsyncIterator[AlbPart]:
    await part.set_directly(ALL)
    await part.meddler.start()
    part.connect()
    yield part
    await part.meddler.stop()


@pytest.fixture
async def part(moto: Moto, balancer: Balancer) -> AsyncIterator[AlbPart]:
    async for part in _part(AlbPart(moto, balancer)):
        yield part


@pytest.fixture
async def by_listener(moto: Moto, balancer: Balancer) -> AsyncIterator[AlbPart]:
    async for part in _part(AlbPart(moto, balancer, by_listener=True)):
        yield part


class TestRule(Contract):
    """What every adapter keeps to."""


class TestListener(Contract):
    """The same where the action is a listener's default."""

    @pytest.fixture
    def part(self, by_listener: AlbPart) -> AlbPart:
        return by_listener


async def test_one_percent_is_one_beside_ninety_nine_and_a_tenth_of_one_can_be_had(part: AlbPart) -> None:
    await part.router.shift("flights", {"champion": 99.0, "challenger": 1.0})
    assert part.weights() == {"champion": 99, "challenger": 1}
    await part.router.shift("flights", {"champion": 99.9, "challenger": 0.1})
    assert part.weights() == {"champion": 999, "challenger": 1}


async def test_other_actions_their_order_and_the_stickiness_stay(part: AlbPart) -> None:
    part.set_actions(OIDC, forward((part.balancer.groups["champion"], 5)))
    await part.router.shift("flights", CANARY)
    login, changed = part.actions()
    assert (login["Type"], login["Order"], login["AuthenticateOidcConfig"]["ClientId"]) == (
        "authenticate-oidc", 1, "opsdeck")
    assert changed["Order"] == 2 and changed["ForwardConfig"]["TargetGroupStickinessConfig"] == STICKY
    assert part.weights() == {"champion": 95, "challenger": 5}


async def test_a_login_whose_secret_is_not_told_keeps_it(part: AlbPart) -> None:
    part.set_actions(OIDC, forward((part.balancer.groups["champion"], 5)))
    await part.router.shift("flights", CANARY)
    [sent] = [request for request in part.meddler.handed_on if changes(request)]
    assert b"AuthenticateOidcConfig.UseExistingClientSecret=true" in sent


async def test_the_conditions_of_a_rule_stay(part: AlbPart) -> None:
    await part.router.shift("flights", CANARY)
    [rule] = part.api.describe_rules(RuleArns=[part.balancer.rule])["Rules"]
    assert rule["Conditions"][0]["Values"] == ["/invocations"] and rule["Priority"] == "7"


async def test_an_action_with_one_target_group_is_a_whole_split_and_takes_a_second(
        by_listener: AlbPart) -> None:
    by_listener.set_actions({"Type": "forward", "TargetGroupArn": by_listener.balancer.groups["challenger"]})
    assert await by_listener.router.read("flights") == NONE
    assert await by_listener.router.shift("flights", CANARY) == near(CANARY)
    [action] = by_listener.actions()
    assert "TargetGroupArn" not in action
    assert [group["Weight"] for group in action["ForwardConfig"]["TargetGroups"]] == [5, 95]


async def test_a_target_group_that_the_config_does_not_name_may_have_no_weight(part: AlbPart) -> None:
    groups = list(part.balancer.groups.values())
    part.set_actions(forward((groups[0], 1), (part.balancer.third, 0), (groups[1], 1)))
    await part.router.shift("flights", CANARY)
    kept = part.actions()[0]["ForwardConfig"]["TargetGroups"]
    assert [group["Weight"] for group in kept] == [95, 0, 5]
    part.set_actions(forward((groups[0], 1), (part.balancer.third, 1)))
    with pytest.raises(ActionFailed, match=r"not among its variants: arn:.*third"):
        await part.router.shift("flights", ALL)


async def test_weights_that_are_all_zero_are_no_split_but_can_be_set_right(part: AlbPart) -> None:
    await part.set_directly({"champion": 0.0, "challenger": 0.0})
    with pytest.raises(ActionFailed, match="no weight above 0"):
        await part.router.read("flights")
    assert await part.router.shift("flights", ALL) == ALL


async def test_a_rule_that_forwards_nowhere_is_refused(part: AlbPart) -> None:
    part.set_actions({"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}})
    with pytest.raises(ActionFailed, match="forwards to no target group"):
        await part.router.shift("flights", CANARY)


async def test_the_default_rule_is_changed_by_its_listener_alone(part: AlbPart) -> None:
    rules = part.api.describe_rules(ListenerArn=part.balancer.listener)["Rules"]
    [default] = [rule["RuleArn"] for rule in rules if rule["IsDefault"]]
    with pytest.raises(ActionFailed, match="default rule of a listener") as failed:
        await part.connect(rule=default).shift("flights", CANARY)
    assert failed.value.hint == "Name its listener in opsdeck.yaml, not the rule."


async def test_what_is_not_there_is_named(part: AlbPart) -> None:
    with pytest.raises(ActionFailed, match=r"ALB refused for flights: .*rule"):
        await part.connect(rule=part.balancer.rule + "0").read("flights")
    router = part.connect(groups={"champion": part.balancer.groups["champion"],
                                  "challenger": part.balancer.groups["challenger"] + "0"})
    with pytest.raises(ActionFailed, match=r"ALB refused for flights: .*[Tt]arget group"):
        await router.shift("flights", CANARY)
    assert await part.in_force() == ALL


@pytest.mark.parametrize("place", [{}, {"rule": "arn:r", "listener": "arn:l"}], ids=["neither", "both"])
def test_the_config_names_either_a_rule_or_a_listener(place: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either the ARN of a rule or that of a listener"):
        Alb.model_validate({"kind": "alb", "target_groups": {"a": "arn:a"}, **place})


def test_two_variants_cannot_share_a_target_group() -> None:
    with pytest.raises(ValueError, match="the same name"):
        Alb.model_validate({"kind": "alb", "rule": "arn:r", "target_groups": {"a": "arn:a", "b": "arn:a"}})
