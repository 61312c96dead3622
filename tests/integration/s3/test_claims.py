"""Claims on an S3 server: one holds at a time; the dead, stopped and cut off are given up and stay so."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from s3_faults import FAULTS

from vitops.errors import Interrupted
from vitops.store.claims import claimed
from vitops.store.s3 import S3Objects

KEY = "a" * 64
LEASE = 3.0
"""Of those who are to be given up."""
STEADY = 8.0
"""Of those who must not be, however busy the machine is."""
HOLDER = f"""
import sys, threading, time
sys.path[:0] = {sys.path!r}
if sys.argv[3] == "jumping":
    import random
    time.time = lambda real=time.time: real() + random.choice((-3600.0, 3600.0))
from s3_side import BRIEF, BUCKET
from vitops.errors import Interrupted
from vitops.store.claims import claimed
from vitops.store.s3 import S3Objects

lost = threading.Event()
objects = S3Objects(BUCKET, sys.argv[1], patience=BRIEF)
options = {{"place": sys.argv[4], "lease": float(sys.argv[2])}}
with claimed(objects, "{KEY}", waiting=lambda: None, lost=lost.set, **options) as claim:
    print("held", claim.token, flush=True)
    sys.stdin.readline()
    try:
        claim.check()
        print("published", flush=True)
    except Interrupted as error:
        print("refused", lost.wait(10), error, flush=True)
"""


@pytest.fixture
def objects(s3):
    return s3.objects()


@pytest.fixture
def holder(s3):
    """Starts processes that hold the key, each by itself; they publish or refuse when told to go on."""
    started = []

    def start(*, lease=LEASE, clock="steady", place="there"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, s3.prefix, str(lease), clock, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline().startswith("held")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def hold(objects, *, lease=60.0, patience=60.0, place="here", lost=lambda: None):
    """``claimed``, which fails with TimeoutError when nobody gives way for ``patience`` seconds."""
    until = time.monotonic() + patience

    def waiting():
        if time.monotonic() > until:
            raise TimeoutError

    return claimed(objects, KEY, place=place, waiting=waiting, lost=lost, lease=lease)


def say(objects, **other):
    """The one claim that is there says something else of its holder."""
    (name,) = (name for name in objects.sizes("claims/") if "." not in name)
    objects.write(name, json.dumps(json.loads(objects.read(name)) | other).encode())


def names(objects):
    return [name.rpartition("/")[2] for name in objects.sizes("claims/")]


def test_of_many_who_want_a_key_one_holds_it_at_a_time(objects):
    inside, tokens = [], []

    def work(place):
        with hold(objects, lease=20.0, place=place) as claim:
            inside.append(claim.token)
            time.sleep(random.uniform(0.0, 0.05))
            tokens.append(tuple(inside))
            inside.remove(claim.token)

    threads = [threading.Thread(target=work, args=(f"home {number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens == [(number,) for number in range(1, 7)]


def test_a_waiter_goes_on_when_the_holder_ends_and_not_before(objects, holder):
    process = holder(lease=120.0)
    with pytest.raises(TimeoutError), hold(objects, patience=2.0):
        pass
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert process.stdout.readline() == "published\n"
    with hold(objects, patience=20.0) as claim:
        assert claim.token == 2


def test_a_killed_holder_is_given_up_after_its_lease(objects, holder):
    holder().kill()
    begun = time.monotonic()
    with hold(objects) as claim:
        assert claim.token == 2
        assert time.monotonic() - begun > LEASE


def test_a_killed_holder_at_the_same_place_is_given_up_at_once(objects, holder):
    """Whoever asks holds the local lock that the dead one held: its lease need not be waited for."""
    holder(lease=3600.0, place="here").kill()
    with hold(objects, patience=5.0) as claim:
        assert claim.token == 2


def test_clock_jumps_on_both_sides_do_no_harm(objects, holder, monkeypatch):
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + random.choice((-3600.0, 3600.0)))
    process = holder(lease=STEADY, clock="jumping")
    with pytest.raises(TimeoutError), hold(objects, patience=1.5 * STEADY):
        pass
    process.stdin.write("go on\n")
    process.stdin.flush()
    assert process.stdout.readline() == "published\n"
    holder(clock="jumping").kill()
    with hold(objects) as claim:
        assert claim.token == 3


def test_a_claim_holds_no_time_that_somebody_could_compare(objects):
    with hold(objects):
        (name,) = objects.sizes("claims/")
        said = json.loads(objects.read(name))
    assert said.keys() == {"ticket", "place", "lease", "host", "pid"}


def test_a_dead_holder_whose_pid_lives_again_is_given_up(objects, holder):
    """The pid in the dead one's claim is made that of this process, as if it had been given out again."""
    holder().kill()
    say(objects, pid=os.getpid())
    with hold(objects) as claim:
        assert claim.token == 2


