//! tonic's client and server, with the gateway between them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use http::Request;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::StreamingService;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::support::{TestGateway, instance, with_deadline};

/// Messages that are text, so that no code has to be generated.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(out, text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        use bytes::Buf;
        let bytes = input.copy_to_bytes(input.remaining());
        let text = String::from_utf8(bytes.to_vec());
        text.map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// One method of the server.
struct Method {
    path: String,
    /// Notified when a call of `Wait` has been cancelled.
    cancelled: Arc<Notify>,
}

type Answer = Result<Response<BoxStream<'static, Result<String, Status>>>, Status>;

impl StreamingService<String> for Method {
    type Response = String;
    type ResponseStream = BoxStream<'static, Result<String, Status>>;
    type Future = futures_util::future::BoxFuture<'static, Answer>;

    fn call(&mut self, request: tonic::Request<Streaming<String>>) -> Self::Future {
        let (path, cancelled) = (self.path.clone(), Arc::clone(&self.cancelled));
        async move { respond(&path, request, cancelled).await }.boxed()
    }
}

/// Notifies when it is dropped.
struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn respond(
    path: &str,
    request: tonic::Request<Streaming<String>>,
    cancelled: Arc<Notify>,
) -> Answer {
    let timeout = request.metadata().get("grpc-timeout").cloned();
    let mut messages = request.into_inner();
    let one = |text: String| stream::iter([Ok(text)]).boxed();
    let answers = match path {
        "/test.Test/Upper" => {
            let text = messages.message().await?.unwrap_or_default();
            one(text.to_uppercase())
        }
        "/test.Test/Join" => {
            let mut all = Vec::new();
            while let Some(text) = messages.message().await? {
                all.push(text);
            }
            one(all.join(" "))
        }
        "/test.Test/Split" => {
            let text = messages.message().await?.unwrap_or_default();
            let words: Vec<_> = text.split(' ').map(|word| Ok(word.to_owned())).collect();
            stream::iter(words).boxed()
        }
        "/test.Test/Talk" => messages.map(|text| Ok(format!("{}!", text?))).boxed(),
        "/test.Test/Fail" => {
            let failure = stream::iter([Ok("first".to_owned()), Err(failure())]);
            failure.boxed()
        }
        "/test.Test/Wait" => {
            let guard = OnDrop(cancelled);
            let seen = timeout.and_then(|value| value.to_str().ok().map(str::to_owned));
            // The first message tells which deadline has arrived; then nothing comes.
            one(seen.unwrap_or_default())
                .chain(stream::pending())
                .map(move |item| {
                    let _held = &guard;
                    item
                })
                .boxed()
        }
        _ => return Err(Status::unimplemented(path)),
    };
    Ok(Response::new(answers))
}

/// A status with details in its trailers.
fn failure() -> Status {
    let mut status = Status::resource_exhausted("quota of Köln exceeded");
    let retry = "7".parse().expect("a valid value");
    status.metadata_mut().insert("x-retry-after", retry);
    status
}

/// A gRPC server. The `Notify` tells that a call of `Wait` has been cancelled.
async fn server() -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let cancelled = Arc::new(Notify::new());
    let notify = Arc::clone(&cancelled);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let notify = Arc::clone(&notify);
            let service = service_fn(move |request: Request<Incoming>| {
                let method = Method {
                    path: request.uri().path().to_owned(),
                    cancelled: Arc::clone(&notify),
                };
                async move {
                    let mut server = tonic::server::Grpc::new(Text);
                    Ok::<_, Infallible>(server.streaming(method, request).await)
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, cancelled)
}

/// A client whose calls go to the service `test` through the gateway.
struct Client(tonic::client::Grpc<Channel>);

impl Client {
    async fn connect(gateway: &TestGateway) -> Self {
        let url = format!("http://{}", gateway.address);
        let endpoint = Channel::from_shared(url.clone()).expect("a valid URL");
        let channel = with_deadline("a connection", endpoint.connect()).await;
        let origin = format!("{url}/test").parse().expect("a valid URL");
        Self(tonic::client::Grpc::with_origin(
            channel.expect("a connection"),
            origin,
        ))
    }

    async fn unary(&mut self, method: &str, text: &str) -> Result<Response<String>, Status> {
        self.0.ready().await.expect("a connection");
        let call = self
            .0
            .unary(tonic::Request::new(text.to_owned()), path(method), Text);
        with_deadline(method, call).await
    }

    async fn streaming(
        &mut self,
        method: &str,
        request: tonic::Request<BoxStream<'static, String>>,
    ) -> Result<Streaming<String>, Status> {
        self.0.ready().await.expect("a connection");
        let call = self.0.streaming(request, path(method), Text);
        with_deadline(method, call).await.map(Response::into_inner)
    }
}

fn path(method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("/test.Test/{method}")).expect("a path")
}

