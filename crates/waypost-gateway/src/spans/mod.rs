//! Spans of requests, exported by OTLP with the feature `otlp`. Without it these types are empty, so a
//! request costs nothing more.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(not(feature = "otlp"))]
mod disabled;
#[cfg(feature = "otlp")]
mod exporter;
#[cfg(feature = "otlp")]
mod recording;
#[cfg(feature = "otlp")]
mod request_span;
#[cfg(feature = "otlp")]
mod settings;
#[cfg(feature = "otlp")]
mod tracer;

#[cfg(not(feature = "otlp"))]
pub(crate) use self::disabled::{RequestSpan, TraceHeaders, Tracer};
#[cfg(feature = "otlp")]
pub(crate) use self::request_span::{RequestSpan, TraceHeaders};
#[cfg(feature = "otlp")]
pub(crate) use self::tracer::Tracer;

/// How many spans have been exported and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanCounts {
    pub(crate) exported: u64,
    /// Lost because the collector failed.
    pub(crate) not_accepted: u64,
    /// Lost because too many others waited to be exported.
    pub(crate) queue_full: u64,
}
