//! Work requests: from a doorbell to the bytes in the other machine's memory and the completions on both sides.
//!
//! A message is done as one: it is checked on both sides before anything is written. What only the wire would show
//! (packets, acknowledgements, their order) is not there; what a driver or a protocol can see of it is: packet
//! numbers must agree, a receiver that is not ready is asked again after a time, one that does not answer a
//! number of times.

use crate::memory::{GuestMemory, Outside};
use crate::mr::{right, Pieces, Refused, Table};
use crate::qp::{
    peek, read_receive, read_request, Data, Kind, Request, Sge, State, Wait, Why, WorkQueue,
};
use crate::trace::What;
use crate::wire::{Completion, Event, Op, Queue, Syndrome};
use crate::world::{Protocol, Timer, World};

/// How much of one send queue is done before others get the lock.
const MOST_REQUESTS: u32 = 512;
const MOST_BYTES: u64 = 16 << 20;
/// A message is no longer, as in InfiniBand.
const LONGEST: u32 = 1 << 31;
const GRH: usize = 40;

/// The other end: device and number.
type End = (usize, u32);

/// What became of a work request.
enum Outcome {
    Done,
    Failed(Syndrome),
    Wait(Why),
}

/// What a send or write takes its bytes from.
enum Source {
    Bytes(Vec<u8>),
    Memory(Pieces),
}

/// What the local side says to an access that is refused.
fn local(refused: Refused) -> Syndrome {
    match refused {
        Refused::Stag => Syndrome::SendStag,
        Refused::Address => Syndrome::SendAddress,
        Refused::Right => Syndrome::SendRight,
        Refused::Pd => Syndrome::SendPd,
        Refused::Wrap => Syndrome::SendWrap,
    }
}

/// And what the requester hears of the other side's refusal.
fn remote(refused: Refused) -> Syndrome {
    match refused {
        Refused::Stag => Syndrome::RecvStag,
        Refused::Address => Syndrome::RecvAddress,
        Refused::Right => Syndrome::RecvRight,
        Refused::Pd => Syndrome::RecvPd,
        Refused::Wrap => Syndrome::RecvWrap,
    }
}

/// Moves bytes between two lists of pieces; both were checked before.
fn copy(from: &GuestMemory, source: &Pieces, to: &GuestMemory, sink: &Pieces) {
    let mut sinks = sink.iter().copied();
    let (mut at, mut room) = sinks.next().unwrap_or((0, 0));
    for &(mut address, mut length) in source {
        while length > 0 && room > 0 {
            let count = length.min(room);
            // Unmapped meanwhile: only QEMU can do that, and not while this runs.
            let _ = GuestMemory::copy(from, address, to, at, count);
            (address, length) = (address.wrapping_add(count), length - count);
            (at, room) = (at.wrapping_add(count), room - count);
            if room == 0 {
                (at, room) = sinks.next().unwrap_or((0, 0));
            }
        }
    }
}

fn write_pieces(to: &GuestMemory, sink: &Pieces, bytes: &[u8]) {
    let mut rest = bytes;
    for &(at, room) in sink {
        let (now, later) = rest.split_at(rest.len().min(room as usize));
        let _ = to.write(at, now);
        rest = later;
    }
}

impl World {
    pub fn send_doorbell(&mut self, device: usize, qpn: u32, pi: u16) {
        let d = &mut self.devices[device];
        if let Some(record) = d.qps.get(&qpn).map(|qp| qp.send.record) {
            d.check_record(format_args!("QP {qpn}, send"), record, pi.into(), 16);
        }
        let Some(qp) = d.qps.get_mut(&qpn) else {
            return d.complain(&format!("send doorbell of QP {qpn}, which does not exist"));
        };
        if !qp.send.advance(pi) {
            if !qp.send.is_old(pi) {
                d.complain(&format!(
                    "send doorbell of QP {qpn} with index {pi}, which is not in the ring"
                ));
            }
            return;
        }
        self.run_send_queue(device, qpn);
    }

