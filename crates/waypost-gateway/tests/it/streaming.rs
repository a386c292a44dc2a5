//! Streaming in both directions, cancellation, backpressure and idle timeouts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::support::{
    FullResponse, Origin, RawClient, TestGateway, body, streamed, wait_until, with_deadline,
};

#[tokio::test]
async fn each_event_is_passed_on_before_the_next_one_exists() {
    let gateway = TestGateway::start().await;
    let next = Arc::new(Semaphore::new(0));
    let allowed = Arc::clone(&next);
    let origin = Origin::start(move |_| {
        let allowed = Arc::clone(&allowed);
        async move {
            let events = stream::iter(0..5).then(move |n| {
                let allowed = Arc::clone(&allowed);
                async move {
                    allowed.acquire().await.unwrap().forget();
                    Bytes::from(format!("data: {n}\n\n"))
                }
            });
            let response = Response::builder().header("content-type", "text/event-stream");
            response.body(streamed(events)).unwrap()
        }
    })
    .await;
    gateway.add("model", "m", origin.address).await;
    let request = Request::get(gateway.url("/model/")).body(body("")).unwrap();
    let mut events = gateway.begin(request).await.unwrap().into_body();
    for n in 0..5 {
        // The origin can't send the next event before this, so the event was not held back for it.
        next.add_permits(1);
        let frame = with_deadline("the event", events.frame())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), format!("data: {n}\n\n"));
    }
    assert!(with_deadline("the end", events.frame()).await.is_none());
}

#[tokio::test]
async fn an_upload_is_streamed_to_the_instance() {
    let gateway = TestGateway::start().await;
    let (seen, mut arrived) = mpsc::unbounded_channel();
    let origin = Origin::start(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let mut incoming = request.into_body();
            while let Some(Ok(frame)) = incoming.frame().await {
                let _ = seen.send(frame.into_data().unwrap());
            }
            Response::new(body("done"))
        }
    })
    .await;
    gateway.add("store", "s", origin.address).await;
    let (pieces, receiver) = mpsc::unbounded_channel::<Bytes>();
    let upload = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let request = Request::post(gateway.url("/store/"))
        .body(streamed(upload))
        .unwrap();
    let (sent, test) = tokio::join!(gateway.begin(request), async move {
        for piece in ["one", "two", "three"] {
            pieces.send(piece.into()).unwrap();
            assert_eq!(
                with_deadline("the piece", arrived.recv()).await.unwrap(),
                piece
            );
        }
    });
    assert_eq!(FullResponse::read(sent.unwrap()).await.text(), "done");
    let () = test;
}

/// Sends a message when it is dropped.
struct DropNotifier(Option<oneshot::Sender<()>>);

impl Drop for DropNotifier {
    fn drop(&mut self) {
        let _ = self.0.take().map(|dropped| dropped.send(()));
    }
}

/// An origin whose requests never end: it streams a response if `responds`, otherwise it stays
/// silent. The receiver completes when the request is cancelled; the semaphore gets a permit when a
/// request arrives.
async fn endless(responds: bool) -> (Origin, oneshot::Receiver<()>, Arc<Semaphore>) {
    let (ended, end) = oneshot::channel();
    let ended = std::sync::Mutex::new(Some(ended));
    let begun = Arc::new(Semaphore::new(0));
    let arrived = Arc::clone(&begun);
    let origin = Origin::start(move |_| {
        let dropped = DropNotifier(ended.lock().expect("not poisoned").take());
        arrived.add_permits(1);
        async move {
            if !responds {
                let _dropped = dropped;
                std::future::pending::<()>().await;
                unreachable!()
            }
            let ticks = stream::unfold(dropped, |dropped| async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some((Bytes::from("tick\n"), dropped))
            });
            Response::new(streamed(ticks))
        }
    })
    .await;
    (origin, end, begun)
}

