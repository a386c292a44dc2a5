//! The stack in the pictures: a shop with ten services, of which two fail.

use serde_json::{Value, json};

use crate::fake_stack::{FakeStack, ago, now};

/// Name, kind, state, port, instances, requests per second, p99 in ms, what it uses.
type Line = (
    &'static str,
    &'static str,
    &'static str,
    u16,
    usize,
    u64,
    f64,
    &'static [&'static str],
);

const SERVICES: [Line; 10] = [
    ("payments", "process", "crash-looping", 4400, 1, 3, 0.0, &[]),
    (
        "orders",
        "process",
        "degraded",
        4100,
        2,
        31,
        48.0,
        &["payments", "postgres", "mailer"],
    ),
    ("search", "process", "starting", 4500, 1, 0, 0.0, &[]),
    ("web", "process", "ready", 5173, 1, 12, 9.0, &[]),
    ("gateway", "builtin", "ready", 8000, 1, 0, 0.0, &[]),
    (
        "catalog",
        "process",
        "ready",
        4200,
        3,
        64,
        6.0,
        &["postgres"],
    ),
    ("auth", "process", "ready", 4300, 1, 37, 2.0, &["postgres"]),
    ("ai-models", "process", "ready", 8002, 3, 4, 3.0, &[]),
    ("mailer", "process", "running", 0, 1, 0, 0.0, &[]),
    ("postgres", "external", "ready", 5432, 1, 0, 0.0, &[]),
];

/// The shop. Its state is the same each time, apart from the times.
pub(crate) fn shop() -> FakeStack {
    let stack = FakeStack::new();
    for line in SERVICES {
        stack.set_service(service(line));
        if let Some(registered) = registered(line) {
            stack.set_registered(registered);
        }
    }
    stack.set_checks("orders", orders_checks());
    stack.set_traffic(traffic());
    for (key, value) in [
        ("shop/", ""),
        (
            "shop/flags",
            "{\n  \"new-checkout\": true,\n  \"free-shipping-from\": 40\n}",
        ),
        ("shop/orders/limits", "{\"per-minute\": 30}"),
        ("shop/orders/vat", "0.19"),
        ("shop/search/index", "products-7"),
    ] {
        stack.set_key(key, value);
    }
    log(&stack);
    stack
}

fn service((name, kind, state, port, count, _, _, uses): Line) -> Value {
    let (since, why, error, advice) = match name {
        "payments" => (
            70,
            Some("4 crashes, next start in 6 s"),
            Some("Error: STRIPE_KEY is not set"),
            Some("set STRIPE_KEY in .env"),
        ),
        "orders" => (
            134,
            Some("orders-2 fails its health check"),
            Some("psycopg.OperationalError: connection timed out"),
            None,
        ),
        "search" => (4, Some("waits for /readyz"), None, None),
        "auth" => (360, None, None, None),
        _ => (1080, None, None, None),
    };
    let instances: Vec<_> = (1..=count)
        .map(|number| {
            let state = match (name, number) {
                ("orders", 2) => "unhealthy",
                ("orders", _) => "ready",
                _ => state,
            };
            let is_up = state != "crash-looping";
            json!({"id": if count == 1 { name.to_owned() } else { format!("{name}-{number}") }, "state": state, "since": ago(since),
                "pid": is_up.then_some(8100 + usize::from(port) % 97 + number * 20), "port": (port > 0).then_some(port + if number == 1 { 0 } else { 20_380 + u16::try_from(number).unwrap() }),
                "restarts": if is_up { 0 } else { 4 }, "exit": if is_up { Value::Null } else { json!({"code": 1, "signal": null}) }, "next_start_at": null,
                "cpu_percent": is_up.then_some(2.0 - f64::from(u8::try_from(number).unwrap() - 1) * 0.9), "memory_bytes": is_up.then_some(81_000_000 + 3_000_000 * (count - number)),
                "why": null, "started_at": ago(since), "registered": port > 0})
        })
        .collect();
    let ready = match state {
        "ready" | "running" => count,
        "degraded" => 1,
        _ => 0,
    };
    json!({"name": name, "kind": kind, "state": state, "since": ago(since), "why": why, "advice": advice, "last_error": error,
        "ready": ready, "wanted": count, "address": (port > 0).then(|| format!("localhost:{port}")),
        "url": (port > 0 && kind == "process").then(|| format!("http://localhost:8000/{name}/")), "restarts": if name == "payments" { 4 } else { 0 },
        "cpu_percent": 2.0, "memory_bytes": 84_000_000, "after": [], "uses": uses, "links": {}, "profiles": [], "instances": instances})
}

