"""The small state machines of links: what counts as life, which clock is off by how much, which guest must leave."""

from __future__ import annotations

import logging
import random

import pytest

from skippipe.transport.clocks import DRIFT, Clock, ClockOffset
from skippipe.transport.guests import (
    LINE_SECONDS,
    LINES_AT_ONCE,
    MOST_OF_A_NETWORK,
    MOST_OF_A_NODE,
    MOST_OPENINGS,
    BoundedLog,
    Door,
    Guests,
)
from skippipe.transport.identity import AuthenticationError
from skippipe.transport.life import Life, Refusals


def test_connecting_again_and_again_is_no_life_and_neither_are_answers_while_frames_are_owed() -> None:
    life = Life(0.0)
    life.connected(10.0)
    assert life.silent(10.0) == 0
    life.queue(1, 20.0)
    for now in range(21, 60):
        life.connected(now)
        life.answered(now)
        life.acknowledged(0, 0, now)
    assert life.silent(60.0) == 40


def test_what_a_silent_peer_is_sent_does_not_make_its_silence_shorter() -> None:
    life = Life(0.0)
    life.connected(0.0)
    life.answered(10.0)
    life.queue(1, 11.0)
    assert life.silent(16.0) == 6
    # One that was there all the time has as long as any other to take what it is sent.
    life.answered(16.5)
    assert life.silent(17.0) == 6
    life.acknowledged(1, 0, 18.0)
    life.queue(2, 19.0)
    life.queue(3, 20.0)
    life.acknowledged(2, 0, 20.5)
    life.answered(23.0)
    assert life.silent(23.0) == 2.5


def test_bytes_are_life_only_once() -> None:
    life = Life(0.0)
    life.connected(0.0)
    life.queue(1, 0.0)
    for now in range(1, 10):
        life.acknowledged(0, 1000 * now, now)
        assert life.silent(now) == 0
    # A connection that starts anew has to come further than the ones before.
    for now in range(10, 20):
        life.acknowledged(0, 900 * (now - 9), now)
    assert life.silent(20.0) == 11
    life.acknowledged(1, 0, 21.0)
    life.answered(22.0)
    assert life.silent(22.0) == 0


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happens_life_needs_progress(seed: int) -> None:
    generator = random.Random(seed)
    life, now, progressed_at = Life(0.0), 0.0, 0.0
    best, queued, met, asked_at = (0, 0), 0, False, 0.0
    for _ in range(300):
        now += generator.random()
        choice = generator.randrange(4)
        if choice == 0:
            life.connected(now)
            progressed_at, met = (progressed_at if met else now), True
        elif choice == 1:
            if queued == best[0]:
                asked_at = now
            queued += 1
            life.queue(queued, now)
        elif choice == 2 and met:
            position = generator.randint(best[0], queued), generator.randrange(100)
            life.acknowledged(*position, now)
            if position > best:
                best, progressed_at = position, now
        elif met:
            life.answered(now)
            progressed_at = max(progressed_at, asked_at if queued > best[0] else now)
        assert life.silent(now) == pytest.approx(now - progressed_at)


def test_only_the_same_frame_refused_again_is_one_too_many() -> None:
    refusals = Refusals()
    assert [refusals.another(sequence) for sequence in (1, 2, 3, 3)] == [False, False, False, True]


@pytest.mark.parametrize("seed", range(30))
def test_an_offset_is_found_within_its_error_through_delays_and_drift(seed: int) -> None:
    generator = random.Random(seed)
    truth, drift = generator.uniform(-1e9, 1e9), generator.uniform(-DRIFT, DRIFT) / 2
    offset, now = ClockOffset(), 1000.0
    for _ in range(200):
        now += generator.uniform(0.1, 5)
        there, back = generator.expovariate(20), generator.expovariate(20)
        at = now + there
        offset.sample(now, at + truth + drift * at, at + back)
        now = at + back
        assert abs(offset.seconds - truth - drift * now) <= offset.error + DRIFT * (now - offset.sampled_at) + 1e-6
    assert offset.error < 0.05


