//! Faults by hand: a plain HTTP endpoint beside the API, since the API itself may be down.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::store::Backup;
use crate::{ApiServer, Error};

/// What can be posted, and what it does.
const COMMANDS: &str = "\
POST /kill            end all connections in the middle; nobody listens
POST /restart         start again, with no memory of former changes
POST /terminate       stop as after SIGTERM: watches go on for 60 s
POST /freeze          be silent, with connections open
POST /thaw            go on
POST /etcd/freeze     writes and consistent reads hang, the cache answers
POST /etcd/thaw       etcd answers again
POST /expire          watches from before now get 410
POST /backup          keep a backup of etcd
POST /restore         go back to it, revision and all
POST /watch-list/off  refuse streamed lists, as an older server does
POST /watch-list/on   take them again
POST /fail/CODE       answer every request for objects with 429, 500 or 503
POST /heal            take back: etcd, watch-list, fail
GET  /requests        the requests that came, as lines
";

struct Control {
    server: Arc<ApiServer>,
    backup: Mutex<Option<Backup>>,
}

/// Takes commands for a server at this address, which should be a loopback one, and gives where it
/// is; `GET /` lists them. It goes on until the runtime ends.
///
/// # Errors
/// If the address can't be had.
pub async fn control(server: Arc<ApiServer>, address: SocketAddr) -> Result<SocketAddr, Error> {
    let bind = |source| Error::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let control = Arc::new(Control {
        server,
        backup: Mutex::default(),
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let control = Arc::clone(&control);
            let service = service_fn(move |request| answer(Arc::clone(&control), request));
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(bound)
}

async fn answer(
    control: Arc<Control>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    let done = match (request.method(), path) {
        (&Method::GET, "/") => Ok(COMMANDS.to_owned()),
        (&Method::GET, "/requests") => Ok(requests(&control.server)),
        (&Method::POST, _) => command(&control, path).await,
        _ => Err(unknown()),
    };
    let (status, text) = match done {
        Ok(text) => (StatusCode::OK, text),
        Err((status, text)) => (status, text),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    Ok(response)
}

async fn command(control: &Control, path: &str) -> Result<String, (StatusCode, String)> {
    let server = &control.server;
    let faults = server.faults();
    let failed = |error: Error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
    match path {
        "/kill" => server.kill().await,
        "/restart" => server.restart().await.map_err(failed)?,
        "/terminate" => {
            let server = Arc::clone(server);
            tokio::spawn(async move { server.terminate().await });
        }
        "/freeze" => server.freeze(),
        "/thaw" => server.thaw(),
        "/etcd/freeze" => faults.freeze_etcd(true),
        "/etcd/thaw" => faults.freeze_etcd(false),
        "/expire" => server.expire_history(),
        "/backup" => *control.backup() = Some(server.backup()),
        "/restore" => {
            let backup = control.backup().clone();
            let none = || (StatusCode::CONFLICT, "there is no backup yet\n".to_owned());
            let backup = backup.ok_or_else(none)?;
            server.restore(&backup).await.map_err(failed)?;
        }
        "/watch-list/off" => faults.disable_watch_list(true),
        "/watch-list/on" => faults.disable_watch_list(false),
        "/heal" => faults.heal(),
        _ => {
            let code = path.strip_prefix("/fail/");
            let code = code.and_then(|it| it.parse().ok());
            let code = code.filter(|it| matches!(it, 429 | 500 | 503));
            faults.fail_with(Some(code.ok_or_else(unknown)?));
        }
    }
    Ok("done\n".to_owned())
}

fn unknown() -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, COMMANDS.to_owned())
}

fn requests(server: &ApiServer) -> String {
    let lines = server.requests().into_iter().map(|it| {
        let code = it
            .code
            .map_or_else(|| "...".to_owned(), |it| it.to_string());
        format!(
            "{:10.3} {code} {} {} {} {} {}\n",
            it.at.as_secs_f64(),
            it.user,
            it.verb,
            it.resource,
            it.namespace,
            it.query
        )
    });
    lines.collect()
}

impl Control {
    fn backup(&self) -> std::sync::MutexGuard<'_, Option<Backup>> {
        self.backup.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
