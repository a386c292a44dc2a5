try:
    # Try to get service URL from service discovery
    service_url = client.get_service_url("target-service")
    if not service_url:
        # Fallback to localhost
        service_url = "http://localhost:8000"
except Exception:
    # Fallback to localhost
    service_url = "http://localhost:8000"
