//! The cases, each a rule that a directory relies on.

use std::collections::BTreeSet;

use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use super::content::{
    Verdict, answer, anything, difference, edited, instance, instances, name, until,
};
use super::{Abilities, Harness};
use crate::model::ServiceName;
use crate::provider::Answer;

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) needs: fn(&Abilities) -> bool,
    pub(super) run: fn(&dyn Harness) -> BoxFuture<'_, Verdict>,
}

fn always(_: &Abilities) -> bool {
    true
}

fn live(abilities: &Abilities) -> bool {
    abilities.live
}

fn live_and_several(abilities: &Abilities) -> bool {
    abilities.live && abilities.several
}

macro_rules! cases {
    ($($name:literal, $needs:ident, $run:ident;)*) => {
        &[$(Case { name: $name, needs: $needs, run: |harness| $run(harness).boxed() }),*]
    };
}

pub(super) const ALL: &[Case] = cases! {
    "an unknown name is an answer, and at once", always, unknown_name;
    "what is there is the first answer, whole", always, first_answer;
    "a watch of nothing tells when something comes", live, from_empty;
    "a change of an instance is an update of it", live_and_several, updates;
    "each instance that leaves is told, the last one too", live_and_several, removals;
    "names that look alike are not mixed up", always, odd_names;
    "a service is told nothing of another", live, others_changes;
    "the list of names is whole and follows", always, names;
    "many watchers of one service all learn of a change", live, many_watchers;
    "dropped watches leave room for new ones", always, dropped_watches;
    "a large service arrives whole", always, large_set;
    "a failure is an error, never an answer", fails, failure;
    "after a failure a new watch has it all", fails, recovery;
};

fn fails(abilities: &Abilities) -> bool {
    abilities.fails
}

