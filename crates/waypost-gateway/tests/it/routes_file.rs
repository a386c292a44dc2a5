//! Routes from a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Method, Request, Response, StatusCode};

use crate::support::{
    FullResponse, Origin, Routed, TestGateway, body, instance, unused_address, wait_until,
    with_deadline,
};

#[tokio::test]
async fn the_most_specific_route_takes_a_request() {
    let routed = Routed::start(
        r#"
routes:
  - {name: everything, service: web}
  - {name: shop, match: {hosts: [shop.example]}, service: shop}
  - {name: any-shop, match: {hosts: ["*.shop.example"]}, service: shop}
  - {name: api, match: {path: /api}, service: api, strip_prefix: true}
  - {name: api-v2, match: {path: /api/v2}, service: api, rewrite: /second}
  - {name: api-health, match: {exact: /api/health}, service: web}
  - {name: orders, match: {template: "/users/{id}/orders"}, service: api, rewrite: "/orders/of/{id}"}
  - {name: posts, match: {path: /api, methods: [POST]}, service: web}
  - {name: beta, match: {path: /api, headers: {x-beta: "1"}}, service: shop}
"#,
    )
    .await;
    let origin = Origin::echo().await;
    for service in ["web", "shop", "api", "auth"] {
        routed.gateway.add(service, service, origin.address).await;
    }
    for (host, path, served_by, arrives) in [
        ("a", "/", "web", "/"),
        ("a", "/anything?x=1", "web", "/anything?x=1"),
        ("a", "/auth/login", "auth", "/login"),
        ("SHOP.example:8000", "/auth/login", "shop", "/auth/login"),
        ("de.shop.example", "/", "shop", "/"),
        ("a", "/api/x?y", "api", "/x?y"),
        ("a", "/api", "api", "/"),
        ("a", "/api/v2/x", "api", "/second/x"),
        ("a", "/api/v2", "api", "/second/"),
        ("a", "/apiary", "web", "/apiary"),
        ("a", "/%61pi/x", "api", "/x"),
        ("a", "/api/health", "web", "/api/health"),
        ("a", "/users/7/orders?page=2", "api", "/orders/of/7?page=2"),
    ] {
        let answer = routed.get_with(path, &[("host", host)]).await;
        assert_eq!(answer.instance(), served_by, "{host}{path}");
        assert_eq!(answer.json()["uri"], arrives, "{host}{path}");
    }
    let post = Request::builder()
        .method(Method::POST)
        .uri(routed.gateway.url("/api/x"));
    assert_eq!(routed.gateway.send(post).await.instance(), "web");
    let beta = routed.get_with("/api/x", &[("x-beta", "1")]).await;
    assert_eq!(beta.instance(), "shop");
}

#[tokio::test]
async fn a_redirect_to_the_replacement_of_a_prefix_leads_to_the_prefix() {
    let routes = "routes: [{match: {path: /shop}, service: shop, rewrite: /v1}]";
    let routed = Routed::start(routes).await;
    let origin = Origin::start(|_: Request<_>| async {
        let redirect = Response::builder().status(303);
        let redirect = redirect.header("location", "/v1/cart");
        redirect.body(body("")).unwrap()
    })
    .await;
    routed.gateway.add("shop", "shop", origin.address).await;
    let answer = routed.gateway.get("/shop/add").await;
    assert_eq!(answer.header("location"), "/shop/cart");
}

