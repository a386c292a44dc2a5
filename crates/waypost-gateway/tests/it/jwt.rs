//! Routes that need a JSON Web Token.

use std::time::Duration;

use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    FullResponse, Issuer, KeyServer, Origin, Routed, seconds_from_now, wait_until, with_deadline,
};

const ROUTES: &str = r#"
routes:
  - match: {path: /shop}
    service: shop
    jwt:
      issuer: https://login.example
      audiences: [shop]
      jwks_file: keys.json
      leeway: 30s
      require: {scope: [orders, admin]}
      forward_claims: {sub: x-user, groups: x-groups}
"#;

fn claims() -> Value {
    json!({
        "iss": "https://login.example", "aud": ["web", "shop"], "sub": "ann",
        "exp": seconds_from_now(600), "scope": "profile orders", "groups": ["a", "b"],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

async fn shop(issuer: &Issuer) -> (Routed, Origin) {
    let keys = Issuer::key_set(&[issuer]);
    let routed = Routed::start_with(ROUTES, &[("keys.json", &keys)]).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    (routed, origin)
}

async fn call(routed: &Routed, token: &str) -> FullResponse {
    let bearer = format!("Bearer {token}");
    routed
        .get_with("/shop", &[("authorization", bearer.as_str())])
        .await
}

async fn until_accepted(routed: &Routed, token: &str) {
    with_deadline("the new keys", async {
        while call(routed, token).await.status != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_valid_token_is_accepted_and_its_claims_are_forwarded() {
    let issuer = Issuer::new("k1");
    let (routed, _origin) = shop(&issuer).await;
    let bearer = format!("bearer {}", issuer.token(&claims()));
    // What the client sends under these names must not reach the service, under no spelling.
    let sent = [
        ("authorization", bearer.as_str()),
        ("x-user", "root"),
        ("x_user", "root"),
        ("connection", "x-user, x-groups"),
    ];
    let answer = routed.get_with("/shop", &sent).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let seen = &answer.json()["headers"];
    assert_eq!(seen["x-user"], "ann");
    assert_eq!(seen["x-groups"], "a,b");
    assert_eq!(seen["authorization"], bearer);
    assert!(seen["x_user"].is_null(), "{seen}");

    let without = issuer.token(&with("groups", Value::Null));
    let sent = [
        ("authorization", format!("Bearer {without}")),
        ("x-groups", "admin".to_owned()),
    ];
    let sent = sent.each_ref().map(|(name, value)| (*name, value.as_str()));
    let answer = routed.get_with("/shop", &sent).await;
    assert!(answer.json()["headers"]["x-groups"].is_null());
}

#[tokio::test]
async fn tokens_that_are_not_valid_get_a_401_with_the_reason() {
    let (issuer, other) = (Issuer::new("k1"), Issuer::new("k1"));
    let (routed, origin) = shop(&issuer).await;
    let head = |alg: &str| json!({"alg": alg, "kid": "k1"});
    let valid = issuer.token(&claims());
    let unsigned = issuer.token_with(&head("none"), &claims());
    let cut = valid.rsplit_once('.').unwrap().0;
    for (token, why) in [
        (other.token(&claims()), "signature"),
        (format!("{cut}."), "signature"),
        (unsigned, "not a signed"),
        ("abc".to_owned(), "not a signed"),
        (issuer.token_with(&head("HS256"), &claims()), "HS256"),
        (
            issuer.token_with(&head("RS256"), &claims()),
            "none of the issuer's keys",
        ),
        (
            issuer.token_with(&json!({"alg": "ES256", "kid": "k2"}), &claims()),
            "none of the issuer's keys",
        ),
        (
            issuer.token_with(&json!({"alg": "ES256", "crit": ["x"], "x": 1}), &claims()),
            "critical",
        ),
        (
            issuer.token(&with("exp", seconds_from_now(-60).into())),
            "expired",
        ),
        (issuer.token(&with("exp", Value::Null)), "exp"),
        (issuer.token(&with("exp", "soon".into())), "exp"),
        (
            issuer.token(&with("nbf", "soon".into())),
            "has the wrong type",
        ),
        (
            issuer.token(&with("nbf", seconds_from_now(60).into())),
            "not valid yet",
        ),
        (
            issuer.token(&with("iss", "https://evil.example".into())),
            "issuer",
        ),
        (issuer.token(&with("iss", Value::Null)), "iss"),
        (issuer.token(&with("aud", "web".into())), "audience"),
        (issuer.token(&with("sub", "a\nb".into())), "sub"),
    ] {
        let answer = call(&routed, &token).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{why}");
        assert_eq!(answer.reason(), "token_invalid");
        assert_eq!(
            answer.header("www-authenticate"),
            "Bearer error=\"invalid_token\""
        );
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(why), "{why}: {detail}");
    }
    let missing = routed.get("/shop").await;
    assert_eq!(missing.status, StatusCode::UNAUTHORIZED);
    assert_eq!(missing.reason(), "token_missing");
    let detail = missing.json()["detail"].to_string();
    assert!(detail.contains("Authorization: Bearer TOKEN"), "{detail}");
    assert_eq!(missing.header("www-authenticate"), "Bearer");
    let bearer = format!("Bearer {valid}");
    let twice = [
        ("authorization", bearer.as_str()),
        ("authorization", "Bearer x"),
    ];
    let answer = routed.get_with("/shop", &twice).await;
    assert_eq!(answer.reason(), "token_invalid");
    assert_eq!(origin.requests(), 0);

    // Within the leeway.
    let expired = issuer.token(&with("exp", seconds_from_now(-5).into()));
    assert_eq!(call(&routed, &expired).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_token_without_a_required_claim_gets_a_403() {
    let issuer = Issuer::new("k1");
    let (routed, origin) = shop(&issuer).await;
    for scope in [json!("profile"), json!(["profile"]), json!(7), Value::Null] {
        let answer = call(&routed, &issuer.token(&with("scope", scope.clone()))).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{scope}");
        assert_eq!(answer.reason(), "claim_missing");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, "Bearer error=\"insufficient_scope\"");
    }
    assert_eq!(origin.requests(), 0);
    let listed = issuer.token(&with("scope", json!(["admin"])));
    assert_eq!(call(&routed, &listed).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_required_value_is_a_word_of_the_scope_an_item_of_a_list_or_the_whole_claim() {
    let issuer = Issuer::new("k1");
    let routes = r#"
routes:
  - match: {path: /shop}
    service: shop
    jwt: {jwks_file: keys.json, require: {sub: [], scp: orders, team: blue team}}
"#;
    let keys = Issuer::key_set(&[&issuer]);
    let routed = Routed::start_with(routes, &[("keys.json", &keys)]).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    let other = "none of the required values";
    for (name, value, refused) in [
        ("scp", json!("profile orders"), None),
        ("scp", json!("profile"), Some(other)),
        ("team", json!("blue team"), None),
        ("team", json!(["red team", "blue team"]), None),
        ("team", json!("blue"), Some(other)),
        ("team", json!("blue team red"), Some(other)),
        ("sub", json!(7), None),
        ("sub", Value::Null, Some("has no claim")),
    ] {
        let mut claims = json!({
            "exp": seconds_from_now(600), "sub": "ann", "scp": "orders", "team": "blue team",
        });
        claims[name] = value.clone();
        let answer = call(&routed, &issuer.token(&claims)).await;
        match refused {
            None => assert_eq!(answer.status, StatusCode::OK, "{name}: {value}"),
            Some(why) => {
                assert_eq!(answer.reason(), "claim_missing", "{name}: {value}");
                let detail = answer.json()["detail"].to_string();
                assert!(detail.contains(why) && detail.contains(name), "{detail}");
            }
        }
    }
}

#[tokio::test]
async fn a_grpc_client_gets_the_status_unauthenticated() {
    let issuer = Issuer::new("k1");
    let (routed, _origin) = shop(&issuer).await;
    let request = Request::post(routed.gateway.url("/shop/Orders/List"))
        .header("content-type", "application/grpc");
    let answer = routed.gateway.send(request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("grpc-status"), "16");
    assert!(answer.header("grpc-message").starts_with("token_missing"));
}

#[tokio::test]
async fn the_token_can_be_in_another_header_and_be_kept_from_the_service() {
    let issuer = Issuer::new("k1");
    let routes = r#"
routes:
  - match: {path: /shop}
    service: shop
    jwt: {jwks_file: keys.json, header: x-token, forward_token: false, algorithms: [ES256]}
"#;
    let keys = Issuer::key_set(&[&issuer]);
    let routed = Routed::start_with(routes, &[("keys.json", &keys)]).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    let token = issuer.token(&json!({"exp": seconds_from_now(600)}));
    let sent = [("x-token", token.as_str()), ("authorization", "Basic eA==")];
    let answer = routed.get_with("/shop", &sent).await;
    let seen = &answer.json()["headers"];
    assert!(seen["x-token"].is_null(), "{seen}");
    assert_eq!(seen["authorization"], "Basic eA==");
}

#[tokio::test]
async fn a_new_key_file_is_used() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let (routed, _origin) = shop(&old).await;
    let token = new.token(&claims());
    assert_eq!(call(&routed, &token).await.status, StatusCode::UNAUTHORIZED);
    routed.write_file("keys.json", &Issuer::key_set(&[&old, &new]));
    until_accepted(&routed, &token).await;
}

#[tokio::test]
async fn a_token_with_an_unknown_key_has_the_keys_requested_early() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let server = KeyServer::start(Issuer::key_set(&[&old])).await;
    let routed = Routed::start(&format!(
        "routes:\n  - match: {{path: /shop}}\n    service: shop\n    jwt: {{jwks_url: \"{}\", refresh: 1h}}\n",
        server.url()
    ))
    .await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    let token = old.token(&claims());
    assert_eq!(call(&routed, &token).await.status, StatusCode::OK);
    server.serve(Some(Issuer::key_set(&[&old, &new])));
    until_accepted(&routed, &new.token(&claims())).await;
    assert_eq!(server.origin.requests(), 2, "one request is enough");
}

#[tokio::test]
async fn keys_from_a_url_stay_in_use_while_it_fails_and_follow_a_rotation() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let server = KeyServer::start(Issuer::key_set(&[&old])).await;
    let routes = |refresh: &str, path: &str| {
        format!(
            "routes:\n  - match: {{path: {path}}}\n    service: shop\n    jwt: {{jwks_url: \"{}\", refresh: {refresh}}}\n",
            server.url()
        )
    };
    let routed = Routed::start(&routes("1s", "/shop")).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    let token = old.token(&claims());
    assert_eq!(call(&routed, &token).await.status, StatusCode::OK);

    server.serve(None);
    let asked = server.origin.requests();
    wait_until("a failed refresh", || server.origin.requests() >= asked + 2).await;
    assert_eq!(call(&routed, &token).await.status, StatusCode::OK);
    // A change of the routes doesn't lose the keys.
    routed.write(&routes("1s", "/shop/v2"));
    let bearer = format!("Bearer {token}");
    let sent = [("authorization", bearer.as_str())];
    with_deadline("the new routes", async {
        while routed.get("/shop").await.status == StatusCode::UNAUTHORIZED {}
    })
    .await;
    let answer = routed.get_with("/shop/v2", &sent).await;
    assert_eq!(answer.status, StatusCode::OK);

    server.serve(Some(Issuer::key_set(&[&new])));
    let bearer = format!("Bearer {}", new.token(&claims()));
    let sent = [("authorization", bearer.as_str())];
    with_deadline("the new key", async {
        while routed.get_with("/shop/v2", &sent).await.status != StatusCode::OK {}
    })
    .await;
    let revoked = format!("Bearer {token}");
    let sent = [("authorization", revoked.as_str())];
    let answer = routed.get_with("/shop/v2", &sent).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_keys_no_token_is_accepted() {
    let issuer = Issuer::new("k1");
    let server = KeyServer::start(String::new()).await;
    server.serve(None);
    let routes = format!(
        "routes:\n  - match: {{path: /shop}}\n    service: shop\n    jwt: {{jwks_url: \"{}\", refresh: 1s}}\n",
        server.url()
    );
    let routed = Routed::start(&routes).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    let token = issuer.token(&claims());
    let answer = call(&routed, &token).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "token_keys_unavailable");
    assert_eq!(origin.requests(), 0);
    server.serve(Some(Issuer::key_set(&[&issuer])));
    until_accepted(&routed, &token).await;
}

#[test]
fn a_wrong_jwt_section_is_an_error_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yaml");
    std::fs::write(folder.path().join("bad.json"), "{\"keys\": []}").unwrap();
    for (jwt, why) in [
        ("{}", "needs `jwks_url` or `jwks_file`"),
        ("{jwks_url: login.example}", "not an http or https URL"),
        ("{jwks_url: \"ftp://a/\"}", "not an http or https URL"),
        ("{jwks_file: absent.json}", "absent.json: No such file"),
        ("{jwks_file: bad.json}", "bad.json: no keys"),
        (
            "{jwks_url: \"https://a/\", algorithms: [HS256]}",
            "not an algorithm with public keys",
        ),
        (
            "{jwks_url: \"https://a/\", algorithms: [none]}",
            "not an algorithm with public keys",
        ),
        ("{jwks_url: \"https://a/\", leeway: 25h}", "at most 24h"),
        ("{jwks_url: \"https://a/\", refresh: 1ms}", "at least 1s"),
        ("{jwks_file: bad.json, refresh: 1m}", "for `jwks_url`"),
        (
            "{jwks_file: bad.json, jwks_url: \"https://a/\"}",
            "exclude each other",
        ),
        (
            "{jwks_url: \"https://a/\", issuer: 7}",
            "a text or a list of texts",
        ),
        ("{jwks_url: \"https://a/\", isuer: a}", "isuer"),
        (
            "{jwks_url: \"https://a/\", forward_claims: {sub: connection}}",
            "one connection",
        ),
    ] {
        let route = format!("routes:\n  - service: a\n    jwt: {jwt}\n");
        std::fs::write(&file, route).unwrap();
        let error = waypost_gateway::check_routes(&file)
            .unwrap_err()
            .to_string();
        let is_located = error.contains("routes.yaml:2:") || error.contains("routes.yaml:3:");
        assert!(is_located && error.contains(why), "{jwt}: {error}");
    }
}
