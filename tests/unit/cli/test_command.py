"""The command itself: help, exit codes, messages, and the frozen surface."""

import errno
import importlib
import json
import os
import subprocess
import sys
import time

import pytest
import typer
from typer.main import get_command

from vitops import __version__
from vitops.cli import app, console
from vitops.cli.app import VERBS
from vitops.errors import Interrupted, UsageError, VerificationError, VitopsError

RUNNING = {"--file", "--profile", "--set", "--until", "--workers", "--json"}
SURFACE = {
    "run": {"PIPELINE", "--allow-environment-change"} | RUNNING,
    "resume": {"[RUN]", "--allow-environment-change", "--json"},
    "plan": {"PIPELINE"} | RUNNING,
    "explain": {"PIPELINE", "[STAGE]", "--file", "--profile", "--set", "--workers", "--json"},
    "ls": {"--file", "--json"},
    "show": {"ARTIFACT", "--json"},
    "lineage": {"ARTIFACT", "--json"},
    "verify": {"--json"},
    "reproduce": {"RUN_OR_PACKAGE", "--json"},
    "predict": {"PACKAGE", "IMAGE", "--model", "--json"},
    "data": {"action", "dataset", "--write"},
    "schema": {"--write"},
}


def surface(verb: str) -> set[str]:
    module, _, attribute = VERBS[verb].function.partition(":")
    command = typer.Typer(add_completion=False)
    command.command()(getattr(importlib.import_module(module), attribute))
    names = (parameter.opts if parameter.opts[0].startswith("-") else [parameter.metavar or parameter.name]
             for parameter in get_command(command).params)  # fmt: skip
    return {name for group in names for name in group}


def test_the_verbs_are_frozen() -> None:
    assert set(VERBS) == set(SURFACE)


@pytest.mark.parametrize("verb", SURFACE)
def test_the_arguments_and_options_of_a_verb_are_frozen(verb: str) -> None:
    assert surface(verb) == SURFACE[verb]


def test_the_exit_codes_are_frozen() -> None:
    codes = {error.exit_code for error in (VitopsError, UsageError, VerificationError, Interrupted)}
    assert codes == {1, 2, 3, 75}


def test_sigterm_counts_as_ctrl_c_before_a_verb_is_even_imported() -> None:
    stopped = "import signal; from vitops.cli import app; app._dispatch = lambda _: signal.raise_signal(signal.SIGTERM)"
    ended = subprocess.run([sys.executable, "-c", f"{stopped}; app.main()"], capture_output=True, text=True)
    assert ended.returncode == 75
    assert "interrupted" in ended.stderr and "Traceback" not in ended.stderr


def test_help_lists_every_verb_with_its_line(vitops) -> None:
    result = vitops("--help")
    assert result.code == 0 and result.err == ""
    assert all(f"  {name}" in result.out and verb.summary in result.out for name, verb in VERBS.items())
    assert (vitops().code, vitops().out) == (2, result.out)
    assert vitops("--version").out == f"vitops {__version__}\n"


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = "import sys; from vitops.cli.app import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 1.5, "0.3 s on a free core; the bound here is for a busy one"
    heavy = {"torch", "numpy", "pydantic", "typer", "rich", "yaml", "prefect", "ray", "dvc", "pyarrow", "boto3"}
    assert not heavy & set(result.stderr.split())


