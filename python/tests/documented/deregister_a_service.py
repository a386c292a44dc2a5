from waypost.discovery import deregister_service

# Deregister a service
deregister_service('my-service')
