"""The Confidential Data Hub's one answer that counts here: the content of a resource."""

from fakes.faulty_http import FaultyServer


class FakeCdh:
    """Keys by resource, as ``kbs:///repository/type/tag`` names them."""

    def __init__(self, server: FaultyServer) -> None:
        self.server = server

    def put(self, resource: str, content: bytes) -> dict[str, str]:
        """Give this content out; returns what KServe puts into the environment."""
        self.server.put(self._path(resource), content)
        return {"CONFIDENTIAL_ENABLED": "true", "CONFIDENTIAL_RESOURCE_ID": resource, "CDH_ADDR": self.server.url}

    def asked(self, resource: str) -> int:
        return len(self.server.requests_for(self._path(resource)))

    @staticmethod
    def _path(resource: str) -> str:
        return f"/cdh/resource/{resource.removeprefix('kbs:///')}"
