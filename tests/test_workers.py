"""Threads beside the one that computes: order, overlap, errors, and what is finished when one occurs."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caguda.datasets.workers import in_background, prefetched

PATIENCE = 60.0


@given(items=st.lists(st.none() | st.integers()))
def test_all_items_come_in_their_order(items: list[int | None]) -> None:
    assert list(prefetched(iter(items))) == items
    assert list(in_background(items, lambda item: (item, "done"))) == [(item, "done") for item in items]


def test_work_and_the_making_of_the_next_item_wait_for_each_other() -> None:
    """Which would never end if one came after the other."""
    made, worked = threading.Event(), threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        made.set()
        assert worked.wait(PATIENCE)
        yield "second"

    def work(item: str) -> str:
        assert made.wait(PATIENCE)
        worked.set()
        return item

    assert list(in_background(items(), work)) == ["first", "second"]


def test_the_next_item_is_made_while_one_is_at_work_and_none_beyond_it() -> None:
    begun = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(begun):
            event.set()
            yield number

    for number in prefetched(items()):
        assert number == 3 or begun[number + 1].wait(PATIENCE)
        assert not any(event.is_set() for event in begun[number + 2 :])


def test_an_error_of_the_work_is_raised_and_nothing_worked_on_after_it() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return 1 // (item - 2)

    results = in_background(range(9), work)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert begun == [0, 1, 2]


def test_an_error_of_the_next_item_leaves_the_work_before_it_finished() -> None:
    finished: list[int] = []
    failing = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        failing.set()
        raise KeyboardInterrupt

    def work(item: int) -> None:
        assert failing.wait(PATIENCE)
        finished.append(item)

    with pytest.raises(KeyboardInterrupt):
        list(in_background(items(), work))
    assert finished == [0]
