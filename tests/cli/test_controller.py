"""``lading controller`` as a process."""

import pytest

from command_line import lading


@pytest.mark.parametrize("config", ["controller: {urls: [ftp://models]}", "agent: {port: none}"])
def test_wrong_settings_are_named_before_a_cluster_that_cannot_be_reached(tmp_path, config):
    environ = {"LADING_CONFIG_YAML": config, "KUBECONFIG": str(tmp_path / "none")}
    outcome = lading("controller", environ=environ)
    assert outcome.code == 2
    assert outcome.err.startswith(f"error[usage]: LADING_CONFIG_YAML: {config.partition(':')[0]}.")
