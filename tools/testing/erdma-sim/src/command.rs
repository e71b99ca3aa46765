//! The command queue: the driver makes and changes objects by it.
//!
//! A command is refused by a syndrome that is not zero, which the driver makes -EIO of.

use crate::mr::{Kind as RegionKind, Region, Table, LOCAL_DMA_KEY};
use crate::qp::{Kind, Qp, State, Tuple, WorkQueue};
use crate::ring::{depth_of, Buffer, CompletionQueue, EventQueue};
use crate::trace::What;
use crate::wire::{bits, command, command_completion, reg, Fields};
use crate::world::{Limits, Protocol, World};

type Command<'a> = Fields<'a, 128>;
/// Two words of response, or why not.
type Reply = Result<(u64, u64), String>;
const DONE: Reply = Ok((0, 0));

const REFUSED: u8 = 1;
const FIRMWARE: u64 = 0x0001_0000;
const STATISTICS_MAGIC: u16 = 0x5566;

/// What QUERY_DEVICE announces, as logarithms.
const MAX_GID: u64 = 4;
const MAX_CQE: u64 = 20;
const MAX_RECV_WR: u64 = 15;
const MAX_AH: u64 = 10;
const MAX_MR_SIZE: u64 = 40;
/// Atomic operations, tables of several levels, doorbell pages for users.
const FLAGS: u64 = 1 << 7 | 1 << 5 | 1 << 3;

/// Bits in the attribute mask of MODIFY_QP.
mod modify {
    pub const STATE: u32 = 1;
    pub const QKEY: u32 = 2;
    pub const ADDRESS: u32 = 4;
    pub const SQ_PSN: u32 = 8;
    pub const RQ_PSN: u32 = 16;
    pub const TARGET: u32 = 32;
}

impl World {
    pub fn command_doorbell(&mut self, device: usize, pi: u16) {
        let d = &mut self.devices[device];
        let Some(queue) = &mut d.commands else {
            return d.complain("a command before the command queue was initialised");
        };
        if u32::from(pi.wrapping_sub(queue.ci)) > queue.depth {
            return d.complain(&format!(
                "doorbell of the command queue with index {pi}, which is not in the ring"
            ));
        }
        queue.pi = pi;
        self.run_commands(device);
    }

    pub fn run_commands(&mut self, device: usize) {
        // A ring has no more than this, so that a command which rings again does not go on for ever.
        for _ in 0..1 << 15 {
            let d = &mut self.devices[device];
            if d.faults.hang_commands {
                return;
            }
            let Some(queue) = &mut d.commands else { return };
            if queue.ci == queue.pi {
                return;
            }
            let index = queue.ci;
            let mut bytes = [0; 128];
            let at = queue
                .address
                .wrapping_add(u64::from(u32::from(index) & (queue.depth - 1)) * 32);
            if d.memory.read(at, &mut bytes).is_err() {
                return d.complain("the command queue is not in memory");
            }
            let sqe = Fields(&bytes);
            let header = sqe.u64(0);
            let entries = bits(header, 54, 52) as u16 + 1;
            queue.ci = match queue.pi.wrapping_sub(index) < entries {
                true => queue.pi,
                false => index.wrapping_add(entries),
            };
            if header as u16 != index.wrapping_add(entries) {
                d.complain(&format!(
                    "the command at {index} has index {}: it was not written there",
                    header as u16
                ));
            }
            let (module, opcode) = (bits(header, 25, 24) as u8, bits(header, 23, 16) as u8);
            let reply = self.command(device, (module, opcode), sqe);
            let d = &mut self.devices[device];
            d.counters.commands += 1;
            let (syndrome, response) = match reply {
                Ok(response) => (0, response),
                Err(why) => {
                    d.counters.failed_commands += 1;
                    d.complain(&format!("command {module}/{opcode} refused: {why}"));
                    (REFUSED, (0, 0))
                }
            };
            self.note(
                device,
                What::Command {
                    module,
                    opcode,
                    syndrome,
                },
            );
            let d = &mut self.devices[device];
            // A command may have been the reset's last.
            let Some(queue) = &mut d.commands else { return };
            let entry =
                command_completion(queue.cq.owner(), opcode, syndrome, index.into(), response);
            let posted = queue.cq.post_bytes(&d.memory, &entry, true);
            let pi = queue.cq.pi;
            match posted {
                Ok(true) => d.completion_event(0, 0, pi),
                Ok(false) => {}
                Err(_) => d.complain("the command queue's completions are not in memory"),
            }
        }
    }

