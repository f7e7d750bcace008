//! A task of `umbra up`: its death ends the command, and the command's end ends it.

use tokio::task::JoinHandle;

use super::UpError;

/// A running task.
pub(super) struct Task(JoinHandle<Result<(), UpError>>);

impl Task {
    pub(super) fn start(work: impl Future<Output = Result<(), UpError>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// Returns when the task has died. One that has simply ended has nothing to tell. Cancel safe.
    pub(super) async fn failed(&mut self) -> UpError {
        match (&mut self.0).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => std::future::pending().await,
            Err(died) => died.into(),
        }
    }

    pub(super) async fn stop(self) {
        self.0.abort();
        // Aborted, or dead already: it is gone either way.
        let _ = self.0.await;
    }
}
