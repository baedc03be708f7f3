"""The line before a model: owners take turns, and nobody holds a place after leaving."""

from __future__ import annotations

import threading
import time

import pytest

from glm_rag.waiting import FairLine, LineClosedError, LineFullError


class Clock:
    """Time that a test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def entered(line, *owners):
    return [line.enter(owner) for owner in owners]


def test_a_fair_line_serves_so_many_and_seats_so_many():
    line = FairLine(2, 1)
    served = entered(line, "a", "a")
    waiting = line.enter("a")
    assert [ticket.state for ticket in (*served, waiting)] == ["served", "served", "waiting"]
    with pytest.raises(LineFullError):
        line.enter("b")
    assert (line.num_running, line.num_waiting) == (2, 1)
    served[0].leave()
    assert waiting.state == "served"
    assert (line.num_running, line.num_waiting) == (2, 0)


def test_without_seats_nobody_waits():
    line = FairLine(8, 0)
    entered(line, *"aaaaaaaa")
    with pytest.raises(LineFullError):
        line.enter("b")


def test_any_number_may_wait_where_no_seats_are_counted():
    line = FairLine(1)
    entered(line, *"abc" * 500)
    assert line.num_waiting == 1499


@pytest.mark.parametrize(("places", "seats"), [(0, 1), (1, -1)])
def test_a_line_has_a_place_and_no_negative_seats(places, seats):
    with pytest.raises(ValueError, match="needs a place"):
        FairLine(places, seats)


def test_owners_take_turns_whoever_has_more():
    line = FairLine(1, 10)
    served = line.enter("many")
    waiting = {name: line.enter(name[0]) for name in ("m1", "m2", "m3", "f1", "g1", "f2")}
    order = []
    while line.num_waiting:
        served.leave()
        name, served = next(
            (name, ticket)
            for name, ticket in waiting.items()
            if ticket.state == "served" and name not in order
        )
        order.append(name)
    assert order == ["m1", "f1", "g1", "m2", "f2", "m3"]


def test_the_position_is_how_many_leave_before():
    line = FairLine(2, 20)
    served = entered(line, "x", "y")
    waiting = entered(line, *"aaabbc")
    ahead = {ticket: ticket.ahead for ticket in waiting}
    num_left = 0
    while any(ticket.state == "waiting" for ticket in waiting):
        served.pop(0).leave()
        num_left += 1
        turn = next(t for t in waiting if t.state == "served" and t not in served)
        if turn in ahead:
            assert ahead.pop(turn) == num_left
        waiting.remove(turn)
        served.append(turn)
    assert not ahead


def test_leaving_the_line_lets_the_others_move_up():
    line = FairLine(1, 5)
    line.enter("a")
    first, second = entered(line, "a", "a")
    assert (first.ahead, second.ahead) == (1, 2)
    first.leave()
    first.leave()
    assert (second.ahead, line.num_waiting) == (1, 1)


def test_a_turn_is_told_once_and_outside_the_lock():
    line, told = FairLine(1, 5), []
    served = line.enter("a", lambda: told.append("never"))
    line.enter("b", lambda: told.append(line.num_running))
    assert told == []
    served.leave()
    assert told == [1]


def test_a_closed_line_sends_away_who_waits_and_keeps_who_is_served():
    line, told = FairLine(1, 5), []
    served = line.enter("a")
    waiting = line.enter("b", lambda: told.append("b"))
    line.close()
    assert (served.state, waiting.state, told) == ("served", "refused", ["b"])
    with pytest.raises(LineClosedError):
        line.enter("c")
    served.leave()
    waiting.leave()
    assert line.num_running == 0


def test_the_time_to_wait_follows_how_long_places_are_kept():
    clock = Clock()
    line = FairLine(2, 0, clock=clock)
    for _ in range(40):
        tickets = entered(line, "a", "a")
        clock.now += 60
        for ticket in tickets:
            ticket.leave()
    entered(line, "a", "a")
    with pytest.raises(LineFullError) as full:
        line.enter("b")
    assert 28 <= full.value.retry_after <= 30  # two places, each kept for a minute


def test_threads_never_get_more_places_than_there_are():
    line, most = FairLine(3, 1000), []

    def use(owner):
        turn = threading.Event()
        ticket = line.enter(owner, turn.set)
        if ticket.state == "waiting":
            assert turn.wait(20)
        most.append(line.num_running)
        time.sleep(0.0005)
        ticket.leave()

    threads = [threading.Thread(target=use, args=(str(n % 4),)) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(most) == 60
    assert max(most) <= 3
    assert (line.num_running, line.num_waiting) == (0, 0)