    fn command(&mut self, device: usize, code: (u8, u8), c: Command<'_>) -> Reply {
        match code {
            command::QUERY_DEVICE => self.query_device(),
            command::QUERY_FW => Ok((FIRMWARE, 0)),
            command::CREATE_EQ => self.create_eq(device, c),
            command::DESTROY_EQ => self.destroy_eq(device, c),
            command::CREATE_CQ => self.create_cq(device, c),
            command::DESTROY_CQ => self.destroy_cq(device, c.u32(8)),
            command::CREATE_QP => self.create_qp(device, c),
            command::MODIFY_QP => self.modify_qp(device, c),
            command::QUERY_QP => self.query_qp(device, c.u32(8)),
            command::DESTROY_QP => self.destroy_qp(device, c.u32(8)),
            command::REFLUSH => self.reflush(device, c.u32(8), c.u32(12) as u16, c.u32(16) as u16),
            command::REG_MR => self.register_region(device, c),
            command::DEREG_MR => self.remove_region(device, c),
            command::SET_GID => self.set_gid(device, c),
            command::CREATE_AH => self.create_handle(device, c),
            command::DESTROY_AH => match self.devices[device].handles.remove(&c.u32(12)) {
                Some(_) => DONE,
                None => Err(format!("there is no address handle {}", c.u32(12))),
            },
            command::CONF_MTU => self.configure_mtu(device, c.u32(8)),
            command::CONF_DEVICE => match c.bits(8, 31, 31) == 0 || c.bits(8, 4, 0) == 12 {
                true => DONE,
                false => Err(format!(
                    "pages of 2^{} bytes: this device knows 2^12 only",
                    c.bits(8, 4, 0)
                )),
            },
            command::GET_STATS => self.statistics(device, c.u64(16), c.u32(24)),
            command::ALLOC_DB => self.allocate_doorbells(device),
            command::FREE_DB => self.free_doorbells(device, c),
            _ => Err("this command is not known".into()),
        }
    }

    fn query_device(&self) -> Reply {
        let first = MAX_GID << 48
            | MAX_CQE << 40
            | FLAGS << 24
            | MAX_RECV_WR << 16
            | MAX_AH << 8
            | MAX_MR_SIZE;
        let second = u64::from(LOCAL_DMA_KEY) << 32 | u64::from(Limits::BLOCKS) << 16;
        Ok((first, second))
    }

    fn create_eq(&mut self, device: usize, c: Command<'_>) -> Reply {
        let (address, vector, number, log2) =
            (c.u64(8), c.u8(16), u32::from(c.u8(17)), u32::from(c.u8(18)));
        let depth = depth_of(log2, 15).ok_or(format!("an EQ of 2^{log2} entries"))?;
        if usize::from(vector) >= crate::irq::VECTORS || number == 0 || number >= 32 {
            return Err(format!(
                "EQ {number} with interrupt vector {vector}: there are 1 to 31"
            ));
        }
        let queues = &mut self.devices[device].event_queues;
        if queues.contains_key(&number) {
            return Err(format!("EQ {number} exists"));
        }
        queues.insert(number, EventQueue::new(address, depth, vector.into()));
        DONE
    }

    fn destroy_eq(&mut self, device: usize, c: Command<'_>) -> Reply {
        let number = u32::from(c.u8(17));
        if number == 0 || self.devices[device].event_queues.remove(&number).is_none() {
            return Err(format!("there is no EQ {number}"));
        }
        DONE
    }

    fn create_cq(&mut self, device: usize, c: Command<'_>) -> Reply {
        let cqn = c.bits(8, 19, 0);
        let log2 = c.bits(8, 31, 24);
        let depth = depth_of(log2, MAX_CQE as u32).ok_or(format!("a CQ of 2^{log2} entries"))?;
        let eqn = c.bits(20, 9, 0);
        let shift = c.bits(8, 23, 20) + 12;
        let address = c.u64(12);
        let (count, offset) = (c.bits(20, 31, 16).into(), c.u32(32).into());
        let buffer = match c.bits(20, 15, 15) {
            0 => Buffer::inline(shift, offset, [address, 0, 0, 0], count),
            _ => Buffer::table(shift, offset, address, count),
        };
        let d = &mut self.devices[device];
        if !d.event_queues.contains_key(&eqn) || eqn == 0 {
            return Err(format!("CQ {cqn} with EQ {eqn}, which does not exist"));
        }
        if d.cqs.len() >= d.limits.cqs {
            return Err(format!("there are {} CQs already", d.cqs.len()));
        }
        if d.cqs.contains_key(&cqn) {
            return Err(format!("CQ {cqn} exists"));
        }
        let mut queue = CompletionQueue::new(buffer, depth, eqn);
        queue.record = c.u64(24);
        d.cqs.insert(cqn, queue);
        DONE
    }

