from waypost.discovery.base import ServiceDiscovery

class MyServiceDiscovery(ServiceDiscovery):
    def __init__(self, config_param=None):
        self.config_param = config_param
        
    def get_service_url(self, service_name, default=None):
        # Implementation
        service = self.get_service(service_name)
        return service['url'] if service else default
        
    def get_service(self, service_name, default=None):
        # Implementation
        return self.get_services().get(service_name, default)
        
    def get_services(self):
        # Implementation
        return self.config_param or {}
        
    def register_service(self, service_name, service_data):
        # Implementation
        self.config_param = {**self.get_services(), service_name: service_data}
        
    def deregister_service(self, service_name):
        # Implementation
        del self.config_param[service_name]
