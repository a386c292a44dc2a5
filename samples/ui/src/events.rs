//! `GET /events`: server-sent events named `overview`, one for each change of the services.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::overview::View;
use crate::watcher::Overviews;

/// Changes within this time are sent as one event, for example while several instances start.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// The state of the handler.
#[derive(Clone)]
pub(crate) struct EventsState {
    pub(crate) overviews: Overviews,
    /// Ends all streams.
    pub(crate) shutdown: CancellationToken,
}

pub(crate) async fn events(
    State(state): State<EventsState>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut overviews = state.overviews;
    // Sends the current state as the first event.
    overviews.mark_changed();
    let events = stream::unfold((overviews, None), |(mut overviews, last)| async move {
        let view = next(&mut overviews, last.as_ref()).await?;
        // Serializing can't fail: there are no maps.
        let event = Event::default().event("overview").json_data(&view).ok()?;
        Some((Ok(event), (overviews, Some(view))))
    });
    Sse::new(events.take_until(state.shutdown.cancelled_owned())).keep_alive(KeepAlive::default())
}

/// The next view that differs from the last in more than its age; `None` when the watcher ends.
async fn next(overviews: &mut Overviews, last: Option<&View>) -> Option<View> {
    loop {
        overviews.changed().await.ok()?;
        if last.is_some() {
            tokio::time::sleep(DEBOUNCE).await;
        }
        let view = overviews.borrow_and_update().as_ref().map(View::new);
        if let Some(view) = view
            && last.is_none_or(|last| !view.is_same_state(last))
        {
            return Some(view);
        }
    }
}