    fn destroy_cq(&mut self, device: usize, cqn: u32) -> Reply {
        let d = &mut self.devices[device];
        if let Some((qpn, _)) = d
            .qps
            .iter()
            .find(|(_, qp)| qp.send.cqn == cqn || qp.recv.cqn == cqn)
        {
            return Err(format!("CQ {cqn} is used by QP {qpn}"));
        }
        match d.cqs.remove(&cqn) {
            Some(_) => DONE,
            None => Err(format!("there is no CQ {cqn}")),
        }
    }

    fn create_qp(&mut self, device: usize, c: Command<'_>) -> Reply {
        let qpn = c.bits(8, 19, 0);
        let pd = c.bits(12, 19, 0);
        // A queue: words with its depth, its CQ and its pages, its address, that of its record, further addresses.
        let queue = |depth: usize, cq: usize, pages: usize, address: usize, record: usize, more| {
            let log2 = c.bits(depth, 31, 20);
            let depth = depth_of(log2, 15).ok_or(format!("QP {qpn} with 2^{log2} entries"))?;
            let shift = c.bits(cq, 31, 28) + 12;
            let offset = u64::from(c.u32(pages) & 0xffff_f000);
            let count = c.bits(pages, 11, 1).into();
            let first = c.u64(address);
            let buffer = match c.bits(pages, 0, 0) {
                0 => Buffer::inline(
                    shift,
                    offset,
                    [first, c.u64(more), c.u64(more + 8), c.u64(more + 16)],
                    count,
                ),
                _ => Buffer::table(shift, offset, first, count),
            };
            Ok::<_, String>(WorkQueue {
                buffer,
                depth,
                pi: 0,
                ci: 0,
                cqn: c.bits(cq, 23, 0),
                record: c.u64(record),
            })
        };
        let send = queue(8, 16, 40, 24, 48, 64)?;
        let recv = queue(12, 20, 44, 32, 56, 88)?;
        let kind = match c.bits(116, 3, 0) {
            0 => Kind::Connected,
            1 => Kind::Datagram,
            other => return Err(format!("QP {qpn} of type {other}")),
        };
        let cookie = self.next_cookie;
        self.next_cookie = self.next_cookie.wrapping_add(1);
        let d = &mut self.devices[device];
        if d.qps.len() >= d.limits.qps {
            return Err(format!("there are {} QPs already", d.qps.len()));
        }
        if d.qps.contains_key(&qpn) {
            return Err(format!("QP {qpn} exists"));
        }
        for cqn in [send.cqn, recv.cqn] {
            if !d.cqs.contains_key(&cqn) {
                return Err(format!("QP {qpn} with CQ {cqn}, which does not exist"));
            }
        }
        let state = if d.protocol == Protocol::Iwarp {
            State::Init
        } else {
            State::Reset
        };
        d.qps
            .insert(qpn, Qp::new(kind, pd, state, send, recv, cookie));
        Ok((cookie.into(), 0))
    }

