"""Services in Kubernetes."""

from __future__ import annotations

from .. import _waypost
from ._client import ClientServiceDiscovery


class KubernetesServiceDiscovery(ClientServiceDiscovery):
    """Watches EndpointSlices and Services. The namespace is the one for names without any; by default
    that of the pod, or of the kubeconfig's context."""

    def __init__(self, namespace: str | None = None) -> None:
        variables = {"SERVICE_DISCOVERY_PROVIDER": "kubernetes"}
        if namespace is not None:
            variables["KUBERNETES_NAMESPACE"] = namespace
        super().__init__(_waypost.Client(variables))
