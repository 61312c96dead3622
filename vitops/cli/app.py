"""The ``vitops`` command: one table of verbs, each imported only when it is used.

Laws: the exit code is 0, or that of the error (``vitops/errors.py``); what a user can mend is one paragraph on stderr
without a traceback, anything else is a defect and keeps its traceback.
"""

import errno
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from vitops import __version__
from vitops.errors import Interrupted, UsageError, VitopsError


@dataclass(frozen=True)
class Verb:
    """Where a verb's function is (``module:function``, typed for typer), and its line in ``vitops --help``."""

    function: str
    summary: str


VERBS = {
    "run": Verb("vitops.cli.run:run", "Run a pipeline: hits stay, the rest is executed or resumed."),
    "resume": Verb("vitops.cli.resume:resume", "List interrupted runs, or go on with one as it was begun."),
    "plan": Verb("vitops.cli.plan:plan", "Say what a run would do."),
    "explain": Verb("vitops.cli.explain:explain", "Say what changed since a stage last ran."),
    "ls": Verb("vitops.cli.ls:ls", "List datasets, pipelines and artifacts."),
    "show": Verb("vitops.cli.show:show", "Show one artifact: its files and its receipt."),
    "lineage": Verb("vitops.cli.lineage:lineage", "Trace an artifact back to its dataset's source."),
    "verify": Verb("vitops.cli.verify:verify", "Hash everything again and name what is altered."),
    "reproduce": Verb("vitops.cli.reproduce:reproduce", "Execute a run or a package again and compare every byte."),
    "predict": Verb("vitops.cli.predict:predict", "Classify images with a package."),
    "data": Verb("vitops.cli.data:data", "Run one stage of the data plane, as dvc.yaml does."),
    "schema": Verb("vitops.cli.schema:schema", "Print or export the JSON Schema of pipelines.yaml."),
}

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def main() -> None:
    """Entry point: run the verb of the command line, then leave with its exit code; SIGTERM is as Ctrl-C from here."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = _dispatch(list(arguments))
        sys.stdout.flush()
        return code
    except VitopsError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _fail(Interrupted("interrupted; the same command goes on where it stopped"))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _fail(UsageError(f"{str(error.filename)[:60]}...: no file has so long a name; give a shorter one"))
        if error.errno not in _DISK:
            raise
        return _fail(VitopsError(f"{error.filename or 'writing'}: {error.strerror}; make room and run it again"))


def usage() -> str:
    """What ``vitops --help`` prints."""
    width = max(len(name) for name in VERBS)
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()]
    head = [
        "Usage: vitops VERB [OPTIONS]",
        "",
        "A versioned image dataset in; an audited, compressed vision transformer out.",
    ]
    tail = ["  --help     This text; `vitops VERB --help` tells a verb's options.", "  --version  The version."]
    return "\n".join([*head, "", "Verbs:", *lines, "", "Options:", *tail])


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in {"--help", "-h"}:
        sys.stdout.write(usage() + "\n")
        return 0 if arguments else UsageError.exit_code
    if arguments[0] == "--version":
        sys.stdout.write(f"vitops {__version__}\n")
        return 0
    name, *rest = arguments
    if name not in VERBS:
        raise UsageError(f"vitops: unknown verb '{name}'{_near(name)}")
    return _call(name, rest)


def _call(name: str, arguments: list[str]) -> int:
    import typer

    command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    command.command(name)(pkgutil.resolve_name(VERBS[name].function))
    try:
        code = command(arguments, prog_name=f"vitops {name}", standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    except typer.TyperException as error:
        message = " ".join(error.format_message().split()).rstrip(".")
        raise UsageError(f"vitops {name}: {message}; `vitops {name} --help` tells the options") from error
    return code if isinstance(code, int) else 0


def _near(name: str) -> str:
    from vitops.config.problems import did_you_mean

    return did_you_mean(name, VERBS)


def _fail(error: VitopsError) -> int:
    from vitops.cli.console import complain

    complain(str(error))
    return error.exit_code