#[tokio::test]
async fn a_split_follows_the_weights_and_an_empty_version_is_a_503() {
    let routed = Routed::start(
        r#"
routes:
  - match: {path: /split}
    split:
      - {service: shop, version: "1.0", weight: 80}
      - {service: shop, version: "1.1", weight: 20}
  - {match: {path: /tagged}, service: shop, tag: canary}
  - {match: {path: /old}, service: shop, version: "0.9"}
"#,
    )
    .await;
    let origin = Origin::echo().await;
    for (id, version) in [("a", "1.0"), ("b", "1.0"), ("c", "1.1")] {
        let instance = instance("shop", id, origin.address).version(version);
        let instance = if id == "c" {
            instance.tag("canary")
        } else {
            instance
        };
        routed.gateway.insert(instance).await;
    }
    let mut canary = 0;
    for _ in 0..200 {
        canary += usize::from(routed.get("/split").await.instance() == "c");
    }
    // 40 are expected; this fails once in about ten million runs.
    assert!((12..=75).contains(&canary), "{canary} of 200");
    for _ in 0..4 {
        assert_eq!(routed.get("/tagged").await.instance(), "c");
    }
    let none = routed.get("/old").await;
    assert_eq!(none.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(none.reason(), "no_instances");
    let detail = none.json()["detail"].to_string();
    assert!(
        detail.contains("version") && detail.contains("0.9"),
        "{detail}"
    );
}

#[tokio::test]
async fn headers_are_edited_in_both_directions() {
    let routed = Routed::start(
        r#"
routes:
  - match: {path: /echo}
    service: echo
    request_headers: {set: {x-team: shop}, add: {x-list: b}, remove: [x-secret]}
    response_headers: {set: {x-frame-options: DENY}, remove: [x-waypost-instance]}
"#,
    )
    .await;
    routed
        .gateway
        .add("echo", "e", Origin::echo().await.address)
        .await;
    let sent = [("x-team", "forged"), ("x-list", "a"), ("x-secret", "1")];
    let answer = routed.get_with("/echo", &sent).await;
    let seen = &answer.json()["headers"];
    assert_eq!(seen["x-team"], "shop");
    assert_eq!(seen["x-list"], "a | b");
    assert!(seen["x-secret"].is_null(), "{seen}");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    assert!(!answer.headers.contains_key("x-waypost-instance"));
}

#[tokio::test]
async fn requests_beyond_the_rate_get_a_429_with_retry_after() {
    let routed = Routed::start(
        r#"
routes:
  - match: {path: /limited}
    service: web
    rate_limit: {requests: 2, per: 1h, by: header, header: x-api-key}
"#,
    )
    .await;
    routed
        .gateway
        .add("web", "w", Origin::echo().await.address)
        .await;
    for key in ["one", "two"] {
        for _ in 0..2 {
            let allowed = routed.get_with("/limited", &[("x-api-key", key)]).await;
            assert_eq!(allowed.status, StatusCode::OK);
        }
        let refused = routed.get_with("/limited", &[("x-api-key", key)]).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.reason(), "rate_limited");
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!((1700..=1800).contains(&seconds), "{seconds}");
    }
}

