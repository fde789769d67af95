"""When a limit fires, when it clears, and what the alert says."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import Config, Limit
from engine.monitoring.alerts import AlertBook, lasting
from engine.monitoring.histograms import Histogram
from engine.monitoring.limits import Hold, judge
from engine.monitoring.signals import Signals

WALL = 1_795_000_000.0
BOUNDS = tuple(0.001 * 1.1**i for i in range(100))


def latency(ms: float, requests: int = 100) -> Signals:
    """Fresh signals of requests that all took about `ms`."""
    own = [0] * 101
    own[sum(bound < ms / 1000 for bound in BOUNDS)] = requests
    histogram = Histogram.of(BOUNDS, accumulate(own))
    at = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), float(ms))
    return Signals(rps=requests / 60, stale=False, requests=requests, latency=histogram,
                   error_ratio=0.0, age_s=0.5, in_flight=1.0, **at)


FAST, SLOW = latency(20), latency(212)
STALE = Signals(stale=True)
IDLE = Signals(rps=0.0, stale=False, requests=0.0)


class Watch:
    """A book of alerts for `flights`, fed once a second."""

    def __init__(self, **limits) -> None:
        config = Config.model_validate({"services": {"flights": {"limits": limits}}})
        self.book = AlertBook(config.services)
        self.at = 1000.0
        self.told: list = []

    def see(self, whole: Signals, seconds: int = 1, silent_s: float = 0.5, **variants) -> list[str]:
        """The kinds of change in the next `seconds` of the same signals."""
        before = len(self.told)
        for _ in range(seconds):
            self.at += 1
            self.told += self.book.update("flights", whole, variants, silent_s=silent_s,
                                          now=self.at, wall=WALL + self.at)
        return [change.kind for change in self.told[before:]]

    @property
    def alert(self):
        [alert] = self.book.firing()
        return alert


def p99(**more) -> Watch:
    return Watch(p99_ms={"above": 150, "for": "60s", "level": "page",
                         "runbooks": ["high-latency"], **more})


def test_a_limit_fires_once_when_it_has_been_over_for_its_hold_time():
    watch = p99()
    assert watch.see(SLOW, 60) == []
    assert watch.see(SLOW, 100) == ["alert.fired"]
    assert watch.alert.since == WALL + 1001.0
    assert (watch.alert.id, watch.alert.signal) == ("flights/p99_ms", "p99_ms")
    assert (watch.alert.level, watch.alert.runbooks) == ("page", ["high-latency"])


def test_being_well_for_one_second_begins_the_hold_time_again():
    watch = p99()
    watch.see(SLOW, 59)
    watch.see(FAST)
    assert watch.see(SLOW, 60) == []
    assert watch.see(SLOW) == ["alert.fired"]


def test_an_alert_clears_when_it_has_been_well_for_the_hold_time():
    watch = p99()
    watch.see(SLOW, 61)
    assert watch.see(FAST, 60) == []
    watch.see(SLOW)
    assert watch.see(FAST, 60) == []
    assert watch.see(FAST) == ["alert.cleared"]
    assert watch.book.firing() == []
    assert watch.told[-1].data["text"] == (
        "flights: p99 is well again, after 3 min over 150 ms")


def test_a_short_hold_time_still_wants_half_a_minute_of_recovery():
    watch = p99(**{"for": "0s"})
    assert watch.see(SLOW) == ["alert.fired"]
    assert watch.see(FAST, 30) == []
    assert watch.see(FAST) == ["alert.cleared"]


def test_stale_data_neither_fires_nor_clears_and_stops_the_clock():
    watch = p99()
    watch.see(SLOW, 40)
    assert watch.see(STALE, 500) == []
    # 40 s make 39 s between them; the first second after the silence vouches for nothing
    assert watch.see(SLOW, 21) == []
    assert watch.see(SLOW) == ["alert.fired"]
    assert watch.see(STALE, 500) == []
    assert watch.alert.title.endswith("no fresh data")


def test_numbers_of_the_targets_that_still_answer_do_not_count_while_others_are_silent():
    partly = replace(SLOW, stale=True), replace(FAST, stale=True)
    watch = p99()
    assert watch.see(partly[0], 500) == []
    watch.see(SLOW, 61)
    assert watch.see(partly[1], 500) == []


def test_age_fires_on_staleness_itself():
    watch = Watch(age_s={"above": 30, "for": "0s"})
    assert watch.see(STALE, silent_s=29.0) == []
    assert watch.see(STALE, silent_s=42.0) == ["alert.fired"]
    assert watch.alert.title == "no fresh data for 42 s, over 30 s"
    assert watch.see(FAST, 31, silent_s=0.5) == ["alert.cleared"]
    assert watch.told[-1].data["text"].startswith("flights: fresh data again, after ")


def test_a_canary_that_is_over_is_not_hidden_by_the_rest_and_is_named():
    watch = p99()
    assert watch.see(FAST, 61, champion=FAST, challenger=SLOW) == ["alert.fired"]
    watch.see(FAST, 150, champion=FAST, challenger=SLOW)
    assert watch.alert.title == "p99 212 ms, over 150 ms for 3 min, challenger only"
    assert watch.told[0].data["text"] == (
        "flights: p99 212 ms, over 150 ms for 1 min, challenger only")


def test_where_all_variants_are_over_none_is_named():
    watch = p99()
    watch.see(SLOW, 61, champion=SLOW, challenger=SLOW)
    assert watch.alert.title == "p99 212 ms, over 150 ms for 1 min"


def test_two_of_three_variants_are_named_with_their_own_numbers():
    watch = p99()
    watch.see(FAST, 61, a=SLOW, b=SLOW, c=FAST)
    assert watch.alert.title == "p99 212 ms, over 150 ms for 1 min, a and b"


def test_a_service_of_one_variant_does_not_name_it():
    watch = p99()
    watch.see(SLOW, 61, champion=SLOW)
    assert watch.alert.title == "p99 212 ms, over 150 ms for 1 min"


def test_one_alert_stands_for_all_variants_until_the_last_is_well():
    watch = p99()
    assert watch.see(SLOW, 61, champion=SLOW, challenger=SLOW) == ["alert.fired"]
    assert watch.see(FAST, 100, champion=FAST, challenger=SLOW) == []
    assert watch.alert.title.endswith("challenger only")
    assert watch.see(FAST, 61, champion=FAST, challenger=FAST) == ["alert.cleared"]


def test_a_bad_canary_that_is_removed_takes_its_alert_with_it():
    watch = p99()
    watch.see(FAST, 61, champion=FAST, challenger=SLOW)
    assert watch.see(FAST, 1, champion=FAST) == ["alert.cleared"]


def test_a_bad_canary_that_gets_no_more_traffic_is_well():
    watch = p99()
    watch.see(FAST, 61, champion=FAST, challenger=SLOW)
    assert watch.see(FAST, 61, champion=FAST, challenger=IDLE) == ["alert.cleared"]


def test_while_it_recovers_an_alert_says_so():
    watch = p99()
    watch.see(SLOW, 61)
    watch.see(FAST, 10)
    assert watch.alert.title.startswith("p99 20")
    assert watch.alert.title.endswith("was over 150 ms for 1 min, clears when it stays well")


@pytest.mark.parametrize(("slow", "verdict"), [(2, "unknown"), (3, "over")])
def test_a_percentile_needs_three_slow_requests_before_it_counts(slow, verdict):
    assert judge("p99_ms", Limit(above=150), latency(400, requests=slow)) == verdict


@pytest.mark.parametrize(("failed", "verdict"), [(2, "unknown"), (3, "over")])
def test_an_error_ratio_needs_three_failures_before_it_counts(failed, verdict):
    signals = Signals(stale=False, requests=10.0, error_ratio=failed / 10)
    assert judge("error_ratio", Limit(above=0.01), signals) == verdict


@pytest.mark.parametrize(("signals", "verdict"), [
    (Signals(rps=3.0, stale=False, requests=180.0), "over"),
    (IDLE, "over"),
    (Signals(rps=12.0, stale=False, requests=720.0), "well"),
    (STALE, "unknown"),
    (Signals(stale=False), "unknown"),
])
def test_traffic_that_is_missing_is_over_a_limit_below(signals, verdict):
    assert judge("rps", Limit(below=10), signals) == verdict


def test_a_limit_below_says_under():
    watch = Watch(rps={"below": 10, "for": "0s"})
    watch.see(Signals(rps=3.25, stale=False, requests=195.0))
    assert watch.alert.title == "rate 3.25/s, under 10/s for 0 s"


def test_errors_are_shown_in_percent():
    watch = Watch(error_ratio={"above": 0.01, "for": "0s"})
    watch.see(Signals(stale=False, requests=1000.0, error_ratio=0.021))
    assert watch.alert.title == "errors 2.1 %, over 1 % for 0 s"


def test_a_number_hardly_over_its_limit_is_shown_so_that_it_differs_from_it():
    watch = Watch(p99_ms={"above": 150, "for": "0s"})
    signals = latency(212)
    watch.see(Signals(p99_ms=150.4, stale=False, requests=100.0, latency=signals.latency))
    assert watch.alert.title == "p99 150.4 ms, over 150 ms for 0 s"


def test_pages_come_first_then_the_oldest():
    watch = Watch(p50_ms={"above": 150, "for": "0s"}, p95_ms={"above": 150, "for": "5s"},
                  p99_ms={"above": 150, "for": "5s", "level": "page"})
    watch.see(SLOW, 10)
    assert [alert.signal for alert in watch.book.firing()] == ["p99_ms", "p50_ms", "p95_ms"]


def test_after_a_restart_an_alert_goes_on_without_being_told_again():
    before = p99()
    before.see(SLOW, 61)
    after = p99()
    assert after.book.restore([before.alert], 5000.0, WALL + 1100.0) == []
    after.at = 5000.0
    assert after.see(STALE, 10) == []
    assert after.alert.since == before.alert.since
    assert after.see(SLOW, 100) == []
    assert after.see(FAST, 61) == ["alert.cleared"]


def test_after_a_restart_a_canary_alert_does_not_blink():
    before = p99()
    before.see(FAST, 61, champion=FAST, challenger=SLOW)
    after = p99()
    after.book.restore([before.alert], 5000.0, WALL + 1100.0)
    assert after.see(FAST, 300, champion=FAST, challenger=SLOW) == []
    assert after.alert.title.endswith("challenger only")


def test_an_alert_whose_limit_left_the_config_is_cleared_at_the_restart():
    before = p99()
    before.see(SLOW, 61)
    [change] = Watch().book.restore([before.alert], 5000.0, WALL)
    assert change.kind == "alert.cleared"
    assert "no limit in the config" in change.data["text"]


verdicts = st.lists(st.tuples(st.sampled_from(["over", "well", "unknown"]), st.integers(1, 80)),
                    max_size=30)


@given(verdicts, st.sampled_from([0.0, 5.0, 60.0]))
def test_every_change_is_paid_for_by_a_sustained_crossing(runs, hold_s):
    hold = Hold(hold_s)
    seen = [verdict for verdict, seconds in runs for _ in range(seconds)]
    changes = sum(hold.step(float(at), verdict) for at, verdict in enumerate(seen))
    # a stretch may be interrupted by silence, never by the opposite
    stretches = [(verdict, len(list(some))) for verdict, some in
                 groupby(verdict for verdict in seen if verdict != "unknown")]
    fires = sum(verdict == "over" and length >= hold_s for verdict, length in stretches)
    clears = sum(verdict == "well" and length >= max(hold_s, 30) for verdict, length in stretches)
    assert changes <= fires + clears
    assert changes <= 2 * min(fires, clears) + 1


@given(st.lists(st.sampled_from(["over", "well"]), max_size=300))
def test_a_signal_that_jitters_about_its_limit_makes_no_change(seen):
    hold = Hold(60.0)
    jitter = [verdict for at, verdict in enumerate(seen)
              for verdict in ([verdict] if at % 25 else ["over", "well"])]
    assert not any(hold.step(float(at), verdict) for at, verdict in enumerate(jitter))


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (7500, "2 h 5 min"),
    (86400, "1 d"), (97200, "1 d 3 h")])
def test_durations_are_said_as_people_say_them(seconds, text):
    assert lasting(seconds) == text
