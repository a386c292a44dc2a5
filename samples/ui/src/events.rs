//! `GET /events`: the live services as server-sent events, one `picture` for each change.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::feed::Pictures;
use crate::picture::View;

/// Changes that come in one go, such as a whole service starting, are shown as one.
const PAUSE: Duration = Duration::from_millis(100);

/// Where the pictures come from, and when no more are wanted.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) pictures: Pictures,
    pub(crate) leaving: CancellationToken,
}

pub(crate) async fn events(
    State(live): State<Live>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let Live {
        mut pictures,
        leaving,
    } = live;
    // What is known already counts as the first change.
    pictures.mark_changed();
    let stream =
        futures_util::stream::unfold((pictures, None), |(mut pictures, last)| async move {
            let view = next(&mut pictures, last.as_ref()).await?;
            // A view has a JSON form: it is made of strings, numbers and lists.
            let event = Event::default().event("picture").json_data(&view).ok()?;
            Some((Ok(event), (pictures, Some(view))))
        });
    Sse::new(stream.take_until(leaving.cancelled_owned())).keep_alive(KeepAlive::default())
}

/// The next view that tells something new; none when the service stops.
async fn next(pictures: &mut Pictures, last: Option<&View>) -> Option<View> {
    loop {
        pictures.changed().await.ok()?;
        if last.is_some() {
            tokio::time::sleep(PAUSE).await;
        }
        let Some(view) = pictures
            .borrow_and_update()
            .as_ref()
            .map(|picture| picture.view())
        else {
            continue;
        };
        if last.is_none_or(|last| !view.same_but_for_age(last)) {
            return Some(view);
        }
    }
}
