//! What ends a command that serves, and what makes it read its files again.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::complain;

/// SIGTERM and SIGINT drain; SIGHUP does what the caller says, and nothing else meanwhile.
pub(super) async fn obey<R, F>(stop: watch::Sender<bool>, mut reload: R)
where
    R: FnMut() -> F,
    F: Future<Output = ()>,
{
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        complain("signals cannot be handled");
        return;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload().await,
        }
    }
    tracing::info!("stopping: requests in flight are finished first");
    let _ = stop.send(true);
}

/// Completes when it is time to stop.
pub(super) async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}
