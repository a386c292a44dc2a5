//! From a request to its response.

mod options;
mod read;
mod review;
mod watch;
mod write;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::options::Options;
use crate::auth::credentials::User;
use crate::auth::rbac::{Action, allows};
use crate::cluster::Cluster;
use crate::http::request::{ApiRequest, Scope, Target};
use crate::http::response::{self, Response};
use crate::http::status::Status;
use crate::request_log::Request;

/// Answers a request. `user` is None if the credentials were refused. Watches end when `shutdown` is
/// cancelled.
pub(crate) async fn answer(
    cluster: Arc<Cluster>,
    user: Option<User>,
    request: ApiRequest,
    shutdown: CancellationToken,
) -> Response {
    let answered = match request.target() {
        Target::Objects(scope) => {
            return answer_logged(cluster, user, request, scope, shutdown).await;
        }
        Target::AccessReview => {
            let user = user.ok_or_else(Status::unauthorized);
            user.and_then(|it| review::answer(&cluster, &it, &request))
        }
        Target::Unknown => Err(Status::no_such_resource()),
    };
    answered.unwrap_or_else(|status| response::failure(&status))
}

/// Answers a request for objects, and logs it.
async fn answer_logged(
    cluster: Arc<Cluster>,
    user: Option<User>,
    request: ApiRequest,
    scope: Scope,
    shutdown: CancellationToken,
) -> Response {
    let options = Options::parse(&request.query);
    let is_watch = options.as_ref().is_ok_and(|it| it.is_watch);
    let Some(verb) = request.verb(&scope, is_watch) else {
        return response::failure(&Status::method_not_allowed());
    };
    if scope.kind.is_custom() && !cluster.faults.has_gateway_api() {
        return response::failure(&Status::no_such_resource());
    }
    let number = cluster.requests.begin(Request {
        user: user.as_ref().map_or_else(String::new, |it| it.name.clone()),
        verb: verb.to_owned(),
        resource: scope.resource(),
        namespace: scope.namespace.clone(),
        query: request.query.clone(),
        code: None,
    });
    let response = if cluster.faults.failure().is_some_and(|it| it == 429) {
        response::too_many_requests()
    } else {
        let permitted = options.and_then(|options| {
            let user = user.ok_or_else(Status::unauthorized)?;
            authorize(&cluster, &user, verb, &scope, &options)?;
            Ok(options)
        });
        let answered = match permitted {
            Ok(options) => dispatch(&cluster, &request, &scope, options, verb, shutdown).await,
            Err(status) => Err(status),
        };
        answered.unwrap_or_else(|status| response::failure(&status))
    };
    cluster.requests.end(number, response.status().as_u16());
    response
}

fn authorize(
    cluster: &Cluster,
    user: &User,
    verb: &str,
    scope: &Scope,
    options: &Options,
) -> Result<(), Status> {
    // A list with a field selector for one name needs the permission for that name only.
    let name = scope.name.as_deref().or(options.selector.name());
    let resource = scope.resource();
    let action = Action {
        verb,
        group: scope.kind.group(),
        resource: &resource,
        namespace: &scope.namespace,
        name: name.unwrap_or_default(),
    };
    if allows(&cluster.store(), user, action) {
        Ok(())
    } else {
        Err(Status::not_allowed(user, scope.kind, action))
    }
}

async fn dispatch(
    cluster: &Arc<Cluster>,
    request: &ApiRequest,
    scope: &Scope,
    options: Options,
    verb: &str,
    shutdown: CancellationToken,
) -> Result<Response, Status> {
    if let Some(code) = cluster.faults.failure() {
        return Err(Status::injected(code));
    }
    if verb == "watch" {
        return watch::answer(cluster, scope, options, shutdown).await;
    }
    let answered = async {
        match verb {
            "get" => read::get(cluster, scope).await,
            "list" => read::list(cluster, scope, &options, request.wants_metadata()).await,
            "create" => write::create(cluster, scope, request).await,
            "patch" => write::patch_status(cluster, scope, request).await,
            "update" => write::update(cluster, scope, request).await,
            _ => write::delete(cluster, scope, request).await,
        }
    };
    let answered = tokio::time::timeout(cluster.settings.request_timeout, answered).await;
    answered.unwrap_or_else(|_| Err(Status::timeout()))
}
