"""Requests side by side: in order, few at a time, none left behind, and no reason for a process to stay."""

import subprocess
import sys
import threading
import time

import pytest

from vitops.store.side_by_side import WIDTH, side_by_side


def test_answers_come_in_order_and_no_item_is_taken_before_its_turn():
    taken, answered = [], []

    def items():
        for number in range(20):
            taken.append(number)
            assert len(taken) - len(answered) <= WIDTH
            yield number

    def work(number):
        time.sleep(0.01 * (number % 3))
        return -number

    for answer in side_by_side(work, items()):
        answered.append(answer)
    assert answered == [-number for number in range(20)]


def test_a_failure_is_raised_when_nothing_is_under_way_any_more():
    ended = threading.Event()

    def work(number):
        if not number:
            raise ConnectionError
        time.sleep(0.2)
        ended.set()

    with pytest.raises(ConnectionError):
        list(side_by_side(work, range(2)))
    assert ended.is_set()


def test_a_process_ends_although_a_request_hangs():
    code = """
import threading, time
from vitops.store.side_by_side import side_by_side

def ask():
    list(side_by_side(lambda _: time.sleep(600), range(2)))

threading.Thread(target=ask, daemon=True).start()
time.sleep(0.2)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
