"""A training whose larger group cannot start tries less and less often."""

from vitops.training.growth import LONGEST_SECONDS, LOOK_SECONDS, Growth


def test_looks_have_the_same_pause_between_them_and_before_the_first():
    growth = Growth()
    assert [growth.take_look(now) for now in (100.0, 100.0 + LOOK_SECONDS - 0.1, 100.0 + LOOK_SECONDS)] == [
        False,
        False,
        True,
    ]
    assert [growth.take_look(now) for now in (106.0, 100.0 + 2 * LOOK_SECONDS)] == [False, True]


def test_every_try_that_fails_doubles_the_work_before_the_next_up_to_a_limit():
    growth, now, pauses = Growth(), 0.0, []
    for _ in range(9):
        pauses.append(growth.failed())
        now += 1000.0  # the smaller group starts: no work is done meanwhile
        assert not growth.take_look(now)
        assert not growth.take_look(now + pauses[-1] - 0.1)
        now += pauses[-1]
        assert growth.take_look(now)
    assert pauses == [10, 20, 40, 80, 160, 320, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]
