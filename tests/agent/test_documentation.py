"""What is written about the agent's numbers and settings is what there is."""

import json
import re
from pathlib import Path

import yaml

from lading.agent.metrics import METRICS
from lading.settings.agent import AgentSettings, Canary, Delivery, OnChange, read_agent
from lading.settings.settings import Settings
from lading.settings.store import read_store
from lading.settings.variables import Variables

ROOT = Path(__file__).resolve().parents[2]


def test_every_metric_is_on_the_page_and_nothing_else():
    rows = re.findall(
        r"^\| `(lading_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
    )
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows}
    assert told == {name: (metric.kind, metric.labels, metric.help) for name, metric in METRICS.items()}


def test_alerts_and_dashboard_ask_for_metrics_and_labels_that_there_are():
    dashboard = json.loads((ROOT / "deploy/grafana/lading.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += re.findall(r"expr: (.*)", (ROOT / "docs/metrics.md").read_text())
    assert len(asked) > 10
    for expression in asked:
        names = re.findall(r"lading_\w+", expression)
        assert names, expression
        assert set(names) <= METRICS.keys(), expression
        labels = {label for group in re.findall(r"by \((.*?)\)", expression) for label in group.split(", ")}
        assert all(labels <= set(METRICS[name].labels) for name in names), expression
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_setting_is_on_the_page_and_its_examples_are_understood():
    page = (ROOT / "docs/agent.md").read_text()
    for kind in (Delivery, Canary, OnChange, AgentSettings):
        for field in kind._fields:
            assert f"`{field}`" in page or field == "deliveries", field
    examples = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    configurations = [data for text in examples if "deliveries" in (data := yaml.safe_load(text))]
    assert configurations
    for data in configurations:
        store = read_store(data, Variables())
        settings = Settings(deliveries=tuple(data["deliveries"]), agent=data.get("agent", {}), store=store)
        assert read_agent(settings).deliveries