def test_a_living_holder_whose_pid_is_nobodys_here_is_not_given_up(objects):
    """As in a container with a name and process ids of its own."""
    with hold(objects, lease=STEADY):
        say(objects, pid=2**22 - 1)
        with pytest.raises(TimeoutError), hold(objects, patience=1.5 * STEADY, place="elsewhere"):
            pass


def test_a_stopped_holder_that_goes_on_after_another_took_over_refuses(objects, holder):
    process = holder()
    process.send_signal(signal.SIGSTOP)
    with hold(objects) as claim:
        assert claim.token == 2
        process.send_signal(signal.SIGCONT)
        process.stdin.write("go on\n")
        process.stdin.flush()
        said = process.stdout.readline()
        assert said.startswith("refused True ")
        claim.check()
    process.wait()
    assert names(objects)[-1] == "00000002.done", "the late one frees nothing that is not its own"


def test_a_holder_that_the_server_did_not_hear_for_a_lease_refuses_for_ever(s3, objects):
    told = threading.Event()
    with hold(objects, lease=LEASE, lost=told.set) as claim:
        with s3.proxy.away():
            assert told.wait(60), "the work under way is told at once"
        for _ in range(2):
            with pytest.raises(Interrupted, match=r"has lapsed.*took no sign of life for \d+ s.*publishes nothing"):
                claim.check()
    with hold(objects, patience=5.0) as claim:
        assert claim.token == 2


def test_a_short_absence_of_the_server_costs_nothing(s3, objects):
    with hold(objects, lease=30.0) as claim:
        with s3.proxy.away():
            time.sleep(1.0)
        claim.check()


def test_only_the_latest_claim_stays(objects):
    for token in range(1, 5):
        with hold(objects) as claim:
            assert claim.token == token
    assert names(objects) == ["00000004", "00000004.done"]


def test_who_was_so_slow_that_its_token_was_cleared_away_takes_another(s3, objects):
    rounds = [1, 1]

    class Slow(S3Objects):
        """Others have their turns between its decision and its request."""

        def create(self, name, data):
            while rounds:
                rounds.pop()
                with hold(objects):
                    pass
            return super().create(name, data)

    with hold(objects), pytest.raises(TimeoutError), hold(objects, patience=0.2, place="x"):
        pass
    with hold(s3.objects(kind=Slow), place="slow") as claim:
        assert claim.token == 4
        claim.check()
    assert names(objects) == ["00000004", "00000004.done"]


def test_whatever_happens_to_requests_one_holds_at_a_time_and_is_heard(s3):
    """Every kind of request is struck once by every fault; the six take their turns side by side, each with its key."""

    def turns(fault):
        folder, tokens = f"{s3.prefix}/{fault}/claims", []
        listing = folder.replace("/", "%2F")
        for method, path in (("PUT", folder), ("PUT", ".beat"), ("GET", folder), ("GET", listing), ("DELETE", folder)):
            s3.proxy.strike(method, path, FAULTS[fault], times=1)

        def follow():
            with hold(s3.objects(fault), place="two") as claim:
                claim.check()
                tokens.append(claim.token)

        with ThreadPoolExecutor(1) as pool:
            with hold(s3.objects(fault), place="one", lease=STEADY) as claim:
                following = pool.submit(follow)
                while not s3.proxy.count("PUT", f"{fault}/claims/{KEY}/00000001.beat"):
                    time.sleep(0.05)
                claim.check()
                tokens.append(claim.token)
            following.result()
        return tuple(tokens)

    with ThreadPoolExecutor(len(FAULTS)) as pool:
        assert dict(zip(FAULTS, pool.map(turns, FAULTS), strict=True)) == dict.fromkeys(FAULTS, (1, 2))
    assert [rule for rule in s3.proxy.rules if rule.times] == []
