"""Advisory data for tests: as it is published, and made."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent / "samples"


def sample(name: str) -> dict[str, Any]:
    body = json.loads((SAMPLES / f"{name}.json").read_bytes())
    assert isinstance(body, dict)
    return body


def write(folder: Path, *, pypi: Iterable[Any] = (), go: Iterable[Any] = (), debian: Any = None) -> None:
    """Advisory data as it is published, in a folder that PINWHEEL_ADVISORY_DATA may name."""
    folder.mkdir(parents=True, exist_ok=True)
    filled = {"PyPI": [sample("PYSEC-2023-212"), *pypi], "Go": [sample("GO-2025-3503"), *go]}
    for ecosystem, records in filled.items():
        with zipfile.ZipFile(folder / f"{ecosystem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for number, record in enumerate(records):
                archive.writestr(f"{number}.json", record if isinstance(record, str) else json.dumps(record))
    (folder / "Debian.json").write_text(json.dumps(sample("Debian") if debian is None else debian))


def affects(
    name: str, *events: dict[str, str], identifier: str = "PYSEC-2026-1", word: str = "HIGH", versions: Iterable[str] = ()
) -> dict[str, Any]:
    """A record about one package: by ranges of its versions, and by those that are listed."""
    affected: dict[str, Any] = {"package": {"ecosystem": "PyPI", "name": name}, "versions": list(versions)}
    affected["ranges"] = [{"type": "ECOSYSTEM", "events": list(events)}] if events else []
    return {
        **{"id": identifier, "modified": "2026-01-01", "affected": [affected]},
        "database_specific": {"severity": word},
    }