    pub fn recv_doorbell(&mut self, device: usize, qpn: u32, pi: u16) {
        let d = &mut self.devices[device];
        if let Some(record) = d.qps.get(&qpn).map(|qp| qp.recv.record) {
            d.check_record(format_args!("QP {qpn}, receive"), record, pi.into(), 16);
        }
        let Some(qp) = d.qps.get_mut(&qpn) else {
            return d.complain(&format!(
                "receive doorbell of QP {qpn}, which does not exist"
            ));
        };
        if !qp.recv.advance(pi) {
            if !qp.recv.is_old(pi) {
                d.complain(&format!(
                    "receive doorbell of QP {qpn} with index {pi}, which is not in the ring"
                ));
            }
            return;
        }
        if qp.state == State::Error {
            self.flush(device, qpn);
        }
    }

    /// A send queue that stood still goes on.
    pub fn send_timer(&mut self, device: usize, qpn: u32) {
        if let Some(qp) = self.devices[device].qps.get_mut(&qpn) {
            qp.scheduled = false;
            self.run_send_queue(device, qpn);
        }
    }

    fn schedule_send(&mut self, due: u64, device: usize, qpn: u32) {
        if let Some(qp) = self.devices[device].qps.get_mut(&qpn) {
            if !std::mem::replace(&mut qp.scheduled, true) {
                self.schedule(due, Timer::Send(device, qpn));
            }
        }
    }

    pub fn run_send_queue(&mut self, device: usize, qpn: u32) {
        let (mut requests, mut bytes) = (0, 0);
        loop {
            let now = self.now;
            let d = &mut self.devices[device];
            let Some(qp) = d.qps.get_mut(&qpn) else {
                return;
            };
            match qp.state {
                State::Rts => {}
                State::Error => return self.flush(device, qpn),
                _ => return,
            }
            if qp.send.pending() == 0 || d.dead {
                return;
            }
            if let Some(until) = qp.wait.map(|wait| wait.until).filter(|until| *until > now) {
                return self.schedule_send(until, device, qpn);
            }
            if requests >= MOST_REQUESTS || bytes >= MOST_BYTES {
                return self.schedule_send(now, device, qpn);
            }
            let request = match read_request(&qp.send, &d.memory, qpn, qp.kind) {
                Ok(request) => request,
                Err(bad) => {
                    d.complain(&format!(
                        "QP {qpn}: work request at {}: {}",
                        bad.index, bad.why
                    ));
                    let completion =
                        Completion::new(Queue::Send, bad.op, Syndrome::SendFormat, bad.index, qpn);
                    return self.fail(device, qpn, bad.next, completion);
                }
            };
            requests += 1;
            bytes += u64::from(request.length);
            match self.execute(device, qpn, &request) {
                Outcome::Done => self.finish(device, qpn, &request),
                Outcome::Failed(syndrome) => {
                    let completion =
                        Completion::new(Queue::Send, request.op, syndrome, request.index, qpn);
                    return self.fail(device, qpn, request.next, completion);
                }
                Outcome::Wait(why) => {
                    if self.wait(device, qpn, why) {
                        continue;
                    }
                    let completion = Completion::new(
                        Queue::Send,
                        request.op,
                        Syndrome::RetryExceeded,
                        request.index,
                        qpn,
                    );
                    return self.fail(device, qpn, request.next, completion);
                }
            }
        }
    }

    /// The request is done; its completion, if it asked for one.
    fn finish(&mut self, device: usize, qpn: u32, request: &Request) {
        self.note(
            device,
            What::Request {
                qpn,
                op: request.op.name(),
                length: request.length,
            },
        );
        let d = &mut self.devices[device];
        d.counters.requests += 1;
        d.counters.bytes_out += u64::from(request.length);
        let Some(qp) = d.qps.get_mut(&qpn) else {
            return;
        };
        qp.send.ci = request.next;
        qp.wait = None;
        qp.sent += u64::from(request.length);
        let cqn = qp.send.cqn;
        if request.signalled {
            let mut completion = Completion::new(
                Queue::Send,
                request.op,
                Syndrome::Success,
                request.index,
                qpn,
            );
            completion.size = request.length;
            self.complete(device, cqn, completion, false);
        }
    }

