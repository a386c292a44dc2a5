//! The options of lists and watches.

use std::time::Duration;

use crate::http::{Call, Cause, Status};
use crate::store::Selector;

pub(super) const NOT_OLDER: &str = "NotOlderThan";
pub(super) const EXACT: &str = "Exact";

/// Which objects are meant.
pub(super) fn selector(call: &Call) -> Result<Selector, Status> {
    let (labels, fields) = (
        call.query.get("labelSelector"),
        call.query.get("fieldSelector"),
    );
    Selector::parse(labels, fields).map_err(Status::bad_request)
}

/// The revision that is asked for; None if none is.
pub(super) fn revision(call: &Call) -> Result<Option<u64>, Status> {
    let text = call.query.get("resourceVersion");
    if text.is_empty() {
        return Ok(None);
    }
    let why = format!(
        "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid \
         syntax"
    );
    text.parse()
        .map(Some)
        .map_err(|_| match call.query.is_set("watch") {
            true => Status::internal(why),
            false => Status::bad_request(format!("invalid resource version: {why}")),
        })
}

/// What a watch may ask for only together.
pub(super) fn check_watch(call: &Call, is_watch_list_on: bool) -> Result<(), Status> {
    let matching = call.query.get("resourceVersionMatch");
    let has_initial = !call.query.get("sendInitialEvents").is_empty();
    let mut causes = Vec::new();
    if has_initial {
        if matching != NOT_OLDER {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(Cause::forbidden("resourceVersionMatch", why));
        }
        if !is_watch_list_on {
            let why = "sendInitialEvents is forbidden for watch unless the WatchList feature \
                       gate is enabled";
            causes.push(Cause::forbidden("sendInitialEvents", why));
        }
    }
    if !matching.is_empty() {
        if !has_initial {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                       provided";
            causes.push(Cause::forbidden("resourceVersionMatch", why));
        }
        if matching != NOT_OLDER {
            let found = matching.into();
            let supported = [NOT_OLDER];
            causes.push(Cause::not_supported(
                "resourceVersionMatch",
                &found,
                &supported,
            ));
        }
    }
    refuse(&causes)
}

/// What a list may ask for only together.
pub(super) fn check_list(call: &Call) -> Result<(), Status> {
    let matching = call.query.get("resourceVersionMatch");
    let revision = call.query.get("resourceVersion");
    let mut causes = Vec::new();
    let mut forbid = |field: &str, why: &str| causes.push(Cause::forbidden(field, why));
    if !matching.is_empty() {
        if revision.is_empty() {
            forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        if !call.query.get("continue").is_empty() {
            forbid(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        if matching == EXACT && revision == "0" {
            forbid(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            );
        }
    }
    if !call.query.get("sendInitialEvents").is_empty() {
        forbid(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        );
    }
    if !matches!(matching, "" | EXACT | NOT_OLDER) {
        let supported = [EXACT, NOT_OLDER, ""];
        causes.push(Cause::not_supported(
            "resourceVersionMatch",
            &matching.into(),
            &supported,
        ));
    }
    refuse(&causes)
}

fn refuse(causes: &[Cause]) -> Result<(), Status> {
    if causes.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_options(causes))
    }
}

/// How long a watch is to last, if the client says so.
pub(super) fn timeout(call: &Call) -> Result<Option<Duration>, Status> {
    let seconds = call.query.number("timeoutSeconds")?;
    Ok(seconds.filter(|it| *it > 0).map(Duration::from_secs))
}
