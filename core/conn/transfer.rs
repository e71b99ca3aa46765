// SPDX-License-Identifier: GPL-2.0

//! `send`, `recv` and `poll` on an SMC-R connection.

use super::{
    Conn,
    Data,
    Status,
    RCV_SHUTDOWN,
    SEND_SHUTDOWN, //
};
use crate::kapi::prelude::*;
use crate::{
    diag::trace,
    kapi::{
        clcsock::ClcSock,
        proto_ops::Message,
        sock::Sock,
        zerocopy::Notification, //
    },
    rx_tx::{
        conn::Connection,
        receiver::UrgentByte, //
    },
    smc_core::{
        buffers::Ring,
        counter,
        sock::SmcSocket,
        state::{
            Event,
            Life, //
        }, //
    }, //
};
use kernel::{
    error::Result,
    sync::{
        atomic::Relaxed,
        MutexGuard, //
    }, //
};

const MSG_OOB: u32 = 0x1;
const MSG_PEEK: u32 = 0x2;
const MSG_TRUNC: u32 = 0x20;
const MSG_WAITALL: u32 = 0x100;
const MSG_MORE: u32 = 0x8000;

const EPOLLIN: u32 = 0x1;
const EPOLLPRI: u32 = 0x2;
const EPOLLOUT: u32 = 0x4;
const EPOLLERR: u32 = 0x8;
const EPOLLHUP: u32 = 0x10;
const EPOLLRDNORM: u32 = 0x40;
const EPOLLWRNORM: u32 = 0x100;
const EPOLLRDHUP: u32 = 0x2000;

/// Bytes that are gathered with others before what has been sent is looked at for them: looking costs more than they do.
const LITTLE: u32 = 4096;

/// Who reads what is sent.
enum Reader {
    There,
    /// The peer has closed: see [`Conn::reset_by_writing`].
    Gone,
}

impl Reader {
    /// Of a connection whose own end for writing is shut, or not.
    fn of(life: Life, shut: bool) -> Result<Self> {
        if shut {
            Err(EPIPE)
        } else if life.may_write() {
            Ok(Self::There)
        } else if life.writes_to_nobody() {
            Ok(Self::Gone)
        } else {
            Err(EPIPE)
        }
    }
}

/// What is behind the bytes of a read.
#[derive(Clone, Copy)]
enum Ahead {
    /// The urgent mark.
    Mark,
    /// There may be more.
    More,
    Nothing,
}

impl Ahead {
    fn new(mark: bool, more: bool) -> Self {
        match (mark, more) {
            (true, _) => Self::Mark,
            (false, true) => Self::More,
            (false, false) => Self::Nothing,
        }
    }
}

/// Who has ended the stream that is read.
enum End {
    Peer,
    Here,
}

impl End {
    /// Why no more data will come, after what is there.
    fn of(data: &Data, shut: bool) -> Option<Self> {
        if data.eof {
            Some(Self::Peer)
        } else {
            (shut || data.place.is_none()).then_some(Self::Here)
        }
    }
}

impl Conn {
    /// `sendmsg(2)`. With a `notifier` it is `MSG_ZEROCOPY`, of more than nothing.
    pub(crate) fn send(
        &self,
        sk: &Sock<SmcSocket>,
        msg: &mut Message,
        notifier: Option<&ClcSock>,
    ) -> Result<usize> {
        let flags = msg.flags;
        let total = msg.len;
        let sent = match notifier {
            Some(clc) => self.send_zerocopy(sk, msg, clc),
            None => self.send_some(sk, msg, self.tx.lock()),
        };
        self.stats.count_call(&counter::TX_CALLS, total, &sent);
        if flags & MSG_OOB != 0 {
            self.stats.count(counter::URGENT);
        }
        match sent {
            Err(err) => Err(sk.stream_error(flags, err)),
            sent => sent,
        }
    }