    /// Whether there is another try.
    fn wait(&mut self, device: usize, qpn: u32, why: Why) -> bool {
        let settings = self.settings;
        let now = self.now;
        let d = &mut self.devices[device];
        let Some(qp) = d.qps.get_mut(&qpn) else {
            return true;
        };
        let tries = qp
            .wait
            .filter(|wait| wait.why == why)
            .map_or(0, |wait| wait.tries)
            + 1;
        let what = match why {
            // The driver does not say how often: without end, as SMC asks for.
            Why::NotReady => {
                d.counters.not_ready += 1;
                What::NotReady { qpn }
            }
            Why::Silent => {
                d.counters.silent += 1;
                if tries > settings.retries + 1 {
                    return false;
                }
                What::Silent { qpn, tries }
            }
        };
        let pause = if why == Why::NotReady {
            settings.not_ready
        } else {
            settings.ack_timeout
        };
        qp.wait = Some(Wait {
            until: now + pause.max(1),
            why,
            tries,
        });
        self.note(device, what);
        true
    }

    /// A request ends in error, and the pair with it.
    fn fail(&mut self, device: usize, qpn: u32, next: u16, completion: Completion) {
        let Some(qp) = self.devices[device].qps.get_mut(&qpn) else {
            return;
        };
        if u32::from(qp.send.ci) != completion.index {
            // A pair that is connected to itself: its other end has flushed it.
            return;
        }
        qp.send.ci = next;
        qp.state = State::Error;
        qp.wait = None;
        let cqn = qp.send.cqn;
        self.note(
            device,
            What::State {
                qpn,
                state: State::Error.name(),
            },
        );
        self.complete(device, cqn, completion, false);
        self.flush(device, qpn);
    }

    /// Everything that is posted comes back, in order.
    pub fn flush(&mut self, device: usize, qpn: u32) {
        loop {
            let d = &mut self.devices[device];
            let Some(qp) = d.qps.get_mut(&qpn) else {
                return;
            };
            qp.wait = None;
            let (cqn, completion) = if qp.send.pending() > 0 {
                let (op, entries) = peek(&qp.send, &d.memory);
                let index = qp.send.ci;
                qp.send.ci = index.wrapping_add(entries);
                (
                    qp.send.cqn,
                    Completion::new(Queue::Send, op, Syndrome::Flushed, index, qpn),
                )
            } else if qp.recv.pending() > 0 {
                let index = qp.recv.ci;
                qp.recv.ci = index.wrapping_add(1);
                (
                    qp.recv.cqn,
                    Completion::new(Queue::Recv, Op::Receive, Syndrome::Flushed, index, qpn),
                )
            } else {
                return;
            };
            self.complete(device, cqn, completion, false);
        }
    }

    /// A pair dies without its driver's doing: by the other side, or by a fault.
    pub fn fatal(&mut self, device: usize, qpn: u32, event: Event) {
        let Some(qp) = self.devices[device].qps.get_mut(&qpn) else {
            return;
        };
        qp.state = State::Error;
        self.note(
            device,
            What::State {
                qpn,
                state: State::Error.name(),
            },
        );
        self.flush(device, qpn);
        self.devices[device].async_event(event, qpn);
    }

    /// The other end, if it would answer.
    fn peer(&mut self, device: usize, qpn: u32) -> Option<End> {
        if !self.devices[device].reachable() {
            return None;
        }
        let qp = self.devices[device].qps.get(&qpn)?;
        if self.devices[device].protocol == Protocol::Iwarp {
            return self.iwarp_peer(device, qpn);
        }
        let end = (self.device_of(&qp.target?)?, qp.target_qpn);
        let other = self.devices[end.0].qps.get(&end.1)?;
        // Packets of others, or with another number than the next, are dropped.
        let back = other.target.and_then(|gid| self.device_of(&gid));
        let expected = other.kind == Kind::Connected
            && other.state.receives()
            && back == Some(device)
            && other.target_qpn == qpn
            && other.recv_psn == qp.send_psn;
        expected.then_some(end)
    }

