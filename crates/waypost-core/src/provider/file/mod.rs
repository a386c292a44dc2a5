//! A provider that reads services from a file and watches the file.

mod format;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use self::format::Services;
use super::traits::{NamesWatch, Provider, ServiceAnswer, Watch};
use crate::error::{ConfigError, ProviderError, ProviderErrorKind};
use crate::model::ServiceName;

#[cfg(feature = "fuzz")]
pub(crate) use format::parse as parse_file;
pub use format::services_from_json;

/// Reads services from a JSON or YAML file, and watches the file for changes.
///
/// ```yaml
/// auth: http://auth-service:5001           # a URL is enough
/// backend:                                 # or its parts; a URL overrides address and port
///   address: backend-service
///   port: 5000
///   tags: [internal]
///   metadata: {region: us-east}
///   version: 1.2.0
/// search:                                  # or several instances; fields next to the list
///   version: 2.0.0                         # are defaults for all of them
///   instances:
///     - {id: search-1, url: "http://10.0.0.7:9200", weight: 3}
///     - {id: search-2, url: "http://10.0.0.8:9200", weight: 1, zone: b, ports: {admin: 9300}}
/// ```
///
/// A file whose name ends in `.json` is read as JSON, any other as YAML. Fields: `url`, `address`,
/// `port`, `scheme`, `path`, `id`, `version`, `tags`, `metadata`, `weight`, `zone`, `health`,
/// `ports`, and `instances` for a list. An unknown field is an error.
///
/// The file is read every second and compared by content. Unlike change notifications, this works
/// with editors that replace the file, with mounted Kubernetes ConfigMaps (symbolic links) and on
/// network file systems. While the content is not valid, the last valid content stays in use, and
/// watches report the error with line and column.
#[derive(Clone, Debug)]
pub struct StaticProvider {
    path: PathBuf,
    description: Arc<str>,
    state: Arc<Mutex<FileState>>,
}

/// How often the file is read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the file, shared by all watches.
#[derive(Debug)]
struct FileState {
    read_at: Instant,
    /// The content at that time; `None` if the file couldn't be read.
    content: Option<Vec<u8>>,
    /// The last valid content.
    services: Arc<Services>,
    /// Why the current content is not used.
    error: Option<ProviderError>,
}

impl StaticProvider {
    /// Reads the file.
    ///
    /// # Errors
    /// If the file can't be read or its content is not valid. The error names the file and, if
    /// possible, line and column.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref().to_path_buf();
        let content = std::fs::read(&path)
            .map_err(|cause| ConfigError::new(path.display().to_string(), cause))?;
        let services = Arc::new(format::parse(&path, &content)?);
        Ok(Self {
            description: format!("file {}", path.display()).into(),
            state: Arc::new(Mutex::new(FileState {
                read_at: Instant::now(),
                content: Some(content),
                services,
                error: None,
            })),
            path,
        })
    }

    /// The last valid content, and the current error. The file is read once per interval, regardless
    /// of the number of watches.
    async fn poll(&self) -> (Arc<Services>, Option<ProviderError>) {
        let mut state = self.state.lock().await;
        if state.read_at.elapsed() >= POLL_INTERVAL {
            let content = tokio::fs::read(&self.path).await;
            state.read_at = Instant::now();
            self.update(&mut state, content);
        }
        (Arc::clone(&state.services), state.error.clone())
    }

    fn update(&self, state: &mut FileState, content: std::io::Result<Vec<u8>>) {
        let content = match content {
            Ok(content) => content,
            Err(cause) => {
                state.content = None;
                let error = ConfigError::new(self.path.display().to_string(), cause);
                state.error = Some(self.invalid(&error));
                return;
            }
        };
        if state.content.as_ref() == Some(&content) {
            return;
        }
        match format::parse(&self.path, &content) {
            Ok(services) => {
                state.services = Arc::new(services);
                state.error = None;
            }
            Err(error) => state.error = Some(self.invalid(&error)),
        }
        state.content = Some(content);
    }

    fn invalid(&self, error: &ConfigError) -> ProviderError {
        ProviderError::new(
            Arc::clone(&self.description),
            ProviderErrorKind::InvalidResponse,
            format!("{error}; the last valid content stays in use"),
        )
    }

    /// A stream of `view` of the content: the current one, each that differs from the last, and an
    /// error whenever the file becomes invalid.
    fn changes<T, F>(&self, view: F) -> stream::BoxStream<'static, Result<T, ProviderError>>
    where
        T: PartialEq + Clone + Send + 'static,
        F: Fn(&Services) -> T + Send + 'static,
    {
        let start = (self.clone(), view, None::<T>, None::<String>);
        stream::unfold(start, |(provider, view, last, last_error)| async move {
            loop {
                let (services, error) = provider.poll().await;
                let now = view(&services);
                let error_text = error.as_ref().map(ToString::to_string);
                // Content first: a watch that starts while the file is invalid gets the last valid
                // content before the error.
                let recovered = error.is_none() && last_error.is_some();
                if last.as_ref() != Some(&now) || recovered {
                    let state = (provider, view, Some(now.clone()), None);
                    return Some((Ok(now), state));
                }
                if let Some(error) = error.filter(|_| error_text != last_error) {
                    return Some((Err(error), (provider, view, last, error_text)));
                }
                sleep(POLL_INTERVAL).await;
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
            Some(instances) => ServiceAnswer::Instances(instances.clone()),
            None => ServiceAnswer::Unknown,
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
            ServiceAnswer::Instances(instances) => {
                instances.iter().map(|i| i.url().to_owned()).collect()
            }
            ServiceAnswer::Unknown => vec![],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_invalid_edit_keeps_the_last_valid_content_and_reports_the_line() {
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

        // A watch that starts now gets the valid content first.
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
        assert_eq!(watch.next().await.unwrap().unwrap(), ServiceAnswer::Unknown);
    }
}
