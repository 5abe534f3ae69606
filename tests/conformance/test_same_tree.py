"""The same tree gives the same manifest, and the same files, through every source."""

import shutil
import subprocess

import pytest

from conformance.scene import scenes
from fakes.fake_mlflow import FakeMlflow
from fakes.faulty_http import FaultyServer
from fakes.real_s3 import BUCKET
from fakes.registry_entries import registry_entry
from fakes.trees import facts, mapped_tree, told, whole_manifest, write_contract_tree
from lading.settings.limits import Limits

LIMITS = Limits(stall_s=20.0, connect_s=5.0, attempts=4, workers=4)


@pytest.fixture(scope="module")
def buckets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("buckets")
    write_contract_tree(folder / BUCKET / "tree")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tree(buckets):
    return buckets / BUCKET / "tree"


@pytest.fixture(scope="module")
def expected(tree):
    return facts(tree)


@pytest.fixture(scope="module")
def tar(tree, tmp_path_factory):
    archive = tmp_path_factory.mktemp("archive") / "tree.tar"
    # By tar(1) and not by tarfile, which is what reads it.
    subprocess.run(["tar", "-C", tree, "--format=pax", "-cf", archive, "."], check=True)
    yield archive
    archive.unlink()


@pytest.fixture
def destination(tmp_path):
    yield tmp_path / "model"
    shutil.rmtree(tmp_path / "model", ignore_errors=True)


TREES = scenes("TREES")


@pytest.mark.parametrize("served", TREES.values(), ids=TREES)
def test_the_same_tree_gives_the_same_manifest_through_every_source(request, served, expected, destination, pull):
    with served(request) as (uri, settings):
        manifest = pull(uri, destination, limits=LIMITS, **settings)
    assert told(manifest) == expected
    assert told(whole_manifest(destination)) == expected


def test_an_mlflow_server_sends_all_but_the_name_that_it_cannot_send(tree, expected, destination, pull):
    unspeakable = "with space/and+plus & more=%41?#"
    with FaultyServer() as server:
        mlflow = FakeMlflow(server)
        for path, data in mapped_tree(tree).items():
            if path != unspeakable:
                mlflow.put(f"1/tree/{path}", data)
        registries = (registry_entry("prod", "mlflow", url=server.url),)
        manifest = pull("mlflow-artifacts:/1/tree", destination, limits=LIMITS, registries=registries)
    assert told(manifest) == {path: about for path, about in expected.items() if path != unspeakable}
    assert told(whole_manifest(destination)) == told(manifest)