def test_listing_imports_nothing_heavy(project) -> None:
    code = "import sys; from vitops.cli.app import run; run(['ls', '--json']); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "numpy", "rich", "prefect", "ray", "dvc", "pyarrow", "great_expectations", "boto3", "botocore"}
    assert not heavy & set(result.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plam", "quickstart"], "vitops: unknown verb 'plam'; did you mean 'plan'?"),
        (["ls", "--jsn"], "vitops ls: No such option: --jsn"),
        (["show"], "vitops show: Missing argument 'ARTIFACT'"),
        (["ls", "extra"], "vitops ls: Got unexpected extra argument"),
        (["show", "abc"], "'abc' is no artifact"),
    ],
)
def test_wrong_usage_is_one_paragraph_and_exit_code_2(project, vitops, arguments, message) -> None:
    result = vitops(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(message) and result.err.count("\n") == 1


def test_a_configuration_mistake_is_one_unwrapped_line_without_traceback(project) -> None:
    path = project / "pipelines.yaml"
    path.write_text(path.read_text().replace("imbalance_factor: 5", "imbalance_factor: 0.2", 1))
    result = subprocess.run(
        [sys.executable, "-c", "from vitops.cli.app import main; main()", "ls", "--json"],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "40"},
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1 and len(result.stderr) > 120
    assert "datasets.digits.splits.longtail.imbalance_factor" in result.stderr and "write 5 instead" in result.stderr


def test_every_error_has_its_exit_code(vitops, monkeypatch) -> None:
    raised = {
        VitopsError("x"): 1,
        UsageError("x"): 2,
        VerificationError("x"): 3,
        Interrupted("x"): 75,
        KeyboardInterrupt(): 75,
        OSError(errno.ENOSPC, "No space left on device", "f"): 1,
    }
    for error, code in raised.items():
        monkeypatch.setattr(app, "_dispatch", lambda _, error=error: (_ for _ in ()).throw(error))
        result = vitops("ls")
        assert result.code == code and result.err.count("\n") == 1


def test_a_defect_keeps_its_traceback(vitops, monkeypatch) -> None:
    monkeypatch.setattr(app, "_dispatch", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vitops("ls")


def test_a_closed_pipe_ends_quietly(project) -> None:
    command = f"{sys.executable} -c 'from vitops.cli.app import main; main()' schema | head -c 10"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_control_characters_in_a_message_are_shown_not_obeyed(capsys) -> None:
    console.complain("class \x1b[31mred\x9b\u202e is \x00 wrong\nsecond")
    said = capsys.readouterr().err
    assert said == "class \\x1b[31mred\\x9b\\u202e is \\x00 wrong\nsecond\n"


def test_a_terminal_gets_whole_words_per_line(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "30")
    console.complain("a paragraph that is longer than thirty columns are")
    assert max(len(line) for line in capsys.readouterr().err.splitlines()) <= 30


def test_json_is_one_document_and_plain_ascii(capsys) -> None:
    console.emit({"name": "\x1b[2J\u202eé"}, as_json=True, render=lambda _: pytest.fail("not asked for"))
    out = capsys.readouterr().out
    assert out.isascii() and "\x1b" not in out
    assert json.loads(out) == {"name": "\x1b[2J\u202eé"}


def test_schema_prints_and_writes_the_same(project, vitops) -> None:
    printed = vitops("schema")
    written = vitops("schema", "--write")
    assert (written.code, written.out) == (0, "")
    assert (project / "docs/pipelines.schema.json").read_text() == printed.out


@pytest.mark.parametrize("verb", ["plan", "explain"])
def test_a_missing_source_is_named_by_whoever_would_plan_with_it(project, vitops, verb) -> None:
    result = vitops(verb, "cifar10-lt", "--json")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("pipelines.yaml: datasets.cifar10.source.path names data/raw/cifar10.tar")
    assert result.err.count("\n") == 1


def test_an_unknown_dataset_is_a_usage_error_with_the_nearest_name(project, vitops) -> None:
    result = vitops("data", "ingest", "digit")
    assert (result.code, result.err) == (2, "pipelines.yaml: datasets: has no 'digit'; did you mean 'digits'?\n")


@pytest.mark.parametrize("verb", ["show", "lineage"])
def test_what_is_no_digest_is_told_both_ways_to_name_an_artifact(project, vitops, verb) -> None:
    result = vitops(verb, "student")
    assert result.code == 2 and "64 hex digits of its digest, or PIPELINE/STAGE" in result.err


@pytest.mark.parametrize("name", ["", "  "])
def test_reproduce_of_no_name_says_at_once_what_it_takes(project, vitops, name) -> None:
    result = vitops("reproduce", name)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("the name is empty: reproduce takes a run's name, a package's folder, ")
    assert not (project / ".vitops").exists()


@pytest.mark.parametrize("verb", ["reproduce", "resume"])
def test_a_name_that_no_file_can_have_is_wrong_usage(project, vitops, verb) -> None:
    result = vitops(verb, "a" * 5000)
    assert result.code == 2 and len(result.err) < 6000


def test_records_that_cannot_be_read_are_named(project, vitops) -> None:
    for file, torn in (("requested/request.json", "{"), ("done/run.json", '{"stages": [{}]}')):
        (project / ".vitops/runs" / file).parent.mkdir(parents=True)
        (project / ".vitops/runs" / file).write_text(torn)
    listed = vitops("resume")
    assert listed.code == 0 and "requested/request.json cannot be read: type" in " ".join(listed.out.split())
    (file,) = json.loads(vitops("resume", "--json").out)["illegible"]
    assert file == str(project / ".vitops/runs/requested/request.json")
    for verb, name in (("resume", "requested"), ("reproduce", "done")):
        refused = vitops(verb, name)
        assert refused.code == 2 and f"run {name}: " in refused.err and "cannot be read" in refused.err


@pytest.mark.parametrize("kind", ["missing", "a file"])
def test_verify_of_what_is_no_store_is_no_verdict(vitops, project, monkeypatch, kind):
    home = project / "elsewhere"
    if kind == "a file":
        home.touch()
    monkeypatch.setenv("VITOPS_HOME", str(home))
    result = vitops("verify")
    assert result.code == 2
    assert "is no store" in result.err
    assert home.is_file() == (kind == "a file") and not home.is_dir()