    fn modify_qp(&mut self, device: usize, c: Command<'_>) -> Reply {
        let qpn = c.bits(8, 19, 0);
        let number = c.bits(8, 31, 24);
        let iwarp = self.devices[device].protocol == Protocol::Iwarp;
        let qp = self.devices[device]
            .qps
            .get_mut(&qpn)
            .ok_or(format!("there is no QP {qpn}"))?;
        let mask = if iwarp { modify::STATE } else { c.u32(16) };
        let old = qp.state;
        let next = if mask & modify::STATE != 0 {
            let state = if iwarp {
                State::from_iwarp(number)
            } else {
                State::from_roce(number)
            };
            let state = state.ok_or(format!("QP {qpn}: there is no state {number}"))?;
            // iWARP goes from IDLE straight to RTS.
            let straight = iwarp && state == State::Rts && old == State::Init;
            if !straight && !old.may_become(state) {
                return Err(format!(
                    "QP {qpn} cannot go from {} to {}",
                    old.name(),
                    state.name()
                ));
            }
            state
        } else {
            old
        };
        if iwarp {
            if next == State::Rts {
                // Addresses and ports are in network order.
                let address = |at| u32::from_be_bytes(c.bytes(at));
                let port = |at| u16::from_be_bytes(c.bytes(at));
                qp.peer_cookie = c.u32(12);
                qp.tuple = Some(Tuple {
                    source: (address(20), port(24)),
                    target: (address(16), port(26)),
                });
            }
        } else {
            if mask & modify::TARGET != 0 {
                qp.target_qpn = c.bits(12, 19, 0);
            }
            if mask & modify::QKEY != 0 {
                qp.qkey = c.u32(20);
            }
            if mask & modify::RQ_PSN != 0 {
                qp.recv_psn = c.u32(24) & 0xff_ffff;
            }
            if mask & modify::SQ_PSN != 0 {
                qp.send_psn = c.u32(28) & 0xff_ffff;
            }
            if mask & modify::ADDRESS != 0 {
                qp.target = Some(c.bytes(52));
            }
        }
        qp.state = next;
        match next {
            State::Reset => qp.reset(),
            State::Error => self.flush(device, qpn),
            State::Rts => self.run_send_queue(device, qpn),
            _ => {}
        }
        if next != old {
            self.note(
                device,
                What::State {
                    qpn,
                    state: next.name(),
                },
            );
        }
        DONE
    }

    fn query_qp(&mut self, device: usize, qpn: u32) -> Reply {
        let qp = self.devices[device]
            .qps
            .get(&qpn)
            .ok_or(format!("there is no QP {qpn}"))?;
        Ok((
            u64::from(qp.send_psn) | u64::from(qp.recv_psn) << 24 | qp.state.roce() << 48,
            0,
        ))
    }

    fn destroy_qp(&mut self, device: usize, qpn: u32) -> Reply {
        match self.devices[device].qps.remove(&qpn) {
            Some(_) => DONE,
            None => Err(format!("there is no QP {qpn}")),
        }
    }

    /// The driver has posted to a pair in error: what it posted comes back.
    fn reflush(&mut self, device: usize, qpn: u32, send: u16, recv: u16) -> Reply {
        let qp = self.devices[device]
            .qps
            .get_mut(&qpn)
            .ok_or(format!("there is no QP {qpn}"))?;
        if qp.state != State::Error {
            // The driver's order comes late: the pair has been reset meanwhile.
            return DONE;
        }
        for (queue, pi) in [(&mut qp.send, send), (&mut qp.recv, recv)] {
            if !queue.advance(pi) {
                return Err(format!(
                    "QP {qpn}: reflush up to {pi}, which is not in the ring"
                ));
            }
        }
        self.flush(device, qpn);
        DONE
    }

    fn register_region(&mut self, device: usize, c: Command<'_>) -> Reply {
        let index = c.bits(8, 19, 0);
        let kind = match c.bits(12, 7, 6) {
            0 => RegionKind::Normal,
            1 => RegionKind::Fast,
            2 => RegionKind::Dma,
            other => return Err(format!("MR {index} of type {other}")),
        };
        let level = c.bits(28, 21, 20) as u8;
        let many = c.bits(8, 30, 28) == 1;
        let mut count = u64::from(c.bits(28, 19, 0));
        let mut length = u64::from(c.u32(24));
        if many {
            length |= u64::from(c.u32(40)) << 32;
            count |= u64::from(c.u32(44)) << 20;
        }
        let page_shift = c.bits(28, 31, 27);
        let table = match level {
            0 => Table::Inline([c.u64(32), c.u64(40), c.u64(48), c.u64(56)]),
            _ => Table::Memory {
                address: c.u64(32),
                level,
                page_shift: 12 + c.bits(28, 26, 24),
            },
        };
        if level == 0 {
            count = count.min(4);
        }
        let d = &mut self.devices[device];
        if kind == RegionKind::Normal && !(12..=31).contains(&page_shift) {
            return Err(format!("MR {index} with pages of 2^{page_shift} bytes"));
        }
        if d.faults.refuses_registration() {
            return Err(format!("MR {index}: refused by a fault that was ordered"));
        }
        if d.regions.len() >= d.limits.regions {
            return Err(format!("there are {} MRs already", d.regions.len()));
        }
        let region = Region {
            kind,
            pd: c.bits(12, 31, 12),
            key: c.bits(8, 27, 20) as u8,
            // A region for all memory has no pages to wait for.
            valid: c.bits(8, 31, 31) == 1 || kind == RegionKind::Dma,
            rights: c.bits(12, 5, 1) as u8,
            start: c.u64(16),
            length,
            // What a fast one registers are pages of 4 KiB.
            page_shift: if kind == RegionKind::Normal {
                page_shift
            } else {
                12
            },
            table,
            count,
            own: (table, count),
        };
        match d.regions.insert(index, region) {
            true => DONE,
            false => Err(format!("MR {index} exists")),
        }
    }

