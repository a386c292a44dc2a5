//! The cases. Each tests a rule that the directory relies on.

use std::collections::BTreeSet;

use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use super::harness::{Capabilities, Harness};
use super::support::{
    CaseOutcome, edited_instance, expect, instance, instances, name, next_answer, wait_for,
    wait_for_checking,
};
use crate::model::ServiceName;
use crate::provider::ServiceAnswer;

pub(super) struct Case {
    pub(super) name: &'static str,
    /// Whether a provider with these capabilities can be tested.
    pub(super) applies: fn(&Capabilities) -> bool,
    pub(super) run: fn(&dyn Harness) -> BoxFuture<'_, CaseOutcome>,
}

macro_rules! cases {
    ($($name:literal, $applies:expr, $run:ident;)*) => {
        &[$(Case { name: $name, applies: $applies, run: |harness| $run(harness).boxed() }),*]
    };
}

pub(super) const ALL: &[Case] = cases! {
    "an unknown name is answered immediately", |_| true, unknown_name;
    "the first answer has all instances", |_| true, first_answer;
    "a watch of an unknown service reports its first instance", |c| c.live, from_empty;
    "a changed instance is reported without removing it", |c| c.live && c.multiple_instances && c.details, updates;
    "each removed instance is reported, including the last", |c| c.live && c.multiple_instances, removals;
    "similar names are kept apart", |_| true, similar_names;
    "a watch reports nothing about other services", |c| c.live, other_services;
    "the list of names is complete and follows changes", |c| c.names, service_names;
    "many watches of one service all report a change", |c| c.live, many_watches;
    "dropped watches release their resources", |_| true, dropped_watches;
    "a large service is reported completely", |_| true, large_service;
    "a failure is an error, never an answer", |c| c.faults, failure;
    "after a failure a new watch reports everything", |c| c.faults, recovery;
};

