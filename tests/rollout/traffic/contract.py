"""What every adapter of traffic keeps to, shown against its real part.

A file of tests for an adapter has a class that inherits `Contract` and a fixture `part`, a `Part`:
the adapter speaks to the real thing through a `Meddler`, that can break what goes through, while
`in_force` and `set_directly` reach the real thing by another way. Both variants start at 100 and 0.

    class TestHAProxy(Contract):
        @pytest.fixture
        async def part(self, …) -> AsyncIterator[Part]: …

The adapter is one that is quick to give up, with a timeout of half a second or so.
"""

from __future__ import annotations

import abc

import pytest

from engine.errors import ActionFailed, NotFound, OutcomeUnknown
from engine.rollout.traffic.router import DetailedRouter
from tests.rollout.traffic.meddler import Meddler, Trouble

ALL = {"champion": 100.0, "challenger": 0.0}
NONE = {"champion": 0.0, "challenger": 100.0}
CANARY = {"champion": 95.0, "challenger": 5.0}
SPLITS = [(99.0, 1.0), (95.0, 5.0), (75.0, 25.0), (50.0, 50.0), (200 / 3, 100 / 3), (87.5, 12.5),
          (1.0, 99.0), (99.5, 0.5), (61.8, 38.2)]


class Part(abc.ABC):
    """A real part with the variants champion and challenger, and a way to break it.

    `router`: the adapter, through the meddler. `step`: the largest step of its weights in percent, 0
    where they are exact. `refusal`: words of the meddler's refusal that the adapter passes on.
    """

    service = "flights"
    step = 0.0
    refusal = ""

    router: DetailedRouter
    meddler: Meddler

    @abc.abstractmethod
    async def in_force(self) -> dict[str, float]:
        """The percents that the real part has, read without the adapter."""

    @abc.abstractmethod
    async def set_directly(self, weights: dict[str, float]) -> None:
        """Set percents as somebody else would, without the adapter."""

    async def make(self, trouble: Trouble, *, reads: bool = False) -> None:
        await self.meddler.make(trouble, reads)


def near(split: dict[str, float], half_step: float = 0.0) -> object:
    return pytest.approx(split, abs=max(half_step, 0.0) + 1e-6)