#[tokio::test]
async fn requests_beyond_the_concurrency_wait_or_get_a_503() {
    let routed = Routed::start(
        r#"
routes:
  - match: {path: /narrow}
    service: slow
    limits: {concurrent: 1, pending: 1, max_wait: 30s}
"#,
    )
    .await;
    let (gate, count) = (
        Arc::new(tokio::sync::Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (opened, counted) = (Arc::clone(&gate), Arc::clone(&count));
    let origin = Origin::start(move |_| {
        let gate = Arc::clone(&opened);
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            gate.acquire().await.unwrap().forget();
            http::Response::new(crate::support::body("done"))
        }
    })
    .await;
    routed.gateway.add("slow", "s", origin.address).await;
    let first = routed.get("/narrow");
    let others = async {
        wait_until("the first request", || count.load(Ordering::SeqCst) == 1).await;
        let ended = |answer: FullResponse| {
            // The one that waited is let in after the refused one has ended.
            gate.add_permits(2);
            answer
        };
        tokio::join!(async { ended(routed.get("/narrow").await) }, async {
            ended(routed.get("/narrow").await)
        },)
    };
    let (first, (second, third)) = tokio::join!(first, others);
    assert_eq!(first.text(), "done");
    let mut statuses = [second.status, third.status];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
    let refused = [second, third]
        .into_iter()
        .find(|answer| answer.status != StatusCode::OK)
        .unwrap();
    assert_eq!(refused.reason(), "overloaded");
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_responses() {
    let routed = Routed::start(
        r#"
routes:
  - match: {path: /api}
    service: api
    cors: {origins: ["https://shop.example"], methods: [GET, PUT], headers: [x-token],
           credentials: true, expose: [x-total], max_age: 1m}
"#,
    )
    .await;
    let origin = Origin::echo().await;
    routed.gateway.add("api", "a", origin.address).await;
    let preflight = |from: &str| {
        Request::builder()
            .method(Method::OPTIONS)
            .uri(routed.gateway.url("/api/x"))
            .header("origin", from)
            .header("access-control-request-method", "PUT")
    };
    let answer = routed.gateway.send(preflight("https://shop.example")).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    for (name, value) in [
        ("access-control-allow-origin", "https://shop.example"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-token"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "60"),
        ("vary", "origin"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let foreign = routed.gateway.send(preflight("https://evil.example")).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);
    assert!(!foreign.headers.contains_key("access-control-allow-origin"));
    assert_eq!(
        origin.requests(),
        0,
        "preflights are answered by the gateway"
    );

    let answer = routed
        .get_with("/api/x", &[("origin", "https://shop.example")])
        .await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://shop.example"
    );
    assert_eq!(answer.header("access-control-expose-headers"), "x-total");
    let answer = routed
        .get_with("/api/x", &[("origin", "https://evil.example")])
        .await;
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_cookie_keeps_a_client_at_its_instance_until_that_is_gone() {
    let routed = Routed::start(
        "routes: [{match: {path: /shop}, service: shop, strip_prefix: true, sticky: {cookie: at}}]",
    )
    .await;
    let origin = Origin::echo().await;
    let ids = ["a", "b", "c"];
    let mut cookies = Vec::new();
    for id in ids {
        routed.gateway.add("shop", id, origin.address).await;
        let alone = with_deadline("its own response", async {
            loop {
                let answer = routed.get("/shop/").await;
                if answer.instance() == id {
                    break answer;
                }
            }
        });
        let set = alone.await.header("set-cookie").to_owned();
        cookies.push(set.split(';').next().unwrap().to_owned());
        routed.gateway.memory.remove(&waypost::InstanceId::new(id));
    }
    for id in ids {
        routed.gateway.add("shop", id, origin.address).await;
    }
    for (id, cookie) in ids.iter().zip(&cookies) {
        for _ in 0..3 {
            let answer = routed.get_with("/shop/", &[("cookie", cookie)]).await;
            assert_eq!(answer.instance(), *id);
        }
    }
    let first = routed.get("/shop/").await;
    let set = first.header("set-cookie").to_owned();
    assert!(set.contains("; Path=/shop; HttpOnly"), "{set}");
    let cookie = set.split(';').next().unwrap();
    for _ in 0..6 {
        let again = routed.get_with("/shop/", &[("cookie", cookie)]).await;
        assert_eq!(again.instance(), first.instance());
        assert!(!again.headers.contains_key("set-cookie"));
    }
    let gone = waypost::InstanceId::new(first.instance());
    routed.gateway.memory.remove(&gone);
    with_deadline("another instance", async {
        loop {
            let moved = routed.get_with("/shop/", &[("cookie", cookie)]).await;
            if moved.instance() != first.instance() {
                assert!(moved.headers.contains_key("set-cookie"));
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_takes_longer_than_the_total_is_ended() {
    let routed =
        Routed::start("routes: [{match: {path: /slow}, service: slow, timeouts: {total: 300ms}}]")
            .await;
    let origin = Origin::start(|_| std::future::pending::<http::Response<_>>()).await;
    routed.gateway.add("slow", "s", origin.address).await;
    let answer = routed.get("/slow").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    let detail = answer.json()["detail"].to_string();
    assert!(detail.contains("300ms"), "{detail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_file_is_used_without_dropping_a_request_and_a_bad_one_changes_nothing() {
    let to = |service: &str| format!("routes: [{{match: {{path: /x}}, service: {service}}}]");
    let routed = Arc::new(Routed::start(&to("one")).await);
    let origin = Origin::echo().await;
    for service in ["one", "two"] {
        routed.gateway.add(service, service, origin.address).await;
    }
    let (stop, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load = {
        let (routed, stop, failed) = (Arc::clone(&routed), Arc::clone(&stop), Arc::clone(&failed));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let is_bad = routed.get("/x").await.status != StatusCode::OK;
                failed.fetch_add(usize::from(is_bad), Ordering::Relaxed);
            }
        })
    };
    let serves = async |service: &str| {
        with_deadline(service, async {
            while routed.get("/x").await.instance() != service {}
        })
        .await;
    };
    serves("one").await;
    routed.write(&to("two"));
    serves("two").await;
    routed.write("routes: [{servcie: one}]");
    // The next good file shows that the bad one has been read.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(routed.get("/x").await.instance(), "two");
    routed.write(&to("one"));
    serves("one").await;
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn only_the_named_services_have_routes_of_their_own() {
    let gateway =
        TestGateway::start_with(|config| config.only = vec!["shop".parse().unwrap()]).await;
    let origin = Origin::echo().await;
    gateway.add("shop", "s", origin.address).await;
    gateway.add("secret", "x", origin.address).await;
    assert_eq!(gateway.get("/shop/").await.status, StatusCode::OK);
    assert_eq!(gateway.get("/secret/").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_gateway_in_a_cluster_calls_no_loopback_address_and_no_foreign_name() {
    let gateway = TestGateway::start_with(|config| config.cluster_addresses_only = true).await;
    gateway.add("postgres", "p", unused_address()).await;
    let external = waypost::Instance::from_url("ext".parse().unwrap(), "http://localhost:1");
    gateway.insert(external.unwrap()).await;
    for service in ["postgres", "ext"] {
        let answer = gateway.get(&format!("/{service}/")).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
        assert_eq!(answer.reason(), "not_callable");
    }
}

#[tokio::test]
async fn a_service_gets_the_route_that_its_tags_define_and_a_bad_one_is_ignored() {
    let gateway = TestGateway::start_with(|config| config.routes_from_tags = true).await;
    let origin = Origin::echo().await;
    let billing = instance("billing", "b", origin.address).tag("waypost.path=/bills");
    let shop = instance("shop", "s", origin.address)
        .meta("waypost.host", "shop.example, *.shop.example")
        .meta("waypost.path", "/s")
        .meta("waypost.strip", "true");
    let odd = instance("odd", "o", origin.address).tag("waypost.path=odd");
    // Hidden services get no route.
    let consul = instance("consul", "h", origin.address).tag("waypost.path=/hidden");
    for instance in [consul, billing, shop, odd] {
        gateway.insert(instance).await;
    }
    let served = async |host: &str, path: &str| {
        let request = Request::get(gateway.url(path)).header("host", host);
        gateway.send(request).await
    };
    for (host, path, instance, arrives) in [
        ("a", "/bills/7", "b", "/bills/7"),
        ("de.shop.example", "/s/cart", "s", "/cart"),
        ("a", "/billing/7", "b", "/7"),
        ("a", "/odd/x", "o", "/x"),
    ] {
        with_deadline(path, async {
            while served(host, path).await.status != StatusCode::OK {}
        })
        .await;
        let answer = served(host, path).await;
        assert_eq!(answer.instance(), instance, "{host}{path}");
        assert_eq!(answer.json()["uri"], arrives, "{host}{path}");
    }
    assert_eq!(served("a", "/s/cart").await.status, StatusCode::NOT_FOUND);
    assert_eq!(served("a", "/hidden").await.status, StatusCode::NOT_FOUND);
    // The route stays when the last instance is gone.
    gateway.memory.remove(&waypost::InstanceId::new("b"));
    with_deadline("a 503", async {
        while served("a", "/bills/7").await.status != StatusCode::SERVICE_UNAVAILABLE {}
    })
    .await;
}

async fn expect_ambiguous(routed: &Routed, path: &str) {
    let refused = routed.get(path).await;
    assert_eq!(refused.status, 400, "{path}");
    assert_eq!(refused.reason(), "ambiguous_path", "{path}");
}

#[tokio::test]
async fn a_path_that_a_service_could_read_as_one_of_another_route_is_refused() {
    let routes = r#"
routes:
  - match: {path: /admin}
    service: shop
    api_keys: {env: KEYS}
  - match: {path: /}
    service: shop
"#;
    let routed = Routed::start_edited(routes, &[], |config| {
        config.environment = waypost::Environment::default().with("KEYS", "ann secret");
    })
    .await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    assert_eq!(routed.get("/admin/x").await.status, 401);
    for path in [
        "//admin/x",
        "/%2Fadmin/x",
        "/admin%2fx",
        "/admin;a=1/x",
        "/%5Cadmin",
    ] {
        expect_ambiguous(&routed, path).await;
    }
    assert_eq!(origin.requests(), 0);
    // Both readings are of the same route, so the path is passed on as it is.
    for path in ["/a%2Fb//c", "/fetch/https://x.example/", "/a;b=1/c"] {
        let passed = routed.get(path).await;
        assert_eq!(passed.json()["uri"], path);
    }
}

#[tokio::test]
async fn a_path_in_another_letter_case_does_not_bypass_a_guard() {
    let routes = r#"
routes:
  - {match: {path: /admin}, service: shop, api_keys: {env: KEYS}}
  - {match: {path: /Login, methods: [POST]}, service: shop, rate_limit: {requests: 5}}
  - {match: {template: "/users/{id}/keys"}, service: shop, api_keys: {env: KEYS}}
  - {match: {path: /shop/stock}, service: shop, api_keys: {env: KEYS}}
  - {match: {path: /elsewhere}, service: other, api_keys: {env: KEYS}}
  - {match: {path: /open}, service: shop}
  - {match: {path: /twin}, service: shop, api_keys: {env: KEYS}}
  - {match: {path: /Twin}, service: shop}
  - {match: {hosts: [public.example], path: /}, service: shop}
  - {match: {path: /}, service: shop}
"#;
    let routed = Routed::start_edited(routes, &[], |config| {
        config.environment = waypost::Environment::default().with("KEYS", "ann secret");
    })
    .await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    routed.gateway.add("other", "o", origin.address).await;
    for path in [
        "/ADMIN",
        "/Admin/x",
        "//Admin/x",
        "/%41dmin",
        "/Users/7/keys",
        "/shop/STOCK/7",
    ] {
        expect_ambiguous(&routed, path).await;
    }
    let login = Request::post(routed.gateway.url("/login"));
    assert_eq!(routed.gateway.send(login).await.reason(), "ambiguous_path");
    assert_eq!(origin.requests(), 0);
    for (host, path) in [
        // No guard is bypassed: the route is for another method, goes to another service or has none.
        ("a", "/login"),
        ("a", "/ELSEWHERE/x"),
        ("a", "/OPEN/x"),
        // The file has a route for each of the two spellings.
        ("a", "/Twin/x"),
        // The route of this host matches all its paths, in any letter case.
        ("public.example", "/Admin/x"),
        ("public.example", "/admin/x"),
        ("a", "/administrators"),
        ("a", "/Users/7"),
    ] {
        let passed = routed.get_with(path, &[("host", host)]).await;
        assert_eq!(passed.status, StatusCode::OK, "{host}{path}");
        assert_eq!(passed.json()["uri"], path);
    }
    assert_eq!(routed.get("/admin/x").await.status, 401);
    assert_eq!(routed.get("/users/AB/keys").await.status, 401);
}