async fn unknown_name(harness: &dyn Harness) -> CaseOutcome {
    let mut watch = harness.provider().watch(&name("no-such-service")?);
    match next_answer(harness, &mut watch).await? {
        ServiceAnswer::Unknown => Ok(()),
        ServiceAnswer::Instances(instances) if instances.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn first_answer(harness: &dyn Harness) -> CaseOutcome {
    let count = if harness.capabilities().multiple_instances {
        3
    } else {
        1
    };
    let content = instances("alpha", count)?;
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch(&name("alpha")?);
    let answer = next_answer(harness, &mut watch).await?;
    expect(harness, &content, &answer)
}

async fn from_empty(harness: &dyn Harness) -> CaseOutcome {
    let mut watch = harness.provider().watch(&name("alpha")?);
    next_answer(harness, &mut watch).await?;
    let content = instances("alpha", 1)?;
    harness.publish(content.clone()).await;
    wait_for(harness, &mut watch, &content).await
}

async fn updates(harness: &dyn Harness) -> CaseOutcome {
    let content = instances("alpha", 2)?;
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch(&name("alpha")?);
    wait_for(harness, &mut watch, &content).await?;
    let changed = vec![edited_instance("alpha", 0, 77)?, instance("alpha", 1)?];
    harness.publish(changed.clone()).await;
    wait_for_checking(harness, &mut watch, &changed, |answer| match answer {
        ServiceAnswer::Instances(instances) if instances.len() == 2 => Ok(()),
        other => Err(format!(
            "an instance was missing during the update: {other:?}"
        )),
    })
    .await
}

async fn removals(harness: &dyn Harness) -> CaseOutcome {
    let mut content = instances("alpha", 3)?;
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch(&name("alpha")?);
    wait_for(harness, &mut watch, &content).await?;
    while content.pop().is_some() {
        harness.publish(content.clone()).await;
        wait_for(harness, &mut watch, &content).await?;
    }
    Ok(())
}

async fn similar_names(harness: &dyn Harness) -> CaseOutcome {
    let long = "n".repeat(60);
    let names = ["a", "a1", "a-b", "ab", "x0-y1-z2", long.as_str()];
    let content: Result<Vec<_>, _> = names
        .iter()
        .enumerate()
        .map(|(number, name)| instance(name, number))
        .collect();
    let content = content?;
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    for (service, expected) in names.iter().zip(&content) {
        let mut watch = provider.watch(&name(service)?);
        let answer = next_answer(harness, &mut watch).await?;
        expect(harness, std::slice::from_ref(expected), &answer)
            .map_err(|difference| format!("{service}: {difference}"))?;
    }
    Ok(())
}

async fn other_services(harness: &dyn Harness) -> CaseOutcome {
    let mut content = vec![instance("alpha", 0)?];
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    let mut alpha = provider.watch(&name("alpha")?);
    let mut beta = provider.watch(&name("beta")?);
    wait_for(harness, &mut alpha, &content).await?;
    let other = instance("beta", 9)?;
    content.push(other.clone());
    harness.publish(content).await;
    wait_for(harness, &mut beta, &[other]).await?;
    // The watch of alpha may have reported alpha again, but nothing else.
    let expected = [instance("alpha", 0)?];
    while let Some(Some(item)) = alpha.next().now_or_never() {
        let answer = item.map_err(|error| error.to_string())?;
        expect(harness, &expected, &answer)?;
    }
    Ok(())
}

async fn service_names(harness: &dyn Harness) -> CaseOutcome {
    let mut content = vec![instance("alpha", 0)?, instance("beta", 1)?];
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch_names();
    let mut expected: BTreeSet<ServiceName> = [name("alpha")?, name("beta")?].into();
    for _ in 0..2 {
        let listed = async {
            loop {
                match watch.next().await {
                    // A registry may also list itself.
                    Some(Ok(names)) if names.is_superset(&expected) => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.to_string()),
                    None => return Err("the watch ended without an error".to_owned()),
                }
            }
        };
        timeout(harness.step_timeout(), listed)
            .await
            .map_err(|_| format!("{expected:?} not listed in time"))??;
        let ignored = harness.provider().ignored_names();
        if let Some(name) = (ignored.iter()).find(|it| ServiceName::new(it.value()).is_ok()) {
            return Err(format!("a valid name is ignored: {name}"));
        }
        if !harness.capabilities().live {
            break;
        }
        content.push(instance("gamma", 2)?);
        expected.insert(name("gamma")?);
        harness.publish(content.clone()).await;
    }
    Ok(())
}

async fn many_watches(harness: &dyn Harness) -> CaseOutcome {
    let before = instances("alpha", 1)?;
    harness.publish(before.clone()).await;
    let provider = harness.provider();
    let alpha = name("alpha")?;
    let mut watches: Vec<_> = (0..50).map(|_| provider.watch(&alpha)).collect();
    let all = |expected: Vec<_>, watches: Vec<_>| async move {
        let expected = &expected;
        try_join_all(watches.into_iter().map(|mut watch| async move {
            wait_for(harness, &mut watch, expected).await?;
            Ok::<_, String>(watch)
        }))
        .await
    };
    watches = all(before, watches).await?;
    // Without details, only another instance is a visible change.
    let after = if harness.capabilities().details {
        vec![edited_instance("alpha", 0, 42)?]
    } else {
        vec![instance("alpha", 300)?]
    };
    harness.publish(after.clone()).await;
    all(after, watches).await.map(drop)
}

async fn dropped_watches(harness: &dyn Harness) -> CaseOutcome {
    let content = instances("alpha", 1)?;
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    let alpha = name("alpha")?;
    for _ in 0..10 {
        let mut watches: Vec<_> = (0..50).map(|_| provider.watch(&alpha)).collect();
        try_join_all(watches.iter_mut().map(|watch| next_answer(harness, watch))).await?;
        // Most of them now wait for a change.
        for watch in &mut watches {
            let _ = watch.next().now_or_never();
        }
    }
    let mut watch = provider.watch(&alpha);
    let answer = next_answer(harness, &mut watch).await?;
    expect(harness, &content, &answer)
}

async fn large_service(harness: &dyn Harness) -> CaseOutcome {
    let capabilities = harness.capabilities();
    let count = if capabilities.multiple_instances {
        capabilities.max_instances
    } else {
        1
    };
    let content = instances("alpha", count)?;
    harness.publish(content.clone()).await;
    let mut watch = harness.provider().watch(&name("alpha")?);
    wait_for(harness, &mut watch, &content).await
}

async fn failure(harness: &dyn Harness) -> CaseOutcome {
    let content = instances("alpha", 1)?;
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    let mut running = provider.watch(&name("alpha")?);
    wait_for(harness, &mut running, &content).await?;
    harness.inject_fault().await;
    let running_fails = async {
        loop {
            match running.next().await {
                Some(Err(_)) => return Ok(()),
                None => return Err("the running watch ended without an error".to_owned()),
                // An answer from before the failure may still arrive, but must be correct.
                Some(Ok(answer)) => expect(harness, &content, &answer)
                    .map_err(|difference| format!("the running watch reports: {difference}"))?,
            }
        }
    };
    let outcome = timeout(harness.step_timeout(), running_fails)
        .await
        .unwrap_or_else(|_| Err("the running watch reports no error".into()));
    let fresh = timeout(
        harness.step_timeout(),
        provider.watch(&name("alpha")?).next(),
    )
    .await;
    harness.clear_fault().await;
    outcome?;
    match fresh {
        Ok(Some(Err(_))) => Ok(()),
        // A provider that keeps its last valid content may report that.
        Ok(Some(Ok(answer))) => expect(harness, &content, &answer)
            .map_err(|difference| format!("a new watch reports: {difference}")),
        Ok(None) => Err("a new watch ended without an error".into()),
        Err(_) => Err("a new watch reports neither an answer nor an error".into()),
    }
}

async fn recovery(harness: &dyn Harness) -> CaseOutcome {
    let content = instances("alpha", 1)?;
    harness.publish(content.clone()).await;
    let provider = harness.provider();
    harness.inject_fault().await;
    let mut failing = provider.watch(&name("alpha")?);
    let _ = timeout(harness.step_timeout(), failing.next()).await;
    drop(failing);
    harness.clear_fault().await;
    let attempts = async {
        loop {
            let mut watch = provider.watch(&name("alpha")?);
            match wait_for(harness, &mut watch, &content).await {
                Ok(()) => return Ok(()),
                Err(_) => tokio::time::sleep(harness.step_timeout() / 100).await,
            }
        }
    };
    timeout(harness.step_timeout(), attempts)
        .await
        .unwrap_or_else(|_| Err("no new watch reports everything in time".into()))
}
