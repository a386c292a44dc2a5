//! `waypost services`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::time::timeout;
use waypost::provider::{Provider, ServiceAnswer};
use waypost::{Error, Health, ServiceName};

use super::output_args::{Format, OutputArgs};
use super::registry_args::RegistryArgs;
use crate::error::{CommandError, CommandResult};
use crate::output::{JSON_SCHEMA, freshness_json, print_staleness};
use crate::style::{Column, Table, Text};
use crate::terminal::{print_json, print_line};

/// List all services, with the number of their instances and how many of them are healthy
#[derive(Args)]
pub(crate) struct Services {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// The number of concurrent look-ups.
const CONCURRENCY: usize = 16;

impl Services {
    pub(super) async fn run(self) -> CommandResult {
        let directory = self.registry.directory()?;
        let catalog = directory.catalog().await?;
        let format = self.output.format();
        if format == Format::Name {
            for name in catalog.names() {
                print_line(name)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let names = stream::iter(catalog.names().clone());
        let counted = names.map(|name| count(directory.provider(), name, self.registry.timeout));
        let services: Vec<_> = counted.buffered(CONCURRENCY).collect().await;
        if format == Format::Json {
            print_json(&json!({
                "schema": JSON_SCHEMA,
                "services": services.iter().map(Service::json).collect::<Vec<_>>(),
                "freshness": freshness_json(catalog.freshness()),
            }))?;
        } else {
            print(&services, format == Format::Wide)?;
            print_staleness(catalog.freshness())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The instances of a service by their health.
struct Service {
    name: ServiceName,
    /// The health of each instance, or why the look-up failed.
    instances: Result<Vec<Health>, Error>,
}

/// Counts the instances of a service, with at most one request.
async fn count(provider: &Arc<dyn Provider>, name: ServiceName, limit: Duration) -> Service {
    let mut answers = provider.watch(&name);
    let instances = match timeout(limit, answers.next()).await {
        Ok(Some(Ok(ServiceAnswer::Instances(instances)))) => {
            Ok(instances.iter().map(|instance| instance.health()).collect())
        }
        // The service has lost its last instance since it was listed.
        Ok(Some(Ok(ServiceAnswer::Unknown)) | None) => Ok(Vec::new()),
        Ok(Some(Err(error))) => Err(Error::from_provider(Some(name.clone()), &error)),
        Err(_) => Err(Error::TimedOut {
            service: Some(name.clone()),
            provider: provider.describe(),
            waited: limit,
            cause: None,
        }),
    };
    Service { name, instances }
}

impl Service {
    fn count(&self, health: Health) -> usize {
        let all = self.instances.iter().flatten();
        all.filter(|it| **it == health).count()
    }

    /// The number of instances with a health, in the colour of that health.
    fn text(&self, health: Health) -> Text {
        match self.count(health) {
            0 => Text::none(),
            count => Text::toned(health.into(), count),
        }
    }

    fn json(&self) -> Value {
        let count = |health| self.instances.as_ref().ok().map(|_| self.count(health));
        json!({
            "name": self.name,
            "instances": self.instances.as_ref().ok().map(Vec::len),
            "passing": count(Health::Passing),
            "warning": count(Health::Warning),
            "critical": count(Health::Critical),
            "draining": count(Health::Draining),
            "unchecked": count(Health::Unchecked),
            "error": self.instances.as_ref().err().map(ToString::to_string),
        })
    }
}

fn print(services: &[Service], is_wide: bool) -> Result<(), CommandError> {
    let mut table = Table::new(
        &[
            Column::new("SERVICE").can_shrink(),
            Column::number("INSTANCES"),
            Column::number("PASSING"),
            Column::number("WARNING"),
            Column::number("CRITICAL"),
            Column::number("UNCHECKED"),
            Column::number("DRAINING").wide_only(),
        ],
        is_wide,
    );
    for service in services {
        let instances = match &service.instances {
            Ok(instances) => Text::new(instances.len()),
            Err(_) => Text::new("?"),
        };
        table.row([
            Text::new(&service.name),
            instances,
            service.text(Health::Passing),
            service.text(Health::Warning),
            service.text(Health::Critical),
            service.text(Health::Unchecked),
            service.text(Health::Draining),
        ]);
    }
    table.print()?;
    // If many look-ups failed, only the first error is printed.
    let mut errors = services.iter().filter_map(|it| it.instances.as_ref().err());
    if let Some(first) = errors.next() {
        match errors.count() {
            0 => print_line(format_args!("?: {first}"))?,
            more => print_line(format_args!("?: {first}; and {more} more like this"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instances_of_a_service_are_counted_by_their_health() {
        use Health::{Critical, Draining, Passing, Unchecked, Warning};
        let name = || ServiceName::new("web").unwrap();
        let service = Service {
            name: name(),
            instances: Ok(vec![
                Passing, Critical, Passing, Warning, Draining, Unchecked,
            ]),
        };
        let expected = json!({
            "name": "web", "instances": 6, "passing": 2, "warning": 1, "critical": 1, "draining": 1,
            "unchecked": 1, "error": null,
        });
        assert_eq!(service.json(), expected);
        assert_eq!(service.text(Passing), Text::toned(Passing.into(), 2));
        let empty = Service {
            name: name(),
            instances: Ok(Vec::new()),
        };
        assert_eq!(empty.json()["instances"], 0);
        assert_eq!(empty.text(Passing), Text::none());
        let failed = Service {
            name: name(),
            instances: Err(Error::WithinRuntime),
        };
        let json = failed.json();
        assert_eq!(
            (&json["instances"], &json["passing"]),
            (&Value::Null, &Value::Null)
        );
        assert_eq!(json["error"], Error::WithinRuntime.to_string());
    }
}