class Contract:
    """Inherit it; each test here is a promise of the port, `engine.rollout.traffic.router`."""

    # Reading.

    async def test_it_knows_more_than_a_plain_router(self, part: Part) -> None:
        assert isinstance(part.router, DetailedRouter)

    async def test_what_is_read_is_every_variants_percent_and_adds_up_to_100(self, part: Part) -> None:
        await part.set_directly({"champion": 200 / 3, "challenger": 100 / 3})
        read = await part.router.read(part.service)
        assert set(read) == {"champion", "challenger"}
        assert sum(read.values()) == pytest.approx(100)
        assert read == near(await part.in_force())
        assert (await part.router.traffic(part.service)).weights == near(read)

    async def test_a_service_it_does_not_route_is_not_found(self, part: Part) -> None:
        with pytest.raises(NotFound) as failed:
            await part.router.read("fraud")
        assert "fraud" in failed.value.message and failed.value.hint
        with pytest.raises(NotFound):
            await part.router.shift("fraud", ALL)

    # Shifting.

    async def test_a_shift_is_in_force_and_says_so(self, part: Part) -> None:
        for split in (CANARY, NONE, ALL):
            said = await part.router.shift(part.service, split)
            assert said == near(split, part.step / 2)
            assert said == near(await part.in_force())
            assert await part.router.read(part.service) == near(said)

    @pytest.mark.parametrize("split", SPLITS, ids=lambda split: f"{split[1]:g}%")
    async def test_a_split_that_the_router_cannot_express_is_within_half_a_step(
            self, part: Part, split: tuple[float, float]) -> None:
        wanted = {"champion": split[0], "challenger": split[1]}
        said = await part.router.shift(part.service, wanted)
        assert said == near(wanted, part.step / 2)
        assert sum(said.values()) == pytest.approx(100)
        assert all(weight > 0 for weight in (await part.in_force()).values())

    async def test_nothing_stays_nothing_and_all_stays_all(self, part: Part) -> None:
        await part.router.shift(part.service, CANARY)
        assert await part.router.shift(part.service, NONE) == NONE
        assert await part.router.shift(part.service, ALL) == ALL
        assert await part.in_force() == ALL

    async def test_a_variant_that_is_not_named_gets_nothing(self, part: Part) -> None:
        assert await part.router.shift(part.service, {"challenger": 100.0}) == NONE
        assert await part.in_force() == NONE

    async def test_to_say_it_twice_is_to_say_it_once(self, part: Part) -> None:
        first = await part.router.shift(part.service, CANARY)
        assert await part.router.shift(part.service, CANARY) == first
        assert await part.in_force() == near(first)

    @pytest.mark.parametrize("weights", [
        {"champion": 50.0, "other": 50.0}, {"champion": 50.0}, {"champion": 150.0, "challenger": -50.0}, {}],
        ids=str)
    async def test_what_is_no_split_is_refused_before_anything_changed(
            self, part: Part, weights: dict[str, float]) -> None:
        with pytest.raises(ActionFailed):
            await part.router.shift(part.service, weights)
        assert await part.in_force() == ALL

    # Two at a time.

    async def test_a_shift_from_what_is_there_is_done(self, part: Part) -> None:
        seen = await part.router.traffic(part.service)
        assert await part.router.shift_from(seen, part.service, CANARY) == near(CANARY, part.step / 2)
        assert await part.in_force() == near(CANARY, part.step / 2)

    async def test_a_shift_from_what_somebody_changed_since_is_refused(self, part: Part) -> None:
        seen = await part.router.traffic(part.service)
        await part.set_directly({"champion": 50.0, "challenger": 50.0})
        with pytest.raises(ActionFailed):
            await part.router.shift_from(seen, part.service, CANARY)
        assert await part.in_force() == near({"champion": 50.0, "challenger": 50.0})

    # Broken.

    async def test_one_that_is_down_is_known_to_have_changed_nothing(self, part: Part) -> None:
        await part.make("down")
        with pytest.raises(ActionFailed):
            await part.router.read(part.service)
        with pytest.raises(ActionFailed):
            await part.router.shift(part.service, CANARY)
        assert await part.in_force() == ALL

    async def test_one_that_comes_back_is_used_again(self, part: Part) -> None:
        await part.make("down")
        with pytest.raises(ActionFailed):
            await part.router.shift(part.service, CANARY)
        await part.make("none")
        assert await part.router.shift(part.service, CANARY) == near(CANARY, part.step / 2)

    @pytest.mark.parametrize(("trouble", "after"), [("cut", CANARY), ("swallow", ALL), ("slow", ALL)])
    async def test_a_change_that_was_sent_and_not_answered_is_unknown(
            self, part: Part, trouble: Trouble, after: dict[str, float]) -> None:
        await part.make(trouble)
        with pytest.raises(OutcomeUnknown) as failed:
            await part.router.shift(part.service, CANARY)
        assert failed.value.hint
        assert await part.in_force() == near(after, part.step / 2)

    @pytest.mark.parametrize("trouble", ["swallow", "slow", "garbage"])
    async def test_a_reading_that_breaks_changed_nothing(self, part: Part, trouble: Trouble) -> None:
        await part.make(trouble, reads=True)
        with pytest.raises(ActionFailed):
            await part.router.read(part.service)

    async def test_an_answer_that_is_none_leaves_the_change_unknown(self, part: Part) -> None:
        await part.make("garbage")
        with pytest.raises(OutcomeUnknown):
            await part.router.shift(part.service, CANARY)

    async def test_a_refusal_is_passed_on_in_the_routers_words(self, part: Part) -> None:
        await part.make("refuse")
        with pytest.raises(ActionFailed) as failed:
            await part.router.shift(part.service, CANARY)
        assert part.refusal and part.refusal in str(failed.value)
        assert await part.in_force() == ALL

    async def test_one_that_says_yes_and_does_nothing_is_not_believed(self, part: Part) -> None:
        """Either the shift fails, or the next reading shows what really is in force."""
        await part.make("lie")
        try:
            await part.router.shift(part.service, CANARY)
        except (ActionFailed, OutcomeUnknown):
            pass
        else:
            assert await part.router.read(part.service) == near(ALL)
        assert await part.in_force() == ALL


class SteppedContract(Contract):
    """For a part that takes a change of the whole split in several steps, so that it may do only some."""

    async def test_a_change_that_was_half_applied_is_unknown_and_says_what_stands(self, part: Part) -> None:
        await part.make("half")
        with pytest.raises(OutcomeUnknown) as failed:
            await part.router.shift(part.service, CANARY)
        standing = await part.in_force()
        assert standing not in (near(CANARY, part.step / 2), near(ALL))
        assert f"{standing['challenger']:.3g}" in failed.value.message
