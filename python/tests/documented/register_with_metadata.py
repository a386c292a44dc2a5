service_registration = register_service(
    app=app,
    service_name="my-service",
    port=8080,
    version="1.0.0",
    metadata={
        "api_version": "v2",
        "features": "authentication,billing,reporting",
        "region": "us-east"
    }
)
