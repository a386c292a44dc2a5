//! Routes that need an API key.

use http::StatusCode;
use waypost::Environment;
use waypost_gateway::{AccessLog, AccessLogFormat};

use crate::support::{FullResponse, Origin, Routed, with_deadline};

const ROUTES: &str = r#"
routes:
  - match: {path: /shop}
    service: shop
    api_keys: {file: keys.txt, query: api_key}
    rate_limit: {requests: 2, per: 1h, by: key}
"#;

/// The second is the digest of "s3cret".
const KEYS: &str = "\
# mobile has two keys, so that they can be exchanged
mobile  mobile-key-1
mobile  mobile-key-2
partner sha256:1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0
";

async fn shop(routes: &str, keys: &str) -> (Routed, Origin) {
    let routed = Routed::start_with(routes, &[("keys.txt", keys)]).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    (routed, origin)
}

async fn call(routed: &Routed, key: &str) -> FullResponse {
    routed.get_with("/shop?a=1", &[("x-api-key", key)]).await
}

#[tokio::test]
async fn a_known_key_is_accepted_and_kept_from_the_service() {
    let (routed, _origin) = shop(ROUTES, KEYS).await;
    let answer = call(&routed, "mobile-key-1").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(answer.json()["headers"]["x-api-key"].is_null());
    assert_eq!(answer.json()["uri"], "/shop?a=1");
    let answer = routed.get("/shop?a=1&api%5Fkey=s3cret&b").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["uri"], "/shop?a=1&b");
    let answer = routed.get("/shop?api_key=s3cret").await;
    assert_eq!(answer.json()["uri"], "/shop");
}

#[tokio::test]
async fn other_keys_get_a_401() {
    let (routed, origin) = shop(ROUTES, KEYS).await;
    let digest = KEYS.rsplit_once("sha256:").unwrap().1.trim();
    for key in ["mobile-key-3", "mobile", "", digest] {
        let answer = call(&routed, key).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{key}");
        assert_eq!(answer.reason(), "api_key_invalid");
        assert_eq!(answer.header("www-authenticate"), "ApiKey");
    }
    let missing = routed.get("/shop").await;
    assert_eq!(missing.reason(), "api_key_missing");
    let twice = [("x-api-key", "mobile-key-1"), ("x-api-key", "x")];
    let answer = routed.get_with("/shop", &twice).await;
    assert_eq!(answer.reason(), "api_key_invalid");
    let both = routed
        .get_with("/shop?api_key=x", &[("x-api-key", "mobile-key-1")])
        .await;
    assert_eq!(both.reason(), "api_key_invalid");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn all_keys_of_a_name_share_its_rate() {
    let (routed, _origin) = shop(ROUTES, KEYS).await;
    // Requests that are refused don't count.
    for _ in 0..3 {
        call(&routed, "unknown").await;
    }
    for key in ["mobile-key-1", "mobile-key-2"] {
        assert_eq!(call(&routed, key).await.status, StatusCode::OK);
    }
    let refused = call(&routed, "mobile-key-1").await;
    assert_eq!(refused.reason(), "rate_limited");
    assert_eq!(call(&routed, "s3cret").await.status, StatusCode::OK);
}

#[tokio::test]
async fn new_keys_are_used_and_an_invalid_file_is_ignored() {
    let routes = "routes: [{match: {path: /shop}, service: shop, api_keys: {file: keys.txt}}]";
    let (routed, _origin) = shop(routes, "a first-key").await;
    routed.write_file("keys.txt", "a second-key\n");
    let until = async |key: &str, status: StatusCode| {
        with_deadline(key, async {
            while call(&routed, key).await.status != status {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    until("second-key", StatusCode::OK).await;
    until("first-key", StatusCode::UNAUTHORIZED).await;
}

#[tokio::test]
async fn keys_can_be_in_a_variable_and_their_name_is_logged() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let access = AccessLog::to_file(log.path(), AccessLogFormat::Json).unwrap();
    let routes = "routes:\n  - {match: {path: /shop}, service: shop, api_keys: {env: SHOP_KEYS, header: x-key}}\n";
    let mut routed = Routed::start_edited(routes, &[], |config| {
        config.access_log = Some(access);
        config.environment = Environment::default().with("SHOP_KEYS", "a key-a, b key-b");
    })
    .await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    let answer = routed.get_with("/shop", &[("x-key", "key-b")]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    routed.gateway.begin_shutdown();
    routed.gateway.stopped().await;
    let mut line = String::new();
    with_deadline("the line", async {
        while !line.ends_with('\n') {
            line = std::fs::read_to_string(log.path()).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!(line["key"], "b", "{line}");
    assert!(!line.to_string().contains("key-b"), "{line}");
}

#[test]
fn wrong_keys_are_an_error_with_the_line_of_the_route() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.yaml");
    std::fs::write(folder.path().join("bad.txt"), "a secret\nb\n").unwrap();
    for (route, why) in [
        ("api_keys: {}", "needs `file` or `env`"),
        (
            "api_keys: {file: a, env: B}",
            "`api_keys.file` and `api_keys.env`",
        ),
        ("api_keys: {file: absent.txt}", "absent.txt: No such file"),
        (
            "api_keys: {file: bad.txt}",
            "bad.txt: line 2: expected NAME",
        ),
        (
            "api_keys: {env: WAYPOST_TEST_UNSET}",
            "the variable WAYPOST_TEST_UNSET is not set",
        ),
        ("rate_limit: {requests: 1, by: key}", "needs `api_keys`"),
    ] {
        std::fs::write(&file, format!("routes:\n  - service: a\n    {route}\n")).unwrap();
        let error = waypost_gateway::check_routes(&file)
            .unwrap_err()
            .to_string();
        let is_located = error.contains("routes.yaml:2:") || error.contains("routes.yaml:3:");
        assert!(is_located && error.contains(why), "{route}: {error}");
    }
}
