from waypost.discovery import register_service

# Register a service
register_service('my-service', {
    'address': 'localhost',
    'port': 8080,
    'tags': ['http', 'api'],
    'check': {
        'http': 'http://localhost:8080/health',
        'interval': '10s'
    }
})
