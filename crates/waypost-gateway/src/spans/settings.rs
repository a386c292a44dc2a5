//! The settings of the exporter, from OpenTelemetry's environment variables.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;
use waypost::{ConfigError, Environment, ServiceName};

use crate::upstream::HttpUrl;

/// The default endpoint, if the exporter is chosen without one.
const LOCAL_COLLECTOR: &str = "http://localhost:4318/v1/traces";

/// Where and how spans are exported.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) url: HttpUrl,
    pub(super) headers: HashMap<String, String>,
    /// The time limit of an export, with its retries.
    pub(super) timeout: Duration,
    pub(super) gzip: bool,
    /// The certificate authorities that replace those of the system.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) resource: Resource,
    pub(super) sampler: Sampler,
    /// How long a span waits for others.
    pub(super) delay: Duration,
    /// The maximum number of spans that wait to be exported.
    pub(super) queue: usize,
    /// The maximum number of spans of an export.
    pub(super) batch: usize,
}

impl Settings {
    /// The settings, or `None` if no spans are to be exported. `service` is the name of this gateway.
    ///
    /// # Errors
    /// If a variable has an invalid value.
    pub(super) fn read(
        environment: &Environment,
        service: &ServiceName,
    ) -> Result<Option<Self>, ConfigError> {
        if environment.flag("OTEL_SDK_DISABLED")?.unwrap_or(false) {
            return Ok(None);
        }
        let Some(url) = collector(environment)? else {
            return Ok(None);
        };
        check_protocol(environment)?;
        let (queue, batch) = batching(environment)?;
        let ca_file = first(
            environment,
            [
                "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
            ],
        );
        Ok(Some(Self {
            url,
            headers: headers(environment)?,
            timeout: timeout(environment)?,
            gzip: gzip(environment)?,
            ca_file: ca_file.map(|(_, path)| PathBuf::from(path)),
            resource: resource(environment, service)?,
            sampler: sampler(environment)?,
            delay: millis(environment, "OTEL_BSP_SCHEDULE_DELAY")?
                .unwrap_or(Duration::from_secs(5)),
            queue,
            batch,
        }))
    }
}

/// The name and the value of the first of two variables that is set.
fn first<'a>(
    environment: &'a Environment,
    names: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    names
        .into_iter()
        .find_map(|name| Some((name, environment.get(name)?)))
}

fn bad<T>(name: &'static str, problem: String) -> Result<T, ConfigError> {
    Err(ConfigError::new(name, problem))
}

fn collector(environment: &Environment) -> Result<Option<HttpUrl>, ConfigError> {
    let is_chosen = match environment.get("OTEL_TRACES_EXPORTER") {
        None => false,
        Some("otlp") => true,
        Some("none") => return Ok(None),
        Some(other) => {
            let problem = format!("{other:?} is not supported; use otlp or none");
            return bad("OTEL_TRACES_EXPORTER", problem);
        }
    };
    let (name, url) = if let Some(url) = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.to_owned())
    } else if let Some(base) = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") {
        let url = format!("{}/v1/traces", base.trim_end_matches('/'));
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    } else if is_chosen {
        ("OTEL_TRACES_EXPORTER", LOCAL_COLLECTOR.to_owned())
    } else {
        return Ok(None);
    };
    match HttpUrl::parse(&url) {
        Ok(url) => Ok(Some(url)),
        Err(problem) => bad(name, problem),
    }
}

/// The only protocol is `http/protobuf`, OpenTelemetry's default.
fn check_protocol(environment: &Environment) -> Result<(), ConfigError> {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ];
    match first(environment, names) {
        None | Some((_, "http/protobuf")) => Ok(()),
        Some((name, other)) => {
            let problem = format!(
                "{other:?} is not supported; use http/protobuf, which collectors accept on port 4318"
            );
            bad(name, problem)
        }
    }
}

/// Errors don't show values, since they may be secret.
fn headers(environment: &Environment) -> Result<HashMap<String, String>, ConfigError> {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ];
    let Some((variable, list)) = first(environment, names) else {
        return Ok(HashMap::new());
    };
    let mut headers = HashMap::new();
    for (index, (name, value)) in pairs(variable, list)?.into_iter().enumerate() {
        let is_valid = name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(&value).is_ok();
        if !is_valid {
            let problem = format!(
                "entry {} is not a header, such as api-key=secret",
                index + 1
            );
            return bad(variable, problem);
        }
        headers.insert(name, value);
    }
    Ok(headers)
}

