//! Linux AIO (`io_submit`) on sockets: poll, which is what it is used for, and reads and writes, which
//! are done at once.

use super::{any, fallback};
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{cvt_size, Sock};
use crate::{check, check_eq, check_errno, Context, Outcome};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

pub const TESTS: [Test; 4] = [
    any("aio.poll", 60, poll),
    any("aio.read_and_write", 60, read_and_write),
    any("aio.cancel", 60, cancel),
    fallback("aio.poll_before_fallback", 60, poll_before_fallback),
];

/// How long to look for a completion that must not come.
const NEVER: Duration = Duration::from_millis(100);
const SOON: Duration = Duration::from_secs(20);

/// `struct iocb` of linux/aio_abi.h, in the order of a little-endian machine.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    /// A buffer, or poll events.
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    event_flags: u32,
    event_fd: u32,
}

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const POLL: u16 = 5;

impl Request {
    fn poll(sock: &Sock, events: i16, data: u64) -> Box<Request> {
        Box::new(Request {
            data,
            opcode: POLL,
            fd: sock.as_raw_fd() as u32,
            buffer: events as u64,
            ..Request::default()
        })
    }

    fn transfer(opcode: u16, sock: &Sock, buffer: *const u8, length: usize) -> Box<Request> {
        Box::new(Request {
            opcode,
            fd: sock.as_raw_fd() as u32,
            buffer: buffer as u64,
            length: length as u64,
            ..Request::default()
        })
    }
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

struct Aio(u64);

impl Aio {
    fn new() -> io::Result<Aio> {
        let mut context = 0u64;
        // SAFETY: room for the context's number.
        cvt_size(unsafe { libc::syscall(libc::SYS_io_setup, 16, &raw mut context) } as isize)?;
        Ok(Aio(context))
    }

    fn submit(&self, request: &Request) -> io::Result<()> {
        let list = [std::ptr::from_ref(request)];
        // SAFETY: the request is live, and so is what it points to until it is done.
        cvt_size(unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1, list.as_ptr()) } as isize)?;
        Ok(())
    }

    /// A poll has to be done with this event among its events. What else there is depends on whether it
    /// was woken, or true at once.
    fn expect(&self, data: u64, event: i16, what: &str) -> crate::Outcome {
        let done = self.next(SOON)?;
        check!(
            done.is_some_and(|(told, events)| told == data && events & i64::from(event) != 0),
            "{what}: {done:?}"
        );
        Ok(())
    }

    /// (data, result) of a request that is done within the time.
    fn next(&self, limit: Duration) -> io::Result<Option<(u64, i64)>> {
        let mut event = Event::default();
        let time = libc::timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: limit.subsec_nanos().into(),
        };
        // SAFETY: room for one event, and a live time.
        let count = cvt_size(unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.0,
                1,
                1,
                &raw mut event,
                &raw const time,
            )
        } as isize)?;
        Ok((count == 1).then_some((event.data, event.result)))
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: no pointers. It waits for what is under way, and there is nothing to do about errors.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

fn poll(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let aio = Aio::new().during("io_setup()")?;
    for round in 0..3u8 {
        let request = Request::poll(&server, libc::POLLIN, 7);
        aio.submit(&request)?;
        check_eq!(
            aio.next(NEVER)?,
            None,
            "completion of poll with nothing there"
        );
        client.send_all(&[round])?;
        aio.expect(7, libc::POLLIN, "completion of poll")?;
        // True at once.
        aio.submit(&Request::poll(&server, libc::POLLIN, 8))?;
        aio.expect(8, libc::POLLIN, "completion of poll with data there")?;
        server.recv_all(&mut [0; 1])?;
    }
    aio.submit(&Request::poll(&client, libc::POLLOUT, 9))?;
    aio.expect(9, libc::POLLOUT, "completion of poll for room")?;
    let (listener, address) = ctx.listener(8)?;
    let request = Request::poll(&listener, libc::POLLIN, 10);
    aio.submit(&request)?;
    check_eq!(
        aio.next(NEVER)?,
        None,
        "completion of poll of an idle listener"
    );
    let _client = ctx.connect(address)?;
    aio.expect(10, libc::POLLIN, "completion of poll of a listener")?;
    let request = Request::poll(&server, libc::POLLRDHUP, 11);
    aio.submit(&request)?;
    drop(client);
    aio.expect(11, libc::POLLRDHUP, "completion of poll for the end")?;
    Ok(())
}

