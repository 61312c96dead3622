"""The architectures of pinned models: only their artifacts know what they were built from.

Law: a stage that rebuilds a pinned model reaches the code of that model's architecture and of no other, so that one
more architecture changes no key.
"""

import json
from collections.abc import Sequence
from dataclasses import replace

from vitops.config.pipelines import AnyPipeline
from vitops.config.problems import did_you_mean
from vitops.errors import UsageError
from vitops.plan.stages import Stage, architectures, rebuilding
from vitops.store.artifacts import Store

SPEC = "model.json"


def rooted(chosen: Sequence[Stage], *, pipeline: AnyPipeline, name: str, store: Store) -> tuple[Stage, ...]:
    """``chosen`` with the implementations of the pinned models that each stage rebuilds among its code roots.

    Raises UsageError that names the key (``pipelines.<name>.student``) of a digest that is no model of the store.
    """
    keys: dict[str, str] = {}
    for field, value in pipeline:
        for key, digest in {field: value, **_named(field, value)}.items():
            if isinstance(digest, str):
                keys.setdefault(digest, f"pipelines.{name}.{key}")
    wanted = sorted({digest for stage in chosen for digest in stage.rebuilds})
    roots = {digest: _rebuilding(store, digest, key=keys[digest]) for digest in wanted}
    return tuple(
        replace(
            stage,
            roots=tuple(dict.fromkeys((*stage.roots, *(root for digest in stage.rebuilds for root in roots[digest])))),
        )
        for stage in chosen
    )


def _named(field: str, value: object) -> dict[str, object]:
    return {f"{field}.{name}": digest for name, digest in value.items()} if isinstance(value, dict) else {}


def _rebuilding(store: Store, digest: str, *, key: str) -> tuple[str, ...]:
    try:
        data = store.read(digest, SPEC)
    except UsageError as error:
        raise UsageError(f"{key}: {error}") from error
    if data is None:
        raise UsageError(f"{key}: artifact {digest} is no model, for it has no {SPEC}: name one of a training stage")
    kind = json.loads(data)["builder"]["kind"]
    known = {section.model_fields["kind"].default: section for section in architectures()}
    if kind not in known:
        raise UsageError(f"{key}: artifact {digest} is a model of the unknown kind '{kind}'{did_you_mean(kind, known)}")
    return rebuilding(known[kind])
