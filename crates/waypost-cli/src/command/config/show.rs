//! `waypost config show`

use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Args, CommandFactory};
use serde_json::{Value, json};
use waypost::settings::{Setting, Source, effective_settings};
use waypost::{Environment, mask_secrets};
use waypost_runner::stack_file::{BuiltIn, PortOrOff, StackFile};

use crate::command::output_args::{Format, OutputArgs};
use crate::command::registry_args::RegistryArgs;
use crate::error::{CommandError, CommandResult};
use crate::output::JSON_SCHEMA;
use crate::style::{Column, Table, Text, Tone};
use crate::terminal::{print_json, print_line};

/// Show every setting, its value and where it comes from: flag, variable, file or default
///
/// Secrets are masked. Settings that the chosen provider does not use are shown with -o wide. The exit
/// code is 2 if a setting is invalid.
#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// A row of the output.
struct Row {
    name: String,
    value: String,
    source: &'static str,
    /// The flag, the variables or the file.
    from: Option<String>,
    variables: Vec<String>,
    is_used: bool,
}

impl Show {
    pub(super) fn run<C: CommandFactory>(self) -> CommandResult {
        let environment = Environment::of_this_process();
        let (mut rows, problem) = self.of_library(&environment);
        rows.extend(self.of_flags());
        rows.extend(of_stack_file()?);
        rows.extend(of_this_program(&environment));
        rows.extend(of_spans(&environment));
        let command = C::command();
        of_options(&command, &environment, "", &mut rows);
        let problem = problem.map(CommandError::from);
        match self.output.format() {
            Format::Json => print_json(&json!({
                "schema": JSON_SCHEMA,
                "settings": rows.iter().map(Row::json).collect::<Vec<_>>(),
                "error": problem.as_ref().map(ToString::to_string),
            }))?,
            Format::Name => {
                for row in &rows {
                    print_line(&row.name)?;
                }
            }
            format => print(&rows, format == Format::Wide)?,
        }
        problem.map_or(Ok(ExitCode::SUCCESS), Err)
    }

    /// The settings that the library reads in every program.
    fn of_library(&self, environment: &Environment) -> (Vec<Row>, Option<waypost::Error>) {
        let with_flag = self.registry.environment_of_flag();
        let is_flag = with_flag.is_some();
        let (settings, problem) = effective_settings(with_flag.as_ref().unwrap_or(environment));
        let rows = settings.into_iter().map(|setting| {
            let is_address = setting.name == "consul.address" && is_flag;
            let mut row = Row::of(setting);
            if is_address {
                row.source = "flag";
                row.from = Some("--registry".to_owned());
            }
            row
        });
        (rows.collect(), problem)
    }

    /// The options of this command that have no variable.
    fn of_flags(&self) -> [Row; 1] {
        let timeout = self.registry.timeout;
        let is_default = timeout == Duration::from_secs(5);
        [Row {
            name: "timeout".to_owned(),
            value: humantime::format_duration(timeout).to_string(),
            source: if is_default { "default" } else { "flag" },
            from: (!is_default).then(|| "--timeout".to_owned()),
            variables: Vec::new(),
            is_used: true,
        }]
    }
}

impl Row {
    fn of(setting: Setting) -> Self {
        let (source, from) = match setting.source {
            Source::Variables(variables) => ("variable", Some(variables.join(", "))),
            Source::File(file) => ("file", Some(file)),
            _ => ("default", None),
        };
        Self {
            name: setting.name,
            value: setting.value,
            source,
            from,
            variables: setting.variables.iter().map(ToString::to_string).collect(),
            is_used: setting.is_used,
        }
    }

    /// A setting that the first of these variables sets.
    fn of_variables(
        name: String,
        variables: &[&str],
        default: &str,
        is_secret: bool,
        environment: &Environment,
    ) -> Self {
        let mut set = variables.iter();
        let set = set.find_map(|name| Some((*name, environment.get(name)?)));
        let value = match set {
            None => default.to_owned(),
            Some(_) if is_secret => "***".to_owned(),
            Some((_, value)) => mask_secrets(value).into_owned(),
        };
        Self {
            name,
            value,
            source: if set.is_some() { "variable" } else { "default" },
            from: set.map(|(variable, _)| variable.to_owned()),
            variables: variables.iter().map(ToString::to_string).collect(),
            is_used: true,
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "value": self.value,
            "source": self.source,
            "from": self.from,
            "variables": self.variables,
            "used": self.is_used,
        })
    }
}