def test_a_step_of_the_other_clock_is_followed_at_once() -> None:
    offset = ClockOffset()
    offset.sample(10.0, 60.0, 10.001)
    offset.sample(15.0, 665.0, 15.2)
    assert offset.seconds == pytest.approx(649.9)


def test_a_machine_measures_no_offset_to_its_own_clock_and_no_nonsense() -> None:
    offset = ClockOffset()
    offset.sample(1.0, float("nan"), 2.0)
    offset.sample(2.0, 1.0, 1.0)
    assert not offset.known
    offset.same_clock()
    offset.sample(1.0, 5.0, 2.0)
    assert (offset.seconds, offset.error) == (0.0, 0.0)


class SleepyClock(Clock):
    """A clock whose machine is suspended by the test."""

    slept = 0.0

    def since_boot(self) -> float:
        return super().since_boot() + self.slept


def test_a_suspend_changes_no_offset_to_other_machines_and_no_distance_of_monotonic_times() -> None:
    clock = SleepyClock()
    before = clock.wire(100.0)
    assert clock.wire(101.0) - before == 1.0
    clock.slept = 3600.0
    assert clock.wire(100.0) - before == pytest.approx(3600.0, abs=0.01)
    assert clock.wire(101.0) - clock.wire(100.0) == 1.0
    assert clock.from_wire(clock.wire(100.0)) == pytest.approx(100.0)


@pytest.mark.parametrize("seed", range(20))
def test_guests_are_few_and_whoever_comes_gets_in(seed: int) -> None:
    generator, guests, here = random.Random(seed), Guests[int](8, 3), {}
    for guest in range(500):
        address = generator.choice("aaaaaabcdefgh")
        leaving = guests.arrive(guest, address)
        if leaving is not None:
            same = [other for other, its in here.items() if its == address]
            assert leaving == (same[0] if len(same) == 3 else next(iter(here)))
            del here[leaving]
        here[guest] = address
        if generator.random() < 0.2:
            guests.leave(gone := generator.choice(list(here)))
            del here[gone]
        assert guests.origins == here
        assert sum(guests.counts.values()) == len(here) <= 8
        assert max(guests.counts.values(), default=0) <= 3


def test_strangers_do_not_displace_whoever_says_something_that_verifies() -> None:
    door: Door[str] = Door(20)
    assert door.arrive("peer", "10.0.0.1") is None
    assert door.call("peer", b"node 3", b"tag of an opening") is None
    assert not any(door.arrive(f"stranger {number}", "10.0.0.1") == "peer" for number in range(1000))
    assert len(door.strangers.origins) == MOST_OF_A_NETWORK
    assert door.oldest() == f"stranger {1000 - MOST_OF_A_NETWORK}"
    # Openings that were overheard before this process started: few in each name.
    evicted = [door.call(f"stranger {number}", b"node 4", b"%d" % number) for number in range(900, 1000)]
    assert evicted == [None] * MOST_OF_A_NODE + [f"stranger {number}" for number in range(900, 1000 - MOST_OF_A_NODE)]
    with pytest.raises(AuthenticationError, match="used before"):
        door.call("stranger 7", b"node 3", b"tag of an opening")
    for guest in list(door.strangers.origins):
        door.leave(guest)
    assert door.oldest() == "peer"
    door.leave("peer")
    assert "peer" not in door.callers.origins


def test_openings_are_remembered_but_not_without_end() -> None:
    door: Door[int] = Door(2)
    for number in range(MOST_OPENINGS + 1):
        door.call(number, b"node 1", b"%d" % number)
    assert len(door.openings) == MOST_OPENINGS


def test_log_lines_are_few_and_say_what_was_left_out(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    log = BoundedLog(logging.getLogger("test"), lambda: now)
    for _ in range(1000):
        log.warning("stranger %d", 7)
    assert [record.getMessage() for record in caplog.records] == LINES_AT_ONCE * ["stranger 7"]
    now += 1.01 * LINE_SECONDS
    log.warning("stranger %d", 8)
    log.warning("stranger %d", 9)
    assert caplog.records[-1].getMessage() == "stranger 8 (995 more such lines were left out)"
