"""The queries that the documents give run as they stand."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.prometheus import PROMTOOL, WHERE_FROM

ROOT = Path(__file__).parents[2]
QUERIES = [
    query
    for document in ("README.md", "dashboards/README.md")
    for query in re.findall(r"```promql\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
]


@pytest.fixture(scope="module")
def exposition() -> str:
    program = ROOT / ".venv/bin/smtp-horizon"
    capture = ROOT / "tests/captures/starttls_tls13.pcap"
    return subprocess.run(
        [program, "read", "--format", "metrics", capture], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_metrics_and_labels_that_are_exported(query: str, exposition: str) -> None:
    labels = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }
    named = re.findall(r"\b(smtp_\w+)(?:\{([^}]*)\})?", query)
    assert named
    for metric, matchers in named:
        if metric != "smtp_monitor_capture_up":  # there is one only where something is captured live
            assert set(re.findall(r"(\w+)\s*=", matchers)) <= labels[metric]


@pytest.mark.skipif(not PROMTOOL.exists(), reason=WHERE_FROM)
@pytest.mark.parametrize("query", QUERIES)
def test_prometheus_can_parse_a_query(query: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rule = {"record": "job:query", "expr": query}
    # JSON is YAML.
    rules.write_text(json.dumps({"groups": [{"name": "documents", "rules": [rule]}]}))
    checked = subprocess.run([PROMTOOL, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
