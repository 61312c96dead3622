"""Gates of labelled images."""

from vitops.config.datasets import Gates
from vitops.data import table
from vitops.data.gates.checks import Check

_ALWAYS_THERE = ("slot", "key", "shard", "offset", "size", "sha256", "label", "class", "source")


def checks(gates: Gates) -> list[Check]:
    """The expectations on the sample table and the class table, in the order they are reported."""
    return [*_shape(gates), *_images(gates), *_classes(gates), *_duplicates(gates)]


def _shape(gates: Gates) -> list[Check]:
    again = "run ingest again: this is a defect of the table, not of the images"
    return [
        Check("schema", "ExpectTableColumnsToMatchOrderedList", {"column_list": table.SAMPLES.names}, again),
        Check(
            "row count",
            "ExpectTableRowCountToBeBetween",
            {"min_value": gates.min_rows},
            "add the missing samples to the source or lower min_rows",
        ),
        *(Check("not null", "ExpectColumnValuesToNotBeNull", {"column": column}, again) for column in _ALWAYS_THERE),
    ]


def _images(gates: Gates) -> list[Check]:
    bounds = {"min_value": gates.min_side, "max_value": gates.max_side}
    return [
        Check(
            "decodable",
            "ExpectColumnValuesToBeInSet",
            {"column": "decodable", "value_set": [True]},
            "replace or remove these files in the source",
        ),
        *(
            Check(
                "sizes",
                "ExpectColumnValuesToBeBetween",
                {"column": side, **bounds},
                "resize these images or change min_side and max_side",
            )
            for side in ("width", "height")
        ),
    ]


def _classes(gates: Gates) -> list[Check]:
    least = {"column": "class", "min_value": gates.classes or 2, "max_value": gates.classes}
    found = [
        Check(
            "class count",
            "ExpectColumnUniqueValueCountToBeBetween",
            least,
            "add or remove class folders or change classes",
            table="classes",
        ),
        Check(
            "samples per class",
            "ExpectColumnValuesToBeBetween",
            {"column": "count", "min_value": gates.min_per_class},
            "add samples to these classes or lower min_per_class",
            table="classes",
        ),
    ]
    if gates.labels is not None:
        labels = {"column": "class", "value_set": sorted(gates.labels)}
        advice = "rename the class folders or change labels"
        found.append(Check("label set", "ExpectColumnDistinctValuesToEqualSet", labels, advice, table="classes"))
    return found


def _duplicates(gates: Gates) -> list[Check]:
    fails = gates.duplicates == "fail"
    advice = "keep one of each group of equal images or set duplicates: warn"
    pixels = {"column_list": ["pixel_sha256", "width", "height"]}
    return [
        Check("duplicates", "ExpectColumnValuesToBeUnique", {"column": "sha256"}, advice, fails=fails),
        Check("duplicates", "ExpectCompoundColumnsToBeUnique", pixels, advice, fails=fails),
    ]
