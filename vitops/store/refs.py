"""The values that travel between stages: references, never payloads.

Laws: a reference is frozen, JSON and small; its digest is the SHA-256 of the artifact's manifest, so two equal
references are the same bytes.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Ref(BaseModel):
    """A content-addressed stage output: ``kind`` says what it is, ``digest`` which bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    metadata: dict[str, Any] = Field(default_factory=dict)