    fn remove_region(&mut self, device: usize, c: Command<'_>) -> Reply {
        match self.devices[device].regions.remove(c.bits(8, 19, 0)) {
            true => DONE,
            false => Err(format!("there is no MR {}", c.bits(8, 19, 0))),
        }
    }

    fn set_gid(&mut self, device: usize, c: Command<'_>) -> Reply {
        let index = c.bits(8, 15, 0) as usize;
        let place = self.devices[device]
            .gids
            .get_mut(index)
            .ok_or(format!("there is no GID {index}"))?;
        *place = match c.bits(8, 31, 31) {
            0 => Some(c.bytes(12)),
            _ => None,
        };
        DONE
    }

    fn create_handle(&mut self, device: usize, c: Command<'_>) -> Reply {
        let number = c.u32(12);
        let d = &mut self.devices[device];
        if d.handles.len() >= d.limits.handles {
            return Err(format!(
                "there are {} address handles already",
                d.handles.len()
            ));
        }
        if d.handles.insert(number, c.bytes(36)).is_some() {
            return Err(format!("address handle {number} exists"));
        }
        DONE
    }

    fn configure_mtu(&mut self, device: usize, netdev: u32) -> Reply {
        // What a packet of the network device leaves for an RDMA packet, rounded down as the verbs have it.
        let fitting = [4096, 2048, 1024, 512, 256]
            .into_iter()
            .find(|mtu| mtu + 80 <= netdev);
        self.devices[device].mtu = fitting.ok_or(format!("an MTU of {netdev} bytes"))?;
        DONE
    }

    fn statistics(&mut self, device: usize, address: u64, length: u32) -> Reply {
        let d = &mut self.devices[device];
        let c = &d.counters;
        let values = [
            c.requests,
            c.requests,
            c.bytes_out,
            0,
            0,
            0,
            c.messages_in,
            c.bytes_in,
            c.dropped_completions,
            0,
            0,
        ];
        let mut bytes = Vec::from(STATISTICS_MAGIC.to_le_bytes());
        bytes.extend([1, 0]);
        bytes.resize(16, 0);
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        if bytes.len() > length as usize {
            return Err(format!("{length} bytes are too few for the statistics"));
        }
        match d.memory.write(address, &bytes) {
            Ok(()) => DONE,
            Err(_) => Err("the place for the statistics is not in memory".into()),
        }
    }

    /// A page of doorbells of each kind for a process. Page 0 of each is the kernel's, and the last of the senders'.
    fn allocate_doorbells(&mut self, device: usize) -> Reply {
        let first =
            [reg::SEND_DOORBELLS, reg::RECV_DOORBELLS, reg::CQ_DOORBELLS].map(|at| at / 4096);
        let count = [94, 24, 7];
        let mut got = [0; 3];
        let pages = &mut self.devices[device].doorbell_pages;
        for (kind, used) in pages.iter_mut().enumerate() {
            used.resize(count[kind], false);
            // When all are given out they are shared: a doorbell names its queue.
            let page = used.iter().skip(1).position(|u| !u).map_or(1, |n| n + 1);
            used[page] = true;
            got[kind] = first[kind] + page as u64;
        }
        let [send, recv, cq] = got;
        // The driver rings its CQs at what it calls the receive queues' page, and the other way round.
        Ok((cq << 48 | recv << 32 | send, 0))
    }

    fn free_doorbells(&mut self, device: usize, c: Command<'_>) -> Reply {
        // Of the driver's structure: receive and send offsets at 12 and 14, completion at 18.
        let offsets = [
            (c.u16(14), reg::SEND_DOORBELLS),
            (c.u16(18), reg::RECV_DOORBELLS),
            (c.u16(12), reg::CQ_DOORBELLS),
        ];
        for ((offset, first), used) in offsets
            .into_iter()
            .zip(&mut self.devices[device].doorbell_pages)
        {
            if let Some(page) = u64::from(offset)
                .checked_sub(first / 4096)
                .and_then(|n| used.get_mut(n as usize))
            {
                *page = false;
            }
        }
        DONE
    }
}