async fn unknown_name(harness: &dyn Harness) -> Verdict {
    let mut watch = harness.provider().watch(&name("nobody-knows-this")?);
    match answer(harness, &mut watch).await? {
        Answer::Unknown => Ok(()),
        Answer::Instances(none) if none.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn first_answer(harness: &dyn Harness) -> Verdict {
    let count = if harness.abilities().several { 3 } else { 1 };
    let content = instances("alpha", count)?;
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch(&name("alpha")?);
    let said = answer(harness, &mut watch).await?;
    difference(&harness.abilities(), &content, &said).map_or(Ok(()), Err)
}

async fn from_empty(harness: &dyn Harness) -> Verdict {
    let mut watch = harness.provider().watch(&name("alpha")?);
    answer(harness, &mut watch).await?;
    let content = instances("alpha", 1)?;
    harness.publish(content.clone()).await;
    until(harness, &mut watch, &content, anything).await
}

async fn updates(harness: &dyn Harness) -> Verdict {
    let content = instances("alpha", 2)?;
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch(&name("alpha")?);
    until(harness, &mut watch, &content, anything).await?;
    let changed = vec![edited("alpha", 0, 77)?, instance("alpha", 1)?];
    harness.publish(changed.clone()).await;
    until(harness, &mut watch, &changed, |between| match between {
        Answer::Instances(both) if both.len() == 2 => Ok(()),
        other => Err(format!("an instance was missing meanwhile: {other:?}")),
    })
    .await
}

async fn removals(harness: &dyn Harness) -> Verdict {
    let mut content = instances("alpha", 3)?;
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch(&name("alpha")?);
    until(harness, &mut watch, &content, anything).await?;
    while content.pop().is_some() {
        harness.publish(content.clone()).await;
        until(harness, &mut watch, &content, anything).await?;
    }
    Ok(())
}

async fn odd_names(harness: &dyn Harness) -> Verdict {
    let long = "n".repeat(60);
    let odd = ["a", "a1", "a-b", "ab", "x0-y1-z2", long.as_str()];
    let content: Result<Vec<_>, _> = odd
        .iter()
        .enumerate()
        .map(|(number, odd)| instance(odd, number))
        .collect();
    let content = content?;
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    for (odd, expected) in odd.iter().zip(&content) {
        let mut watch = provider.watch(&name(odd)?);
        let said = answer(harness, &mut watch).await?;
        let expected = std::slice::from_ref(expected);
        if let Some(difference) = difference(&harness.abilities(), expected, &said) {
            return Err(format!("{odd}: {difference}"));
        }
    }
    Ok(())
}

async fn others_changes(harness: &dyn Harness) -> Verdict {
    let mut content = vec![instance("alpha", 0)?];
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    let mut alpha = provider.watch(&name("alpha")?);
    let mut beta = provider.watch(&name("beta")?);
    until(harness, &mut alpha, &content, anything).await?;
    let other = instance("beta", 9)?;
    content.push(other.clone());
    harness.publish(content).await;
    until(harness, &mut beta, &[other], anything).await?;
    // Whatever alpha's watch says by now, and it may be silent, is about alpha.
    let expected = [instance("alpha", 0)?];
    while let Some(Some(item)) = alpha.next().now_or_never() {
        let said = item.map_err(|error| error.to_string())?;
        if let Some(difference) = difference(&harness.abilities(), &expected, &said) {
            return Err(difference);
        }
    }
    Ok(())
}

async fn names(harness: &dyn Harness) -> Verdict {
    let mut content = vec![instance("alpha", 0)?, instance("beta", 1)?];
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch_names();
    let mut expected: BTreeSet<ServiceName> = [name("alpha")?, name("beta")?].into();
    for _ in 0..2 {
        let following = async {
            loop {
                match watch.next().await {
                    // A registry may list itself too.
                    Some(Ok(names)) if names.is_superset(&expected) => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.to_string()),
                    None => return Err("the watch ended without a failure".to_owned()),
                }
            }
        };
        let in_time = timeout(harness.patience(), following).await;
        in_time.map_err(|_| format!("{expected:?} not listed in time"))??;
        if !harness.abilities().live {
            break;
        }
        content.push(instance("gamma", 2)?);
        expected.insert(name("gamma")?);
        harness.publish(content.clone()).await;
    }
    Ok(())
}

async fn many_watchers(harness: &dyn Harness) -> Verdict {
    let before = instances("alpha", 1)?;
    harness.publish(before.clone()).await;
    let provider = harness.provider();
    let alpha = name("alpha")?;
    let mut watches: Vec<_> = (0..50).map(|_| provider.watch(&alpha)).collect();
    let all = |expected: Vec<_>, watches: Vec<_>| async move {
        let expected = &expected;
        try_join_all(watches.into_iter().map(|mut watch| async move {
            until(harness, &mut watch, expected, anything).await?;
            Ok::<_, String>(watch)
        }))
        .await
    };
    watches = all(before, watches).await?;
    let after = vec![edited("alpha", 0, 42)?];
    // Without details a change of them can't be seen.
    let after = match harness.abilities().details {
        true => after,
        false => vec![instance("alpha", 300)?],
    };
    harness.publish(after.clone()).await;
    all(after, watches).await.map(drop)
}

async fn dropped_watches(harness: &dyn Harness) -> Verdict {
    let content = instances("alpha", 1)?;
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    let alpha = name("alpha")?;
    for _ in 0..10 {
        let mut watches: Vec<_> = (0..50).map(|_| provider.watch(&alpha)).collect();
        try_join_all(watches.iter_mut().map(|watch| answer(harness, watch))).await?;
        // Now most of them wait for a change.
        for watch in &mut watches {
            let _ = watch.next().now_or_never();
        }
    }
    let mut watch = provider.watch(&alpha);
    let said = answer(harness, &mut watch).await?;
    difference(&harness.abilities(), &content, &said).map_or(Ok(()), Err)
}

async fn large_set(harness: &dyn Harness) -> Verdict {
    let abilities = harness.abilities();
    let count = if abilities.several { abilities.most } else { 1 };
    let content = instances("alpha", count)?;
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch(&name("alpha")?);
    until(harness, &mut watch, &content, anything).await
}

async fn failure(harness: &dyn Harness) -> Verdict {
    let content = instances("alpha", 1)?;
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    let mut running = provider.watch(&name("alpha")?);
    until(harness, &mut running, &content, anything).await?;
    harness.break_down().await;
    let verdict = async {
        loop {
            match running.next().await {
                Some(Err(_)) => return Ok(()),
                None => return Err("the running watch ended without a failure".to_owned()),
                // An answer from before may still be on its way, but it is a true one.
                Some(Ok(said)) => {
                    if let Some(difference) = difference(&harness.abilities(), &content, &said) {
                        return Err(format!("the running watch says: {difference}"));
                    }
                }
            }
        }
    };
    let in_time = timeout(harness.patience(), verdict).await;
    let verdict = in_time.unwrap_or_else(|_| Err("the running watch sees no failure".into()));
    let fresh = timeout(harness.patience(), provider.watch(&name("alpha")?).next()).await;
    harness.heal().await;
    verdict?;
    match fresh {
        Ok(Some(Err(_))) => Ok(()),
        // One that keeps its last good content may give it.
        Ok(Some(Ok(said))) => difference(&harness.abilities(), &content, &said)
            .map_or(Ok(()), |other| Err(format!("a new watch says: {other}"))),
        Ok(None) => Err("a new watch ended without a failure".into()),
        Err(_) => Err("a new watch says nothing, not even that it fails".into()),
    }
}

async fn recovery(harness: &dyn Harness) -> Verdict {
    let content = instances("alpha", 1)?;
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    harness.break_down().await;
    let mut failing = provider.watch(&name("alpha")?);
    let _ = timeout(harness.patience(), failing.next()).await;
    drop(failing);
    harness.heal().await;
    let attempts = async {
        loop {
            let mut watch = provider.watch(&name("alpha")?);
            match until(harness, &mut watch, &content, anything).await {
                Ok(()) => return Ok(()),
                Err(_) => tokio::time::sleep(harness.patience() / 100).await,
            }
        }
    };
    let in_time = timeout(harness.patience(), attempts).await;
    in_time.unwrap_or_else(|_| Err("no new watch has it in time".into()))
}
