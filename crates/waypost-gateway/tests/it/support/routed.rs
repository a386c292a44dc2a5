//! A gateway with a routes file.

use std::path::{Path, PathBuf};

use http::Request;
use waypost_gateway::Config;

use super::{FullResponse, TestGateway};

/// A gateway whose routes come from `routes.yaml` in a folder of its own.
pub(crate) struct Routed {
    pub(crate) gateway: TestGateway,
    folder: tempfile::TempDir,
}

impl Routed {
    pub(crate) async fn start(routes: &str) -> Self {
        Self::start_with(routes, &[]).await
    }

    /// Starts a gateway with other files in the same folder: their names and contents.
    pub(crate) async fn start_with(routes: &str, files: &[(&str, &str)]) -> Self {
        Self::start_edited(routes, files, |_| ()).await
    }

    /// Like [`start_with`](Self::start_with), with other settings.
    pub(crate) async fn start_edited(
        routes: &str,
        files: &[(&str, &str)],
        edit: impl FnOnce(&mut Config),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in files.iter().chain(&[("routes.yaml", routes)]) {
            std::fs::write(folder.path().join(name), content).expect("a file");
        }
        let path = folder.path().join("routes.yaml");
        let gateway = TestGateway::start_with(move |config| {
            config.routes_file = Some(path);
            edit(config);
        })
        .await;
        Self { gateway, folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the routes in one step.
    pub(crate) fn write(&self, routes: &str) {
        replace(&self.path("routes.yaml"), routes);
    }

    /// Replaces another file in one step.
    pub(crate) fn write_file(&self, name: &str, content: &str) {
        replace(&self.path(name), content);
    }

    pub(crate) async fn get(&self, path: &str) -> FullResponse {
        self.gateway.get(path).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> FullResponse {
        let mut request = Request::get(self.gateway.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.gateway.send(request).await
    }
}

fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).expect("a file");
    std::fs::rename(&new, path).expect("the file");
}
