try:
    from myservice import MyServiceDiscovery
    HAS_MYSERVICE = True
except ImportError:
    HAS_MYSERVICE = False

def get_discovery_provider(provider_type=None):
    # ...
    if provider_type == 'myservice' and HAS_MYSERVICE:
        return MyServiceDiscovery()
    # ...