    fn iwarp_peer(&mut self, device: usize, qpn: u32) -> Option<End> {
        let qp = self.devices[device].qps.get(&qpn)?;
        let (tuple, cookie) = (qp.tuple?.reversed(), qp.peer_cookie);
        let fits = |world: &World, end: End| {
            let d = &world.devices[end.0];
            let other = d.qps.get(&end.1);
            d.reachable()
                && other.is_some_and(|o| {
                    o.tuple == Some(tuple) && o.cookie == cookie && o.state.receives()
                })
        };
        let known = qp.pair.filter(|end| fits(self, *end));
        let found = known.or_else(|| {
            let mut all = self
                .devices
                .iter()
                .enumerate()
                .flat_map(|(n, d)| d.qps.keys().map(move |qpn| (n, *qpn)));
            all.find(|end| fits(self, *end))
        });
        self.devices[device].qps.get_mut(&qpn)?.pair = found;
        found
    }

    /// The pieces of local memory that a request names.
    fn gather(&self, device: usize, pd: u32, sges: &[Sge], need: u8) -> Result<Pieces, Refused> {
        let d = &self.devices[device];
        let mut pieces = Pieces::new();
        for sge in sges {
            pieces.extend(d.regions.resolve(
                &d.memory,
                sge.key,
                pd,
                sge.address,
                sge.length.into(),
                need,
            )?);
        }
        Ok(pieces)
    }

    fn source(&self, device: usize, pd: u32, data: &Data) -> Result<Source, Refused> {
        match data {
            Data::Inline(bytes) => Ok(Source::Bytes(bytes.clone())),
            Data::Memory(sges) => self
                .gather(device, pd, sges, right::LOCAL_READ)
                .map(Source::Memory),
        }
    }

    fn transfer(&mut self, device: usize, source: &Source, end: End, sink: &Pieces) {
        let to = &self.devices[end.0].memory;
        match source {
            Source::Bytes(bytes) => write_pieces(to, sink, bytes),
            Source::Memory(pieces) => copy(&self.devices[device].memory, pieces, to, sink),
        }
    }

    fn execute(&mut self, device: usize, qpn: u32, request: &Request) -> Outcome {
        let Some((pd, kind)) = self.devices[device]
            .qps
            .get(&qpn)
            .map(|qp| (qp.pd, qp.kind))
        else {
            return Outcome::Failed(Syndrome::General);
        };
        if request.length > LONGEST {
            return Outcome::Failed(Syndrome::SendFormat);
        }
        match request.op {
            Op::Register => return self.register(device, pd, request),
            Op::LocalInvalidate => {
                return match self.devices[device].regions.invalidate(request.key, pd) {
                    Ok(()) => Outcome::Done,
                    Err(refused) => Outcome::Failed(local(refused)),
                }
            }
            _ if kind == Kind::Datagram => return self.send_datagram(device, qpn, pd, request),
            _ => {}
        }
        // What is wrong here is found before anything leaves.
        let mut own = Source::Bytes(Vec::new());
        let mut sink = Pieces::new();
        let checked = match (request.op, &request.data) {
            (
                Op::Read | Op::ReadInvalidate | Op::CompareSwap | Op::FetchAdd,
                Data::Memory(sges),
            ) => self
                .gather(device, pd, sges, right::LOCAL_WRITE)
                .map(|pieces| sink = pieces),
            (_, data) => self.source(device, pd, data).map(|source| own = source),
        };
        if let Err(refused) = checked {
            return Outcome::Failed(local(refused));
        }
        let Some(end) = self.peer(device, qpn) else {
            return Outcome::Wait(Why::Silent);
        };
        let outcome = match request.op {
            Op::Write => self.write(device, request, &own, end),
            Op::WriteImm | Op::Send | Op::SendImm | Op::SendInvalidate => {
                self.message(device, request, &own, end)
            }
            Op::Read | Op::ReadInvalidate => self.read(device, pd, request, &sink, end),
            Op::CompareSwap | Op::FetchAdd => self.atomic(device, request, &sink, end),
            _ => Outcome::Failed(Syndrome::SendFormat),
        };
        if matches!(outcome, Outcome::Done) {
            self.count(device, qpn, end, request.length);
        }
        outcome
    }