async fn next(answers: &mut Streaming<String>) -> Result<Option<String>, Status> {
    with_deadline("the next message", answers.message()).await
}

fn texts(texts: &[&str]) -> tonic::Request<BoxStream<'static, String>> {
    let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
    tonic::Request::new(stream::iter(texts).boxed())
}

/// A gateway with the service `test`. The `Notify` is notified when a call of `Wait` has been cancelled.
pub(crate) async fn start() -> (TestGateway, Arc<Notify>) {
    let gateway = TestGateway::start().await;
    let (address, cancelled) = server().await;
    gateway
        .insert(instance("test", "t", address).scheme("grpc"))
        .await;
    (gateway, cancelled)
}

#[tokio::test]
async fn all_four_kinds_of_calls_pass() {
    let (gateway, _) = start().await;
    let mut client = Client::connect(&gateway).await;
    let answer = client.unary("Upper", "hello").await.unwrap();
    assert_eq!(answer.metadata().get("x-waypost-instance").unwrap(), "t");
    assert_eq!(answer.into_inner(), "HELLO");

    let mut joined = client
        .streaming("Join", texts(&["a", "b", "c"]))
        .await
        .unwrap();
    assert_eq!(next(&mut joined).await.unwrap().unwrap(), "a b c");
    assert!(next(&mut joined).await.unwrap().is_none());

    let mut words = client.streaming("Split", texts(&["d e f"])).await.unwrap();
    for word in ["d", "e", "f"] {
        assert_eq!(next(&mut words).await.unwrap().unwrap(), word);
    }
    assert!(next(&mut words).await.unwrap().is_none());

    let (messages, receiver) = mpsc::unbounded_channel::<String>();
    let sent = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|text| (text, receiver))
    });
    let call = tonic::Request::new(sent.boxed());
    let mut talk = client.streaming("Talk", call).await.unwrap();
    for text in ["one", "two", "three"] {
        // Each message is sent after the answer to the one before.
        messages.send(text.to_owned()).unwrap();
        assert_eq!(next(&mut talk).await.unwrap().unwrap(), format!("{text}!"));
    }
    drop(messages);
    assert!(next(&mut talk).await.unwrap().is_none());
}

#[tokio::test]
async fn a_status_arrives_with_its_message_and_details() {
    let (gateway, _) = start().await;
    let mut client = Client::connect(&gateway).await;
    let mut answers = client.streaming("Fail", texts(&[""])).await.unwrap();
    assert_eq!(next(&mut answers).await.unwrap().unwrap(), "first");
    let status = next(&mut answers).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "quota of Köln exceeded");
    assert_eq!(status.metadata().get("x-retry-after").unwrap(), "7");

    let unknown = client.unary("Missing", "").await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    assert_eq!(unknown.message(), "/test.Test/Missing");
}

#[tokio::test]
async fn a_deadline_reaches_the_server_and_ends_the_call() {
    let (gateway, cancelled) = start().await;
    let mut client = Client::connect(&gateway).await;
    let mut call = texts(&[""]);
    call.set_timeout(Duration::from_secs(3600));
    let mut answers = client.streaming("Wait", call).await.unwrap();
    let seen = next(&mut answers).await.unwrap().unwrap();
    // tonic sends the longest unit that has at most 8 digits.
    assert_eq!(seen, "3600000m");
    drop(answers);
    with_deadline("the cancellation", cancelled.notified()).await;
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_at_the_server_and_others_go_on() {
    let (gateway, cancelled) = start().await;
    let mut client = Client::connect(&gateway).await;
    let mut answers = client.streaming("Wait", texts(&[""])).await.unwrap();
    assert_eq!(next(&mut answers).await.unwrap().unwrap(), "");
    drop(answers);
    with_deadline("the cancellation", cancelled.notified()).await;
    assert_eq!(
        client
            .unary("Upper", "still here")
            .await
            .unwrap()
            .into_inner(),
        "STILL HERE"
    );
}
