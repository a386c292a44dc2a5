from waypost.discovery import set_discovery_provider
from waypost.discovery.consul import ConsulServiceDiscovery

# Create a custom provider
provider = ConsulServiceDiscovery(host='consul.example.com', port=8500)

# Set it as the global provider
set_discovery_provider(provider)
