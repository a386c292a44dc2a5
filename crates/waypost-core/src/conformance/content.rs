//! What the cases publish, and how answers are compared with it.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::time::timeout;

use super::{Abilities, Harness};
use crate::model::{Instance, ServiceName, Weight};
use crate::provider::{Answer, Watch};

pub(super) type Verdict = Result<(), String>;

pub(super) fn name(text: &str) -> Result<ServiceName, String> {
    ServiceName::new(text).map_err(|fault| fault.to_string())
}

/// An instance that differs from others by its number in all that it has.
pub(super) fn instance(service: &str, number: usize) -> Result<Instance, String> {
    edited(service, number, number)
}

/// The same instance with other details.
pub(super) fn edited(service: &str, number: usize, edit: usize) -> Result<Instance, String> {
    let octet = |shift: usize| (number >> shift) & 0xff;
    let host = format!("10.{}.{}.{}", octet(16), octet(8), octet(0));
    let host = host.parse().map_err(|fault| format!("{fault}"))?;
    Instance::builder(name(service)?, host, 8080)
        .id(format!("{service}-{number}"))
        .version(format!("1.0.{edit}"))
        .tag("conformance")
        .tag(format!("edit-{edit}"))
        .meta("edit", edit.to_string())
        .weight(Weight::new(1 + (edit % 100) as u16))
        .build()
        .map_err(|fault| fault.to_string())
}

pub(super) fn instances(service: &str, count: usize) -> Result<Vec<Instance>, String> {
    (0..count).map(|number| instance(service, number)).collect()
}

/// The next answer; a failure or the end of the stream is one too few.
pub(super) async fn answer(harness: &dyn Harness, watch: &mut Watch) -> Result<Answer, String> {
    match timeout(harness.patience(), watch.next()).await {
        Err(_) => Err(format!("no answer within {:?}", harness.patience())),
        Ok(None) => Err("the watch ended without a failure".into()),
        Ok(Some(Err(error))) => Err(format!("a failure instead of an answer: {error}")),
        Ok(Some(Ok(answer))) => Ok(answer),
    }
}

/// Follows a watch until it says what is expected; what it says before is given to `between`.
pub(super) async fn until(
    harness: &dyn Harness,
    watch: &mut Watch,
    expected: &[Instance],
    between: impl Fn(&Answer) -> Verdict,
) -> Verdict {
    let mut last = None;
    let following = async {
        loop {
            let said = answer(harness, watch).await?;
            if difference(&harness.abilities(), expected, &said).is_none() {
                return Ok(());
            }
            between(&said)?;
            last = Some(said);
        }
    };
    match timeout(harness.patience(), following).await {
        Ok(verdict) => verdict,
        Err(_) => {
            let last = last.map(|last| difference(&harness.abilities(), expected, &last));
            Err(format!("not as expected in time: {:?}", last.flatten()))
        }
    }
}

pub(super) fn anything(_: &Answer) -> Verdict {
    Ok(())
}

/// What an answer has otherwise than it should, if anything.
pub(super) fn difference(
    abilities: &Abilities,
    expected: &[Instance],
    said: &Answer,
) -> Option<String> {
    let said: &[Arc<Instance>] = match said {
        Answer::Instances(said) => said,
        Answer::Unknown => &[],
    };
    let describe = |instance: &Instance| match abilities.details {
        false => instance.url().to_owned(),
        true => format!(
            "{} at {} version {:?} weight {} tags {:?} edit {:?}",
            instance.id(),
            instance.url(),
            instance.version(),
            instance.weight(),
            instance.tags().collect::<Vec<_>>(),
            instance.meta("edit"),
        ),
    };
    let mut said: Vec<_> = said.iter().map(|instance| describe(instance)).collect();
    let mut expected: Vec<_> = expected.iter().map(describe).collect();
    said.sort();
    expected.sort();
    if said == expected {
        return None;
    }
    let missing = expected.iter().filter(|line| !said.contains(line)).take(3);
    let surplus = said.iter().filter(|line| !expected.contains(line)).take(3);
    Some(format!(
        "{} instances instead of {}; missing: {:?}; surplus: {:?}",
        said.len(),
        expected.len(),
        missing.collect::<Vec<_>>(),
        surplus.collect::<Vec<_>>(),
    ))
}
