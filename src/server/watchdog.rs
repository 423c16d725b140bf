//! The watchdog of the service manager: it is told that the server is alive only if every shard has answered. A shard
//! that hangs in the handler of an application must not be kept alive by the threads that work.

use super::mailboxes::Mailboxes;
use super::notify::ServiceManager;
use super::statistics::gather;
use crate::qev::control::sleep;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of reports for each period of the watchdog, as sd_watchdog_enabled(3) recommends.
const REPORTS_PER_PERIOD: u32 = 2;

/// Reports to the service manager until the shutdown begins, during which shards end and no longer answer.
pub(super) async fn report(manager: ServiceManager, mailboxes: Arc<Mailboxes>, period: Duration) {
    let interval = period / REPORTS_PER_PERIOD;
    loop {
        let asked = Instant::now();
        // One question at a time: the inbox of a shard that hangs does not fill up.
        let answers = gather(&mailboxes, interval).await;
        if manager.is_stopping() {
            return;
        }
        let silent: Vec<usize> = (0..answers.len()).filter(|shard| answers[*shard].is_none()).collect();
        if silent.is_empty() {
            manager.alive();
        } else {
            tracing::error!(
                shards = ?silent,
                "some shards do not answer; unless they do, the service manager will end the server. A handler of an \
                 application may block them"
            );
        }
        sleep(interval.saturating_sub(asked.elapsed())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qev::control::ControlExecutor;
    use crate::qev::mesh::{MeshSettings, mesh};
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc::channel;

    #[test]
    fn a_shard_that_hangs_keeps_the_server_from_being_reported_alive() {
        let path = std::env::temp_dir().join(format!("quickio-{}-hung", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::new(Some(path.clone().into()), None);
        let stopping = manager.clone();
        let (ended_end, ended) = channel();
        // Two shards whose threads never look at their inboxes.
        let mut ports = mesh(2, MeshSettings { ring_messages: 4, overflow_bytes_max: 4096 });
        let mut mailboxes = Mailboxes::new(ahash::RandomState::new());
        let _inboxes: Vec<_> = ports.iter_mut().map(|port| mailboxes.add(port, 4, 0)).collect();
        let mailboxes = Arc::new(mailboxes);
        let control = ControlExecutor::start("watchdog-test").unwrap();
        control.spawn(move |_| async move {
            report(manager, mailboxes, Duration::from_millis(20)).await;
            ended_end.send(()).unwrap();
        });
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let error = socket.recv(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "nothing was sent");
        stopping.stopping();
        ended.recv_timeout(Duration::from_secs(60)).expect("the reports end with the shutdown");
        drop(control);
        std::fs::remove_file(path).unwrap();
    }
}
