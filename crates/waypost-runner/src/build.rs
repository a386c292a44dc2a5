//! Builds the program of a service.

use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::child::{Child, Exit};
use crate::log::{Line, LogStore, OutputStream, Stream};
use crate::service::ServiceSpec;
use crate::text::rounded;

/// The build of one service. Only one runs at a time.
#[derive(Debug)]
pub(crate) struct Build {
    service: Arc<ServiceSpec>,
    shim_executable: OsString,
    log: LogStore,
    running: AsyncMutex<()>,
    last: Mutex<Last>,
}

/// The last build that has ended.
#[derive(Debug, Default)]
struct Last {
    number: u64,
    /// `None` if there was none.
    result: Option<Result<(), String>>,
}

impl Build {
    pub(crate) fn new(service: Arc<ServiceSpec>, shim_executable: OsString, log: LogStore) -> Self {
        Self {
            service,
            shim_executable,
            log,
            running: AsyncMutex::default(),
            last: Mutex::default(),
        }
    }

    /// Builds the program unless the last build succeeded. Instances that wait for the same build
    /// get the same result. Dropping the future ends the build.
    ///
    /// # Errors
    /// Why the build failed.
    pub(crate) async fn ensure(&self) -> Result<(), String> {
        let before = self.last().number;
        let _running = self.running.lock().await;
        {
            let last = self.last();
            match &last.result {
                Some(Ok(())) => return Ok(()),
                Some(Err(problem)) if last.number > before => return Err(problem.clone()),
                _ => {}
            }
        }
        self.build().await
    }

    /// Whether the last build succeeded.
    pub(crate) fn has_succeeded(&self) -> bool {
        matches!(self.last().result, Some(Ok(())))
    }

    /// Builds the program again.
    ///
    /// # Errors
    /// The same as for [`ensure`](Self::ensure).
    pub(crate) async fn rebuild(&self) -> Result<(), String> {
        let _running = self.running.lock().await;
        self.build().await
    }

    async fn build(&self) -> Result<(), String> {
        let started = Instant::now();
        self.note("building".to_owned()).await;
        let result = match self.run().await {
            Ok(Exit::Code(0)) => Ok(()),
            Ok(exit) => Err(format!("the build failed: {exit}")),
            Err(problem) => Err(format!("the build failed: {problem}")),
        };
        self.note(match &result {
            Ok(()) => format!("built in {}", rounded(started.elapsed())),
            Err(problem) => problem.clone(),
        })
        .await;
        let mut last = self.last();
        last.number += 1;
        last.result = Some(result.clone());
        result
    }

    async fn run(&self) -> Result<Exit, String> {
        let launch = self
            .service
            .build_launch()
            .map_err(|error| error.to_string())?;
        let (mut child, stdout, stderr) = Child::spawn(&self.shim_executable, &launch).await?;
        let output = |stream| OutputStream {
            service: self.service.name.as_str().into(),
            instance: self.service.name.as_str().into(),
            stream,
            wanted: None,
        };
        let ((), (), exit) = tokio::join!(
            output(Stream::Stdout).read(stdout, self.log.clone()),
            output(Stream::Stderr).read(stderr, self.log.clone()),
            child.wait(),
        );
        Ok(exit)
    }

    /// Writes a line about the build to the output of the service.
    async fn note(&self, text: String) {
        let line = Line {
            id: 0,
            service: self.service.name.as_str().into(),
            instance: self.service.name.as_str().into(),
            stream: Stream::Runner,
            at: SystemTime::now(),
            text: text.into(),
            truncated: false,
        };
        self.log.add(vec![line]).await;
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
