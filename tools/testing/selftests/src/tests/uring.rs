//! io_uring: the operations on sockets, which wait by poll and not by sleeping.

use super::network::Rules;
use super::{any, fallback, join, Pattern};
use crate::kind::Host;
use crate::runner::{Ctx, Pair, Test};
use crate::sys::{self, Sock};
use crate::{check, check_eq, check_errno, Context, Fail, Outcome};
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{cqueue, opcode, squeue, IoUring};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: [Test; 14] = [
    any("uring.life", 60, life),
    any("uring.connect_refused", 60, connect_refused),
    any("uring.accept_multishot", 60, accept_multishot),
    any("uring.recv_multishot", 60, recv_multishot),
    any("uring.messages", 60, messages),
    any("uring.poll", 60, poll),
    any("uring.cancel", 60, cancel),
    any("uring.send_zc", 60, send_zc),
    any("uring.linked", 60, linked),
    any("uring.large_send", 60, large_send),
    any("uring.commands", 60, commands),
    any("uring.kernel_thread", 60, kernel_thread),
    any("uring.broken_pipe", 60, broken_pipe),
    fallback("uring.before_fallback", 60, before_fallback),
];

/// How long to look for a completion that must not come.
const NEVER: Duration = Duration::from_millis(100);

struct Ring {
    ring: IoUring,
    /// Completions that came while another one was waited for.
    come: Vec<Done>,
}

/// A completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Done {
    token: u64,
    result: i32,
    flags: u32,
}

impl Ring {
    fn new() -> Outcome<Ring> {
        Ring::from(IoUring::new(64))
    }

    fn from(ring: std::io::Result<IoUring>) -> Outcome<Ring> {
        let ring = ring.during("io_uring_setup()")?;
        Ok(Ring {
            ring,
            come: Vec::new(),
        })
    }

    /// Hands an operation over to the kernel. What it points to has to live until it is done: all tests
    /// keep their buffers until then.
    fn submit(&mut self, entry: squeue::Entry, token: u64) -> Outcome {
        self.queue(entry, token)?;
        self.ring.submit().during("io_uring_enter()")?;
        Ok(())
    }

    fn queue(&mut self, entry: squeue::Entry, token: u64) -> Outcome {
        let entry = entry.user_data(token);
        // SAFETY: see above.
        unsafe { self.ring.submission().push(&entry) }.during("the submission queue")
    }

    /// The next completion of this operation.
    fn wait(&mut self, token: u64) -> Outcome<Done> {
        let done = self.wait_for(token, sys::PATIENCE)?;
        done.ok_or_else(|| Fail(format!("operation {token} never completes")))
    }

    /// The next completion of this operation, if one comes within the time.
    fn wait_for(&mut self, token: u64, limit: Duration) -> Outcome<Option<Done>> {
        let end = Instant::now() + limit;
        loop {
            if let Some(place) = self.come.iter().position(|done| done.token == token) {
                return Ok(Some(self.come.remove(place)));
            }
            let time = Timespec::from(limit.min(Duration::from_millis(500)));
            let arguments = SubmitArgs::new().timespec(&time);
            match self.ring.submitter().submit_with_args(1, &arguments) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ETIME) => {}
                Err(error) => return Err(error.into()),
            }
            self.come.extend(self.ring.completion().map(|entry| Done {
                token: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            }));
            if Instant::now() > end && !self.come.iter().any(|done| done.token == token) {
                return Ok(None);
            }
        }
    }

    /// Runs one operation; its result, or the error it stands for.
    fn run(&mut self, entry: squeue::Entry, what: &str) -> Outcome<i32> {
        const ONE: u64 = 1 << 40;
        self.submit(entry, ONE)?;
        let done = self.wait(ONE)?;
        done.value().during(what)
    }
}

impl Done {
    fn value(self) -> std::io::Result<i32> {
        if self.result < 0 {
            Err(std::io::Error::from_raw_os_error(-self.result))
        } else {
            Ok(self.result)
        }
    }

    fn more(self) -> bool {
        cqueue::more(self.flags)
    }
}

fn fd(sock: &Sock) -> Fd {
    Fd(sock.as_raw_fd())
}

fn send(sock: &Sock, data: &[u8]) -> squeue::Entry {
    opcode::Send::new(fd(sock), data.as_ptr(), data.len() as u32).build()
}