fn registered((name, _, state, port, count, ..): Line) -> Option<Value> {
    if port == 0 || ["postgres", "search"].contains(&name) {
        return None;
    }
    let instances: Vec<_> = (1..=count)
        .map(|number| {
            let at = |seconds: u64| now() - seconds;
            let history = match (name, number) {
                ("payments", _) => json!([[at(2000), "passing"], [at(270), "critical"], [at(190), "removed"], [at(170), "critical"], [at(110), "removed"], [at(95), "critical"]]),
                ("orders", 2) => json!([[at(2000), "passing"], [at(560), "warning"], [at(525), "passing"], [at(134), "critical"]]),
                ("catalog", 1) => json!([[at(2000), "passing"], [at(600), "warning"], [at(560), "passing"]]),
                ("auth", _) => json!([[at(2000), "passing"], [at(380), "removed"], [at(360), "passing"]]),
                _ => json!([[at(2000), "passing"]]),
            };
            let is_failing = state == "crash-looping" || (name == "orders" && number == 2);
            json!({"id": if count == 1 { name.to_owned() } else { format!("{name}-{number}") }, "node": "laptop", "address": "127.0.0.1",
                "port": port + if number == 1 { 0 } else { 20_380 + u16::try_from(number).unwrap() }, "tags": if name == "gateway" { json!(["gateway"]) } else { json!(["v1", "http"]) },
                "meta": {"version": "1.4.2"}, "status": if is_failing { "critical" } else { "passing" }, "since": ago(134),
                "why": is_failing.then(|| json!({"check": "health", "output": OUTPUT})), "history": history})
        })
        .collect();
    Some(json!({"name": name, "tags": ["v1", "http"], "instances": instances}))
}

const OUTPUT: &str = "HTTP GET http://127.0.0.1:24480/health: 503 Service Unavailable Output: database  ✗  timed out after 2 s\ncache     ✓";

fn orders_checks() -> Value {
    let check = |number: u8, status: &str, output: &str, history: Value| {
        json!({"Node": "laptop", "CheckID": format!("orders-{number}:health"), "Name": "health", "ServiceID": format!("orders-{number}"), "ServiceName": "orders",
            "Status": status, "Output": output, "LastChanged": ago(134), "Definition": {"HTTP": format!("http://127.0.0.1:{}/health", if number == 1 { 4100 } else { 24480 }), "Interval": "10s", "Timeout": "2s"},
            "Runs": 108, "LastRun": ago(7), "NextRun": humantime::format_rfc3339_millis(std::time::SystemTime::now() + std::time::Duration::from_secs(3)).to_string(), "History": history})
    };
    json!([
        check(
            1,
            "passing",
            "HTTP GET http://127.0.0.1:4100/health: 200 OK Output: ok",
            json!([{"Time": ago(1080), "Status": "passing", "Output": "HTTP GET http://127.0.0.1:4100/health: 200 OK Output: ok"}])
        ),
        check(
            2,
            "critical",
            OUTPUT,
            json!([
                {"Time": ago(1080), "Status": "passing", "Output": "HTTP GET http://127.0.0.1:24480/health: 200 OK Output: ok"},
                {"Time": ago(560), "Status": "warning", "Output": "HTTP GET http://127.0.0.1:24480/health: 429 Too Many Requests Output: slow answer"},
                {"Time": ago(525), "Status": "passing", "Output": "HTTP GET http://127.0.0.1:24480/health: 200 OK Output: ok"},
                {"Time": ago(134), "Status": "critical", "Output": OUTPUT},
            ])
        ),
    ])
}

/// Plausible traffic of a quarter of an hour.
fn traffic() -> Value {
    let mut services = serde_json::Map::new();
    for (number, (name, _, state, _, _, rate, latency, _)) in SERVICES.into_iter().enumerate() {
        if rate == 0 {
            continue;
        }
        let buckets: Vec<_> = (0..900u64)
            .map(|at| {
                let second = now() - 900 + at + 1;
                #[expect(clippy::cast_precision_loss)]
                let wave = ((at as f64 / 37.0 + number as f64).sin()
                    + (at as f64 / 11.0).cos() * 0.4)
                    * 0.18;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss
                )]
                let requests = (rate as f64 * (1.0 + wave)).round() as u64;
                let failures = if state == "crash-looping" {
                    requests
                } else {
                    u64::from(name == "orders" && at % 25 == 0)
                };
                let latency =
                    (latency > 0.0).then(|| (latency * (1.0 + wave) * 10.0).round() / 10.0);
                json!([
                    second,
                    requests,
                    failures,
                    latency.map(|it| it / 4.0),
                    latency
                ])
            })
            .collect();
        services.insert(name.to_owned(), json!({"buckets": buckets}));
    }
    Value::Object(services)
}

