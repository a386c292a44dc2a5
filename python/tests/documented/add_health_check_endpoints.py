from waypost.helpers import register_health_check_endpoint

def check_database():
    # Check database connectivity
    return True

def check_cache():
    # Check cache connectivity
    return True

# Register health check endpoint
register_health_check_endpoint(
    app=app,
    service_name="my-service",
    check_functions=[check_database, check_cache]
)
