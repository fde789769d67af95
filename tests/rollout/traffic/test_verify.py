"""A router that says yes and does no is found out, and an honest one is not suspected."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config_routers import HAProxy
from engine.rollout.traffic.haproxy import HAProxyRouter
from engine.rollout.traffic.verify import (
    ALPHA,
    Counters,
    Verdict,
    Watch,
    _above,
    _below,
    bounds,
    judge,
    ln_e,
    look,
)
from tests.rollout.traffic.contract import ALL, CANARY
from tests.rollout.traffic.haproxies import SERVERS, RealHAProxy, haproxy

__all__ = ["haproxy"]
SHARES = st.sampled_from([0.0, 1.0, 5.0, 25.0, 50.0, 75.0, 99.0, 100.0])


def said(challenger: float) -> dict[str, float]:
    return {"champion": 100.0 - challenger, "challenger": challenger}


def got(champion: int, challenger: int) -> dict[str, int]:
    return {"champion": champion, "challenger": challenger}


# Found out.


@pytest.mark.parametrize(("percent", "counts", "words"), [
    (0, got(950, 50), "challenger has 0 % and got 5 % of 1000 requests"),
    (100, got(100, 0), "champion has 0 % and got 100 % of 100 requests"),
    (5, got(1000, 0), "challenger has 5 % and got none of 1000 requests"),
    (5, got(500, 500), "challenger has 5 % and got 50 % of 1000 requests"),
    (50, got(200, 0), "challenger has 50 % and got none of 200 requests"),
    (1, got(0, 100), "challenger has 1 % and got 100 % of 100 requests")])
def test_a_router_that_does_something_else_is_found_out(percent: float, counts: dict[str, int], words: str
                                                        ) -> None:
    verdict = judge(said(percent), counts)
    assert (verdict.state, verdict.text) == ("contradicts", words)


@given(SHARES.filter(lambda share: 0 < share < 100))
def test_one_that_does_nothing_of_what_it_says_is_found_out_in_the_requests_it_takes(percent: float) -> None:
    short = judge(said(percent), {}).short
    assert judge(said(percent), got(short, 0)).state == "contradicts"
    assert judge(said(percent), got(0, short)).state == "contradicts"


def test_how_many_requests_that_is() -> None:
    assert {percent: judge(said(percent), {}).short for percent in (1, 5, 25, 50)} == {
        1: 3354, 5: 665, 25: 126, 50: 59}


# Not suspected.


@given(SHARES, st.integers(0, 10**7))
def test_exactly_what_was_said_is_never_a_contradiction(percent: float, requests: int) -> None:
    challenger = round(requests * percent / 100)
    verdict = judge(said(percent), got(requests - challenger, challenger))
    assert verdict.state == ("too_few" if verdict.short else "agrees")


@pytest.mark.parametrize(("percent", "counts"), [
    (0, got(99_200, 800)), (5, got(97_000, 3000)), (5, got(90_500, 9500)), (50, got(30_000, 70_000))])
def test_within_the_tolerance_it_agrees_however_much_is_seen(percent: float, counts: dict[str, int]) -> None:
    assert judge(said(percent), counts).state == "agrees"


@given(SHARES, st.integers(0, 300), st.integers(0, 300))
def test_a_verdict_says_as_much_as_the_evidence(percent: float, champion: int, challenger: int) -> None:
    verdict = judge(said(percent), got(champion, challenger))
    evidence = ln_e(said(percent), got(champion, challenger))
    assert verdict.ln_e == max(evidence.values())
    assert (verdict.state == "contradicts") == (verdict.ln_e >= math.log(4 / ALPHA))
    assert (verdict.variant is not None) == (verdict.state == "contradicts")


@given(st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.5, 0.8]), st.floats(0, 1))
def test_evidence_does_not_grow_on_average_while_a_share_is_within_its_bounds(share: float, at: float
                                                                              ) -> None:
    """E of one request more, over both outcomes, for any true share within the bounds, side by side."""
    least, most = bounds(share)
    true = least + (most - least) * at
    for side, bound in ((_below, least), (_above, most)):
        if 0 < bound < 1:
            after = true * math.exp(side(bound, 1, 1)) + (1 - true) * math.exp(side(bound, 0, 1))
            assert after <= 1 + 1e-9


def test_looking_again_and_again_at_the_worst_honest_router_rarely_accuses_it() -> None:
    """At the very bound, and at α = .05 instead of 1e-6: at most 5 % in 400 runs of 300 looks."""
    rng = np.random.default_rng(7)
    least, _ = bounds(0.05)
    accused = 0
    for _ in range(400):
        challenger = np.cumsum(rng.binomial(50, least, 300))
        total = 50 * np.arange(1, 301)
        accused += any(judge(said(5), got(int(n - y), int(y)), alpha=0.05).state == "contradicts"
                       for n, y in zip(total[::3], challenger[::3], strict=True))
    assert accused / 400 <= 0.05


@pytest.mark.parametrize(("percent", "leaks"), [(0.0, 0.005), (1.0, 0.01), (5.0, 0.05), (50.0, 0.5)])
def test_an_honest_router_is_not_accused_in_a_day(percent: float, leaks: float) -> None:
    rng = np.random.default_rng(int(percent) + 1)
    watch, states = Watch(), set()
    for second, challenger in enumerate(rng.binomial(500, leaks, 8640)):  # every ten seconds, 50 a second
        states.add(watch.add(said(percent), got(500 - int(challenger), int(challenger)),
                             second * 10.0).state)
    assert states == {"agrees", "too_few"}


# Over time.


def watched(watch: Watch, percent: float, true: float, seconds: int, start: float = 0.0) -> Verdict:
    rng = random.Random(3)
    for second in range(seconds):
        challenger = sum(rng.random() < true for _ in range(50))
        verdict = watch.add(said(percent), got(50 - challenger, challenger), start + second)
    return verdict


def test_what_turns_false_after_a_day_is_found_as_fast_as_at_the_start() -> None:
    watch = Watch()
    for minute in range(24 * 60):
        watch.add(said(5), got(2850, 150), minute * 60.0)
    for second in range(1, 60):
        verdict = watch.add(said(5), got(50, 0), 86_400.0 + second)
        if verdict.state == "contradicts":
            break
    assert verdict.state == "contradicts" and second < 60


def test_what_was_under_way_at_a_change_does_not_count() -> None:
    watch = Watch(settle_s=2)
    watched(watch, 50, 0.5, 60)
    for second in range(3):
        verdict = watch.add(said(0), got(25, 25), 60.0 + second)
        assert verdict.text == "the weights were changed just now"
    assert watched(watch, 0, 0.0, 20, 63.0).state == "agrees"


def test_little_traffic_says_so_and_how_much_it_takes() -> None:
    watch = Watch()
    watch.add(said(5), {}, 0.0)
    watch.add(said(5), {}, 2.0)
    verdict = watch.add(said(5), got(19, 1), 3.0)
    assert (verdict.state, verdict.short) == ("too_few", 645)
    assert "it takes about 645 more" in verdict.text


def test_counters_that_begin_again_are_counted_from_there() -> None:
    counters = Counters()
    assert counters.new({"a": 100.0, "b": 5.0}) == {}
    assert counters.new({"a": 110.0, "b": 5.0}) == {"a": 10, "b": 0}
    assert counters.new({"a": 3.0, "b": 1.0, "c": 2.0}) == {"a": 3, "b": 1, "c": 2}


# The real thing.


async def test_a_real_router_that_keeps_its_word_agrees_and_one_that_says_5_and_does_50_is_found_out(
        haproxy: RealHAProxy) -> None:
    router = HAProxyRouter({"flights": HAProxy(kind="haproxy", socket=haproxy.admin, backend="flights",
                                               servers=SERVERS)})

    class Liar(HAProxyRouter):
        async def read(self, service: str) -> dict[str, float]:
            return CANARY

    async def verdict(router: HAProxyRouter, times: int) -> Verdict:
        watch, counters = Watch(settle_s=0), Counters()
        await look(watch, counters, router, "flights", 0.0)
        haproxy.ask(times)
        return await look(watch, counters, router, "flights", 1.0)

    await router.shift("flights", {"champion": 50.0, "challenger": 50.0})
    assert (await verdict(router, 100)).state == "agrees"
    found = await verdict(Liar(router._services), 100)
    assert found.text == "challenger has 5 % and got 50 % of 100 requests"
    await router.shift("flights", ALL)
    assert (await verdict(router, 60)).state == "agrees"