/// A list `name=value,name=value` with percent-encoded values, as in W3C Baggage.
fn pairs(variable: &'static str, list: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let mut pairs = Vec::new();
    let entries = list.split(',').enumerate();
    for (index, entry) in entries.filter(|(_, entry)| !entry.trim().is_empty()) {
        let pair = entry.split_once('=').and_then(|(name, value)| {
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let name = name.trim();
            (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
        });
        match pair {
            Some(pair) => pairs.push(pair),
            None => {
                let problem = format!(
                    "entry {} is not name=value with a percent-encoded value",
                    index + 1
                );
                return bad(variable, problem);
            }
        }
    }
    Ok(pairs)
}

fn timeout(environment: &Environment) -> Result<Duration, ConfigError> {
    let own = millis(environment, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")?;
    let general = millis(environment, "OTEL_EXPORTER_OTLP_TIMEOUT")?;
    Ok(own.or(general).unwrap_or(Duration::from_secs(10)))
}

fn gzip(environment: &Environment) -> Result<bool, ConfigError> {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
    ];
    match first(environment, names) {
        None | Some((_, "none")) => Ok(false),
        Some((_, "gzip")) => Ok(true),
        Some((name, other)) => bad(
            name,
            format!("{other:?} is not supported; use gzip or none"),
        ),
    }
}

/// The resource that the spans come from. `OTEL_SERVICE_NAME` takes precedence over the attribute
/// `service.name`, and both over the gateway's name.
fn resource(environment: &Environment, service: &ServiceName) -> Result<Resource, ConfigError> {
    let variable = "OTEL_RESOURCE_ATTRIBUTES";
    let attributes = match environment.get(variable) {
        Some(list) => pairs(variable, list)?,
        None => Vec::new(),
    };
    let attributes = attributes
        .into_iter()
        .map(|(name, value)| KeyValue::new(name, value));
    let mut resource = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", service.as_str().to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("telemetry.sdk.name", "opentelemetry"))
        .with_attribute(KeyValue::new("telemetry.sdk.language", "rust"))
        .with_attributes(attributes);
    if let Some(name) = environment.get("OTEL_SERVICE_NAME") {
        resource = resource.with_attribute(KeyValue::new("service.name", name.to_owned()));
    }
    Ok(resource.build())
}

fn sampler(environment: &Environment) -> Result<Sampler, ConfigError> {
    let variable = "OTEL_TRACES_SAMPLER";
    let parent_based = |root| Sampler::ParentBased(Box::new(root));
    Ok(match environment.get(variable) {
        Some("always_on") => Sampler::AlwaysOn,
        Some("always_off") => Sampler::AlwaysOff,
        Some("traceidratio") => Sampler::TraceIdRatioBased(ratio(environment)?),
        None | Some("parentbased_always_on") => parent_based(Sampler::AlwaysOn),
        Some("parentbased_always_off") => parent_based(Sampler::AlwaysOff),
        Some("parentbased_traceidratio") => {
            parent_based(Sampler::TraceIdRatioBased(ratio(environment)?))
        }
        Some(other) => {
            let problem = format!(
                "{other:?} is not supported; use always_on, always_off or traceidratio, each also with \
                 parentbased_ in front"
            );
            return bad(variable, problem);
        }
    })
}

/// The share of traces that are sampled. 1 by default.
fn ratio(environment: &Environment) -> Result<f64, ConfigError> {
    let variable = "OTEL_TRACES_SAMPLER_ARG";
    let Some(text) = environment.get(variable) else {
        return Ok(1.0);
    };
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => bad(
            variable,
            format!("{text:?} is not a number from 0 to 1, such as 0.1"),
        ),
    }
}

/// The size of the queue and of a batch.
fn batching(environment: &Environment) -> Result<(usize, usize), ConfigError> {
    const QUEUE: &str = "OTEL_BSP_MAX_QUEUE_SIZE";
    const BATCH: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
    /// Bounds the memory that is reserved for the queue.
    const MAX_QUEUE: usize = 1_000_000;
    let queue = number(environment, QUEUE)?.unwrap_or(2048);
    if !(1..=MAX_QUEUE).contains(&queue) {
        return bad(QUEUE, format!("{queue} is not between 1 and {MAX_QUEUE}"));
    }
    let batch = number(environment, BATCH)?.unwrap_or(queue.min(512));
    if !(1..=queue).contains(&batch) {
        return bad(
            BATCH,
            format!("{batch} is not between 1 and the size of the queue, {queue}"),
        );
    }
    Ok((queue, batch))
}

fn millis(
    environment: &Environment,
    variable: &'static str,
) -> Result<Option<Duration>, ConfigError> {
    match number::<u32>(environment, variable)? {
        Some(0) => bad(variable, "0 is too short: at least 1 ms".to_owned()),
        time => Ok(time.map(|millis| Duration::from_millis(millis.into()))),
    }
}