fn recv(sock: &Sock, data: &mut [u8]) -> squeue::Entry {
    opcode::Recv::new(fd(sock), data.as_mut_ptr(), data.len() as u32).build()
}

/// An address as the kernel takes it, kept until the operation is done.
struct Address(libc::sockaddr_storage, libc::socklen_t);

impl Address {
    fn new(address: SocketAddr) -> Box<Address> {
        let (raw, length) = sys::to_raw(address);
        Box::new(Address(raw, length))
    }

    fn connect(&self, sock: &Sock) -> squeue::Entry {
        opcode::Connect::new(fd(sock), (&raw const self.0).cast(), self.1).build()
    }
}

/// A fresh descriptor that an operation gave.
fn take(number: i32) -> Sock {
    // SAFETY: the kernel has made it for this operation, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }.into()
}

/// Everything from socket() to close().
fn life(ctx: &Ctx) -> Outcome {
    let mut ring = Ring::new()?;
    let (family, protocol) = ctx.kind.arguments();
    let socket = |ring: &mut Ring, host| -> Outcome<Sock> {
        sys::enter(host)?;
        let made = opcode::Socket::new(family, libc::SOCK_STREAM, protocol).build();
        Ok(take(ring.run(made, "socket()")?))
    };
    let listener = socket(&mut ring, Host::B)?;
    let any_port = Address::new(Host::B.address(ctx.kind, 0));
    let bind = opcode::Bind::new(fd(&listener), (&raw const any_port.0).cast(), any_port.1);
    ring.run(bind.build(), "bind()")?;
    ring.run(opcode::Listen::new(fd(&listener), 8).build(), "listen()")?;
    let address = listener.local()?;
    let mut peer = Address::new(address);
    let mut room = peer.1;
    let accept = opcode::Accept::new(fd(&listener), (&raw mut peer.0).cast(), &raw mut room)
        .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK);
    ring.submit(accept.build(), 1)?;
    check_eq!(
        ring.wait_for(1, NEVER)?,
        None,
        "completion of accept() with nobody there"
    );
    let client = socket(&mut ring, Host::A)?;
    let to = Address::new(address);
    ring.run(to.connect(&client), "connect()")?;
    let server = take(ring.wait(1)?.value().during("accept()")?);
    check!(
        server.status_flags()? & libc::O_NONBLOCK != 0
            && server.descriptor_flags()? & libc::FD_CLOEXEC != 0,
        "flags of accept() are not those of the socket"
    );
    check_eq!(
        sys::from_raw(&peer.0)?,
        client.local()?,
        "address from accept()"
    );
    ctx.prove(Host::A, &client)?;
    ctx.prove(Host::B, &server)?;
    for (near, far) in [(&client, &server), (&server, &client)] {
        let mut got = [0; 8];
        // Waits first.
        ring.submit(recv(far, &mut got), 2)?;
        check_eq!(
            ring.wait_for(2, NEVER)?,
            None,
            "completion of recv() of nothing"
        );
        check_eq!(ring.run(send(near, b"eight by"), "send()")?, 8, "send()");
        check_eq!(ring.wait(2)?.value().during("recv()")?, 8, "recv()");
        check_eq!(&got, b"eight by", "what came");
        // read() and write() of a socket.
        let word = b"four";
        let write = opcode::Write::new(fd(near), word.as_ptr(), 4).build();
        check_eq!(ring.run(write, "write()")?, 4, "write()");
        let read = opcode::Read::new(fd(far), got.as_mut_ptr(), 8).build();
        check_eq!(ring.run(read, "read()")?, 4, "read()");
        check_eq!(&got[..4], word, "what came");
    }
    let mut got = [0; 8];
    ring.submit(recv(&server, &mut got), 3)?;
    let shutdown = opcode::Shutdown::new(fd(&client), libc::SHUT_WR).build();
    ring.run(shutdown, "shutdown()")?;
    check_eq!(ring.wait(3)?.value().during("recv()")?, 0, "end of stream");
    ring.submit(recv(&client, &mut got), 4)?;
    let number = server.as_raw_fd();
    // The operation closes it.
    std::mem::forget(server);
    ring.run(opcode::Close::new(Fd(number)).build(), "close()")?;
    check_eq!(ring.wait(4)?.value().during("recv()")?, 0, "end by close()");
    Ok(())
}

