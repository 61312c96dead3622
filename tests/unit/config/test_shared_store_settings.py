"""The settings of a shared store: which places they can name, and what they say otherwise."""

import pytest

from vitops.config.shared_store import BucketPlace, cache_limit, shared_store
from vitops.errors import UsageError

GIB = 1 << 30


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("", None),
        ("s3://bucket", BucketPlace("bucket", "")),
        ("s3://bucket/", BucketPlace("bucket", "")),
        ("s3://a.b-c/team/year=2026/", BucketPlace("a.b-c", "team/year=2026")),
    ],
)
def test_a_store_is_shared_where_the_setting_names_a_bucket(monkeypatch, url, place):
    monkeypatch.setenv("VITOPS_STORE", url)
    assert shared_store() == place


@pytest.mark.parametrize(
    "url", ["bucket/prefix", "https://s3.example.org/b", "s3://", "s3://key:hunter2@b/p", "s3://b/a//c", "s3://b/../c"]
)
def test_another_value_is_refused_with_the_right_form_and_not_shown(monkeypatch, url):
    monkeypatch.setenv("VITOPS_STORE", url)
    with pytest.raises(UsageError, match="VITOPS_STORE must read s3://BUCKET/PREFIX") as refused:
        shared_store()
    assert url not in str(refused.value).replace("s3://BUCKET/PREFIX", "") and "hunter2" not in str(refused.value)


@pytest.mark.parametrize(("chosen", "limit"), [("", 20 * GIB), ("0", 0), ("1.5", GIB * 3 // 2)])
def test_the_limit_of_copies_is_a_number_of_gib(monkeypatch, chosen, limit):
    monkeypatch.setenv("VITOPS_CACHE_GIB", chosen)
    assert cache_limit() == limit


@pytest.mark.parametrize("chosen", ["much", "-1", "nan", "inf"])
def test_another_limit_is_refused(monkeypatch, chosen):
    monkeypatch.setenv("VITOPS_CACHE_GIB", chosen)
    with pytest.raises(UsageError, match=f"VITOPS_CACHE_GIB is '{chosen}': it must be a number of GiB"):
        cache_limit()
