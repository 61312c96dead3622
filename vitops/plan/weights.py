"""Where the weights of models that were trained elsewhere lie: a file, or the cache of the Hugging Face hub.

Laws: nothing is downloaded but what a name of timm asks for, into the hub's own cache, and only by ``brought``; what is
there already is used without a question to the network. A file is what its SHA-256 says or it is refused.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vitops.data.source_file import hashed
from vitops.errors import UsageError
from vitops.plan.stages import Stage
from vitops.store import canonical
from vitops.store.stat_memo import StatMemo

JSON = dict[str, Any]
HashFile = Callable[[Path], str]
_FILE = "model.safetensors"


def check_files(root: Path, pipeline: str, stages: Iterable[Stage], *, memo: StatMemo) -> list[str]:
    """What these stages would download, one sentence each. Files that ``memo`` knows are not hashed again.

    Raises UsageError that names the key of a file that is missing or has another SHA-256.
    """
    notes = []
    for stage in stages:
        if stage.kind != "convert":
            continue
        weights, key = stage.parameters["config"]["weights"], f"pipelines.{pipeline}.{stage.name}.weights"
        path = located(weights, None if stage.file is None else root / stage.file)
        if path is None:
            notes.append(_announcement(weights["timm"], key=key))
        else:
            verified(path, weights, key=key, hash_file=lambda path: hashed(path, memo))
    return notes


def located(weights: JSON, file: Path | None) -> Path | None:
    """The weights on this machine: ``file``, or what the hub's cache holds; None where they must be downloaded."""
    if file is not None:
        return file
    from huggingface_hub import try_to_load_from_cache  # half a second that few pipelines need

    found = try_to_load_from_cache(_repository(weights["timm"]), _FILE)
    return Path(found) if isinstance(found, str) else None


def brought(weights: JSON, file: Path | None, *, key: str = "weights") -> Path:
    """The weights on this machine, downloaded if they must be, and verified. Raises UsageError."""
    return verified(located(weights, file) or _downloaded(weights["timm"], key=key), weights, key=key)


def verified(path: Path, weights: JSON, *, key: str, hash_file: HashFile = canonical.sha256_file) -> Path:
    """``path``, if a file is there and has the SHA-256 that the configuration gives, where it gives one.

    Raises UsageError.
    """
    if not path.is_file():
        raise UsageError(f"{key}.file names {path}, which is not there: copy or link the weights to it, or correct it")
    wanted = weights["sha256"]
    if wanted is not None and (found := hash_file(path)) != wanted:
        raise UsageError(
            f"{key}: {path} has the SHA-256 {found}, but {wanted} is asked for: bring the right file, or correct "
            "sha256 if this one is meant"
        )
    return path


def _repository(name: str) -> str:
    return f"timm/{name}"


def _downloaded(name: str, *, key: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(_repository(name), _FILE))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise UsageError(
            f"{key}.timm: {name} must be downloaded, and this machine has no way to the Hugging Face hub. Bring "
            f"the file {_FILE} of {_repository(name)} here, and name it with file and sha256 in place of timm"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise UsageError(f"{key}.timm: {_FILE} of {_repository(name)} cannot be downloaded: {error}") from error


def _announcement(name: str, *, key: str) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return (
        f"{key}: a run downloads {_FILE} of {_repository(name)} from the Hugging Face hub to {HF_HUB_CACHE} (its size "
        "is not known before). To do without, name a local safetensors file: weights: {file: PATH, sha256: DIGEST}"
    )