    fn send_zerocopy(
        &self,
        sk: &Sock<SmcSocket>,
        msg: &mut Message,
        clc: &ClcSock,
    ) -> Result<usize> {
        // In turn, as what is taken back takes its number back: a send that does not wait is one step.
        let turn = self.tx.lock();
        let notification = Notification::begin(clc, msg.len)?;
        let sent = self.send_some(sk, msg, turn)?;
        notification.copied();
        // TCP's queue is where it is; who polls waits in ours.
        sk.wake_poll(EPOLLERR);
        Ok(sent)
    }

    fn send_some<'a>(
        &'a self,
        sk: &Sock<SmcSocket>,
        msg: &mut Message,
        mut turn: MutexGuard<'a, ()>,
    ) -> Result<usize> {
        let mut timeo = sk.send_timeout(msg.nonblock());
        let urgent = msg.flags & MSG_OOB != 0;
        let more = msg.flags & MSG_MORE != 0;
        let total = msg.len;
        let mut sent = 0;
        let mut reaped = false;
        if total == 0 {
            self.check_send(sk)?;
        }
        while sent < total {
            // As in TCP, who has sent something hears of an error by the next call.
            if sent == 0 {
                sk.take_error()?;
            } else if sk.has_error() {
                break;
            }
            let rest = u32::try_from(total - sent).unwrap_or(u32::MAX);
            let shut = sk.shutdown_mask() & SEND_SHUTDOWN != 0;
            let (place, spans) = {
                let mut data = self.data.lock();
                match Reader::of(data.life, shut) {
                    Ok(Reader::There) => {}
                    Ok(Reader::Gone) => {
                        if data.place.is_some() && self.reset_by_writing(&mut data) {
                            return Ok(total);
                        }
                    }
                    Err(_) if sent > 0 => break,
                    Err(err) => return Err(err),
                }
                let flow = data.flow.as_ref();
                let grows = flow.is_some_and(|flow| flow.tx.growth(rest).is_some());
                let untaken = flow.is_some_and(|flow| flow.tx.unconfirmed() > 0);
                let place = data.place.as_ref().ok_or(EPIPE)?;
                // Else there might be no room, this would be held back behind what has been sent already, or there might be no
                // slot for it. Little can wait for the device to tell, if it will.
                let held = || untaken && !(rest < LITTLE && place.link.is_wanted());
                let look = data.in_flight > 0 && (grows || sent == 0 && held())
                    || sent == 0 && !reaped && place.link.slots().take_scarce();
                if look && !reaped {
                    let link = place.link.clone();
                    drop(data);
                    link.reap();
                    reaped = true;
                    continue;
                }
                if grows {
                    drop(data);
                    self.grow(sk, rest);
                    continue;
                }
                let place = place.clone();
                if let (Some(flow), 0) = (data.flow.as_ref(), sent) {
                    let buffers = &counter::TX_BUFFERS;
                    if total > flow.tx.sndbuf_len() as usize {
                        self.stats.count(buffers.small);
                    }
                    if total > flow.tx.peer_rmb_len() as usize {
                        self.stats.count(buffers.small_for_peer);
                    }
                }
                let spans = match data.flow.as_ref() {
                    // One urgent byte at a time is all that the protocol can say.
                    Some(flow) if !(urgent && flow.tx.urgent_busy()) => {
                        Some(flow.tx.chunks_for_write(rest))
                    }
                    _ => None,
                };
                if spans.as_ref().is_none_or(|spans| spans.is_empty()) {
                    if !reaped && data.in_flight > 0 {
                        drop(data);
                        place.link.reap();
                        reaped = true;
                        continue;
                    }
                    // Under the lock that makes room: it is not missed, nor told to those who have some.
                    data.lack.poller = true;
                }
                reaped = false;
                (place, spans)
            };
            let Some(spans) = spans.filter(|spans| !spans.is_empty()) else {
                self.stats.count(counter::TX_BUFFERS.full);
                self.with_link(|data| self.push(data));
                if timeo == 0 {
                    if sent > 0 {
                        break;
                    }
                    return Err(EAGAIN);
                }
                drop(turn);
                drop(place);
                let waited = sk.wait(&mut timeo, || self.can_go_on_sending(sk, urgent));
                turn = self.tx.lock();
                match waited {
                    Ok(()) => continue,
                    Err(_) if sent > 0 => break,
                    Err(err) => return Err(err),
                }
            };
            let mut copied = 0;
            let mut fault = false;
            for span in spans.iter() {
                let len = span.len as usize;
                let n = place.send_ring().buffer().copy_from_iter(
                    span.offset as usize,
                    len,
                    msg.source(),
                )?;
                copied += n;
                if n < len {
                    fault = true;
                    break;
                }
            }
            sent += copied;
            trace::tx_sendmsg(sk, || place.moved(copied));
            let last = sent == total;
            let closed = self.with_link(|data| {
                // Another thread may have said meanwhile that no more comes.
                if sk.shutdown_mask() & SEND_SHUTDOWN != 0 {
                    data.spilled = true;
                    return true;
                }
                data.spilled |= fault;
                if let Some(flow) = data.flow.as_mut() {
                    let n = u32::try_from(copied).unwrap_or(0);
                    if urgent && last {
                        flow.tx.commit_urgent(n);
                    } else {
                        flow.tx.commit(n);
                    }
                }
                // After a fault no more comes.
                self.push_corked(data, more || !last && !fault);
                // The peer may have closed since.
                self.reset_by_writing(data);
                false
            });
            if closed == Some(true) {
                sent -= copied;
                if sent > 0 {
                    break;
                }
                sk.take_error()?;
                return Err(EPIPE);
            }
            if fault {
                return if sent > 0 { Ok(sent) } else { Err(EFAULT) };
            }
        }
        drop(turn);
        Ok(sent)
    }

    /// Resets a connection whose peer has closed, when something is written: TCP takes what is written
    /// then, and is told by a reset that nobody reads any more.
    fn reset_by_writing(&self, data: &mut Data) -> bool {
        let futile = data.life.writes_to_nobody();
        if futile {
            let err = super::reset_error(data);
            self.event(data, Event::LocalAbort, err);
        }
        futile
    }

    fn check_send(&self, sk: &Sock<SmcSocket>) -> Result<Reader> {
        sk.take_error()?;
        let life = self.data.lock().life;
        Reader::of(life, sk.shutdown_mask() & SEND_SHUTDOWN != 0)
    }

    fn can_go_on_sending(&self, sk: &Sock<SmcSocket>, urgent: bool) -> bool {
        if sk.has_error() || sk.shutdown_mask() & SEND_SHUTDOWN != 0 {
            return true;
        }
        let mut data = self.data.lock();
        let can = match data.flow.as_ref() {
            Some(flow) if data.life.may_write() => {
                flow.tx.free() > 0 && !(urgent && flow.tx.urgent_busy())
            }
            _ => true,
        };
        data.lack.sleeper |= !can;
        self.want_completions(&data);
        can
    }

    /// `recvmsg(2)`.
    pub(crate) fn receive(&self, sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
        msg.clear_name();
        let got = if msg.flags & MSG_OOB != 0 {
            self.stats.count(counter::URGENT);
            self.receive_urgent(sk, msg)
        } else {
            self.receive_stream(sk, msg)
        };
        let size = got.as_ref().map_or(0, |got| *got);
        self.stats.count_call(&counter::RX_CALLS, size, &got);
        got
    }

    fn receive_stream(&self, sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
        let peek = msg.flags & MSG_PEEK != 0;
        let discard = msg.flags & MSG_TRUNC != 0;
        let total = msg.len;
        let target = if msg.flags & MSG_WAITALL != 0 {
            total
        } else {
            match sk.receive_low_water().min(total) {
                target @ ..=1 => target,
                // More than half the ring never comes at once.
                target => target.min(self.rmb_half()),
            }
        };
        let mut timeo = sk.receive_timeout(msg.nonblock());
        let mut got = 0;
        let mut slept = false;
        let mut turn = self.rx.lock();
        let peek = peek.then(|| sk.peek_offset().unwrap_or(0));
        while got < total || total == 0 {
            // As in TCP, room for nothing waits for something, too.
            let skip = peek.map_or(0, |offset| offset.saturating_add(got));
            if total == 0 && self.is_readable_behind(skip) {
                break;
            }
            // Before the data is looked at: what came before the end, or an error, is read before it.
            let failed = sk.has_error();
            let (n, ahead, end) =
                match self.copy_out(sk, msg, got, peek, discard, core::mem::take(&mut slept)) {
                    Err(_) if got > 0 => break,
                    copied => copied?,
                };
            if n > 0 {
                got += n;
                sk.move_peek_offset(peek.is_some(), n);
                // As in TCP, one read does not go past the urgent mark.
                match ahead {
                    Ahead::Mark => break,
                    Ahead::Nothing if got >= target.max(1) => break,
                    Ahead::More | Ahead::Nothing => continue,
                }
            }
            if got >= target.max(1) || (got > 0 && (failed || end.is_some())) {
                break;
            }
            // As in TCP, an error is told before the end of the stream, but for the peer's own end.
            if matches!(end, Some(End::Peer)) {
                break;
            }
            if failed {
                sk.take_error()?;
            }
            if end.is_some() {
                // The connection may have been reset since the error was looked at, which is what ended the stream.
                if sk.has_error() {
                    continue;
                }
                break;
            }
            if timeo == 0 {
                if got > 0 {
                    break;
                }
                return Err(EAGAIN);
            }
            drop(turn);
            let mut falls_asleep = true;
            let awake = || {
                let falls_asleep = core::mem::take(&mut falls_asleep);
                sk.has_error() || self.is_awake(sk, skip, falls_asleep)
            };
            let waited = if total == 0 {
                sk.wait(&mut timeo, awake)
            } else {
                // What is there, and why, is looked at above.
                sk.wait_once(&mut timeo, awake)
            };
            turn = self.rx.lock();
            slept = true;
            match waited {
                // As in TCP, who has room for nothing waits once, whatever ends that.
                _ if total == 0 => break,
                Ok(()) => {}
                Err(_) if got > 0 => break,
                Err(err) => {
                    self.starve(false);
                    return Err(err);
                }
            }
        }
        if slept {
            self.starve(false);
        }
        drop(turn);
        Ok(got)
    }

    /// `TCP_INQ`.
    pub(crate) fn tells_inq(&self) -> bool {
        self.tells_inq.load(Relaxed)
    }

    /// How many bytes there are to read; as in TCP, one if nothing but the end of the stream is.
    pub(crate) fn left_to_read(&self) -> i32 {
        let data = self.data.lock();
        let there = data.flow.as_ref().map_or(0, |flow| flow.rx.readable());
        i32::try_from(there.max(u32::from(data.eof))).unwrap_or(i32::MAX)
    }

    /// Tells a reader when the last data has come.
    pub(crate) fn report_time(&self, sk: &Sock<SmcSocket>, msg: &mut Message) {
        let when = self.data.lock().received_at;
        if let Some(when) = when {
            msg.report_time(sk, when);
        }
    }

    /// Half the size of the RMB.
    fn rmb_half(&self) -> usize {
        let data = self.data.lock();
        data.flow
            .as_ref()
            .map_or(usize::MAX, |flow| flow.rx.rmb_len() as usize / 2)
    }

    /// Copies what is there; the number of bytes, what is next, and whether there was an end behind it before.
    ///
    /// With `peek` it is only looked at, from so many bytes on. `slept`: it was waited for.
    fn copy_out(
        &self,
        sk: &Sock<SmcSocket>,
        msg: &mut Message,
        got: usize,
        peek: Option<usize>,
        discard: bool,
        slept: bool,
    ) -> Result<(usize, Ahead, Option<End>)> {
        let rest = u32::try_from(msg.len - got).unwrap_or(u32::MAX);
        let shut = sk.shutdown_mask() & RCV_SHUTDOWN != 0;
        let (place, left, spans, end) = {
            let mut data = self.data.lock();
            let end = End::of(&data, shut);
            let Some(flow) = data.flow.as_mut() else {
                return Ok((0, Ahead::Nothing, end));
            };
            if slept {
                flow.rx.set_starved(false);
            }
            if got == 0 {
                if msg.len > flow.rx.rmb_len() as usize {
                    self.stats.count(counter::RX_BUFFERS.small);
                }
                if flow.rx.readable() >= flow.rx.rmb_len() {
                    self.stats.count(counter::RX_BUFFERS.full);
                }
            }
            let spans = if let Some(offset) = peek {
                let skip = u32::try_from(offset.saturating_add(got)).unwrap_or(u32::MAX);
                flow.rx.chunks_for_peek(skip, rest)
            } else {
                flow.rx.chunks_for_read(rest)
            };
            if spans.is_empty() {
                if got == 0 && rest > 0 && peek.is_none() {
                    flow.rx.pass_mark();
                }
                return Ok((0, Ahead::Nothing, end));
            }
            (data.place.clone(), data.rest.clone(), spans, end)
        };
        let rmb = place.as_ref().map(|place| &**place.rmb_ring());
        let Some(buffer) = rmb.map(Ring::buffer).or(left.as_deref()) else {
            return Ok((0, Ahead::Nothing, end));
        };
        let mut copied = 0;
        for span in spans.iter() {
            let (offset, len) = (span.offset as usize, span.len as usize);
            if discard {
                copied += len;
                continue;
            }
            if let Some(place) = place.as_ref() {
                place.rmb.sync_for_cpu(offset..offset.saturating_add(len));
            }
            let n = buffer.copy_to_iter(offset, len, msg.dest())?;
            copied += n;
            if n < len {
                break;
            }
        }
        if copied == 0 {
            return Err(EFAULT);
        }
        if let Some(place) = place.as_ref() {
            trace::rx_recvmsg(sk, || place.moved(copied));
        }
        let mut ahead = Ahead::Nothing;
        let n = u32::try_from(copied).unwrap_or(0);
        match peek {
            Some(offset) => {
                ahead = self.ahead_of_peek(offset.saturating_add(got).saturating_add(copied));
            }
            None => self.take(|flow| {
                flow.rx.consume(n);
                ahead = Ahead::new(flow.rx.at_mark(), flow.rx.readable() > 0);
            }),
        }
        Ok((copied, ahead, end))
    }

    /// A reader takes something. The peer is told if need be, and if there is a link.
    fn take(&self, taken: impl FnOnce(&mut Connection)) {
        let mut data = self.data.lock();
        let Some(flow) = data.flow.as_mut() else {
            return;
        };
        taken(flow);
        if flow.cdc_due() {
            self.push(&mut data);
        }
        drop(data);
    }

    fn starve(&self, starved: bool) {
        if let Some(flow) = self.data.lock().flow.as_mut() {
            flow.rx.set_starved(starved);
        }
    }

    /// Whether a reader has no reason to wait. One that falls asleep has the peer told, if that waits for it, how much
    /// room there is; while a reader waits, always.
    fn is_awake(&self, sk: &Sock<SmcSocket>, skip: usize, falls_asleep: bool) -> bool {
        let shut = sk.shutdown_mask() & RCV_SHUTDOWN != 0;
        let skip = u32::try_from(skip).unwrap_or(u32::MAX);
        let mut data = self.data.lock();
        if End::of(&data, shut).is_some() {
            return true;
        }
        let Some(flow) = data.flow.as_mut() else {
            return false;
        };
        if falls_asleep {
            flow.rx.set_starved(true);
        }
        let awake = flow.rx.peekable(skip) > 0;
        if falls_asleep && flow.cdc_due() {
            self.push(&mut data);
        }
        awake
    }

    /// `SO_OOBINLINE` was set.
    pub(crate) fn follow_inline(&self, sk: &Sock<SmcSocket>) {
        // It moves the cursor, so not while a reader copies.
        let _turn = self.rx.lock();
        let inline = sk.urgent_inline();
        let mut data = self.data.lock();
        let Some(flow) = data.flow.as_mut() else {
            return;
        };
        flow.rx.set_oob_inline(inline);
        if flow.cdc_due() {
            // An urgent byte that was next is passed: the peer waits to hear of that.
            self.push(&mut data);
        }
    }

    /// What is behind so many bytes that were looked at.
    fn ahead_of_peek(&self, len: usize) -> Ahead {
        let data = self.data.lock();
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        data.flow.as_ref().map_or(Ahead::Nothing, |flow| {
            Ahead::new(flow.rx.is_mark_at(len), flow.rx.peekable(len) > 0)
        })
    }

    /// Is there something behind the first `skip` bytes, exactly as [`Self::copy_out`] would find it?
    fn is_readable_behind(&self, skip: usize) -> bool {
        let skip = u32::try_from(skip).unwrap_or(u32::MAX);
        let data = self.data.lock();
        data.flow
            .as_ref()
            .is_some_and(|flow| flow.rx.peekable(skip) > 0)
    }

    fn receive_urgent(&self, sk: &Sock<SmcSocket>, msg: &mut Message) -> Result<usize> {
        if sk.urgent_inline() {
            return Err(EINVAL);
        }
        let byte = {
            let data = self.data.lock();
            let flow = data.flow.as_ref().ok_or(ENOTCONN)?;
            match flow.rx.urgent() {
                UrgentByte::Valid(byte) => byte,
                UrgentByte::Announced => return Err(EAGAIN),
                UrgentByte::None => return Err(EINVAL),
            }
        };
        msg.report(MSG_OOB);
        // Room for nothing takes it, too, as in TCP.
        if msg.flags & MSG_PEEK == 0 {
            self.take(|flow| flow.rx.take_urgent());
        }
        if msg.len == 0 {
            msg.report(MSG_TRUNC);
            return Ok(0);
        }
        if msg.flags & MSG_TRUNC == 0 && msg.dest().copy_to_iter(&[byte]) != 1 {
            return Err(EFAULT);
        }
        Ok(1)
    }

    /// The `EPOLL*` bits that are true now.
    pub(crate) fn poll(&self, sk: &Sock<SmcSocket>) -> u32 {
        let low_water = sk.receive_low_water();
        let shutdown = sk.shutdown_mask();
        let mut mask = 0;
        if sk.has_error() {
            mask |= EPOLLERR;
        }
        let mut data = self.data.lock();
        let full = |data: &Data| {
            let flow = data.flow.as_ref();
            data.in_flight > 0 && flow.is_some_and(|flow| !flow.tx.is_writable())
        };
        if full(&data) {
            drop(data);
            self.reap();
            data = self.data.lock();
        }
        let ended = data.eof || shutdown & RCV_SHUTDOWN != 0;
        if ended {
            mask |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
        }
        let write_ended = shutdown & SEND_SHUTDOWN != 0;
        if ended && write_ended || data.place.is_none() {
            mask |= EPOLLHUP;
        }
        let mut lacks_room = false;
        match data.flow.as_ref() {
            Some(flow) => {
                let there = flow.rx.readable();
                if there > 0 && (there as usize >= low_water || there >= flow.rx.rmb_len() / 2) {
                    mask |= EPOLLIN | EPOLLRDNORM;
                }
                if matches!(flow.rx.urgent(), UrgentByte::Valid(_)) {
                    mask |= EPOLLPRI;
                }
                if write_ended || flow.tx.is_writable() {
                    mask |= EPOLLOUT | EPOLLWRNORM;
                } else {
                    lacks_room = true;
                }
            }
            None => mask |= EPOLLERR,
        }
        if lacks_room {
            data.lack.poller = true;
            self.want_completions(&data);
        }
        mask
    }

    /// What `ioctl` shows.
    pub(crate) fn status(&self) -> Status {
        self.reap();
        let data = self.data.lock();
        let int = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
        match data.flow.as_ref() {
            Some(flow) => Status {
                readable: int(flow.rx.readable_before_mark()),
                queued: int(flow.tx.used()),
                unsent: int(flow.tx.unsent()),
                at_mark: flow.rx.at_mark(),
            },
            None => Status {
                readable: 0,
                queued: 0,
                unsent: 0,
                at_mark: false,
            },
        }
    }
}