fn connect_refused(ctx: &Ctx) -> Outcome {
    let mut ring = Ring::new()?;
    let (listener, address) = ctx.listener(1)?;
    drop(listener);
    let client = ctx.socket(Host::A)?;
    let to = Address::new(address);
    ring.submit(to.connect(&client), 1)?;
    check_errno!(ring.wait(1)?.value(), libc::ECONNREFUSED, "connect()");
    check_eq!(client.error()?, 0, "SO_ERROR afterwards");
    Ok(())
}

fn accept_multishot(ctx: &Ctx) -> Outcome {
    let mut ring = Ring::new()?;
    let (listener, address) = ctx.listener(16)?;
    // One that is there already.
    let mut clients = vec![ctx.connect(address)?];
    ring.submit(opcode::AcceptMulti::new(fd(&listener)).build(), 1)?;
    let mut servers = Vec::new();
    for round in 0..6u8 {
        let done = ring.wait(1)?;
        let server = take(done.value().during("accept()")?);
        check!(done.more(), "accept() ends after {round} connections");
        ctx.prove(Host::B, &server)?;
        servers.push(server);
        if round < 5 {
            clients.push(ctx.connect(address)?);
        }
    }
    check_eq!(ring.wait_for(1, NEVER)?, None, "a connection too many");
    for (client, server) in clients.iter().zip(&servers) {
        check_eq!(client.local()?, server.peer()?, "order of the connections");
        client.send_all(b"x")?;
        server.recv_all(&mut [0])?;
    }
    // shutdown() ends it, as it ends every accept().
    listener.shutdown(libc::SHUT_RDWR)?;
    let done = ring.wait(1)?;
    check_errno!(done.value(), libc::EINVAL, "accept() after shutdown()");
    check!(!done.more(), "accept() goes on after an error");
    Ok(())
}

/// Buffers that the kernel takes from a ring.
struct Buffers {
    entries: *mut BufRingEntry,
    data: Vec<u8>,
    size: usize,
    count: u16,
    tail: u16,
}

impl Buffers {
    const GROUP: u16 = 7;

    fn new(ring: &Ring, count: u16, size: usize) -> Outcome<Buffers> {
        // SAFETY: new pages wherever the kernel likes; a page holds the entries of the tests.
        let pages = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        check!(pages != libc::MAP_FAILED, "mmap() failed");
        check!(usize::from(count) <= 256, "a page has room for 256 buffers");
        let mut buffers = Buffers {
            entries: pages.cast(),
            data: vec![0; usize::from(count) * size],
            size,
            count,
            tail: 0,
        };
        // SAFETY: the pages stay until the process ends, the buffers until the ring is gone.
        unsafe {
            ring.ring.submitter().register_buf_ring_with_flags(
                pages as u64,
                count,
                Buffers::GROUP,
                0,
            )
        }
        .during("a ring of buffers")?;
        for id in 0..count {
            buffers.give(id);
        }
        Ok(buffers)
    }

