//! The global functions, in a single test because they share state.

use std::sync::Arc;

use waypost::provider::MemoryProvider;
use waypost::{
    Error, ServiceRegistration, deregister_all_services, deregister_service,
    get_discovery_provider, get_service, get_service_url, get_services, register_service,
    set_discovery_provider,
};

#[tokio::test]
async fn global_functions_find_list_register_and_deregister() {
    set_discovery_provider(Arc::new(MemoryProvider::new()));
    assert_eq!(&*get_discovery_provider().unwrap().describe(), "memory");

    let error = get_service_url("auth", None).await.unwrap_err();
    assert!(matches!(error, Error::UnknownService { .. }));
    let default = get_service_url("auth", Some("http://localhost:5001"))
        .await
        .unwrap();
    assert_eq!(default, "http://localhost:5001");
    // A default hides an outage, but not an invalid name.
    assert!(matches!(
        get_service_url("a b", Some("http://x")).await,
        Err(Error::Invalid(_))
    ));

    let registration = ServiceRegistration::new("auth", 8080)
        .unwrap()
        .tags(["http", "api"]);
    let id = register_service(registration).await.unwrap();
    let mut found = get_service("auth", None).await;
    while found.is_err() {
        tokio::task::yield_now().await;
        found = get_service("auth", None).await;
    }
    let found = found.unwrap();
    assert_eq!(found.id(), &id);
    assert_eq!((found.url(), found.port()), ("http://127.0.0.1:8080", 8080));

    let services = get_services().await.unwrap();
    assert_eq!(services["auth"].url(), "http://127.0.0.1:8080");

    // Registering the same id again replaces the registration without deregistering it.
    let again = ServiceRegistration::new("auth", 8080).unwrap().version("2");
    register_service(again).await.unwrap();
    while get_service("auth", None).await.unwrap().version() != Some("2") {
        tokio::task::yield_now().await;
    }

    assert_eq!(deregister_service("auth").await.unwrap(), 1);
    assert_eq!(deregister_service("auth").await.unwrap(), 0);
    while get_service("auth", None).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let error = get_service("auth", None).await.unwrap_err();
    assert!(matches!(error, Error::NoInstances { .. }), "{error}");

    for name in ["auth", "billing"] {
        let registration = ServiceRegistration::new(name, 8080).unwrap();
        register_service(registration).await.unwrap();
    }
    assert_eq!(deregister_all_services().await.unwrap(), 2);
    assert_eq!(deregister_all_services().await.unwrap(), 0);
    while get_service("billing", None).await.is_ok() {
        tokio::task::yield_now().await;
    }
}
