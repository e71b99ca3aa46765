//! One end of a connection: it writes and reads at once, in one of three ways to wait.

use super::input::Reader;
use super::output::Writer;
use super::plan::{Ending, Finish, Plan, Side, Wait};
use crate::sys::{Epoll, Sock};
use crate::{check, check_eq, Context, Outcome};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::Duration;

/// Long enough never to end while something can still come: the watch over the connection ends a hang.
const LONG: Duration = Duration::from_secs(600);

/// How far an end is, for who looks on.
#[derive(Default)]
pub struct Progress {
    pub written: AtomicUsize,
    pub read: AtomicUsize,
    pub finished: AtomicBool,
}

/// What an end has come to.
pub struct Came {
    pub written: usize,
    pub read: usize,
    /// The end of the connection has been seen: the peer's reset, or what a rough road does.
    pub reset: bool,
    /// What said so, where no reset was due.
    pub broken: Option<String>,
}

/// Whether a call says by this that its connection has ended, or cannot be made, for a reason that is not in this machine's
/// sockets; or that there is no memory.
pub fn is_clean(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::ETIMEDOUT
                | libc::EPIPE
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EADDRNOTAVAIL
                | libc::ENOMEM
                | libc::ENOBUFS
                // socket(), as TCP says it.
                | libc::ENFILE
        )
    )
}

/// Everything that an end's directions share.
struct End<'a> {
    sock: &'a Sock,
    side: &'a Side,
    /// Whether the peer is going to reset the connection.
    reset_due: bool,
    /// Whether anything may end it.
    rough: bool,
    broken: Mutex<Option<String>>,
    progress: &'a Progress,
}

/// Plays one end to its close.
pub fn play(
    sock: Sock,
    plan: &Plan,
    side: &Side,
    rough: bool,
    mut writer: Writer,
    mut reader: Reader,
    progress: &Progress,
) -> Outcome<Came> {
    let end = End {
        sock: &sock,
        side,
        reset_due: plan.ending != Ending::Orderly && side.stops.is_none(),
        rough,
        broken: Mutex::new(None),
        progress,
    };
    let seed = plan.seed ^ plan.number ^ side.total as u64;
    let reset = match side.wait {
        Wait::Block => end.block(&mut writer, &mut reader, seed)?,
        Wait::Poll | Wait::Edge => end.ready(&mut writer, &mut reader, seed)?,
    };
    if reset {
        // There is nothing to be closed any more.
    } else if side.stops.is_some() {
        if plan.ending == Ending::Linger {
            sock.set_linger(Some(0))?;
        } else {
            sock.poll(libc::POLLIN, LONG)?;
            check!(
                rough || sock.readable_bytes()? > 0,
                "there is nothing to be left unread"
            );
        }
    } else if !rough {
        // What may end the connection may still do so.
        end.over()?;
    }
    progress.finished.store(true, Ordering::Relaxed);
    Ok(Came {
        written: writer.done,
        read: reader.done,
        reset,
        broken: end.broken.into_inner().unwrap_or_default(),
    })
}

/// How a direction went on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Went,
    Blocked,
    /// All written, or the end of the stream.
    Over,
    /// The peer has reset the connection.
    Reset,
}