/// The traffic of a second, with callers.
pub(crate) fn second() -> Value {
    let mut services = serde_json::Map::new();
    for (name, _, state, _, _, rate, latency, _) in SERVICES {
        if rate > 0 {
            let caller = if name == "payments" {
                "orders"
            } else {
                "outside"
            };
            let failures = if state == "crash-looping" { rate } else { 0 };
            let latency = (latency > 0.0).then_some(latency);
            services.insert(name.to_owned(), json!({"requests": rate, "failures": failures, "p50_ms": latency.map(|it| it / 4.0), "p99_ms": latency,
                "callers": {caller: rate}, "instances": {}}));
        }
    }
    services["orders"]["instances"] = json!({"127.0.0.1:4100": {"requests": 31, "failures": 0, "in_flight": 1, "ejected": false}, "127.0.0.1:24482": {"requests": 0, "failures": 0, "in_flight": 0, "ejected": false}});
    Value::Object(services)
}

fn log(stack: &FakeStack) {
    let (info, warn, error) = (Some("info"), Some("warn"), Some("error"));
    let access = |method: &str,
                  path: &str,
                  status: u16,
                  route: &str,
                  instance: &str,
                  ms: u32,
                  id: &str| {
        format!(
            "method={method} path=\"{path}\" status={status} route=\"{route}\" instance=\"{instance}\" attempts=1 duration_ms={ms} request_id=\"{id}\""
        )
    };
    let lines: Vec<(u64, &str, &str, Option<&str>, String)> = vec![
        (
            12,
            "gateway",
            "stderr",
            info,
            access(
                "GET",
                "/catalog/items?page=2",
                200,
                "catalog",
                "catalog-2",
                6,
                "0b51ee07",
            ),
        ),
        (
            12,
            "web",
            "stdout",
            info,
            "[vite] hmr update /src/Cart.tsx".into(),
        ),
        (
            12,
            "auth",
            "stdout",
            Some("debug"),
            "session 7f3a… is valid for another 29 m".into(),
        ),
        (
            11,
            "orders-1",
            "stdout",
            info,
            "order 8830 created, 3 items, 42.90 EUR request_id=147cd2c3".into(),
        ),
        (
            11,
            "gateway",
            "stderr",
            info,
            access(
                "POST",
                "/orders/orders",
                201,
                "orders",
                "orders-1",
                48,
                "147cd2c3",
            ),
        ),
        (
            11,
            "mailer",
            "stdout",
            info,
            "queued “Your order 8830” to dana@example.org".into(),
        ),
        (
            10,
            "payments",
            "event",
            None,
            "starting again (5th time)".into(),
        ),
        (
            10,
            "payments",
            "stdout",
            info,
            "payments 0.9.2 on node 20.20".into(),
        ),
        (
            10,
            "payments",
            "stderr",
            error,
            "Error: STRIPE_KEY is not set".into(),
        ),
        (
            10,
            "payments",
            "stderr",
            error,
            "    at config (services/payments/src/config.ts:14:11)".into(),
        ),
        (
            10,
            "payments",
            "stderr",
            error,
            "    at main (services/payments/src/main.ts:5:3)".into(),
        ),
        (
            10,
            "payments",
            "event",
            None,
            "ended with exit code 1 after 62 ms; again in 8 s".into(),
        ),
        (
            9,
            "gateway",
            "stderr",
            warn,
            access(
                "POST",
                "/payments/charge",
                503,
                "payments",
                "",
                1,
                "147cd2c3",
            ),
        ),
        (
            9,
            "catalog-2",
            "stdout",
            info,
            "cache: 212 of 240 items hit".into(),
        ),
        (
            8,
            "orders-1",
            "stdout",
            warn,
            "payments answered 503, order 8830 waits".into(),
        ),
        (
            7,
            "search",
            "event",
            None,
            "services/search/app.py changed; restarting".into(),
        ),
        (
            6,
            "search",
            "stdout",
            info,
            "uvicorn running on 127.0.0.1:4500".into(),
        ),
        (
            6,
            "search",
            "stdout",
            info,
            "loading index, 41,203 documents".into(),
        ),
        (
            4,
            "orders-2",
            "stdout",
            info,
            "GET /orders/8821 200 in 11 ms".into(),
        ),
        (
            4,
            "orders-2",
            "stdout",
            warn,
            "pool: 8 of 8 connections are in use".into(),
        ),
        (
            3,
            "orders-2",
            "stderr",
            error,
            "psycopg.OperationalError: connection timed out".into(),
        ),
        (
            2,
            "orders-2",
            "stdout",
            info,
            "GET /health 503 in 2,001 ms".into(),
        ),
        (2, "orders-2", "event", None, "left the rotation".into()),
    ];
    for (seconds, instance, stream, level, text) in lines {
        stack.log(seconds, instance, stream, level, &text);
    }
}