#[tokio::test]
async fn a_client_that_disconnects_during_the_response_cancels_the_request() {
    let gateway = TestGateway::start().await;
    let (origin, end, _) = endless(true).await;
    gateway.add("model", "m", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /model/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("tick\n").await;
    drop(client);
    with_deadline("the end of the response", end).await.unwrap();
}

#[tokio::test]
async fn a_client_that_disconnects_before_the_response_cancels_the_request() {
    let gateway = TestGateway::start().await;
    let (origin, end, begun) = endless(false).await;
    gateway.add("model", "m", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /model/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let _ = with_deadline("the request", begun.acquire()).await.unwrap();
    drop(client);
    with_deadline("the end of the request", end).await.unwrap();
    // The gateway no longer counts the request as in flight.
    with_deadline("no request in flight", async {
        while gateway.service("model").await["instances"][0]["in_flight"] != 0 {}
    })
    .await;
}

#[tokio::test]
async fn a_large_body_arrives_complete_in_both_directions() {
    const SIZE: u64 = 64 << 20;
    let gateway = TestGateway::start().await;
    let origin = Origin::start(|request: Request<Incoming>| async move {
        Response::new(
            request
                .into_body()
                .map_err(std::io::Error::other)
                .boxed_unsync(),
        )
    })
    .await;
    gateway.add("mirror", "m", origin.address).await;
    let piece = Bytes::from(vec![7; 1 << 16]);
    let pieces = stream::iter((0..SIZE >> 16).map(move |_| piece.clone()));
    let request = Request::post(gateway.url("/mirror/"))
        .body(streamed(pieces))
        .unwrap();
    let mut back = gateway.begin(request).await.unwrap().into_body();
    let mut bytes = 0;
    while let Some(frame) = with_deadline("the next frame", back.frame()).await {
        let data = frame.unwrap().into_data().unwrap();
        assert!(data.iter().all(|byte| *byte == 7));
        bytes += data.len() as u64;
    }
    assert_eq!(bytes, SIZE);
}

#[tokio::test]
async fn a_client_that_does_not_read_applies_backpressure_to_the_instance() {
    let gateway = TestGateway::start().await;
    let made = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&made);
    let piece = Bytes::from(vec![0; 1 << 16]);
    let origin = Origin::start(move |_| {
        let (counted, piece) = (Arc::clone(&counted), piece.clone());
        async move {
            Response::new(streamed(stream::repeat_with(move || {
                counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
                piece.clone()
            })))
        }
    })
    .await;
    gateway.add("flood", "f", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /flood/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // The buffers of the operating system and the gateway fill up, and then the origin stalls.
    let (mut last, mut still) = (0, 0);
    wait_until("the origin to stall", || {
        let now = made.load(Ordering::Relaxed);
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
        still == 50
    })
    .await;
    assert!(
        last < 64 << 20,
        "{last} bytes are buffered for a client that does not read"
    );
}

#[tokio::test]
async fn a_response_is_aborted_when_the_instance_is_silent_for_the_idle_timeout() {
    let gateway =
        TestGateway::start_with(|config| config.idle_timeout = Duration::from_secs(5)).await;
    let origin = Origin::start(|request: Request<_>| async move {
        let pause: u64 = request.uri().query().unwrap().parse().unwrap();
        let pieces = stream::iter(0..4).then(move |n: u64| async move {
            tokio::time::sleep(Duration::from_millis(pause * n.min(1))).await;
            Bytes::from("piece\n")
        });
        Response::new(streamed(pieces))
    })
    .await;
    gateway.add("model", "m", origin.address).await;
    // Longer than the timeout in total, but no pause is.
    assert_eq!(
        gateway.get("/model/?1700").await.text(),
        "piece\n".repeat(4)
    );
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("GET /model/?60000 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let response = client.read_to_end().await;
    assert!(
        response.contains("piece\n") && !response.ends_with("0\r\n\r\n"),
        "{response}"
    );
}

/// With a paused clock, time passes whenever nothing else happens.
#[tokio::test]
async fn a_stream_that_is_silent_for_ten_minutes_survives() {
    const SILENCE: Duration = Duration::from_secs(600);
    let gateway = TestGateway::start_with(|config| config.worker_threads = 0).await;
    let origin = Origin::start(|_| async {
        let events = stream::iter(["before", "after"]).then(|event| async move {
            if event == "after" {
                tokio::time::sleep(SILENCE).await;
            }
            Bytes::from(event)
        });
        Response::new(streamed(events))
    })
    .await;
    gateway.add("model", "m", origin.address).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let request = Request::get(gateway.url("/model/")).body(body("")).unwrap();
        let response = if version == Version::HTTP_2 {
            let stream = tokio::net::TcpStream::connect(gateway.address)
                .await
                .unwrap();
            let executor = hyper_util::rt::TokioExecutor::new();
            let io = hyper_util::rt::TokioIo::new(stream);
            let handshake = hyper::client::conn::http2::handshake(executor, io);
            let (mut sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            with_deadline("the response", sender.send_request(request))
                .await
                .unwrap()
        } else {
            gateway.begin(request).await.unwrap()
        };
        assert_eq!(response.version(), version);
        let mut events = response.into_body();
        let frame = with_deadline("the event", events.frame()).await;
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), "before");
        let began = tokio::time::Instant::now();
        tokio::time::pause();
        let frame = tokio::time::timeout(2 * SILENCE, events.frame()).await;
        tokio::time::resume();
        assert_eq!(
            frame.unwrap().unwrap().unwrap().into_data().unwrap(),
            "after"
        );
        // The silence began a little before the clock was paused.
        assert!(began.elapsed() > SILENCE / 2, "{:?}", began.elapsed());
        let end = with_deadline("the end", events.collect()).await.unwrap();
        assert_eq!(end.to_bytes(), "", "{version:?}");
    }
}

#[tokio::test]
async fn an_incomplete_response_is_an_error_for_the_client() {
    let gateway = TestGateway::start().await;
    let origin = crate::support::RawOrigin::writes(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    )
    .await;
    gateway.add("auth", "a", origin.address).await;
    let request = Request::get(gateway.url("/auth/")).body(body("")).unwrap();
    let response = gateway.begin(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(
        with_deadline("the end", response.into_body().collect())
            .await
            .is_err()
    );
    assert_eq!(origin.connections(), 1, "no retry after the first byte");
}
