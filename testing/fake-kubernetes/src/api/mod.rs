//! The API: from a request by a user to what it is answered with.

mod apply;
mod create;
mod delete;
mod discovery;
mod form;
mod health;
mod list;
mod merge;
mod options;
mod patch;
mod review;
mod table;
mod update;
mod watch;

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::access::{Attributes, User, allows};
use crate::app::App;
use crate::http::{Call, Reply, Scope, Status, Target};
use crate::requests::Request;
pub(crate) use create::create_object;
pub(crate) use delete::delete_object;
pub(crate) use update::update_object;

/// Answers a request. Watches end when `end` is cancelled.
pub(crate) async fn answer(
    app: Arc<App>,
    user: Option<User>,
    call: Call,
    end: CancellationToken,
) -> Reply {
    match call.target() {
        Target::Objects(scope) => objects(app, user, call, scope, end).await,
        Target::Review(plural) => authenticated(user, |user| {
            permit(&app, user, "create", "authorization.k8s.io", &plural)?;
            review::answer(&app, user, &plural, &call)
        }),
        Target::Path => authenticated(user, |user| path(&app, user, &call)),
    }
}

fn authenticated(user: Option<User>, answer: impl FnOnce(&User) -> Result<Reply, Status>) -> Reply {
    let user = user.ok_or_else(Status::unauthorized);
    user.and_then(|user| answer(&user))
        .unwrap_or_else(Reply::from)
}

async fn objects(
    app: Arc<App>,
    user: Option<User>,
    call: Call,
    scope: Scope,
    end: CancellationToken,
) -> Reply {
    let Some(verb) = call.verb(&scope) else {
        return Status::method_not_allowed().into();
    };
    let number = app.requests.begin(Request {
        at: std::time::Duration::ZERO,
        user: user.as_ref().map_or_else(String::new, |it| it.name.clone()),
        verb: verb.to_owned(),
        resource: scope.kind.plural.to_owned(),
        namespace: scope.namespace.clone().unwrap_or_default(),
        query: call.query.text().to_owned(),
        code: None,
    });
    let requests = Arc::clone(&app);
    if let Some(429) = app.faults.failure().map(|code| code.as_u16()) {
        requests.requests.end(number, 429);
        return Reply::too_many_requests();
    }
    let answered = match user {
        None => Err(Status::unauthorized()),
        Some(user) => match authorize(&app, &user, verb, &scope, &call) {
            Err(refusal) => Err(refusal),
            Ok(()) => dispatch(app, call, scope, verb, end).await,
        },
    };
    let reply = answered.unwrap_or_else(Reply::from);
    requests.requests.end(number, reply.code.as_u16());
    reply
}

async fn dispatch(
    app: Arc<App>,
    call: Call,
    scope: Scope,
    verb: &str,
    end: CancellationToken,
) -> Result<Reply, Status> {
    if let Some(code) = app.faults.failure() {
        return Err(Status::failure(code));
    }
    if verb == "watch" {
        return watch::answer(app, &call, &scope, end).await;
    }
    let limit = app.settings.request_timeout;
    let done = async {
        match verb {
            "get" => list::get(&app, &call, &scope).await,
            "list" => list::list(&app, &call, &scope).await,
            "create" => create::answer(&app, &call, &scope).await,
            "update" => update::answer(&app, &call, &scope).await,
            "patch" => patch::answer(&app, &call, &scope).await,
            "delete" => delete::one(&app, &call, &scope).await,
            _ => delete::collection(&app, &call, &scope).await,
        }
    };
    let done = tokio::time::timeout(limit, done).await;
    done.unwrap_or_else(|_| Err(Status::timeout()))
}

/// Whether a user may do this with objects.
fn authorize(app: &App, user: &User, verb: &str, scope: &Scope, call: &Call) -> Result<(), Status> {
    let kind = scope.kind;
    let resource = match &scope.subresource {
        Some(subresource) => format!("{}/{subresource}", kind.plural),
        None => kind.plural.to_owned(),
    };
    // A list of one name is a question about that name.
    let selected = options::selector(call).ok();
    let selected = selected.as_ref().and_then(|it| it.name());
    let name = scope.name.as_deref().or(selected).unwrap_or_default();
    // The name of a namespace is where the request takes place too.
    let namespace = match (kind.plural, &scope.namespace) {
        ("namespaces", _) => scope.name.as_deref(),
        (_, namespace) => namespace.as_deref(),
    };
    let wanted = Attributes::Resource {
        verb,
        group: kind.group,
        resource: &resource,
        namespace: namespace.unwrap_or_default(),
        name,
    };
    if allows(&app.store.read(), user, wanted) {
        return Ok(());
    }
    let place = match namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    let quoted = match name {
        "" => kind.qualified_plural(),
        name => format!("{} {name:?}", kind.qualified_plural()),
    };
    let why = format!(
        "User {:?} cannot {verb} resource {resource:?} in API group {:?} {place}",
        user.name, kind.group
    );
    Err(Status::forbidden(&quoted, &why, Some(kind), name))
}

fn permit(app: &App, user: &User, verb: &str, group: &str, resource: &str) -> Result<(), Status> {
    let wanted = Attributes::Resource {
        verb,
        group,
        resource,
        namespace: "",
        name: "",
    };
    if allows(&app.store.read(), user, wanted) {
        return Ok(());
    }
    let why = format!(
        "User {:?} cannot {verb} resource {resource:?} in API group {group:?} at the cluster scope",
        user.name
    );
    let what = crate::kinds::qualified(resource, group);
    Err(Status::forbidden(&what, &why, None, ""))
}

/// Whatever is neither objects nor a review.
fn path(app: &App, user: &User, call: &Call) -> Result<Reply, Status> {
    let verb = match call.method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        _ => "delete",
    };
    let path = &call.path;
    let wanted = Attributes::Path { verb, path };
    if !allows(&app.store.read(), user, wanted) {
        let why = format!("User {:?} cannot {verb} path {path:?}", user.name);
        return Err(Status::forbidden_path(&why));
    }
    if verb != "get" {
        return Err(Status::method_not_allowed());
    }
    health::answer(app, path)
        .or_else(|| discovery::answer(call))
        .unwrap_or_else(|| Ok(Reply::text(StatusCode::NOT_FOUND, "404 page not found\n")))
}
