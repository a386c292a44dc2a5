from waypost.discovery import get_service

# Get detailed information about a service
auth_service = get_service('auth')
print(f"Auth service is at {auth_service['url']} on port {auth_service['port']}")