/// The settings of the stack file of this folder, if there is one.
fn of_stack_file() -> Result<Vec<Row>, CommandError> {
    let folder = std::env::current_dir()?;
    let Some(path) = StackFile::find(&folder) else {
        return Ok(Vec::new());
    };
    let file = StackFile::read(&path).map_err(CommandError::stack_file)?;
    let port = |port: PortOrOff| {
        port.port()
            .map_or("false".to_owned(), |port| port.to_string())
    };
    let texts = |built_in: &BuiltIn| {
        [
            ("stack.registry", built_in.registry.clone()),
            ("stack.registry-port", built_in.registry_port.to_string()),
            ("stack.gateway", port(built_in.gateway)),
            ("stack.dashboard", port(built_in.dashboard)),
        ]
    };
    let chosen = texts(&file.contents().waypost);
    let defaults = texts(&BuiltIn::default());
    let rows = chosen
        .into_iter()
        .zip(defaults)
        .map(|((name, value), (_, default))| {
            let is_default = value == default;
            Row {
                name: name.to_owned(),
                value,
                source: if is_default { "default" } else { "file" },
                from: (!is_default).then(|| path.display().to_string()),
                variables: Vec::new(),
                is_used: true,
            }
        });
    Ok(rows.collect())
}

/// The settings that only the `waypost` command reads.
fn of_this_program(environment: &Environment) -> impl Iterator<Item = Row> {
    let known = [
        ("log-filter", "RUST_LOG", "by command; -q, -v"),
        ("no-colours", "NO_COLOR", "colours on a terminal"),
        ("consul-binary", "CONSUL_BIN", "the first `consul` on PATH"),
    ];
    known.into_iter().map(|(name, variable, default)| {
        Row::of_variables(name.to_owned(), &[variable], default, false, environment)
    })
}

/// OpenTelemetry's settings for the spans of the gateway: names, variables in order of precedence, defaults.
const SPANS: [(&str, &[&str], &str); 15] = [
    ("spans.disabled", &["OTEL_SDK_DISABLED"], "false"),
    ("spans.exporter", &["OTEL_TRACES_EXPORTER"], "none"),
    (
        "spans.endpoint",
        &[
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ],
        "none",
    ),
    (
        "spans.protocol",
        &[
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ],
        "http/protobuf",
    ),
    (
        SPAN_HEADERS,
        &[
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            "OTEL_EXPORTER_OTLP_HEADERS",
        ],
        "none",
    ),
    (
        "spans.timeout",
        &[
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
        ],
        "10000",
    ),
    (
        "spans.compression",
        &[
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        ],
        "none",
    ),
    (
        "spans.ca-file",
        &[
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
        ],
        "the system's",
    ),
    ("spans.service-name", &["OTEL_SERVICE_NAME"], "api-gateway"),
    (
        "spans.resource-attributes",
        &["OTEL_RESOURCE_ATTRIBUTES"],
        "none",
    ),
    (
        "spans.sampler",
        &["OTEL_TRACES_SAMPLER"],
        "parentbased_always_on",
    ),
    ("spans.sampler-argument", &["OTEL_TRACES_SAMPLER_ARG"], "1"),
    ("spans.delay", &["OTEL_BSP_SCHEDULE_DELAY"], "5000"),
    ("spans.queue", &["OTEL_BSP_MAX_QUEUE_SIZE"], "2048"),
    ("spans.batch", &["OTEL_BSP_MAX_EXPORT_BATCH_SIZE"], "512"),
];

/// The headers often contain the key of the collector.
const SPAN_HEADERS: &str = "spans.headers";

/// The settings for the spans of the gateway.
fn of_spans(environment: &Environment) -> impl Iterator<Item = Row> {
    SPANS.into_iter().map(|(name, variables, default)| {
        let is_secret = name == SPAN_HEADERS;
        let name = name.to_owned();
        Row {
            is_used: cfg!(feature = "otlp"),
            ..Row::of_variables(name, variables, default, is_secret, environment)
        }
    })
}

/// The options of all commands that can be set by variables, from the definition of the command line.
fn of_options(command: &clap::Command, environment: &Environment, path: &str, rows: &mut Vec<Row>) {
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else {
            continue;
        };
        let name = format!("{path}--{}", argument.get_long().unwrap_or_default());
        let is_secret = argument.is_hide_env_values_set();
        let default = default_of(argument);
        let row = Row::of_variables(name, &[variable], &default, is_secret, environment);
        rows.push(row);
    }
    for subcommand in command.get_subcommands() {
        let path = format!("{path}{} ", subcommand.get_name());
        of_options(subcommand, environment, &path, rows);
    }
}

fn default_of(argument: &Arg) -> String {
    let values = argument.get_default_values().iter();
    let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
    if values.is_empty() {
        "none".to_owned()
    } else {
        values.join(", ")
    }
}

fn print(rows: &[Row], is_wide: bool) -> Result<(), CommandError> {
    let mut table = Table::new(
        &[
            Column::new("SETTING"),
            Column::new("VALUE").can_shrink(),
            Column::new("FROM").can_shrink(),
            Column::new("USED").wide_only(),
            Column::new("VARIABLES").wide_only(),
        ],
        is_wide,
    );
    for row in rows.iter().filter(|row| is_wide || row.is_used) {
        let from = match (row.source, &row.from) {
            ("default", _) | (_, None) => Text::toned(Tone::Faint, row.source),
            (source, Some(from)) => Text::new(format_args!("{source} {from}")),
        };
        table.row([
            Text::new(&row.name),
            Text::new(&row.value),
            from,
            Text::new(if row.is_used { "yes" } else { "no" }),
            Text::or_none(Some(row.variables.join(", "))),
        ]);
    }
    table.print()
}
