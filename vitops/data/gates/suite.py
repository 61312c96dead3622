"""``validate``: a Great Expectations suite over the sample table.

Laws: the recorded result is a function of table and configuration (no clock, no random id); an expectation that could
not be evaluated is a defect and says so, never "bad data"; a violated one stops the run and names its samples.
"""

import importlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vitops.config.datasets import Gates
from vitops.data import outputs, table
from vitops.data.configured import ValidateConfig
from vitops.data.gates.checks import Check
from vitops.errors import VitopsError
from vitops.store import canonical, durable

log = logging.getLogger(__name__)

NAMED = 10
"""Offending samples that a result and a message name."""
_INDEX = {"samples": ["key", "source", "error"], "classes": ["class", "count"]}
JSON = dict[str, Any]


def validate(shards: Path, config: ValidateConfig, *, dataset: str, out: Path, failed: Path) -> None:
    """Write ``result.json`` and the manifest into ``out``, or raise VitopsError naming expectation and samples.

    DVC does not version the outputs of a failed stage, so a failing result goes to the file ``failed`` instead.
    """
    samples = table.read(shards / "samples.parquet").to_pandas()
    result = evaluate(samples, _checks(config.task)(config.gates), dataset=dataset, task=config.task)
    violated = [one for one in result["gates"] if not one["success"]]
    if any(one["fails"] for one in violated):
        durable.make_folder(failed.parent)
        canonical.write_json(failed, result)
        raise VitopsError(_paragraph(violated, dataset=dataset, failed=failed))
    for one in violated:
        log.warning("%s: %s", dataset, _sentence(one))
    with outputs.sealed(out) as folder:
        canonical.write_json(folder / "result.json", result)


def _checks(task: str) -> Callable[[Gates], list[Check]]:
    """The function that lists the checks of a task, imported on use: a code root of the stages that run them."""
    function: Callable[[Gates], list[Check]] = importlib.import_module(f"vitops.data.gates.{task}").checks
    return function


def evaluate(samples: pd.DataFrame, checks: Sequence[Check], *, dataset: str, task: str) -> JSON:
    """The result of every check, in order. Raises VitopsError for a check that could not be evaluated."""
    counts = samples.groupby("class").size().reset_index(name="count")
    frames = {"samples": samples, "classes": counts}
    found: dict[int, JSON] = {}
    for name, frame in frames.items():
        found |= _run(name, frame, {place: one for place, one in enumerate(checks) if one.table == name})
    gates = [_record(check, found[place]) for place, check in enumerate(checks)]
    success = all(one["success"] or not one["fails"] for one in gates)
    return {"dataset": dataset, "gates": gates, "samples": len(samples), "success": success, "task": task}


def _run(name: str, frame: pd.DataFrame, checks: dict[int, Check]) -> dict[int, JSON]:
    """Place -> the raw result of the check that stands there."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    gx = importlib.import_module("great_expectations")
    settings = importlib.import_module("great_expectations.data_context.types.base")
    settings.logger.setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = settings.ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    suite = gx.ExpectationSuite(
        name=name,
        expectations=[
            getattr(gx.expectations, check.expectation)(**check.arguments, meta={"place": place})
            for place, check in checks.items()
        ],
    )
    definition = gx.ValidationDefinition(
        name=name, data=asset.add_batch_definition_whole_dataframe(name), suite=context.suites.add(suite)
    )
    outcome = context.validation_definitions.add(definition).run(
        batch_parameters={"dataframe": frame},
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": _INDEX[name]},
    )
    return {one["expectation_config"]["meta"]["place"]: one for one in outcome.to_json_dict()["results"]}


def _record(check: Check, raw: JSON) -> JSON:
    """What is kept of a raw result: nothing dated, nothing random, at most ``NAMED`` samples."""
    result = raw["result"]
    if not result:
        raise VitopsError(
            f"the gate {check.gate} ({check.expectation}) broke and says nothing about the data: "
            f"{_exception(raw['exception_info'])}. This is a defect of the gate or of its configuration."
        )
    return {
        "advice": check.advice,
        "arguments": check.arguments,
        "expectation": raw["expectation_config"]["type"],
        "fails": check.fails,
        "gate": check.gate,
        "missing": result.get("partial_missing_list", []),
        "observed": result.get("observed_value") if not isinstance(result.get("observed_value"), list) else None,
        "samples": [
            {column: one[column] for column in _INDEX[check.table]}
            for one in result.get("unexpected_index_list", [])[:NAMED]
        ],
        "success": raw["success"],
        "unexpected": result.get("unexpected_count", 0),
        "values": result.get("partial_unexpected_list", [])[:NAMED] if check.table == "classes" else [],
    }


def _exception(info: JSON) -> str:
    details = info if "exception_message" in info else next(iter(info.values()), {})
    return " ".join(str(details.get("exception_message")).split())[:300]


def _paragraph(violated: list[JSON], *, dataset: str, failed: Path) -> str:
    sentences = [_sentence(one) for one in violated if one["fails"]]
    return (
        f"The gates of {dataset} failed. {' '.join(sentences)} The limits stand in pipelines.yaml under "
        f"datasets.{dataset}.gates; the whole result is in {failed}."
    )


def _sentence(one: JSON) -> str:
    return f"{one['gate'].capitalize()} ({one['expectation']}): {_finding(one)}; {one['advice']}."


def _finding(one: JSON) -> str:
    if one["samples"]:
        named = ", ".join(_sample(sample) for sample in one["samples"])
        more = f" and {one['unexpected'] - NAMED} more" if one["unexpected"] > NAMED else ""
        noun = "row" if "class" in one["samples"][0] else "sample"
        return f"{one['unexpected']} {noun}{'s' if one['unexpected'] != 1 else ''}: {named}{more}"
    parts = []
    if one["missing"]:
        parts.append(f"missing {', '.join(map(str, one['missing']))}")
    if one["values"]:
        parts.append(f"unexpected {', '.join(map(str, one['values']))}")
    return " and ".join(parts) or f"found {one['observed']}"


def _sample(sample: JSON) -> str:
    if "class" in sample:
        return f"class {sample['class']} with {sample['count']}"
    return f"{sample['key']} ({sample['source']}{': ' if sample['error'] else ''}{sample['error']})"