fn read_and_write(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let aio = Aio::new().during("io_setup()")?;
    let (word, mut got) = (*b"a few bytes", [0u8; 32]);
    aio.submit(&Request::transfer(
        PWRITE,
        &client,
        word.as_ptr(),
        word.len(),
    ))?;
    check_eq!(aio.next(SOON)?, Some((0, 11)), "completion of a write");
    server.await_events(libc::POLLIN)?;
    aio.submit(&Request::transfer(
        PREAD,
        &server,
        got.as_mut_ptr(),
        got.len(),
    ))?;
    check_eq!(aio.next(SOON)?, Some((0, 11)), "completion of a read");
    check_eq!(&got[..11], b"a few bytes", "what came");
    // A stream has no places.
    let mut request = Request::transfer(PREAD, &server, got.as_mut_ptr(), 4);
    request.offset = 5;
    aio.submit(&request)?;
    let (_, result) = aio.next(SOON)?.unwrap_or_default();
    check_eq!(result, -i64::from(libc::ESPIPE), "a read at a place");
    server.set_nonblocking(true)?;
    aio.submit(&Request::transfer(PREAD, &server, got.as_mut_ptr(), 4))?;
    check_eq!(
        aio.next(SOON)?,
        Some((0, -i64::from(libc::EAGAIN))),
        "a read of nothing without waiting"
    );
    client.shutdown(libc::SHUT_WR)?;
    server.await_events(libc::POLLIN)?;
    aio.submit(&Request::transfer(PREAD, &server, got.as_mut_ptr(), 4))?;
    check_eq!(
        aio.next(SOON)?,
        Some((0, 0)),
        "a read at the end of the stream"
    );
    Ok(())
}

/// A poll that is cancelled, and one whose context goes away, take nothing with them.
fn cancel(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let aio = Aio::new().during("io_setup()")?;
    let request = Request::poll(&server, libc::POLLIN, 3);
    aio.submit(&request)?;
    let mut event = Event::default();
    // SAFETY: the request is live, and there is room for an event.
    let result = cvt_size(unsafe {
        libc::syscall(
            libc::SYS_io_cancel,
            aio.0,
            std::ptr::from_ref(&*request),
            &raw mut event,
        )
    } as isize);
    check_errno!(result, libc::EINPROGRESS, "io_cancel()");
    let done = aio.next(SOON)?;
    check!(
        done.is_some_and(|(data, _)| data == 3),
        "the cancelled request: {done:?}"
    );
    let request = Request::poll(&server, libc::POLLIN, 4);
    aio.submit(&request)?;
    drop(aio);
    client.send_all(b"still")?;
    let mut got = [0; 5];
    server.recv_all(&mut got)?;
    check_eq!(&got, b"still", "what came");
    Ok(())
}

/// A poll since before the socket became one of TCP.
fn poll_before_fallback(ctx: &Ctx) -> Outcome {
    let listener = Sock::new(Host::B, ctx.kind.plain(), 0)?;
    listener.bind(Host::B.address(ctx.kind, 0))?;
    listener.listen(8)?;
    let address = listener.local()?;
    let rule = format!("tcp dport {} drop", address.port());
    let rules = super::network::Rules::new(Host::B, "prerouting", &[&rule])?;
    let client = Sock::new(Host::A, ctx.kind, libc::SOCK_NONBLOCK)?;
    check_errno!(client.connect(address), libc::EINPROGRESS, "connect()");
    let aio = Aio::new().during("io_setup()")?;
    let request = Request::poll(&client, libc::POLLIN, 5);
    aio.submit(&request)?;
    check_eq!(
        aio.next(NEVER)?,
        None,
        "completion of poll while connecting"
    );
    drop(rules);
    let server = listener.accept()?;
    client.await_events(libc::POLLOUT)?;
    check_eq!(
        aio.next(NEVER)?,
        None,
        "completion of poll for data by the connection"
    );
    server.send_all(b"x")?;
    aio.expect(5, libc::POLLIN, "completion of poll")?;
    Ok(())
}
