//! A thread that sleeps in a system call, as seen from outside.

use super::join;
use crate::sys;
use crate::{Context, Fail, Outcome};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// A thread whose body goes to sleep in one system call.
pub(super) struct Sleeper {
    thread: JoinHandle<Outcome>,
    pub(super) tid: i32,
}

impl Sleeper {
    /// Starts the thread and waits until it sleeps.
    pub(super) fn spawn(body: impl FnOnce() -> Outcome + Send + 'static) -> Outcome<Sleeper> {
        let sleeper = Sleeper::start(body)?;
        sleeper.await_asleep()?;
        Ok(sleeper)
    }

    /// Starts the thread.
    pub(super) fn start(body: impl FnOnce() -> Outcome + Send + 'static) -> Outcome<Sleeper> {
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: no pointers.
            let tid = unsafe { libc::gettid() };
            // The other side waits for nothing else.
            let _ = tell.send(tid);
            body()
        });
        let tid = told.recv().during("the thread's number")?;
        Ok(Sleeper { thread, tid })
    }

    /// Waits until the thread sleeps where a signal can wake it, and has ended if it has nothing to wait for.
    pub(super) fn await_asleep(&self) -> Outcome {
        let path = format!("/proc/self/task/{}/stat", self.tid);
        let mut asleep = 0;
        sys::eventually("the thread sleeps in its system call", || {
            let state = match std::fs::read_to_string(&path) {
                Ok(text) => text
                    .rsplit(") ")
                    .next()
                    .and_then(|rest| rest.chars().next()),
                // It has ended: whoever joins it hears why.
                Err(_) => return Ok(true),
            };
            // Twice: a thread may also sleep for a moment on its way there.
            asleep = if state == Some('S') { asleep + 1 } else { 0 };
            Ok(asleep > 1)
        })?;
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// A signal for this thread alone.
    pub(super) fn signal(&self, signal: i32) -> Outcome {
        // SAFETY: no pointers.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.tid, signal) };
        if sent == 0 {
            Ok(())
        } else {
            Err(Fail(format!(
                "tgkill(): {}",
                std::io::Error::last_os_error()
            )))
        }
    }

    /// What became of it; fails if it goes on sleeping.
    pub(super) fn wake_up(self, what: &str) -> Outcome {
        sys::eventually(what, || Ok(self.is_over()))?;
        join(self.thread)
    }
}
