from waypost.client import ServiceDiscoveryClient
from waypost.load_balancer import WeightedRandomStrategy

def weight_function(instance):
    # Give higher weight to newer versions
    if instance.version == "2.0.0":
        return 10
    return 5

client = ServiceDiscoveryClient(
    service_name="my-service",
    load_balancer_strategy="custom"
)
client.load_balancer.strategy = WeightedRandomStrategy(weight_function)
