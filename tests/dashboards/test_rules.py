"""The recording rules: Prometheus' own linter and tests, and names that are really exported."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from monitor.metrics.families import FAMILIES

RULES = Path(__file__).parents[2] / "dashboards" / "rules"
FILES = sorted(path.name for path in RULES.glob("*.yml") if not path.name.endswith(".test.yml"))

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool comes with Debian's prometheus"
)


def _promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_rules() -> None:
    assert FILES


@needs_promtool
@pytest.mark.parametrize("name", FILES)
def test_rules_pass_the_linter(name: str) -> None:
    _promtool("check", "rules", "--lint-fatal", name)


@needs_promtool
@pytest.mark.parametrize("name", FILES)
def test_rules_give_what_their_tests_say(name: str) -> None:
    _promtool("test", "rules", name.replace(".yml", ".test.yml"))


@pytest.mark.parametrize("name", FILES)
def test_rules_name_metrics_labels_and_values_that_are_exported(name: str) -> None:
    families = {family.name: family for family in FAMILIES}
    named = re.findall(r"\b(smtp_\w+?)\{([^}]*)\}|\b(smtp_peer\w+)\)", (RULES / name).read_text())
    assert named
    for with_matchers, matchers, bare in named:
        labels = {label.name: label.values for label in families[with_matchers or bare].labels}
        for label, pattern in re.findall(r'(\w+)\s*(?:=|!=|=~|!~)\s*"([^"]*)"', matchers):
            values = labels[label]
            assert values is not None
            assert set(pattern.split("|")) <= set(values), f"{label} {pattern}"
