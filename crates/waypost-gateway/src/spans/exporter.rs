//! Exports spans in batches, off the path of requests. An outage of the collector is logged once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::{Compression, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor,
};
use waypost::ConfigError;

use super::SpanCounts;
use super::collector::Collector;
use super::settings::Settings;
use crate::config::Config;

/// The spans that wait to be exported.
#[derive(Debug)]
pub(super) struct SpanQueue {
    processor: BatchSpanProcessor,
    /// The maximum number of spans that wait.
    capacity: usize,
    /// The name and version of the program that makes the spans.
    pub(super) scope: InstrumentationScope,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of spans that wait or are being exported.
    waiting: AtomicUsize,
    exported: AtomicU64,
    not_accepted: AtomicU64,
    queue_full: AtomicU64,
    is_failing: AtomicBool,
}

impl SpanQueue {
    /// Starts the thread that exports.
    ///
    /// # Errors
    /// If the settings can't be used.
    pub(super) fn start(settings: &Settings, config: &Config) -> Result<Self, ConfigError> {
        let state = Arc::new(State::default());
        let exporter = CountingExporter::new(settings, config, &state)?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(settings.queue)
            .with_max_export_batch_size(settings.batch)
            .with_scheduled_delay(settings.delay)
            .build();
        let mut processor = BatchSpanProcessor::new(exporter, batches);
        processor.set_resource(&settings.resource);
        Ok(Self {
            processor,
            capacity: settings.queue,
            scope: InstrumentationScope::builder("waypost-gateway")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            state,
        })
    }

    /// Reserves places in the queue for spans. Returns whether there are enough; otherwise the spans are
    /// counted as lost.
    pub(super) fn reserve(&self, spans: usize) -> bool {
        let waiting = &self.state.waiting;
        let enough = |waiting: usize| Some(waiting + spans).filter(|all| *all <= self.capacity);
        let reserved = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough);
        if reserved.is_err() {
            let lost = &self.state.queue_full;
            lost.fetch_add(spans as u64, Ordering::Relaxed);
        }
        reserved.is_ok()
    }

    /// Adds a span for which a place has been reserved.
    pub(super) fn push(&self, span: SpanData) {
        self.processor.on_end(span);
    }

    pub(super) fn counts(&self) -> SpanCounts {
        let state = &self.state;
        SpanCounts {
            exported: state.exported.load(Ordering::Relaxed),
            not_accepted: state.not_accepted.load(Ordering::Relaxed),
            queue_full: state.queue_full.load(Ordering::Relaxed),
        }
    }

    /// Exports the spans that wait, and ends. Blocks the thread.
    pub(super) fn shut_down(&self, timeout: Duration) {
        if self.processor.shutdown_with_timeout(timeout).is_err() {
            let lost = self.state.waiting.load(Ordering::Relaxed);
            tracing::warn!(
                lost,
                "the last spans could not be exported within {timeout:?}"
            );
        }
    }
}

/// An exporter that counts what it has exported, and logs when exports begin to fail and when they work again.
#[derive(Debug)]
struct CountingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    collector: Arc<Collector>,
    state: Arc<State>,
}

impl CountingExporter {
    fn new(settings: &Settings, config: &Config, state: &Arc<State>) -> Result<Self, ConfigError> {
        let collector = Arc::new(Collector::new(settings, config)?);
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_shared_http_client(Arc::clone(&collector) as _)
            .with_endpoint(settings.url.to_string())
            .with_timeout(settings.timeout)
            .with_headers(settings.headers.clone());
        if settings.gzip {
            exporter = exporter.with_compression(Compression::Gzip);
        }
        let exporter = exporter.build().map_err(|error| {
            ConfigError::new("the span exporter", format!("can't be started: {error}"))
        })?;
        Ok(Self {
            exporter,
            collector,
            state: Arc::clone(state),
        })
    }
}

impl SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        let state = &self.state;
        let counter = match &result {
            Ok(()) => &state.exported,
            Err(_) => &state.not_accepted,
        };
        counter.fetch_add(spans as u64, Ordering::Relaxed);
        state.waiting.fetch_sub(spans, Ordering::Relaxed);
        let was_failing = state.is_failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_failing => {
                let error = self
                    .collector
                    .take_error()
                    .unwrap_or_else(|| error.to_string());
                tracing::warn!(%error, "spans can't be exported and are lost");
            }
            Ok(()) if was_failing => tracing::info!("spans are exported again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use waypost::{Environment, ServiceName};
    use waypost_testkit::Logs;

    use super::*;

    /// Responds to one request, whose body is empty.
    async fn respond(listener: &TcpListener, status: &str) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(stream.read_u8().await.unwrap());
        }
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn an_outage_of_the_collector_and_its_end_are_logged_once_with_the_cause() {
        let (logs, _guard) = Logs::take();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let environment = Environment::from_iter([("OTEL_EXPORTER_OTLP_ENDPOINT", &*url)]);
        let service: ServiceName = "gateway".parse().unwrap();
        let settings = Settings::read(&environment, &service).unwrap().unwrap();
        let state = Arc::default();
        let exporter = CountingExporter::new(&settings, &Config::default(), &state).unwrap();
        for (status, is_exported) in [
            ("200 OK", true),
            ("400 Bad Request", false),
            ("403 Forbidden", false),
            ("200 OK", true),
            ("200 OK", true),
        ] {
            let exporting = exporter.export(Vec::new());
            let (exported, ()) = tokio::join!(exporting, respond(&listener, status));
            assert_eq!(exported.is_ok(), is_exported, "{status}");
        }
        let failed = logs.lines(&["WARN", "spans can't be exported"]);
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].contains("the response was 400 Bad Request"));
        assert_eq!(logs.lines(&["spans are exported again"]).len(), 1);
    }

    #[tokio::test]
    async fn as_many_spans_wait_as_the_queue_has_places() {
        let environment = Environment::from_iter([
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://192.0.2.1:4318"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "3"),
        ]);
        let service: ServiceName = "gateway".parse().unwrap();
        let settings = Settings::read(&environment, &service).unwrap().unwrap();
        let queue = SpanQueue::start(&settings, &Config::default()).unwrap();
        assert!(queue.reserve(2));
        assert!(!queue.reserve(2), "all of them or none");
        assert!(queue.reserve(1));
        assert!(!queue.reserve(1));
        assert_eq!(queue.counts().queue_full, 3);
        assert_eq!(queue.counts().exported, 0);
    }
}