    /// Both sides count the packets that would have gone.
    fn count(&mut self, device: usize, qpn: u32, end: End, length: u32) {
        let packets = length.div_ceil(self.devices[device].mtu.max(1)).max(1);
        let next = |psn: u32| psn.wrapping_add(packets) & 0xff_ffff;
        if let Some(qp) = self.devices[device].qps.get_mut(&qpn) {
            qp.send_psn = next(qp.send_psn);
        }
        let other = &mut self.devices[end.0];
        other.counters.messages_in += 1;
        other.counters.bytes_in += u64::from(length);
        if let Some(qp) = other.qps.get_mut(&end.1) {
            qp.recv_psn = next(qp.recv_psn);
            qp.received += u64::from(length);
        }
    }

    fn register(&mut self, device: usize, pd: u32, request: &Request) -> Outcome {
        let Some(registration) = request.registration else {
            return Outcome::Failed(Syndrome::SendFormat);
        };
        let d = &mut self.devices[device];
        if d.faults.refuses_registration() {
            return Outcome::Failed(Syndrome::General);
        }
        let result = d.regions.register(request.key, pd, |region| {
            let (table, room) = match registration.pages {
                Some(pages) => (Table::Inline(pages), 4),
                None => region.own,
            };
            if registration.count > room {
                return None;
            }
            (region.table, region.count) = (table, registration.count);
            (region.start, region.length) = (registration.start, registration.length.into());
            region.rights = registration.rights;
            Some(())
        });
        match result {
            Ok(()) => Outcome::Done,
            Err(refused) => Outcome::Failed(local(refused)),
        }
    }

    /// The memory of the other side, which dies if it may not be used so.
    fn remote_memory(&mut self, end: End, sge: Sge, need: u8) -> Result<Pieces, Syndrome> {
        let d = &self.devices[end.0];
        let pd = d.qps.get(&end.1).map_or(0, |qp| qp.pd);
        d.regions
            .resolve(&d.memory, sge.key, pd, sge.address, sge.length.into(), need)
            .map_err(|refused| {
                self.fatal(end.0, end.1, Event::Access);
                remote(refused)
            })
    }

    fn write(&mut self, device: usize, request: &Request, own: &Source, end: End) -> Outcome {
        match self.remote_memory(end, request.remote, right::REMOTE_WRITE) {
            Ok(sink) => {
                self.transfer(device, own, end, &sink);
                Outcome::Done
            }
            Err(syndrome) => Outcome::Failed(syndrome),
        }
    }

    fn read(
        &mut self,
        device: usize,
        pd: u32,
        request: &Request,
        sink: &Pieces,
        end: End,
    ) -> Outcome {
        match self.remote_memory(end, request.remote, right::REMOTE_READ) {
            Ok(source) => copy(
                &self.devices[end.0].memory,
                &source,
                &self.devices[device].memory,
                sink,
            ),
            Err(syndrome) => return Outcome::Failed(syndrome),
        }
        if request.op == Op::ReadInvalidate {
            if let Err(refused) = self.devices[device].regions.invalidate(request.key, pd) {
                return Outcome::Failed(local(refused));
            }
        }
        Outcome::Done
    }

