from waypost.discovery import get_service_url

# Get the URL for a service
auth_url = get_service_url('auth')
backend_url = get_service_url('backend')

# Make a request to the service
import requests
response = requests.get(f"{auth_url}/health")