fn number<T: std::str::FromStr>(
    environment: &Environment,
    variable: &'static str,
) -> Result<Option<T>, ConfigError> {
    let Some(text) = environment.get(variable) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => bad(variable, format!("{text:?} is not a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::{Key, Value};

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, ConfigError> {
        let environment = Environment::from_iter(variables.iter().copied());
        Settings::read(&environment, &ServiceName::new("api-gateway").unwrap())
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");

    #[test]
    fn spans_are_exported_only_if_a_variable_says_so() {
        for variables in [
            &[][..],
            &[("OTEL_SERVICE_NAME", "front")],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "true")],
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
        ] {
            assert!(read(variables).unwrap().is_none(), "{variables:?}");
        }
        for (variables, url) in [
            (&[ENDPOINT][..], "http://collector:4318/v1/traces"),
            (
                &[
                    ENDPOINT,
                    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t.example/in"),
                ],
                "https://t.example/in",
            ),
            (
                &[("OTEL_TRACES_EXPORTER", "otlp")],
                "http://localhost:4318/v1/traces",
            ),
        ] {
            let settings = read(variables).unwrap().unwrap();
            assert_eq!(settings.url.to_string(), url);
        }
    }

    #[test]
    fn the_name_of_the_service_comes_from_the_first_of_three_places() {
        let name = |variables: &[(&str, &str)]| {
            let resource = read(variables).unwrap().unwrap().resource;
            resource.get(&Key::new("service.name"))
        };
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=b,team=a%20b");
        assert_eq!(name(&[ENDPOINT]), Some(Value::from("api-gateway")));
        assert_eq!(name(&[ENDPOINT, attributes]), Some(Value::from("b")));
        let own = ("OTEL_SERVICE_NAME", "c");
        assert_eq!(name(&[ENDPOINT, attributes, own]), Some(Value::from("c")));
        let resource = read(&[ENDPOINT, attributes]).unwrap().unwrap().resource;
        assert_eq!(resource.get(&Key::new("team")), Some(Value::from("a b")));
    }

    #[test]
    fn an_invalid_value_is_an_error_that_names_the_variable_and_hides_secrets() {
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "yes"),
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a,s3cret"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api key=s3cret"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ] {
            let error = read(&[ENDPOINT, (name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        for ratio in ["2", "-1", "NaN", "half"] {
            let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
            let error = read(&[ENDPOINT, sampler, ("OTEL_TRACES_SAMPLER_ARG", ratio)]);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("OTEL_TRACES_SAMPLER_ARG"), "{error}");
        }
    }

    #[test]
    fn headers_are_percent_decoded() {
        let headers = (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "a=1, authorization=Bearer%20x%3D,",
        );
        let headers = read(&[ENDPOINT, headers]).unwrap().unwrap().headers;
        assert_eq!(headers["authorization"], "Bearer x=");
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn the_variable_for_traces_takes_precedence_over_the_general_one() {
        let settings = read(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert_eq!(settings.delay, Duration::from_secs(5));
        assert_eq!((settings.queue, settings.batch), (2048, 512));
        assert_eq!((settings.gzip, settings.ca_file), (false, None));
        let general = [
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_BSP_SCHEDULE_DELAY", "7"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ];
        let settings = read(&general).unwrap().unwrap();
        assert_eq!(settings.timeout, Duration::from_millis(1));
        assert_eq!(settings.delay, Duration::from_millis(7));
        assert_eq!((settings.queue, settings.batch), (100, 100));
        assert_eq!(settings.ca_file, Some("/ca.pem".into()));
        assert!(settings.gzip);
        let of_traces = [
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100"),
        ];
        let settings = read(&[&general[..], &of_traces].concat()).unwrap().unwrap();
        assert_eq!(settings.timeout, Duration::from_millis(2));
        assert_eq!(settings.ca_file, Some("/own.pem".into()));
        assert_eq!((settings.gzip, settings.batch), (false, 100));
        let largest = [ENDPOINT, ("OTEL_BSP_MAX_QUEUE_SIZE", "1000000")];
        let settings = read(&largest).unwrap().unwrap();
        assert_eq!((settings.queue, settings.batch), (1_000_000, 512));
        let larger = read(&[ENDPOINT, ("OTEL_BSP_MAX_QUEUE_SIZE", "1000001")]);
        assert!(
            larger
                .unwrap_err()
                .to_string()
                .contains("OTEL_BSP_MAX_QUEUE_SIZE")
        );
    }

    #[test]
    fn the_sampler_is_the_one_with_that_name() {
        for (name, argument, expected) in [
            ("", "", "ParentBased(AlwaysOn)"),
            ("always_on", "", "AlwaysOn"),
            ("always_off", "", "AlwaysOff"),
            ("traceidratio", "", "TraceIdRatioBased(1.0)"),
            ("traceidratio", "0", "TraceIdRatioBased(0.0)"),
            ("traceidratio", "0.25", "TraceIdRatioBased(0.25)"),
            ("parentbased_always_on", "", "ParentBased(AlwaysOn)"),
            ("parentbased_always_off", "", "ParentBased(AlwaysOff)"),
            (
                "parentbased_traceidratio",
                "1",
                "ParentBased(TraceIdRatioBased(1.0))",
            ),
        ] {
            let sampler = ("OTEL_TRACES_SAMPLER", name);
            let variables = [ENDPOINT, sampler, ("OTEL_TRACES_SAMPLER_ARG", argument)];
            let settings = read(&variables).unwrap().unwrap();
            assert_eq!(format!("{:?}", settings.sampler), expected);
        }
    }
}
