"""Run by the Python that has KServe's own package: reads a JSON list of objects, writes what its models make of them.

Those models know Kubernetes' by their names only, and the client that reads them knows KServe's not at all.
"""

import json
import sys

import kubernetes.client
from kserve import models

for name in dir(models):
    if name[0].isupper() and not hasattr(kubernetes.client.models, name):
        setattr(kubernetes.client.models, name, getattr(models, name))


class Client(kubernetes.client.ApiClient):
    NATIVE_TYPES_MAPPING = {  # noqa: RUF012 - as its own class has it
        **kubernetes.client.ApiClient.NATIVE_TYPES_MAPPING,
        "ResourceQuantity": str,
    }

    def read(self, thing):
        version = thing["apiVersion"].rpartition("/")[2]
        kind = f"{version[0].upper()}{version[1:]}{thing['kind']}"
        return self.sanitize_for_serialization(self._ApiClient__deserialize(thing, kind))


client = Client()
json.dump([client.read(thing) for thing in json.load(sys.stdin)], sys.stdout)
