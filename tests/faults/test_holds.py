"""When a campaign holds: as much as was asked for, in every stage, in every part."""

from collections import Counter
from types import SimpleNamespace

import campaign
import pytest
from tally import SAME, Tally

ASKED = SimpleNamespace(every=1, random=170, real=30, seed=0)


def tally(kills=(), *, points=1):
    return Tally(points=points, kills=Counter(kills), verdicts=Counter({SAME: points}))


def found(**parts):
    """What a good campaign found, but for these parts."""
    each = {
        "OPERATIONS": tally(dict.fromkeys(campaign.NUMBERED, 90)),
        "CUTS": tally(dict.fromkeys(campaign.NUMBERED, 90)),
        "ERRORS": tally(),
        "MOMENTS": tally(dict.fromkeys(campaign.SMALL, 22)),
        "DAMAGE": tally(),
        "REAL": tally(dict.fromkeys(campaign.STAGES, 3)),
    }
    return {getattr(campaign, name): part for name, part in (each | parts).items()}


def holds(**parts):
    return campaign._summary(found(**parts), ASKED)["holds"]


def test_it_holds_when_every_stage_was_struck_in_every_part():
    assert holds()


@pytest.mark.parametrize(("part", "number"), [("MOMENTS", 170), ("REAL", 30), ("CUTS", 700), ("OPERATIONS", 700)])
def test_kills_of_one_stage_stand_for_no_other(part, number):
    assert not holds(**{part: tally({"teacher": number})})


STRUCK = {
    "OPERATIONS": campaign.NUMBERED,
    "CUTS": campaign.NUMBERED,
    "MOMENTS": campaign.SMALL,
    "REAL": campaign.STAGES,
}


@pytest.mark.parametrize(
    ("part", "stage"),
    [("OPERATIONS", "opening"), ("CUTS", "opening"), ("MOMENTS", "report"), ("REAL", "report"), ("REAL", "ingest")],
)
def test_no_stage_may_be_left_out(part, stage):
    kills = dict.fromkeys(STRUCK[part], 40)
    assert holds(**{part: tally(kills)})
    assert not holds(**{part: tally(kills | {stage: 0})})


@pytest.mark.parametrize("part", ["OPERATIONS", "CUTS", "ERRORS", "DAMAGE"])
def test_a_part_that_did_nothing_does_not_hold(part):
    kills = found()[getattr(campaign, part)].kills
    assert not holds(**{part: tally(kills, points=0)})
