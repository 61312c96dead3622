"""A column of hexadecimal texts as bytes."""

import pyarrow as pa
import pytest

from vitops.data.table import unhex

TEXTS = ["00ff" * 16, "ab12" * 16, "9c" * 32]


@pytest.mark.parametrize(
    "column",
    [
        pa.chunked_array([TEXTS]),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
        pa.chunked_array([["ee" * 32, *TEXTS, "ee" * 32]]).slice(1, 3),
        pa.chunked_array([["ee" * 32, *TEXTS]]).take(pa.array([1, 2, 3])),
    ],
    ids=["whole", "pieces", "part", "taken"],
)
def test_it_is_what_the_texts_mean_in_their_order(column):
    assert unhex(column) == b"".join(map(bytes.fromhex, TEXTS))


@pytest.mark.parametrize(
    "column",
    [
        pa.chunked_array([[*TEXTS, "xx" * 32]]),
        pa.chunked_array([[*TEXTS, "a"]]),
        pa.chunked_array([[1, 2]]),
        pa.chunked_array([], pa.string()),
    ],
    ids=["no hexadecimal", "half a byte", "numbers", "empty"],
)
def test_what_means_no_bytes_gives_none(column):
    assert unhex(column) == b""
