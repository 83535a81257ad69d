"""The report of a run for people: one HTML file that needs nothing else, no network, no script, no other file.

It says what the receipt says, and nothing that the receipt does not say.
"""

from __future__ import annotations

from pathlib import Path

from common.files import write_whole
from smoke.receipt import SmokeReceipt
from smoke.report.markup import document
from smoke.report.page import page

NAME = "report.html"


def write(receipt: SmokeReceipt, directory: Path) -> Path:
    """Write the report beside the receipt; the same receipt gives the same bytes.

    Args:
        receipt: of the run.
        directory: where the run wrote; links to logs are relative to it.
    """
    path = directory / NAME
    write_whole(path, document(page(receipt)))
    return path
