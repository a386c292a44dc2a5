//! The instances that the cases publish, and the assertions that they share.

use futures_util::StreamExt;
use tokio::time::timeout;

use super::harness::{Capabilities, Harness};
use crate::model::{Instance, ServiceName, Weight};
use crate::provider::{ServiceAnswer, Watch};

/// `Err` says what was expected, and what happened.
pub(super) type CaseOutcome = Result<(), String>;

pub(super) fn name(text: &str) -> Result<ServiceName, String> {
    ServiceName::new(text).map_err(|invalid| invalid.to_string())
}

/// An instance all of whose fields depend on its number.
pub(super) fn instance(service: &str, number: usize) -> Result<Instance, String> {
    edited_instance(service, number, number)
}

/// The same instance with the details of another number.
pub(super) fn edited_instance(
    service: &str,
    number: usize,
    edit: usize,
) -> Result<Instance, String> {
    let octet = |shift: usize| (number >> shift) & 0xff;
    let host = format!("10.{}.{}.{}", octet(16), octet(8), octet(0));
    let host = host.parse().map_err(|invalid| format!("{invalid}"))?;
    Instance::builder(name(service)?, host, 8080)
        .id(format!("{service}-{number}"))
        .version(format!("1.0.{edit}"))
        .tag("conformance")
        .tag(format!("edit-{edit}"))
        .meta("edit", edit.to_string())
        .weight(Weight::new(1 + (edit % 100) as u16))
        .build()
        .map_err(|invalid| invalid.to_string())
}

pub(super) fn instances(service: &str, count: usize) -> Result<Vec<Instance>, String> {
    (0..count).map(|number| instance(service, number)).collect()
}

/// The next item of a watch, which must be an answer.
pub(super) async fn next_answer(
    harness: &dyn Harness,
    watch: &mut Watch,
) -> Result<ServiceAnswer, String> {
    match timeout(harness.step_timeout(), watch.next()).await {
        Err(_) => Err(format!("no answer within {:?}", harness.step_timeout())),
        Ok(None) => Err("the watch ended without an error".into()),
        Ok(Some(Err(error))) => Err(format!("an error instead of an answer: {error}")),
        Ok(Some(Ok(answer))) => Ok(answer),
    }
}

/// Reads a watch until it reports the expected instances.
pub(super) async fn wait_for(
    harness: &dyn Harness,
    watch: &mut Watch,
    expected: &[Instance],
) -> CaseOutcome {
    wait_for_checking(harness, watch, expected, |_| Ok(())).await
}

/// The same; every answer before that must satisfy `check`.
pub(super) async fn wait_for_checking(
    harness: &dyn Harness,
    watch: &mut Watch,
    expected: &[Instance],
    check: impl Fn(&ServiceAnswer) -> CaseOutcome,
) -> CaseOutcome {
    let mut last = None;
    let answers = async {
        loop {
            let answer = next_answer(harness, watch).await?;
            if difference(&harness.capabilities(), expected, &answer).is_none() {
                return Ok(());
            }
            check(&answer)?;
            last = Some(answer);
        }
    };
    match timeout(harness.step_timeout(), answers).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let last = last.map(|last| difference(&harness.capabilities(), expected, &last));
            Err(format!(
                "not the expected instances in time: {:?}",
                last.flatten()
            ))
        }
    }
}

/// Fails unless an answer holds exactly the expected instances.
pub(super) fn expect(
    harness: &dyn Harness,
    expected: &[Instance],
    answer: &ServiceAnswer,
) -> CaseOutcome {
    difference(&harness.capabilities(), expected, answer).map_or(Ok(()), Err)
}

/// How an answer differs from the expected instances, if it does.
fn difference(
    capabilities: &Capabilities,
    expected: &[Instance],
    answer: &ServiceAnswer,
) -> Option<String> {
    let describe = |instance: &Instance| {
        if !capabilities.details {
            return instance.url().to_owned();
        }
        format!(
            "{} at {} version {:?} weight {} tags {:?} edit {:?}",
            instance.id(),
            instance.url(),
            instance.version(),
            instance.weight(),
            instance.tags().collect::<Vec<_>>(),
            instance.meta("edit"),
        )
    };
    let mut actual: Vec<_> = match answer {
        ServiceAnswer::Instances(instances) => instances.iter().map(|i| describe(i)).collect(),
        ServiceAnswer::Unknown => Vec::new(),
    };
    let mut expected: Vec<_> = expected.iter().map(describe).collect();
    actual.sort();
    expected.sort();
    if actual == expected {
        return None;
    }
    let missing = expected
        .iter()
        .filter(|line| !actual.contains(line))
        .take(3);
    let unexpected = actual
        .iter()
        .filter(|line| !expected.contains(line))
        .take(3);
    Some(format!(
        "{} instances instead of {}; missing: {:?}; unexpected: {:?}",
        actual.len(),
        expected.len(),
        missing.collect::<Vec<_>>(),
        unexpected.collect::<Vec<_>>(),
    ))
}