    fn atomic(&mut self, device: usize, request: &Request, sink: &Pieces, end: End) -> Outcome {
        let (first, second) = request.operands;
        let target = match self.remote_memory(end, request.remote, right::REMOTE_ATOMIC) {
            Ok(pieces) => pieces,
            Err(syndrome) => return Outcome::Failed(syndrome),
        };
        let memory = &self.devices[end.0].memory;
        let old = match target[..] {
            [(at, 8)] if request.op == Op::FetchAdd => {
                memory.atomic(at, |v| Some(v.wrapping_add(first)))
            }
            [(at, 8)] => memory.atomic(at, |v| (v == second).then_some(first)),
            // Eight bytes in two pages cannot be aligned.
            _ => Err(Outside {
                address: request.remote.address,
                length: 8,
            }),
        };
        match old {
            Ok(old) => {
                write_pieces(&self.devices[device].memory, sink, &old.to_le_bytes());
                Outcome::Done
            }
            Err(_) => {
                self.fatal(end.0, end.1, Event::Access);
                Outcome::Failed(Syndrome::RecvAddress)
            }
        }
    }

    /// A receive of the other side, which must have one.
    fn receive(&mut self, end: End) -> Option<(WorkQueue, u32)> {
        let now = self.now;
        let d = &self.devices[end.0];
        let qp = d.qps.get(&end.1)?;
        (qp.recv.pending() > 0 && now >= d.faults.not_ready_until).then(|| (qp.recv.clone(), qp.pd))
    }

    /// Where the receive's data goes, for so many bytes; or what its completion says.
    fn receive_memory(
        &mut self,
        end: End,
        queue: &WorkQueue,
        pd: u32,
        length: u64,
    ) -> Result<Pieces, Syndrome> {
        let d = &mut self.devices[end.0];
        match read_receive(queue, &d.memory, end.1) {
            Ok(sge) if u64::from(sge.length) < length => Err(Syndrome::RecvAddress),
            Ok(sge) => d
                .regions
                .resolve(
                    &d.memory,
                    sge.key,
                    pd,
                    sge.address,
                    length,
                    right::LOCAL_WRITE,
                )
                .map_err(remote),
            Err(why) => {
                d.complain(&format!("QP {}: receive at {}: {why}", end.1, queue.ci));
                Err(Syndrome::RecvFormat)
            }
        }
    }

    fn take_receive(&mut self, end: End, completion: Completion, solicited: bool) {
        let Some(qp) = self.devices[end.0].qps.get_mut(&end.1) else {
            return;
        };
        qp.recv.ci = qp.recv.ci.wrapping_add(1);
        let cqn = qp.recv.cqn;
        self.complete(end.0, cqn, completion, solicited);
    }

    /// A message that the other side's receive takes, or a write that tells of itself by one.
    fn message(&mut self, device: usize, request: &Request, own: &Source, end: End) -> Outcome {
        let Some((queue, pd)) = self.receive(end) else {
            return Outcome::Wait(Why::NotReady);
        };
        let op = match request.op {
            Op::WriteImm => Op::ReceiveWriteImm,
            Op::SendImm => Op::ReceiveSendImm,
            Op::SendInvalidate => Op::ReceiveInvalidate,
            _ => Op::Receive,
        };
        let mut completion = Completion::new(Queue::Recv, op, Syndrome::Success, queue.ci, end.1);
        completion.size = request.length;
        let sink = if request.op == Op::WriteImm {
            match self.remote_memory(end, request.remote, right::REMOTE_WRITE) {
                Ok(sink) => sink,
                Err(syndrome) => return Outcome::Failed(syndrome),
            }
        } else {
            match self.receive_memory(end, &queue, pd, request.length.into()) {
                Ok(sink) => sink,
                Err(syndrome) => {
                    completion.syndrome = syndrome as u8;
                    self.take_receive(end, completion, false);
                    self.fatal(end.0, end.1, Event::Access);
                    return Outcome::Failed(syndrome);
                }
            }
        };
        match request.op {
            Op::SendInvalidate => {
                if let Err(refused) = self.devices[end.0].regions.invalidate(request.key, pd) {
                    self.fatal(end.0, end.1, Event::Access);
                    return Outcome::Failed(remote(refused));
                }
                completion.data = request.key.to_be_bytes();
            }
            // The driver reads them the other way round than it wrote them.
            Op::SendImm | Op::WriteImm => {
                completion.data = request.immediate;
                completion.data.reverse();
            }
            _ => {}
        }
        self.transfer(device, own, end, &sink);
        self.take_receive(end, completion, request.solicited);
        Outcome::Done
    }

