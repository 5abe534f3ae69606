"""Kubeflow's registries: the Model Registry (``models``) and the Model Catalog (``model_catalog``).

The registry is https://www.kubeflow.org/docs/components/model-registry/, whose REST API v1alpha3 is described at
https://www.kubeflow.org/docs/components/model-registry/reference/rest-api/.  What is written back to it
is in ``serving``; docs/registries.md has the conventions for digests and aliases, which the API lacks.
"""
