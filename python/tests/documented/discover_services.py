from waypost.client import ServiceDiscoveryClient

client = ServiceDiscoveryClient(
    service_name="my-client",
    port=0,  # No need to register this client
    auto_register=False,
    registry_host="localhost",
    registry_port=8500
)

# Get all instances of a service
instances = client.discover_service("target-service")

# Get URL for a service (with automatic load balancing)
url = client.get_service_url("target-service", "/api/resource")
