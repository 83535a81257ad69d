"""The page: a verdict, and the sections below it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from common import console
from smoke.receipt import ProvenImage, SmokeReceipt
from smoke.report import curve, tables
from smoke.report.ladder import MARKS, ladder
from smoke.report.markup import element
from smoke.rungs.servers import BASE

_STYLE = Path(__file__).with_name("report.css")


def page(receipt: SmokeReceipt) -> Element:
    """The page of a receipt."""
    style = _STYLE.read_text(encoding="utf-8")
    checksum = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    sheet = element("style")
    # Not through `element`, which cuts texts.
    sheet.text = style
    head = element(
        "head",
        element("meta", charset="utf-8"),
        # Whatever got into a receipt: this page loads nothing and runs nothing.
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content=f"default-src 'none'; style-src 'sha256-{checksum}'; base-uri 'none'; form-action 'none'",
        ),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{_state(receipt)}: smoke test {_device(receipt)}, {_when(receipt)}"),
        sheet,
    )
    main = element(
        "main",
        _verdict(receipt),
        _failures(receipt),
        _images(receipt.images) if receipt.images else None,
        ladder(receipt),
        _loss(receipt),
        _answers(receipt),
        _figures(receipt),
        _versions(receipt),
    )
    return element("html", head, element("body", main, _footer()), lang="en")


def _state(receipt: SmokeReceipt) -> str:
    return "PASSED" if receipt.passed else "FAILED"


def _device(receipt: SmokeReceipt) -> str:
    return "on GPU" if receipt.gpu else "on CPU"


def _when(receipt: SmokeReceipt) -> str:
    return receipt.started.replace("T", " ").replace("+00:00", " UTC")


def _verdict(receipt: SmokeReceipt) -> Element:
    host = receipt.host
    machine = f"{host.cores} cores of {host.cpu}, {console.size(host.memory)} of memory"
    gpus = "; ".join(f"{gpu.name}, {console.size(gpu.memory)}, driver {gpu.driver}" for gpu in host.gpus)
    facts = {
        "Host": machine,
        "GPU": gpus + ("" if receipt.gpu else " (not used)") if gpus else "",
        "Started": _when(receipt),
        "Took": console.seconds(receipt.seconds),
        "Engine": receipt.engine,
        "Source": receipt.source,
    }
    return element(
        "header",
        element(
            "h1",
            element("span", MARKS["passed" if receipt.passed else "failed"], class_="mark", aria_hidden="true"),
            f" {_state(receipt)} ",
            element("span", f"smoke test {_device(receipt)}", class_="subject"),
        ),
        element("p", receipt.outcome()),
        element("dl", *(element("div", element("dt", name), element("dd", text)) for name, text in facts.items() if text)),
        None if receipt.container else _no_proof(),
        class_=f"verdict {_state(receipt).lower()}",
    )


def _no_proof() -> Element:
    return element(
        "p",
        element("strong", "! Not proof for a digest. "),
        "The programs ran as plain processes of this host (--no-container), not in the images.",
        class_="notice",
    )


def _failures(receipt: SmokeReceipt) -> Element | None:
    """Where to look first, with links into the ladder."""
    if receipt.passed:
        return None
    failed = [(number, rung) for number, rung in enumerate(receipt.rungs) if rung.outcome == "failed"]
    links = [element("li", element("a", rung.name, href=f"#rung-{number}"), f": {rung.message}") for number, rung in failed]
    left = sum(rung.outcome == "not run" for rung in receipt.rungs)
    return element(
        "section",
        element("h2", "What failed"),
        element("ol", *links)
        if links
        else element("p", "No rung failed: the run was interrupted, or broke off between rungs."),
        element("p", f"{left} rungs were not run, because they stand on one that did not pass or come after the end.")
        if left
        else None,
        class_="failures",
    )


def _images(images: Sequence[ProvenImage]) -> Element:
    return element(
        "section",
        element("h2", "Images"),
        element(
            "ul",
            *(
                element(
                    "li",
                    element("strong", image.name),
                    f" {image.version}, {image.role}",
                    # One click selects it whole.
                    element("code", f"{image.name}@{image.digest}", class_="digest"),
                )
                for image in images
            ),
            class_="images",
        ),
    )


def _loss(receipt: SmokeReceipt) -> Element | None:
    training = receipt.training
    if training is None or not training.losses:
        return None
    return element(
        "section",
        element("h2", "Training loss"),
        element(
            "figure",
            curve.draw(training.losses),
            element(
                "figcaption",
                f"The loss of every step, on a logarithmic scale: {curve.told_as(training.losses)}. "
                f"The training took {console.seconds(training.seconds)} and {console.size(training.memory)} of memory.",
            ),
        ),
    )


def _answers(receipt: SmokeReceipt) -> Element | None:
    if not receipt.answers:
        return None
    trained = [answer for answer in receipt.answers if answer.model != BASE]
    base = [answer for answer in receipt.answers if answer.model == BASE]
    control = f" The base model, the negative control, knows {tables.exact(base)} of {len(base)}." if base else ""
    return element(
        "section",
        element("h2", "Answers"),
        element("p", f"{tables.exact(trained)} of {len(trained)} trained answers are exact, word for word.{control}"),
        tables.answers(receipt),
    )


def _figures(receipt: SmokeReceipt) -> Element | None:
    if not receipt.figures:
        return None
    compared = any(figure.last is not None for figure in receipt.figures)
    return element(
        "section",
        element("h2", "Figures"),
        element(
            "p",
            "Compared with the last passed run on a host of the same class."
            if compared
            else "There is no earlier passed run on a host of this class to compare with.",
            class_="muted",
        ),
        tables.figures(receipt.figures),
    )


def _versions(receipt: SmokeReceipt) -> Element | None:
    return element("section", element("h2", "Versions"), tables.versions(receipt)) if receipt.versions else None


def _footer() -> Element:
    return element(
        "footer",
        "Beside this file: ",
        element("a", "receipt.json", href="receipt.json"),
        " (the record of which this page is a view), ",
        element("a", "junit.xml", href="junit.xml"),
        ", ",
        element("a", "logs", href="logs/"),
        ".",
    )