    /// A datagram: whoever cannot take it does not, and nobody hears of it.
    fn send_datagram(&mut self, device: usize, qpn: u32, pd: u32, request: &Request) -> Outcome {
        let own = match self.source(device, pd, &request.data) {
            Ok(source) => source,
            Err(refused) => return Outcome::Failed(local(refused)),
        };
        let d = &self.devices[device];
        let Some(datagram) = &request.datagram else {
            return Outcome::Failed(Syndrome::SendFormat);
        };
        let Some(gid) = d.handles.get(&datagram.handle).copied() else {
            return Outcome::Failed(Syndrome::SendFormat);
        };
        if request.length > d.mtu.max(4096) {
            return Outcome::Failed(Syndrome::SendFormat);
        }
        // Its own GID of the same kind: the header's source.
        let v4 = gid[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let from = d
            .gids
            .iter()
            .flatten()
            .find(|g| (g[..12] == gid[..12]) == v4)
            .copied()
            .unwrap_or_default();
        let end = self
            .device_of(&gid)
            .filter(|_| d.reachable())
            .map(|other| (other, datagram.qpn));
        let accepts = end.is_some_and(|end| {
            let qp = self.devices[end.0].qps.get(&end.1);
            qp.is_some_and(|qp| {
                qp.kind == Kind::Datagram && qp.state.receives() && qp.qkey == datagram.qkey
            })
        });
        let receive = end
            .filter(|_| accepts)
            .and_then(|end| self.receive(end).map(|r| (end, r)));
        let Some((end, (queue, other_pd))) = receive else {
            self.devices[device].counters.datagrams_lost += 1;
            return Outcome::Done;
        };
        let total = GRH as u64 + u64::from(request.length);
        let Ok(sink) = self.receive_memory(end, &queue, other_pd, total) else {
            self.devices[device].counters.datagrams_lost += 1;
            return Outcome::Done;
        };
        let mut bytes = Vec::from(network_header(v4, from, gid, request.length));
        match own {
            Source::Bytes(inline) => bytes.extend(inline),
            Source::Memory(pieces) => {
                for (at, count) in pieces {
                    let start = bytes.len();
                    bytes.resize(start + count as usize, 0);
                    let _ = self.devices[device].memory.read(at, &mut bytes[start..]);
                }
            }
        }
        write_pieces(&self.devices[end.0].memory, &sink, &bytes);
        let op = if request.op == Op::SendImm {
            Op::ReceiveSendImm
        } else {
            Op::Receive
        };
        let mut completion = Completion::new(Queue::Recv, op, Syndrome::Success, queue.ci, end.1);
        completion.size = total as u32;
        completion.data = request.immediate;
        completion.data.reverse();
        completion.datagram = u32::from(!v4) << 31 | qpn & 0xf_ffff;
        self.devices[end.0].counters.messages_in += 1;
        self.take_receive(end, completion, request.solicited);
        Outcome::Done
    }
}

/// The 40 bytes before a datagram: an IPv6 header, or an IPv4 header in the last 20 of them.
fn network_header(v4: bool, from: [u8; 16], to: [u8; 16], length: u32) -> [u8; GRH] {
    let mut header = [0; GRH];
    // Transport headers of a datagram, and its checksum.
    let payload = length as u16 + 8 + 12 + 8 + 4;
    if v4 {
        header[20] = 0x45;
        header[22..24].copy_from_slice(&(payload + 20).to_be_bytes());
        (header[28], header[29]) = (64, 17);
        header[32..36].copy_from_slice(&from[12..]);
        header[36..40].copy_from_slice(&to[12..]);
    } else {
        header[0] = 0x60;
        header[4..6].copy_from_slice(&payload.to_be_bytes());
        (header[6], header[7]) = (17, 64);
        header[8..24].copy_from_slice(&from);
        header[24..40].copy_from_slice(&to);
    }
    header
}
