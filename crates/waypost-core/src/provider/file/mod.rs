mod format;

#[cfg(any(test, feature = "fuzz"))]
#[cfg(feature = "fuzz")]
pub(crate) use format::parse;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{Answer, NamesWatch, Provider, Watch};
use crate::error::{ConfigError, ProviderError, ProviderErrorKind};
use crate::model::{Instance, ServiceName};

/// Services from a JSON or YAML file, which is watched for changes.
///
/// ```yaml
/// auth: http://auth-service:5001           # a URL is enough
/// backend:                                 # or its parts; the URL wins over address and port
///   address: backend-service
///   port: 5000
///   tags: [internal]
///   metadata: {region: us-east}
///   version: 1.2.0
/// search:                                  # or several instances; what stands beside the list
///   version: 2.0.0                         # holds for each that doesn't say otherwise
///   instances:
///     - {id: search-1, url: "http://10.0.0.7:9200", weight: 3}
///     - {id: search-2, url: "http://10.0.0.8:9200", weight: 1, zone: b, ports: {admin: 9300}}
/// ```
///
/// A file whose name ends in `.json` is read as JSON, any other as YAML. Fields: `url`, `address`,
/// `port`, `scheme`, `path`, `id`, `version`, `tags`, `metadata`, `weight`, `zone`, `health`,
/// `ports`, and `instances` for a list. An unknown field is an error, not ignored.
///
/// The file is looked at once a second, by content: that works alike for editors that replace the
/// file, for mounted Kubernetes ConfigMaps (symbolic links) and for network file systems, on which
/// change notifications don't. While its content can't be used, the last good content stays and
/// the error, with line and column, is part of the snapshot's freshness.
#[derive(Clone, Debug)]
pub struct StaticProvider {
    path: PathBuf,
    description: Arc<str>,
    current: Arc<Mutex<Current>>,
}

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

type Services = BTreeMap<ServiceName, Vec<Arc<Instance>>>;

#[derive(Debug)]
struct Current {
    checked_at: Instant,
    /// What `good` or `fault` was made of; `None` when the file could not be read.
    content: Option<Vec<u8>>,
    good: Arc<Services>,
    fault: Option<ProviderError>,
}

impl StaticProvider {
    /// Reads the file. An error names it, and the line and column where it goes wrong.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref().to_path_buf();
        let content = std::fs::read(&path)
            .map_err(|fault| ConfigError::new(path.display().to_string(), fault))?;
        let good = Arc::new(format::parse(&path, &content)?);
        Ok(Self {
            description: format!("file {}", path.display()).into(),
            current: Arc::new(Mutex::new(Current {
                checked_at: Instant::now(),
                content: Some(content),
                good,
                fault: None,
            })),
            path,
        })
    }

    /// The last good content, and what is wrong with the file now. However many watches ask, the
    /// file is read once per interval.
    async fn look(&self) -> (Arc<Services>, Option<ProviderError>) {
        let mut current = self.current.lock().await;
        if current.checked_at.elapsed() >= INTERVAL {
            let read = tokio::fs::read(&self.path).await;
            current.checked_at = Instant::now();
            self.take_in(&mut current, read);
        }
        (Arc::clone(&current.good), current.fault.clone())
    }

    fn take_in(&self, current: &mut Current, read: std::io::Result<Vec<u8>>) {
        let content = match read {
            Ok(content) => content,
            Err(fault) => {
                current.content = None;
                let error = ConfigError::new(self.path.display().to_string(), fault);
                current.fault = Some(self.unusable(&error));
                return;
            }
        };
        if current.content.as_ref() == Some(&content) {
            return;
        }
        match format::parse(&self.path, &content) {
            Ok(services) => {
                current.good = Arc::new(services);
                current.fault = None;
            }
            Err(error) => current.fault = Some(self.unusable(&error)),
        }
        current.content = Some(content);
    }

    fn unusable(&self, error: &ConfigError) -> ProviderError {
        let description = Arc::clone(&self.description);
        ProviderError::new(
            description,
            ProviderErrorKind::BadAnswer,
            format!("{error}; the last good content stays in use"),
        )
    }

    /// A stream of `view` of the content, with an error whenever the file becomes unusable.
    fn changes<T, F>(&self, view: F) -> stream::BoxStream<'static, Result<T, ProviderError>>
    where
        T: PartialEq + Clone + Send + 'static,
        F: Fn(&Services) -> T + Send + 'static,
    {
        let start = (self.clone(), view, None::<T>, None::<String>);
        stream::unfold(start, |(provider, view, told, told_fault)| async move {
            loop {
                let (services, fault) = provider.look().await;
                let now = view(&services);
                let fault_text = fault.as_ref().map(ToString::to_string);
                // Content first: a watch that begins while the file is unusable still gets the
                // last good content before it hears of the fault.
                let recovered = fault.is_none() && told_fault.is_some();
                if told.as_ref() != Some(&now) || recovered {
                    let state = (provider, view, Some(now.clone()), None);
                    return Some((Ok(now), state));
                }
                if let Some(fault) = fault.filter(|_| fault_text != told_fault) {
                    return Some((Err(fault), (provider, view, told, fault_text)));
                }
                sleep(INTERVAL).await;
            }
        })
        .boxed()
    }
}

impl Provider for StaticProvider {
    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.description)
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let service = service.clone();
        self.changes(move |services| match services.get(&service) {
            Some(instances) => Answer::Instances(instances.clone()),
            None => Answer::Unknown,
        })
    }

    fn watch_names(&self) -> NamesWatch {
        self.changes(|services| services.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn urls(watch: &mut Watch) -> Vec<String> {
        match watch.next().await.unwrap().unwrap() {
            Answer::Instances(instances) => instances.iter().map(|i| i.url().to_owned()).collect(),
            Answer::Unknown => vec![],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_edit_keeps_the_last_good_content_and_says_where_it_is_bad() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("services.yaml");
        std::fs::write(&path, "auth: http://a:1\n").unwrap();
        let provider = StaticProvider::open(&path).unwrap();
        let auth = ServiceName::new("auth").unwrap();
        let mut watch = provider.watch(&auth);
        assert_eq!(urls(&mut watch).await, ["http://a:1"]);

        std::fs::write(&path, "auth:\n  address: a\n  prot: 1\n").unwrap();
        let error = watch.next().await.unwrap().unwrap_err().to_string();
        assert!(error.contains("services.yaml:3"), "{error}");
        assert!(error.contains("prot"), "{error}");

        // One who comes now still gets the good content first.
        let mut late = provider.watch(&auth);
        assert_eq!(urls(&mut late).await, ["http://a:1"]);
        assert!(late.next().await.unwrap().is_err());

        std::fs::write(&path, "auth: http://a:2\n").unwrap();
        assert_eq!(urls(&mut watch).await, ["http://a:2"]);

        std::fs::remove_file(&path).unwrap();
        assert!(watch.next().await.unwrap().is_err());
        std::fs::write(&path, "auth: http://a:2\n").unwrap();
        assert_eq!(urls(&mut watch).await, ["http://a:2"]);

        std::fs::write(&path, "other: http://a:2\n").unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap(), Answer::Unknown);
    }
}
