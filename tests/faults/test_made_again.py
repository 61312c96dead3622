"""What counts as made again after a damaged file: one receipt more, of just that artifact, and nothing else."""

import pytest
from damage import once_more


def receipt(digest, *files):
    return {"artifact": {"digest": digest}, "files": {name: f"sha256-of-{name}" for name in files}}


TEACHER, STUDENT = receipt("teacher", "model", "history"), receipt("student", "weights")
EXPECTED = {"receipts": [TEACHER, STUDENT], "artifacts": {"teacher": {}, "student": {}}}


@pytest.mark.parametrize("damaged", ["teacher", "sha256-of-model"])
def test_a_second_receipt_of_the_damaged_artifact_is_no_divergence(damaged):
    assert once_more(EXPECTED | {"receipts": [TEACHER, TEACHER, STUDENT]}, EXPECTED, damaged)


@pytest.mark.parametrize(
    "found",
    [
        *({"receipts": [TEACHER, STUDENT]}, {"receipts": [TEACHER, TEACHER, TEACHER, STUDENT]}),
        *({"receipts": [TEACHER, STUDENT, STUDENT]}, {"receipts": [TEACHER, TEACHER, STUDENT, STUDENT]}),
        *({"receipts": [TEACHER, TEACHER]}, {"receipts": [TEACHER, receipt("teacher", "model"), STUDENT]}),
        {"receipts": [TEACHER, TEACHER, STUDENT], "artifacts": {"teacher": {"model": "other"}, "student": {}}},
    ],
)
def test_anything_else_is(found):
    assert not once_more(EXPECTED | found, EXPECTED, "teacher")
