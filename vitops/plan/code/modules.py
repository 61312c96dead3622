"""The source files of one package as summaries, read when they are asked for."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from vitops.errors import VitopsError
from vitops.plan.code import syntax
from vitops.plan.code.syntax import EFFECTS, Summary
from vitops.store.stat_memo import StatMemo

CONFIGURATION_ROOM = "config"


class Modules:
    """Summaries of the modules of the package in ``folder``; they come from ``memo`` while a file is unchanged."""

    def __init__(self, folder: Path, memo: StatMemo | None = None) -> None:
        self.folder, self.package, self._memo = folder.resolve(), folder.name, memo
        self._namespace = f"syntax-{_summariser_digest()}"
        self._summaries: dict[str, Summary | None] = {}

    def summary(self, module: str) -> Summary | None:
        """Summary of a module; None where the package has none of that name. Raises VitopsError if it cannot parse."""
        if module not in self._summaries:
            self._summaries[module] = self._read(module)
        return self._summaries[module]

    def existing(self, module: str) -> Summary:
        """Summary of a module that is known to exist."""
        summary = self.summary(module)
        assert summary is not None, module
        return summary

    def names(self) -> Iterator[str]:
        """Every module of the package, in the order of their files."""
        for path in sorted(self.folder.rglob("*.py")):
            parts = path.relative_to(self.folder).with_suffix("").parts
            yield ".".join([self.package, *parts]).removesuffix(".__init__")

    def ours(self, name: str) -> bool:
        """Whether a dotted name stands in a module of the package."""
        return name.startswith(f"{self.package}.") and self.summary(name.rsplit(".", 1)[0]) is not None

    def effects(self, module: str) -> list[str]:
        """The node of what a module does when it is imported, if there is such a module."""
        return [f"{module}.{EFFECTS}"] if self.summary(module) is not None else []

    def _read(self, module: str) -> Summary | None:
        parts = module.split(".")
        if parts[0] != self.package:
            return None
        base = self.folder.joinpath(*parts[1:])
        for path, is_package in ((base / "__init__.py", True), (base.with_name(f"{base.name}.py"), False)):
            if path.is_file():
                return self._remembered(path, module, is_package)
        return None

    def _remembered(self, path: Path, module: str, is_package: bool) -> Summary:
        def compute(file: Path) -> Summary:
            declarations = module.split(".")[1:2] == [CONFIGURATION_ROOM]
            try:
                return syntax.summarise(
                    file.read_text(encoding="utf-8"), module=module, is_package=is_package, declarations=declarations
                )
            except SyntaxError as error:
                raise VitopsError(f"{file}:{error.lineno}: {error.msg}") from error

        return compute(path) if self._memo is None else self._memo.value(self._namespace, path, compute)


_SUMMARISER = (
    *("imports", "local_names", "members", "mentions", "normal_form", "on_import", "scopes", "sections", "syntax"),
)


def _summariser_digest() -> str:
    """Changes with the code that makes summaries, so that summaries of another vitops are not taken for ours."""
    text = b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _SUMMARISER)
    return hashlib.sha256(text).hexdigest()[:12]
