"""lading's own kind of object: what each field means is in deploy/controller/crd.yaml."""

from lading.kubernetes.api_server import Resource

ROLLOUTS = Resource("lading.dev/v1alpha1", "modelrollouts", "ModelRollout")
