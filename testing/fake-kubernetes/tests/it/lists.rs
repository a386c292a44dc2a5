//! Lists: in chunks, as of a revision, in several forms.

use reqwest::{Method, header::ACCEPT};
use serde_json::{Value, json};

use crate::client::{Fixture, SLICES, answer};

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|it| it["metadata"]["name"].as_str())
        .collect()
}

#[tokio::test]
async fn items_of_a_list_do_not_say_what_they_are() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let (_, list) = it.client.get(SLICES).await;
    assert_eq!(list["kind"], "EndpointSliceList");
    assert_eq!(
        list["metadata"]["resourceVersion"],
        it.server.revision().to_string()
    );
    assert_eq!(list["items"][0]["kind"], Value::Null);
    assert_eq!(list["items"][0]["endpoints"][0]["addresses"][0], "10.0.0.1");
}

#[tokio::test]
async fn chunks_belong_to_one_revision() {
    let it = Fixture::new().await;
    for number in 1..=5 {
        it.put_slice(&format!("web-{number}"), "10.0.0.1");
    }
    let (_, first) = it.client.get(&format!("{SLICES}?limit=2")).await;
    assert_eq!(names(&first), ["web-1", "web-2"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What happens meanwhile is not seen.
    it.server.delete("endpointslices", "demo", "web-3");
    it.put_slice("web-6", "10.0.0.1");
    let token = first["metadata"]["continue"].as_str().unwrap();
    let path = format!("{SLICES}?limit=10&continue={token}");
    let (_, rest) = it.client.get(&path).await;
    assert_eq!(names(&rest), ["web-3", "web-4", "web-5"]);
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );

    it.server.faults().expire_continue(true);
    let (status, refused) = it.client.get(&path).await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (410, &json!("Expired"))
    );
    let token = refused["metadata"]["continue"].as_str().unwrap();
    let (_, rest) = it.client.get(&format!("{SLICES}?continue={token}")).await;
    assert_eq!(names(&rest), ["web-4", "web-5", "web-6"]);
}

#[tokio::test]
async fn revisions_mean_what_their_match_says() {
    let it = Fixture::new().await;
    let revision = it.put_slice("web-1", "10.0.0.1");
    it.put_slice("web-2", "10.0.0.1");
    let list = async |options: &str| it.client.get(&format!("{SLICES}?{options}")).await;
    let (_, exact) = list(&format!(
        "resourceVersion={revision}&resourceVersionMatch=Exact"
    ))
    .await;
    assert_eq!(names(&exact), ["web-1"]);
    let (_, newer) = list(&format!("resourceVersion={revision}")).await;
    assert_eq!(names(&newer), ["web-1", "web-2"]);
    // With a limit and no match it is an exact one.
    let (_, legacy) = list(&format!("resourceVersion={revision}&limit=5")).await;
    assert_eq!(names(&legacy), ["web-1"]);
    // Whatever there is, and the limit doesn't count.
    let (_, any) = list("resourceVersion=0&limit=1").await;
    assert_eq!(names(&any), ["web-1", "web-2"]);

    let (status, refused) = list("resourceVersion=0&resourceVersionMatch=Exact").await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (422, &json!("Invalid"))
    );
    let (status, refused) = list("resourceVersion=100000").await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (504, &json!("Timeout"))
    );
    assert_eq!(
        refused["message"],
        format!(
            "Too large resource version: 100000, current: {}",
            it.server.revision()
        )
    );
    assert_eq!(
        refused["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

#[tokio::test]
async fn an_absent_namespace_is_an_empty_one() {
    let it = Fixture::new().await;
    let path = SLICES.replace("demo", "dmeo");
    let (status, list) = it.client.get(&path).await;
    assert_eq!((status.as_u16(), &list["items"]), (200, &json!([])));
}

#[tokio::test]
async fn metadata_alone_can_be_had() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let request = it.client.request(Method::GET, SLICES);
    let (_, list) = answer(request.header(ACCEPT, accept)).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(names(&list), ["web-1"]);
    assert_eq!(list["items"][0]["endpoints"], Value::Null);

    let accept = "application/vnd.kubernetes.protobuf";
    let request = it.client.request(Method::GET, SLICES);
    let (status, _) = answer(request.header(ACCEPT, accept)).await;
    assert_eq!(status.as_u16(), 406);
}
