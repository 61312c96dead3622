"""Objects in S3 behind a proxy: whatever happens to a request, the outcome is right and the requests are few."""

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from s3_faults import cut, error, flipped, lost, reset, slow, spoiled, twice

from vitops.errors import VerificationError, VitopsError
from vitops.store import s3 as s3_module
from vitops.store.patience import Patience
from vitops.store.s3 import S3Objects

ATTEMPTS = 4
MIB = 1 << 20
PASSING = {
    "503": error(503, "SlowDown"),
    "500": error(500, "InternalError"),
    "429": error(429, "TooManyRequests"),
    "reset": reset,
    "lost": lost,
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(s3_module, "PART", 5 * MIB)


@pytest.fixture
def blob(tmp_path):
    """A file of three parts and its SHA-256."""
    data = os.urandom(11 * MIB)
    path = tmp_path / "blob"
    path.write_bytes(data)
    return path, sha256(data)


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("operation", ["read", "write", "create", "sizes", "remove"])
def test_what_passes_is_waited_for(s3, fault, operation):
    objects = s3.objects()
    s3.put("a", b"before")
    asked = {
        "read": ("GET", lambda: objects.read("a") == b"before"),
        "write": ("PUT", lambda: objects.write("a", b"after") or s3.get("a") == b"after"),
        "create": ("PUT", lambda: objects.create("new", b"x") and s3.get("new") == b"x"),
        "sizes": ("GET", lambda: objects.sizes("") == {"a": 6}),
        "remove": ("DELETE", lambda: objects.remove("a") or s3.names() == []),
    }
    method, works = asked[operation]
    s3.proxy.strike(method, "", PASSING[fault], times=2)
    assert works()
    more = fault == "lost" and operation == "create"  # 412, and a look at who won
    assert len(s3.proxy.asked) == 3 + more


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_ends_in_a_bounded_number_of_requests(s3, fault):
    s3.proxy.strike("GET", "", PASSING[fault])
    with pytest.raises(VitopsError, match=f"{s3.url}/a: .*then run again") as failure:
        s3.objects().read("a")
    assert len(s3.proxy.asked) == ATTEMPTS
    assert "AKIASECRET" not in f"{failure.value}{failure.getrepr(chain=True)}"


def test_a_late_answer_is_asked_for_again(s3):
    s3.put("a", b"x")
    s3.proxy.strike("GET", "/a", slow(60.0), times=1)
    started = time.monotonic()
    assert s3.objects(patience=Patience(first_pause=0.01, read_timeout=3.0)).read("a") == b"x"
    assert s3.proxy.count("GET") >= 2
    assert time.monotonic() - started < 60


def test_a_body_cut_short_is_asked_for_again(s3, tmp_path):
    data = os.urandom(3 * MIB)
    s3.put("a", data)
    s3.proxy.strike("GET", "/a", cut, times=2)
    s3.objects().download("a", tmp_path / "a", sha256=sha256(data))
    assert (tmp_path / "a").read_bytes() == data
    assert s3.proxy.count("GET") == 3
    s3.proxy.forget()
    s3.proxy.strike("GET", "/a", cut)
    with pytest.raises(VitopsError, match="breaks off its answers"):
        s3.objects().read("a")
    assert s3.proxy.count("GET") == ATTEMPTS


def test_a_flipped_byte_is_never_handed_out(s3, tmp_path):
    data = os.urandom(MIB)
    s3.put("a", data)
    s3.proxy.strike("GET", "/a", flipped, times=1)
    s3.objects().download("a", tmp_path / "a", sha256=sha256(data))
    assert (tmp_path / "a").read_bytes() == data
    assert s3.proxy.count("GET") == 2
    s3.proxy.forget()
    s3.proxy.strike("GET", "/a", flipped)
    with pytest.raises(
        VerificationError, match=f"{s3.url}/a is not what was published: expected SHA-256 {sha256(data)}"
    ):
        s3.objects().download("a", tmp_path / "b", sha256=sha256(data))
    assert s3.proxy.count("GET") == ATTEMPTS
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_not_there_is_said_at_once(s3, tmp_path):
    objects = s3.objects()
    assert objects.read("a") is None
    assert objects.sha256("a") is None
    with pytest.raises(FileNotFoundError):
        objects.download("a", tmp_path / "a", sha256="0" * 64)
    assert len(s3.proxy.asked) == 3


@pytest.mark.parametrize("fault", [lost, twice])
def test_who_won_and_was_not_told_has_won(s3, fault):
    s3.proxy.strike("PUT", "/a", fault, times=1)
    assert s3.objects().create("a", b"mine")
    assert s3.get("a") == b"mine"
    assert not s3.objects().create("a", b"another's")
    assert s3.get("a") == b"mine"


def test_of_many_who_create_one_wins(s3):
    objects = s3.objects()
    objects.create("warm", b"")
    barrier = threading.Barrier(16)

    def race(number: int) -> bool:
        barrier.wait()
        return objects.create("a", b"%d" % number)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    assert won.count(True) == 1
    assert s3.get("a") == b"%d" % won.index(True)


def test_creating_is_one_request_with_its_condition_and_never_in_parts(s3, small_parts):
    data = os.urandom(6 * MIB)
    assert s3.objects().create("a", data)
    assert s3.proxy.asked == [("PUT", f"/vitops-tests/{s3.prefix}/a")]
    assert not s3.objects().create("a", data[::-1])


def test_expired_credentials_are_read_again_once(s3):
    s3.put("a", b"x")
    expired = error(400, "ExpiredToken")
    s3.proxy.strike("GET", "/a", expired, times=1)
    assert s3.objects().read("a") == b"x"
    s3.proxy.forget()
    s3.proxy.strike("GET", "/a", expired)
    with pytest.raises(VitopsError, match="the credentials have expired: renew them"):
        s3.objects().read("a")
    assert s3.proxy.count("GET") == 2


@pytest.mark.parametrize(
    ("status", "code", "way_out"),
    [
        (403, "AccessDenied", "access is denied: give these credentials"),
        (403, "InvalidAccessKeyId", "the server does not know these credentials: correct AWS_PROFILE"),
        (403, "SignatureDoesNotMatch", "the server does not know these credentials"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (404, "NoSuchBucket", "there is no such bucket: create it, or correct VITOPS_STORE"),
        (400, "AuthorizationHeaderMalformed", "another region: set AWS_DEFAULT_REGION"),
    ],
)
def test_a_refusal_names_the_way_out_at_once_and_no_secret(s3, status, code, way_out):
    s3.proxy.strike("PUT", "", error(status, code))
    with pytest.raises(VitopsError, match=way_out) as failure:
        s3.objects().write("a", b"x")
    assert str(failure.value).startswith(f"{s3.url}/a: ")
    assert len(s3.proxy.asked) == 1
    assert "AKIASECRET" not in str(failure.value)


def test_a_bucket_that_is_not_there_is_named(s3):
    with pytest.raises(VitopsError, match="s3://no-such-bucket/p/a: there is no such bucket"):
        S3Objects("no-such-bucket", "p").write("a", b"")


def test_a_server_that_is_not_there_is_named(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:hunter2@127.0.0.1:9")
    with pytest.raises(VitopsError, match=r"the server 127.0.0.1:9 does not answer .*AWS_ENDPOINT_URL") as failure:
        s3.objects().read("a")
    assert "hunter2" not in str(failure.value)


def test_a_profile_that_is_not_there_is_named(s3, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(VitopsError, match="boto3 finds no such profile"):
        s3.objects().read("a")


def test_large_files_go_in_parts_and_come_back(s3, small_parts, blob, tmp_path):
    path, digest = blob
    s3.objects().upload("a", path, sha256=digest)
    assert s3.proxy.count("PUT", "partNumber=") == 3
    s3.objects().download("a", tmp_path / "b", sha256=digest)
    assert (tmp_path / "b").read_bytes() == path.read_bytes()
    assert s3.objects().sha256("a") == digest
    assert s3.unfinished() == []


@pytest.mark.parametrize("fault", ["503", "429", "lost"])
@pytest.mark.parametrize("request_", [("PUT", "partNumber=2"), ("POST", "uploadId=")])
def test_a_part_or_an_end_that_fails_is_sent_again(s3, small_parts, blob, fault, request_):
    path, digest = blob
    s3.proxy.strike(*request_, PASSING[fault], times=1)
    s3.objects().upload("a", path, sha256=digest)
    assert s3.objects().sha256("a") == digest
    assert s3.proxy.count("PUT", "partNumber=2") + s3.proxy.count("POST", "uploadId=") == 3


@pytest.mark.parametrize("request_", [("PUT", "partNumber=2"), ("POST", "uploadId=")])
def test_an_upload_that_fails_leaves_nothing(s3, small_parts, blob, request_):
    path, digest = blob
    s3.proxy.strike(*request_, PASSING["503"])
    with pytest.raises(VitopsError, match=f"{s3.url}/a"):
        s3.objects().upload("a", path, sha256=digest)
    assert s3.names() == []
    assert s3.unfinished() == []


@pytest.mark.parametrize("size", [100, 11 * MIB])
def test_a_file_that_is_not_what_it_was_is_not_uploaded(s3, small_parts, tmp_path, size):
    path = tmp_path / "altered"
    path.write_bytes(os.urandom(size))
    with pytest.raises(VerificationError, match=f"{path} is not what it was"):
        s3.objects().upload("a", path, sha256="0" * 64)
    assert s3.names() == []
    assert s3.unfinished() == []


def test_bytes_changed_on_their_way_up_are_refused_and_sent_again(s3, request):
    if request.config.getoption("--s3-endpoint") is None:
        pytest.skip("moto's server compares no checksum")
    s3.proxy.strike("PUT", "/a", spoiled, times=1)
    s3.objects().write("a", b"as it should be")
    assert s3.get("a") == b"as it should be"
    assert s3.proxy.count("PUT") == 2


def test_listings_go_on_behind_their_first_page(s3):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: s3.put(f"n/{number:04d}", b"x" * (number % 3)), range(1001)))
    found = s3.objects().sizes("n/")
    assert found == {f"n/{number:04d}": number % 3 for number in range(1001)}
    assert s3.proxy.count("GET") == 2
    assert list(s3.objects().sizes("n/", after="n/0998")) == ["n/0999", "n/1000"]
    assert s3.objects().sizes("none/") == {}