impl End<'_> {
    fn write(&self, writer: &mut Writer, blocking: bool) -> Outcome<Step> {
        if writer.is_done() {
            return Ok(Step::Over);
        }
        let step = self.step(writer.step(self.sock, blocking));
        self.progress.written.store(writer.done, Ordering::Relaxed);
        step.during(&format!(
            "writing by {:?} at {}",
            self.side.output, writer.done
        ))
    }

    fn read(&self, reader: &mut Reader, blocking: bool) -> Outcome<Step> {
        if reader.has_stopped() {
            return Ok(Step::Over);
        }
        let step = self.step(reader.step(self.sock, blocking));
        self.progress.read.store(reader.done, Ordering::Relaxed);
        step.during(&format!(
            "reading by {:?} at {}",
            self.side.input, reader.done
        ))
    }

    fn step(&self, result: io::Result<usize>) -> io::Result<Step> {
        match result {
            Ok(0) => Ok(Step::Over),
            Ok(_) => Ok(Step::Went),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Blocked),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Step::Went),
            Err(error)
                if self.reset_due
                    && matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE)) =>
            {
                Ok(Step::Reset)
            }
            Err(error) if self.rough && is_clean(&error) => {
                if let Ok(mut broken) = self.broken.lock() {
                    broken.get_or_insert_with(|| error.to_string());
                }
                Ok(Step::Reset)
            }
            Err(error) => Err(error),
        }
    }

    fn pause(&self, random: &mut SmallRng) {
        if self.side.pauses > 0 && random.gen_ratio(1, self.side.pauses) {
            std::thread::sleep(Duration::from_millis(random.gen_range(1..8)));
        }
    }

    fn stops(&self) -> bool {
        self.side.stops.is_some()
    }

    /// Everything is written, or `last`: and the peer's stream is at its end.
    fn finish(&self, last: bool) -> Outcome {
        let now = match self.side.finish {
            Finish::Shutdown => !last,
            Finish::ShutdownLast => last,
            Finish::CloseLast => false,
        };
        if now && !self.stops() {
            match self.sock.shutdown(libc::SHUT_WR) {
                // The reset was first; reading tells.
                Err(error)
                    if (self.reset_due || self.rough)
                        && error.raw_os_error() == Some(libc::ENOTCONN) => {}
                result => result.during("shutdown(SHUT_WR)")?,
            }
        }
        Ok(())
    }

    /// One thread for each direction. Whether the peer has reset the connection.
    fn block(&self, writer: &mut Writer, reader: &mut Reader, seed: u64) -> Outcome<bool> {
        let over = AtomicBool::new(false);
        let (wrote, read) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> Outcome<bool> {
                let mut random = SmallRng::seed_from_u64(seed);
                // Who closes by half does not write everything either.
                while !(self.stops() && over.load(Ordering::Relaxed)) {
                    match self.write(writer, true)? {
                        Step::Went => {}
                        Step::Blocked => {
                            self.sock.poll(libc::POLLOUT, LONG)?;
                        }
                        Step::Reset => return Ok(true),
                        Step::Over => {
                            self.finish(false)?;
                            break;
                        }
                    }
                    self.pause(&mut random);
                }
                Ok(false)
            });
            let mut random = SmallRng::seed_from_u64(!seed);
            let read = loop {
                match self.read(reader, true) {
                    Ok(Step::Went) => {}
                    Ok(Step::Blocked) => {
                        if let Err(error) = self.sock.poll(libc::POLLIN, LONG) {
                            break Err(error.into());
                        }
                    }
                    Ok(Step::Over) => break Ok(false),
                    Ok(Step::Reset) => break Ok(true),
                    Err(failure) => break Err(failure),
                }
                self.pause(&mut random);
            };
            over.store(true, Ordering::Relaxed);
            (thread.join(), read)
        });
        let wrote = wrote.map_err(|_| crate::Fail("the writing thread panicked".into()))??;
        let reset = read? | wrote;
        if !reset {
            self.finish(true)?;
        }
        Ok(reset)
    }

    /// One thread that waits for both directions. Whether the peer has reset the connection.
    fn ready(&self, writer: &mut Writer, reader: &mut Reader, seed: u64) -> Outcome<bool> {
        let mut random = SmallRng::seed_from_u64(seed);
        self.sock.set_nonblocking(true)?;
        let edge = self.side.wait == Wait::Edge;
        let epoll = Epoll::new()?;
        if edge {
            let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
            epoll.add(self.sock, events, 0)?;
        }
        let (mut readable, mut writable) = (false, false);
        let (mut read_over, mut write_over) = (false, false);
        let mut reset = false;
        while !(read_over && (write_over || self.stops())) {
            if edge {
                // Everything that was reported has to be used up first.
                let reading = readable && !read_over;
                let writing = writable && !write_over;
                if !reading && !writing {
                    for (_, events) in epoll.wait(LONG)? {
                        let both = libc::EPOLLERR | libc::EPOLLHUP;
                        readable |= events & (libc::EPOLLIN | libc::EPOLLRDHUP | both) != 0;
                        writable |= events & (libc::EPOLLOUT | both) != 0;
                    }
                }
            } else {
                let mut wanted = 0;
                if !read_over {
                    wanted |= libc::POLLIN | libc::POLLRDHUP;
                }
                if !write_over {
                    wanted |= libc::POLLOUT;
                }
                let events = self.sock.poll(wanted, LONG)?;
                let both = libc::POLLERR | libc::POLLHUP;
                readable = events & (libc::POLLIN | libc::POLLRDHUP | both) != 0;
                writable = events & (libc::POLLOUT | both) != 0;
            }
            if readable && !read_over {
                match self.read(reader, false)? {
                    Step::Went => {}
                    Step::Blocked => {
                        check!(
                            edge,
                            "poll said that there is something to read, and there was nothing"
                        );
                        readable = false;
                    }
                    Step::Over => read_over = true,
                    Step::Reset => (read_over, write_over, reset) = (true, true, true),
                }
            }
            if writable && !write_over {
                match self.write(writer, false)? {
                    Step::Went => {}
                    Step::Blocked => {
                        check!(edge, "poll said that there is room, and there was none");
                        writable = false;
                    }
                    Step::Over => {
                        write_over = true;
                        self.finish(false)?;
                    }
                    Step::Reset => (write_over, reset) = (true, true),
                }
            }
            self.pause(&mut random);
        }
        if !reset {
            self.finish(true)?;
        }
        self.sock.set_nonblocking(false)?;
        Ok(reset)
    }

    /// Nothing more can come after the end.
    fn over(&self) -> Outcome {
        check_eq!(self.sock.recv(&mut [0], 0)?, 0, "bytes after the end");
        check_eq!(self.sock.readable_bytes()?, 0, "SIOCINQ after the end");
        check_eq!(self.sock.error()?, 0, "SO_ERROR after the end");
        let wanted = libc::POLLIN | libc::POLLRDHUP;
        let events = self.sock.poll(wanted, Duration::ZERO)?;
        check_eq!(events & wanted, wanted, "events after the end");
        Ok(())
    }
}
