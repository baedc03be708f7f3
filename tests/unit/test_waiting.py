"""The waiting line: first come, first served, and nobody holds a place after leaving."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from glm_rag.waiting import WaitingLine


def test_the_first_is_served_at_once_and_others_know_how_many_are_before_them():
    line = WaitingLine()
    with line.join() as first, line.join() as second, line.join() as third:
        assert [first.ahead, second.ahead, third.ahead] == [0, 1, 2]
        assert first.wait(0)
        assert not second.wait(0)


def test_who_leaves_while_waiting_lets_those_behind_move_up():
    line = WaitingLine()
    with line.join(), ExitStack() as impatient:
        impatient.enter_context(line.join())
        with line.join() as last:
            assert last.ahead == 2
            impatient.close()
            assert last.ahead == 1
            assert not last.wait(0)


def join_and_fail(line):
    with line.join() as ticket:
        assert ticket.wait(0)
        1 / 0  # noqa: B018


def test_an_exception_in_the_block_gives_the_place_up():
    line = WaitingLine()
    with pytest.raises(ZeroDivisionError):
        join_and_fail(line)
    with line.join() as next_one:
        assert next_one.ahead == 0


def test_tickets_are_served_in_the_order_they_came():
    line = WaitingLine()
    served: list[int] = []
    joined = [threading.Event() for _ in range(8)]
    start = threading.Event()

    def visit(number):
        with line.join() as ticket:
            joined[number].set()
            start.wait(10)
            assert ticket.wait(10)
            assert line_is_ours.acquire(blocking=False)  # nobody else is served meanwhile
            served.append(number)
            line_is_ours.release()

    line_is_ours = threading.Lock()
    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=visit, args=(number,)))
        threads[-1].start()
        assert joined[number].wait(10)
    start.set()
    for thread in threads:
        thread.join(10)
    assert served == list(range(8))


def test_a_waiting_ticket_wakes_up_when_its_turn_comes():
    line = WaitingLine()
    came = threading.Event()
    with ExitStack() as busy:
        busy.enter_context(line.join())

        def wait():
            with line.join() as ticket:
                if ticket.wait(10):
                    came.set()

        thread = threading.Thread(target=wait)
        thread.start()
        assert not came.wait(0.05)
        busy.close()
        assert came.wait(10)
        thread.join(10)


def test_several_places_serve_several_at_once():
    line = WaitingLine(2)
    with line.join() as first, line.join() as second, line.join() as third:
        assert [ticket.wait(0) for ticket in (first, second, third)] == [True, True, False]
        assert third.ahead == 1


def test_a_ticket_is_void_outside_its_block_and_a_line_has_a_place():
    line = WaitingLine()
    with line.join() as ticket:
        pass
    with pytest.raises(RuntimeError, match="join again"):
        ticket.wait(0)
    with pytest.raises(ValueError, match="at least 1"):
        WaitingLine(0)
