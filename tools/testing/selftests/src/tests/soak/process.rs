//! A forked process that tells in words why it failed.

use crate::sys::{self, Child, Ended};
use crate::{Fail, Outcome};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

pub struct Process {
    pub name: String,
    child: Child,
    words: File,
}

impl Process {
    /// Only to be called while this process has one thread.
    pub fn start(name: String, body: impl FnOnce() -> Outcome) -> Outcome<Process> {
        let (words, mut writer) = sys::pipe()?;
        // Its own processes may hold the other end open.
        // SAFETY: no pointers.
        sys::cvt(unsafe { libc::fcntl(words.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
        let child = Child::fork(|| {
            let outcome = body();
            if let Err(fail) = &outcome {
                writer.write_all(fail.0.as_bytes())?;
            }
            outcome
        })?;
        Ok(Process { name, child, words })
    }

    pub fn kill(&self) -> Outcome {
        Ok(self.child.kill(libc::SIGKILL)?)
    }

    /// How it went, once it has ended.
    pub fn ended(&mut self) -> Outcome<Option<Outcome>> {
        let Some(ended) = self.child.try_wait()? else {
            return Ok(None);
        };
        if ended == Ended::Exit(0) {
            return Ok(Some(Ok(())));
        }
        let mut words = Vec::new();
        // What does not come any more is not waited for.
        let _ = (&self.words).read_to_end(&mut words);
        let words = String::from_utf8_lossy(&words).into_owned();
        Ok(Some(Err(Fail(format!(
            "{} ({ended:?}): {words}",
            self.name
        )))))
    }
}
