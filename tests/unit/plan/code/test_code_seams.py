"""The places where source does not show what it leads to are few, and each is covered by a code root or a rule."""

import ast

import pytest

from vitops.plan.code.digest import PACKAGE, vitops_package
from vitops.plan.code.syntax import EFFECTS

TREES = {
    str(path.relative_to(PACKAGE.parent)): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("vitops", "flows", "tasks")
    for path in sorted((PACKAGE.parent / folder).rglob("*.py"))
}
IMPORTERS = {"__import__", "import_module", "resolve_name"}


def test_what_is_imported_under_a_computed_name_is_a_code_root_of_whoever_imports_it():
    """Another such place needs a root in ``vitops/plan/stages.py``, or its edits are felt by nobody."""
    found = {
        (file, ast.unparse(call.args[0]))
        for file, tree in TREES.items()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and _name(call.func) in IMPORTERS and not isinstance(call.args[0], ast.Constant)
    }
    assert found == {
        ("flows/session.py", "f'flows.{name}'"),  # flows are in no key
        ("vitops/cli/app.py", "VERBS[name].function"),  # nor is the command line
        ("vitops/data/gates/suite.py", "f'vitops.data.gates.{task}'"),  # data_roots: checks
        ("vitops/data/ingest.py", "module"),  # data_roots: the source's implementation
        ("vitops/data/kinds/__init__.py", "IMPLEMENTATIONS[task]"),  # task_kind
        ("vitops/data/splits/stage.py", "section.implementation"),  # data_roots: the split's implementation
        ("vitops/losses/registry.py", "section.implementation"),  # _roots: each section's implementation
        ("vitops/models/registry.py", "name"),  # _roots; rebuilding; PRUNED_MODEL
        ("vitops/plan/execute.py", "stage.roots[0]"),  # the stage itself
        ("vitops/training/ray_worker.py", "name"),  # the function that its caller names by reference
        ("vitops/training/shared_checkpoints.py", "_OPENED_BY"),  # the server of a bucket: it changes no bits
    }


def test_no_module_but_the_package_itself_has_statements_that_do_something_on_import():
    """What a command, a flow or a task did when it is imported would be felt by stages that do not lead to it."""
    package = vitops_package()
    modules = [file.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for file in TREES]
    ours = [module for module in modules if module.split(".")[0] == package.name]
    assert {module for module in ours if package.definition(f"{module}.{EFFECTS}").digest} == {"vitops"}


@pytest.mark.parametrize("look", ["__doc__", "__annotations__", "getdoc", "getsource", "get_type_hints", "signature"])
def test_code_that_looks_at_what_no_digest_counts_runs_in_no_stage(look):
    """Docstrings and annotations count nowhere, so nothing that makes an artifact may read them."""
    found = {file for file, tree in TREES.items() for item in ast.walk(tree) if _name(item) == look}
    assert found <= {"vitops/config/schema.py"}


def test_sections_change_values_in_methods_alone():
    """A validator in an annotation would be in no digest, for a section's fields are not."""
    config = {file: tree for file, tree in TREES.items() if file.startswith("vitops/config/")}
    names = {_name(call.func) for tree in config.values() for call in ast.walk(tree) if isinstance(call, ast.Call)}
    assert not names & {"AfterValidator", "BeforeValidator", "PlainValidator", "WrapValidator", "PlainSerializer"}


def test_parameters_are_read_by_their_own_class():
    """Through an adapter the defaults of what a union holds would be felt without being counted."""
    found = {file for file, tree in TREES.items() for item in ast.walk(tree) if _name(item) == "TypeAdapter"}
    assert found == {"vitops/config/load.py", "vitops/models/artifact.py"}  # the latter gives it all that was resolved


def test_neutral_values_are_frozen():
    """A field at its neutral value is in no key, so a neutral value that changes hits artifacts of the old one.

    An entry (file, field, value) is added with its field and never edited; where the default has to change, the field
    becomes an ordinary one and its entry goes.
    """
    found = {
        (file, ast.unparse(item.target), ast.unparse(item.value.args[0]))
        for file, tree in TREES.items()
        for item in ast.walk(tree)
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.value, ast.Call)
        and _name(item.value.func) == "later_field"
    }
    assert found == {
        ("vitops/config/objectives.py", "weight_base", "False"),
        ("vitops/config/models.py", "head", "'linear'"),
        ("vitops/config/models.py", "stem", "'published'"),
        ("vitops/config/training.py", "effective_batch", "None"),
        ("vitops/config/training.py", "later", "()"),
        ("vitops/config/training.py", "nesterov", "False"),
    }


def _name(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
