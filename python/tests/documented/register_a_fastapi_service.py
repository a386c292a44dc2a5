from fastapi import FastAPI
from waypost.registration import register_service, get_service_metadata

app = FastAPI()
service_registration = register_service(
    app=app,
    service_name="my-service",
    port=8080,
    version="1.0.0",
    health_check_path="/health"
)
