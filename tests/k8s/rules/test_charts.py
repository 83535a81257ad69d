"""Manifests as public charts render them, and Argo's published examples: no false alarm.

Written after the charts, shortened, each image by digest (`@D`) and each object with its namespace.
What is found in them is right.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.k8s.rules.judged import found

CHARTS = sorted(Path(__file__).with_name("charts").glob("*.yaml"))
# Rule and what is said, in charts that expect something from outside or do what a policy refuses.
FOUND: dict[str, tuple[str, str]] = {
    "grafana": ("reference", "`secrets: {monitoring/grafana: [admin-password, admin-user]}`"),
    "ingress-nginx": ("reference", "`secrets: {ingress-nginx/ingress-nginx-admission: [KEY]}`"),
    "loki": ("reference", "`secrets: {logs/loki-s3: [KEY]}`"),
    "minio": ("reference", "`secrets: {minio/minio: [rootPassword, rootUser]}`"),
    "postgres": ("reference", "`secrets: {db/db-postgresql: [KEY]}`"),
    "redis": ("reference", "`secrets: {db/cache-redis: [redis-password]}`"),
    # Kubernetes puts the value in the place of $(PGUSER), and the whole node can read it.
    "mlflow": ("secret-in-command-line", "the secret PGUSER would stand in the command line"),
}


@pytest.mark.parametrize("chart", CHARTS, ids=lambda file: file.stem)
def test_a_chart_as_people_render_it_has_no_false_alarm(chart: Path) -> None:
    said = found(chart.read_text().replace("@D", "@sha256:" + "a" * 64))
    if chart.stem not in FOUND:
        assert [one.text() for one in said] == []
        return
    (one,) = said
    rule, words = FOUND[chart.stem]
    assert one.rule == rule
    assert words in one.text()


def test_every_chart_that_is_named_is_there() -> None:
    assert len(CHARTS) > 40
    assert FOUND.keys() <= {chart.stem for chart in CHARTS}
