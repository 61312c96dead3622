"""Bring one stage of the data plane up to date: DVC runs it, we name its bytes and write the receipt.

Law: whatever the way (executed, unchanged, restored), the reference carries the digest of our own manifest, and the
ledger holds a receipt under the stage's key; one for an output that was found and not made here is marked ``adopted``.
"""

import time
from collections.abc import Mapping

from vitops.data import versions
from vitops.errors import Interrupted
from vitops.plan import data_code
from vitops.plan.execute import Done, Made, Place, recorded, unchanged_code, write_receipt
from vitops.plan.key import stage_key
from vitops.plan.plan import source_input
from vitops.plan.stages import Stage
from vitops.store import manifest
from vitops.store.job import Outcome
from vitops.store.refs import Ref


def bring(place: Place, stage: Stage, inputs: Mapping[str, Ref]) -> Done:
    """Bring ``ingest``, ``validate`` or ``split`` up to date. Raises the failed stage's own VitopsError."""
    if place.stop.exists():
        raise Interrupted(f"interrupted before stage {stage.name}; run the same command again to resume")
    dataset = stage.parameters["dataset"]
    with recorded(place, stage), place.store.lock(f"data-{dataset}"):
        return _bring(place, stage, inputs)


def _bring(place: Place, stage: Stage, inputs: Mapping[str, Ref]) -> Done:
    started, clock, since = time.time(), time.monotonic(), place.ledger.end()
    memo, dataset, split = place.store.memo, stage.parameters["dataset"], stage.parameters.get("split", "")
    data_code.write(place.root, memo)
    digest, executed = versions.bring(place.root, dataset, split, stage.kind, memo=memo)
    folder = versions.folder(place.root, dataset, stage.kind, split)
    ref = Ref(kind=stage.kind, digest=digest, metadata={"path": str(folder.relative_to(place.root))})
    digests = {role: upstream.digest for role, upstream in inputs.items()}
    if stage.kind == "ingest":
        digests |= source_input(place.root, dataset, memo)
    unchanged_code(place, stage)
    key = stage_key(stage, digests, place.code[stage.name])
    seconds = round(time.monotonic() - clock, 3)
    known = place.ledger.by_key(key)
    if executed or known is None or known.digest != digest:
        made = Made(key=key, ref=ref, files=manifest.read(folder), inputs=digests)
        write_receipt(
            place,
            stage,
            made,
            outcome=Outcome(),
            started=started,
            seconds=seconds,
            since=since,
            adopted=not executed,
        )
    status = "executed" if executed else "hit"
    place.record.update(stage.name, key=key, status=status, digest=digest, seconds=seconds)
    return Done(ref, hit=not executed)
