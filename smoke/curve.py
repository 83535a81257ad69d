"""The loss curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from common.files import write_whole


def draw(losses: Sequence[float], path: Path) -> None:
    """Write the losses of every step as a PNG; the same losses give the same bytes."""
    # Imported here: it costs a second that most commands need not spend.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, color="#c2185b", linewidth=1.5)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_title(f"Smoke test: loss {losses[0]:.3f} → {losses[-1]:.4f}")
    axes.grid(visible=True, which="both", alpha=0.25)
    out = io.BytesIO()
    # Without this the picture names the version of matplotlib that drew it.
    canvas.print_png(out, metadata={"Software": None})  # type: ignore[no-untyped-call]
    write_whole(path, out.getvalue())
