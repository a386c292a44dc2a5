//! A recorder of the `metrics` facade that writes Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// The upper limits of the buckets of histograms, in seconds.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0];

/// Keeps all metrics in memory. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct TextRecorder(Arc<Mutex<Metrics>>);

#[derive(Default)]
struct Metrics {
    /// By name, the type and the description.
    described: BTreeMap<String, (&'static str, String)>,
    values: BTreeMap<Series, Value>,
}

/// The name and the labels, such as `service="auth"`.
type Series = (String, String);

enum Value {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

#[derive(Default)]
struct Buckets(Mutex<([u64; BUCKETS.len()], u64, f64)>);

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (counts, count, sum) = &mut *buckets;
        for (limit, bucket) in BUCKETS.iter().zip(counts) {
            *bucket += u64::from(value <= *limit);
        }
        (*count, *sum) = (*count + 1, *sum + value);
    }
}

impl TextRecorder {
    /// All metrics, in Prometheus' text format.
    pub(crate) fn render(&self) -> String {
        let metrics = self.lock();
        let (mut text, mut last) = (String::new(), "");
        for ((name, labels), value) in &metrics.values {
            if let Some((kind, help)) = metrics.described.get(name).filter(|_| last != name) {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
            last = name;
            let _ = match value {
                Value::Counter(value) => {
                    writeln!(text, "{name}{{{labels}}} {}", value.load(Relaxed))
                }
                Value::Gauge(value) => {
                    let value = f64::from_bits(value.load(Relaxed));
                    writeln!(text, "{name}{{{labels}}} {value}")
                }
                Value::Histogram(buckets) => {
                    let buckets = buckets.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let (counts, count, sum) = &*buckets;
                    for (limit, bucket) in BUCKETS.iter().zip(counts) {
                        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{limit}\"}} {bucket}");
                    }
                    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
                    writeln!(
                        text,
                        "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}"
                    )
                }
            };
        }
        text
    }

    fn describe(&self, name: &KeyName, kind: &'static str, help: &SharedString) {
        let entry = (kind, help.to_string());
        self.lock()
            .described
            .insert(name.as_str().to_owned(), entry);
    }

    fn lock(&self) -> MutexGuard<'_, Metrics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn series(key: &Key) -> Series {
    let labels = key.labels().map(|label| {
        let value = label.value().replace('\\', "\\\\").replace('"', "\\\"");
        format!("{}=\"{}\"", label.key(), value.replace('\n', "\\n"))
    });
    (key.name().to_owned(), labels.collect::<Vec<_>>().join(","))
}

impl Recorder for TextRecorder {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, "counter", &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, "gauge", &help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, "histogram", &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut metrics = self.lock();
        let new = || Value::Counter(Arc::default());
        match metrics.values.entry(series(key)).or_insert_with(new) {
            Value::Counter(value) => Counter::from_arc(Arc::clone(value)),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let mut metrics = self.lock();
        let new = || Value::Gauge(Arc::default());
        match metrics.values.entry(series(key)).or_insert_with(new) {
            Value::Gauge(value) => Gauge::from_arc(Arc::clone(value)),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut metrics = self.lock();
        let new = || Value::Histogram(Arc::default());
        match metrics.values.entry(series(key)).or_insert_with(new) {
            Value::Histogram(buckets) => Histogram::from_arc(Arc::clone(buckets)),
            _ => Histogram::noop(),
        }
    }
}