    /// The kernel may use this buffer.
    fn give(&mut self, id: u16) {
        let place = usize::from(self.tail % self.count);
        let data = self.data[usize::from(id) * self.size..].as_ptr();
        // SAFETY: the place is inside of the ring, and of no entry that the kernel has.
        unsafe {
            let entry = &mut *self.entries.add(place);
            entry.set_addr(data as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a live word of the ring, which the kernel reads with acquire.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// What a completion has filled.
    fn filled(&self, done: Done) -> Outcome<(u16, &[u8])> {
        let id = cqueue::buffer_select(done.flags)
            .ok_or_else(|| Fail(format!("a completion without a buffer: {done:?}")))?;
        let start = usize::from(id) * self.size;
        Ok((id, &self.data[start..start + done.result as usize]))
    }
}

fn recv_multishot(ctx: &Ctx) -> Outcome {
    let total = 400_000 / ctx.divisor.min(4);
    let Pair { client, server } = ctx.pair()?;
    let mut ring = Ring::new()?;
    let mut buffers = Buffers::new(&ring, 8, 3000)?;
    let pattern = Pattern::new(ctx, 221);
    let writer = Pattern::new(ctx, 221);
    let start = || opcode::RecvMulti::new(fd(&server), Buffers::GROUP).build();
    ring.submit(start(), 1)?;
    check_eq!(
        ring.wait_for(1, NEVER)?,
        None,
        "completion of recv() of nothing"
    );
    let thread = std::thread::spawn(move || -> Outcome {
        let mut sent = 0;
        for length in [1, 70, 3000, 2999, 9001].into_iter().cycle() {
            let part = writer.at(sent, length.min(total - sent));
            client.send_all(part)?;
            sent += part.len();
            if sent == total {
                return Ok(());
            }
        }
        Ok(())
    });
    let mut got = 0;
    loop {
        let done = ring.wait(1)?;
        match done.value() {
            Ok(0) => {
                check!(!done.more(), "recv() goes on after the end of the stream");
                break;
            }
            Ok(_) => {
                let (id, data) = buffers.filled(done)?;
                pattern.verify(got, data)?;
                got += data.len();
                buffers.give(id);
                if !done.more() {
                    // The completion queue was full: as documented, it has to be asked again.
                    ring.submit(start(), 1)?;
                }
            }
            // All buffers are filled and looked at later.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                check!(!done.more(), "recv() goes on without buffers");
                ring.submit(start(), 1)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    check_eq!(got, total, "bytes that arrived");
    join(thread)
}

fn vectors(parts: &mut [&mut [u8]]) -> Vec<libc::iovec> {
    parts
        .iter_mut()
        .map(|part| libc::iovec {
            iov_base: part.as_mut_ptr().cast(),
            iov_len: part.len(),
        })
        .collect()
}

fn header(vectors: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    header
}

fn messages(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let mut ring = Ring::new()?;
    let (mut one, mut two, mut three) = ([0; 3], [0; 5], [0; 100]);
    let mut parts = vectors(&mut [&mut one, &mut two, &mut three]);
    let mut into = header(&mut parts);
    ring.submit(opcode::RecvMsg::new(fd(&server), &raw mut into).build(), 1)?;
    let (mut first, mut second) = (*b"one two thr", *b"ee");
    let mut parts = vectors(&mut [&mut first, &mut second]);
    let from = header(&mut parts);
    let sent = opcode::SendMsg::new(fd(&client), &raw const from).build();
    check_eq!(ring.run(sent, "sendmsg()")?, 13, "sendmsg()");
    check_eq!(ring.wait(1)?.value().during("recvmsg()")?, 13, "recvmsg()");
    check_eq!(
        (&one, &two, &three[..5]),
        (b"one", b" two ", b"three".as_slice()),
        "what came"
    );
    check_eq!(into.msg_namelen, 0, "bytes of the sender's name");
    // Flags, and bytes that are all to come.
    let mut all = [0; 6];
    let wait_all = opcode::Recv::new(fd(&server), all.as_mut_ptr(), 6).flags(libc::MSG_WAITALL);
    ring.submit(wait_all.build(), 2)?;
    client.send_all(b"abc")?;
    check_eq!(
        ring.wait_for(2, NEVER)?,
        None,
        "completion of recv(MSG_WAITALL) with a part there"
    );
    client.send_all(b"def")?;
    check_eq!(
        ring.wait(2)?.value().during("recv()")?,
        6,
        "recv(MSG_WAITALL)"
    );
    check_eq!(&all, b"abcdef", "what came");
    let mut none = [0; 1];
    let peek = opcode::Recv::new(fd(&server), none.as_mut_ptr(), 1).flags(libc::MSG_DONTWAIT);
    ring.submit(peek.build(), 3)?;
    check_errno!(ring.wait(3)?.value(), libc::EAGAIN, "recv(MSG_DONTWAIT)");
    Ok(())
}

fn poll(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let mut ring = Ring::new()?;
    let events = libc::POLLIN as u32;
    ring.submit(opcode::PollAdd::new(fd(&server), events).build(), 1)?;
    check_eq!(
        ring.wait_for(1, NEVER)?,
        None,
        "completion of poll() with nothing there"
    );
    client.send_all(b"x")?;
    let done = ring.wait(1)?;
    check_eq!(done.value().during("poll()")?, events as i32, "events");
    let out = opcode::PollAdd::new(fd(&client), libc::POLLOUT as u32).build();
    check_eq!(
        ring.run(out, "poll()")?,
        i32::from(libc::POLLOUT),
        "events of an idle connection"
    );
    server.recv_all(&mut [0])?;
    let multi = opcode::PollAdd::new(fd(&server), events | libc::POLLRDHUP as u32);
    ring.submit(multi.multi(true).build(), 2)?;
    for word in [b"one", b"two"] {
        client.send_all(word)?;
        let done = ring.wait(2)?;
        check_eq!(done.value().during("poll()")?, events as i32, "events");
        check!(done.more(), "poll() ends with the first event");
        server.recv_all(&mut [0; 3])?;
        while ring.wait_for(2, NEVER)?.is_some() {}
    }
    drop(client);
    let ended = sys::PATIENCE;
    let end = Instant::now() + ended;
    loop {
        let done = ring.wait(2)?;
        if done.value()? & i32::from(libc::POLLRDHUP) != 0 {
            break;
        }
        check!(Instant::now() < end, "no POLLRDHUP came");
    }
    Ok(())
}

/// What is cancelled takes nothing with it.
fn cancel(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let pair = ctx.pair_from(&listener, address)?;
    let mut ring = Ring::new()?;
    let mut data = [0; 8];
    ring.submit(recv(&pair.server, &mut data), 1)?;
    let accept = || opcode::Accept::new(fd(&listener), std::ptr::null_mut(), std::ptr::null_mut());
    ring.submit(accept().build(), 2)?;
    let rule = format!("tcp dport {} drop", address.port());
    let rules = Rules::new(Host::B, "prerouting", &[&rule])?;
    let client = ctx.socket(Host::A)?;
    let to = Address::new(address);
    ring.submit(to.connect(&client), 3)?;
    ring.submit(
        opcode::PollAdd::new(fd(&pair.client), libc::POLLIN as u32).build(),
        4,
    )?;
    check_eq!(
        ring.wait_for(4, NEVER)?,
        None,
        "completion of poll() with nothing there"
    );
    for token in 1..=4 {
        ring.run(opcode::AsyncCancel::new(token).build(), "cancel")
            .during(&format!("of operation {token}"))?;
        check_errno!(
            ring.wait(token)?.value(),
            libc::ECANCELED,
            "operation {token}"
        );
    }
    drop(rules);
    // The connection goes on being made, as after a signal.
    client.await_events(libc::POLLOUT)?;
    let server = listener.accept()?;
    for (near, far) in [(&pair.client, &pair.server), (&client, &server)] {
        near.send_all(b"complete")?;
        let mut got = [0; 8];
        far.recv_all(&mut got)?;
        check_eq!(&got, b"complete", "what came after the cancelled operation");
    }
    // By descriptor, all of them.
    ring.submit(recv(&server, &mut data), 5)?;
    ring.submit(
        opcode::PollAdd::new(fd(&server), libc::POLLIN as u32).build(),
        6,
    )?;
    let all = CancelBuilder::fd(fd(&server)).all();
    let count = ring.run(
        opcode::AsyncCancel2::new(all).build(),
        "cancel by descriptor",
    )?;
    check_eq!(count, 2, "operations cancelled");
    for token in [5, 6] {
        check_errno!(
            ring.wait(token)?.value(),
            libc::ECANCELED,
            "operation {token}"
        );
    }
    Ok(())
}

/// The buffer is the program's again when it is told so, and not before the data was taken.
fn send_zc(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let mut ring = Ring::new()?;
    let pattern = Pattern::new(ctx, 222);
    let mut sent = 0;
    for length in [1, 300, 20_000, 60_000] {
        let mut data = pattern.at(sent, length).to_vec();
        let entry = opcode::SendZc::new(fd(&client), data.as_ptr(), length as u32)
            .flags(libc::MSG_WAITALL)
            .build();
        ring.submit(entry, 1)?;
        let done = ring.wait(1)?;
        check_eq!(
            done.value().during("send()")? as usize,
            length,
            "bytes sent"
        );
        check!(done.more(), "no notification is to come");
        let mut got = vec![0; length];
        server.recv_all(&mut got)?;
        pattern.verify(sent, &got)?;
        let told = ring.wait(1)?;
        check!(
            cqueue::notif(told.flags) && !told.more(),
            "the notification is {told:?}"
        );
        data.fill(0);
        sent += length;
    }
    Ok(())
}

/// A chain of operations runs in order, and ends with the first one that fails.
fn linked(ctx: &Ctx) -> Outcome {
    let (listener, address) = ctx.listener(8)?;
    let mut ring = Ring::new()?;
    let client = ctx.socket(Host::A)?;
    let to = Address::new(address);
    let mut answer = [0; 6];
    let link = |entry: squeue::Entry| entry.flags(squeue::Flags::IO_LINK);
    ring.queue(link(to.connect(&client)), 1)?;
    ring.queue(link(send(&client, b"question")), 2)?;
    ring.queue(link(recv(&client, &mut answer)), 3)?;
    ring.queue(opcode::Shutdown::new(fd(&client), libc::SHUT_WR).build(), 4)?;
    ring.ring.submit().during("io_uring_enter()")?;
    let server = listener.accept()?;
    ctx.prove(Host::B, &server)?;
    let mut question = [0; 8];
    server.recv_all(&mut question)?;
    check_eq!(&question, b"question", "what the server received");
    check_eq!(
        ring.wait_for(3, NEVER)?,
        None,
        "completion of recv() of nothing"
    );
    server.send_all(b"answer")?;
    for (token, result) in [(1, 0), (2, 8), (3, 6), (4, 0)] {
        check_eq!(
            ring.wait(token)?.value().during("a link")?,
            result,
            "operation {token}"
        );
    }
    check_eq!(&answer, b"answer", "what the client received");
    check_eq!(server.recv(&mut question, 0)?, 0, "end of stream");

    // A time limit.
    let time = Timespec::from(Duration::from_millis(50));
    ring.queue(link(recv(&client, &mut answer)), 5)?;
    ring.queue(opcode::LinkTimeout::new(&raw const time).build(), 6)?;
    ring.ring.submit().during("io_uring_enter()")?;
    check_errno!(ring.wait(5)?.value(), libc::ECANCELED, "recv() out of time");
    check_errno!(ring.wait(6)?.value(), libc::ETIME, "the time limit");

    // A failure.
    ring.queue(link(send(&client, b"x")), 7)?;
    ring.queue(recv(&client, &mut answer), 8)?;
    ring.ring.submit().during("io_uring_enter()")?;
    check_errno!(
        ring.wait(7)?.value(),
        libc::EPIPE,
        "send() after shutdown()"
    );
    check_errno!(
        ring.wait(8)?.value(),
        libc::ECANCELED,
        "what was linked to it"
    );
    Ok(())
}

/// Larger than every buffer: the kernel sends the rest when poll says that there is room.
fn large_send(ctx: &Ctx) -> Outcome {
    let total = (4 << 20) / ctx.divisor.min(4);
    let Pair { client, server } = ctx.pair()?;
    // TCP's buffers would grow otherwise.
    client.set(libc::SOL_SOCKET, libc::SO_SNDBUF, 50_000)?;
    server.set(libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000)?;
    let mut ring = Ring::new()?;
    let data: Vec<u8> = (0..total).map(|place| (place / 251) as u8).collect();
    let entry = opcode::Send::new(fd(&client), data.as_ptr(), total as u32)
        .flags(libc::MSG_WAITALL)
        .build();
    ring.submit(entry, 1)?;
    check_eq!(
        ring.wait_for(1, NEVER)?,
        None,
        "completion while nobody reads"
    );
    let mut got = vec![0; total];
    server.recv_all(&mut got)?;
    check!(got == data, "what came is not what was sent");
    check_eq!(
        ring.wait(1)?.value().during("send()")? as usize,
        total,
        "bytes sent"
    );
    Ok(())
}

/// ioctl() and socket options as operations.
fn commands(ctx: &Ctx) -> Outcome {
    const SIOCINQ: u32 = 0;
    const SIOCOUTQ: u32 = 1;
    let Pair { client, server } = ctx.pair()?;
    let mut ring = Ring::new()?;
    let command = |sock: &Sock, number| opcode::UringCmd16::new(fd(sock), number).build();
    check_eq!(
        ring.run(command(&server, SIOCINQ), "SIOCINQ")?,
        0,
        "SIOCINQ of nothing"
    );
    client.send_all(&[0; 700])?;
    sys::eventually(
        "700 bytes are there",
        || Ok(server.readable_bytes()? == 700),
    )?;
    check_eq!(
        ring.run(command(&server, SIOCINQ), "SIOCINQ")?,
        700,
        "SIOCINQ"
    );
    server.recv_all(&mut [0; 700])?;
    sys::eventually("nothing is under way", || {
        let count = ring.run(command(&client, SIOCOUTQ), "SIOCOUTQ");
        Ok(count? == 0)
    })?;
    let one = 1i32;
    let set = |level: i32, name: i32| {
        let value = (&raw const one).cast();
        opcode::SetSockOpt::new(fd(&client), level as u32, name as u32, value, 4).build()
    };
    ring.run(set(libc::SOL_SOCKET, libc::SO_KEEPALIVE), "SO_KEEPALIVE")?;
    ring.run(set(libc::SOL_TCP, libc::TCP_NODELAY), "TCP_NODELAY")?;
    check_eq!(
        client.get(libc::SOL_SOCKET, libc::SO_KEEPALIVE)?,
        1,
        "SO_KEEPALIVE"
    );
    check_eq!(
        client.get(libc::SOL_TCP, libc::TCP_NODELAY)?,
        1,
        "TCP_NODELAY"
    );
    Ok(())
}

/// A ring that a thread of the kernel serves, and registered files.
fn kernel_thread(ctx: &Ctx) -> Outcome {
    let Pair { client, server } = ctx.pair()?;
    let mut ring = Ring::from(IoUring::builder().setup_sqpoll(100).build(16))?;
    ring.ring
        .submitter()
        .register_files(&[client.as_raw_fd(), server.as_raw_fd()])
        .during("files of the ring")?;
    let mut got = [0; 5];
    for round in 0..10u8 {
        let word = [b'w', b'o', b'r', b'd', round];
        let (near, far) = (Fixed(u32::from(round & 1)), Fixed(u32::from(!round & 1)));
        ring.submit(opcode::Recv::new(far, got.as_mut_ptr(), 5).build(), 1)?;
        let sent = opcode::Send::new(near, word.as_ptr(), 5).build();
        check_eq!(ring.run(sent, "send()")?, 5, "send()");
        check_eq!(ring.wait(1)?.value().during("recv()")?, 5, "recv()");
        check_eq!(got, word, "what came");
    }
    Ok(())
}

/// No signal comes for an operation that nobody waits in.
fn broken_pipe(ctx: &Ctx) -> Outcome {
    // SAFETY: restores the default action, in the test's own process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let Pair { client, server } = ctx.pair()?;
    let mut ring = Ring::new()?;
    server.set_linger(Some(0))?;
    let mut data = [0; 8];
    ring.submit(recv(&client, &mut data), 1)?;
    drop(server);
    check_errno!(
        ring.wait(1)?.value(),
        libc::ECONNRESET,
        "recv() with a reset"
    );
    ring.submit(send(&client, b"x"), 2)?;
    check_errno!(ring.wait(2)?.value(), libc::EPIPE, "send() after a reset");
    Ok(())
}

/// Operations that wait since before the socket became one of TCP.
fn before_fallback(ctx: &Ctx) -> Outcome {
    let listener = Sock::new(Host::B, ctx.kind.plain(), 0)?;
    listener.bind(Host::B.address(ctx.kind, 0))?;
    listener.listen(8)?;
    let address = listener.local()?;
    let rule = format!("tcp dport {} drop", address.port());
    let rules = Rules::new(Host::B, "prerouting", &[&rule])?;
    let client = ctx.socket(Host::A)?;
    let mut ring = Ring::new()?;
    ring.ring
        .submitter()
        .register_files(&[client.as_raw_fd()])
        .during("files of the ring")?;
    let to = Address::new(address);
    let connect = opcode::Connect::new(Fixed(0), (&raw const to.0).cast(), to.1).build();
    ring.submit(connect, 1)?;
    check_eq!(
        ring.wait_for(1, NEVER)?,
        None,
        "completion of connect() to nobody"
    );
    let multi = opcode::PollAdd::new(Fixed(0), (libc::POLLIN | libc::POLLOUT) as u32);
    ring.submit(multi.multi(true).build(), 2)?;
    drop(rules);
    ring.wait(1)?.value().during("connect()")?;
    let server = listener.accept()?;
    let done = ring.wait(2)?;
    check!(
        done.value()? & i32::from(libc::POLLOUT) != 0,
        "events of the connection: {done:?}"
    );
    let mut got = [0; 5];
    ring.submit(opcode::Recv::new(Fixed(0), got.as_mut_ptr(), 5).build(), 3)?;
    server.send_all(b"hello")?;
    check_eq!(ring.wait(3)?.value().during("recv()")?, 5, "recv()");
    check_eq!(&got, b"hello", "what came");
    check!(done.more(), "poll() ended with the fallback");
    let end = Instant::now() + sys::PATIENCE;
    while ring.wait(2)?.value()? & i32::from(libc::POLLIN) == 0 {
        check!(Instant::now() < end, "no POLLIN came");
    }
    Ok(())
}
