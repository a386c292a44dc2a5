from waypost.discovery import get_services

# Get all available services
services = get_services()
for name, service in services.items():
    print(f"Service {name} is at {service.get('url')}")
