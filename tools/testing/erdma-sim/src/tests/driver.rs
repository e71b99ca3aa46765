//! A small driver on plain memory: what the tests have in place of a machine.

use crate::mr::{right, LOCAL_DMA_KEY};
use crate::wire::{bits, command, reg, Op, Queue};
use crate::world::{Device, Protocol, Settings, World};

pub const MS: u64 = 1_000_000;
/// Where a machine's memory begins, and how long it is.
pub const BASE: u64 = 0x10_0000;
pub const SIZE: u64 = 0x20_0000;
const DEPTH: u64 = 512;
pub const PD: u32 = 3;
pub const ALL: u8 = 31;

/// One CQE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wc {
    pub queue: u8,
    pub op: u8,
    pub syndrome: u8,
    pub index: u16,
    pub qpn: u32,
    pub data: [u8; 4],
    pub size: u32,
    pub datagram: u32,
}

impl Wc {
    /// Of a send queue or a receive queue, with its operation and its syndrome.
    pub fn is(&self, queue: Queue, op: Op, syndrome: crate::wire::Syndrome) -> bool {
        (self.queue, self.op, self.syndrome) == (queue as u8, op as u8, syndrome as u8)
    }
}

pub struct Driver {
    pub device: usize,
    free: u64,
    sq: u64,
    cq: u64,
    sq_pi: u16,
    cq_ci: u32,
    aeq: u64,
    aeq_ci: u32,
    next: u32,
    pub gid: [u8; 16],
}

pub struct Cq {
    pub cqn: u32,
    at: u64,
    depth: u32,
    ci: u32,
    pub record: u64,
}

pub struct Qp {
    pub qpn: u32,
    sq: u64,
    rq: u64,
    pub sq_pi: u16,
    pub rq_pi: u16,
    pub sq_record: u64,
    pub rq_record: u64,
}

pub const QP_DEPTH: u64 = 64;

pub fn world(protocol: Protocol) -> World {
    let devices = (0..2)
        .map(|n| {
            let mut device =
                Device::new(&format!("device {n}"), [0x52, 0x54, 0, 9, 0, n], protocol);
            device.memory.map_anonymous(BASE, SIZE).unwrap();
            device
        })
        .collect();
    World::new(devices, Settings::default())
}

/// Lets time go by, up to a moment, with every timer on its way.
pub fn pass(w: &mut World, span: u64) {
    let end = w.now + span;
    while let Some(due) = w.next_due().filter(|due| *due <= end) {
        w.now = due.max(w.now);
        w.run_timers();
    }
    w.now = end;
}

impl Driver {
    /// Probes: rings, one EQ for completions, and the GID.
    pub fn probe(w: &mut World, device: usize) -> Driver {
        let gid = [
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0xff,
            0xff,
            10,
            9,
            0,
            device as u8 + 1,
        ];
        let mut d = Driver {
            device,
            free: BASE,
            sq: 0,
            cq: 0,
            sq_pi: 0,
            cq_ci: 0,
            aeq: 0,
            aeq_ci: 0,
            next: 1,
            gid,
        };
        (d.sq, d.cq) = (d.take(DEPTH * 32), d.take(DEPTH * 32));
        let eq = d.take(128 * 16);
        d.aeq = d.take(128 * 16);
        // As a machine has it that was used before.
        for at in (BASE..d.free).step_by(8) {
            w.devices[device].memory.write(at, &[0; 8]).unwrap();
        }
        for (low, value) in [(reg::CMDQ_SQ_ADDR_LOW, d.sq), (reg::CMDQ_CQ_ADDR_LOW, d.cq)] {
            d.write32(w, low, value as u32);
            d.write32(w, low + 4, (value >> 32) as u32);
        }
        d.write32(w, reg::CMDQ_EQ_ADDR_LOW, eq as u32);
        d.write32(w, reg::AEQ_ADDR_LOW, d.aeq as u32);
        d.write32(w, reg::CMDQ_DEPTH, DEPTH as u32);
        d.write32(w, reg::CMDQ_EQ_DEPTH, 128);
        d.write32(w, reg::AEQ_DEPTH, 128);
        d.write32(w, reg::CONTROL, reg::CONTROL_INIT);
        assert_eq!(d.read32(w, reg::STATUS), reg::STATUS_INIT_DONE);
        let ceq = d.take(128 * 16);
        d.must(
            w,
            command::CREATE_EQ,
            &[(8, 8, ceq), (16, 1, 1), (17, 1, 1), (18, 1, 7), (19, 1, 1)],
        );
        let [low, high] = [0, 8].map(|at| u64::from_le_bytes(gid[at..at + 8].try_into().unwrap()));
        d.must(
            w,
            command::SET_GID,
            &[(8, 4, 1), (12, 8, low), (20, 8, high)],
        );
        d
    }

    /// Memory of the machine, on a page of its own.
    pub fn take(&mut self, size: u64) -> u64 {
        let at = self.free;
        self.free = (at + size).next_multiple_of(4096);
        assert!(self.free <= BASE + SIZE);
        at
    }

    pub fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub fn write32(&self, w: &mut World, at: u64, value: u32) {
        w.bar_write(self.device, at, &value.to_le_bytes());
    }

    pub fn write64(&self, w: &mut World, at: u64, value: u64) {
        w.bar_write(self.device, at, &value.to_le_bytes());
    }

    pub fn read32(&self, w: &mut World, at: u64) -> u32 {
        let mut bytes = [0; 4];
        w.bar_read(self.device, at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub fn put(&self, w: &World, at: u64, bytes: &[u8]) {
        w.devices[self.device].memory.write(at, bytes).unwrap();
    }

    pub fn get<const N: usize>(&self, w: &World, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        w.devices[self.device].memory.read(at, &mut bytes).unwrap();
        bytes
    }

    /// A command with fields (place, bytes, value); its syndrome and response, or nothing while it hangs.
    pub fn command(
        &mut self,
        w: &mut World,
        code: (u8, u8),
        fields: &[(usize, usize, u64)],
    ) -> Option<(u8, u64)> {
        let mut bytes = [0; 128];
        let at = self.sq + (u64::from(self.sq_pi) % DEPTH) * 32;
        self.sq_pi = self.sq_pi.wrapping_add(4);
        let header =
            u64::from(code.1) << 16 | u64::from(code.0) << 24 | 3 << 52 | u64::from(self.sq_pi);
        bytes[..8].copy_from_slice(&header.to_le_bytes());
        for (place, size, value) in fields {
            bytes[*place..place + size].copy_from_slice(&value.to_le_bytes()[..*size]);
        }
        self.put(w, at, &bytes);
        self.write64(w, reg::CMDQ_SQ_DOORBELL, self.sq_pi.into());
        self.reply(w)
    }

    pub fn reply(&mut self, w: &World) -> Option<(u8, u64)> {
        let entry: [u8; 32] = self.get(w, self.cq + (u64::from(self.cq_ci) % DEPTH) * 32);
        if (entry[0] >> 7 == 1) == (self.cq_ci & DEPTH as u32 != 0) {
            return None;
        }
        self.cq_ci += 1;
        let word = |at: usize| u64::from(u32::from_be_bytes(entry[at..at + 4].try_into().unwrap()));
        Some((entry[3], word(8) | word(12) << 32))
    }

    pub fn must(&mut self, w: &mut World, code: (u8, u8), fields: &[(usize, usize, u64)]) -> u64 {
        let (syndrome, response) = self.command(w, code, fields).expect("a reply");
        assert_eq!(syndrome, 0, "command {code:?}");
        response
    }

    pub fn refused(
        &mut self,
        w: &mut World,
        code: (u8, u8),
        fields: &[(usize, usize, u64)],
    ) -> bool {
        self.command(w, code, fields).expect("a reply").0 != 0
    }

    /// The next asynchronous event: kind and number.
    pub fn event(&mut self, w: &World) -> Option<(u32, u32)> {
        let entry: [u8; 16] = self.get(w, self.aeq + u64::from(self.aeq_ci % 128) * 16);
        let header = u64::from(u32::from_le_bytes(entry[..4].try_into().unwrap()));
        if (header >> 31 == 1) == (self.aeq_ci & 128 != 0) {
            return None;
        }
        self.aeq_ci += 1;
        Some((
            bits(header, 23, 16) as u32,
            u32::from_le_bytes(entry[4..8].try_into().unwrap()),
        ))
    }

    pub fn cq(&mut self, w: &mut World) -> Cq {
        let depth = 256;
        let cq = Cq {
            cqn: self.number(),
            at: self.take(u64::from(depth) * 32),
            depth,
            ci: 0,
            record: self.take(8),
        };
        let fields = [
            (8, 4, 8 << 24 | 13 << 20 | u64::from(cq.cqn)),
            (12, 8, cq.at),
            (20, 4, 1 << 16 | 1),
            (24, 8, cq.record),
        ];
        self.must(w, command::CREATE_CQ, &fields);
        cq
    }

    pub fn arm(&self, w: &mut World, cq: &Cq, solicited: bool) {
        let value =
            u64::from(cq.cqn) << 32 | 1 << 31 | u64::from(solicited) << 30 | u64::from(cq.ci);
        self.put(w, cq.record, &value.to_le_bytes());
        self.write64(w, reg::CQ_DOORBELLS, value);
    }

    pub fn poll(&self, w: &World, cq: &mut Cq) -> Option<Wc> {
        let entry: [u8; 32] = self.get(w, cq.at + u64::from(cq.ci % cq.depth) * 32);
        if (entry[0] >> 7 == 1) == (cq.ci & cq.depth != 0) {
            return None;
        }
        cq.ci += 1;
        let word = |at: usize| u32::from_be_bytes(entry[at..at + 4].try_into().unwrap());
        Some(Wc {
            queue: entry[2],
            op: entry[1],
            syndrome: entry[3],
            index: word(4) as u16,
            qpn: word(8),
            data: entry[12..16].try_into().unwrap(),
            size: word(16),
            datagram: word(28),
        })
    }

    pub fn qp_of(&mut self, w: &mut World, send: &Cq, recv: &Cq, qpn: u32, kind: u64) -> (Qp, u64) {
        let qp = Qp {
            qpn,
            sq: self.take(QP_DEPTH * 32),
            rq: self.take(QP_DEPTH * 32),
            sq_pi: 0,
            rq_pi: 0,
            sq_record: self.take(8),
            rq_record: self.take(8),
        };
        let fields = [
            (8, 4, 6 << 20 | u64::from(qpn)),
            (12, 4, 6 << 20 | u64::from(PD)),
            (16, 4, 8 << 28 | u64::from(send.cqn)),
            (20, 4, 8 << 28 | u64::from(recv.cqn)),
            (24, 8, qp.sq),
            (32, 8, qp.rq),
            (40, 4, 1 << 1),
            (44, 4, 1 << 1),
            (48, 8, qp.sq_record),
            (56, 8, qp.rq_record),
            (116, 4, kind),
        ];
        let cookie = self.must(w, command::CREATE_QP, &fields);
        (qp, cookie)
    }

    pub fn qp(&mut self, w: &mut World, send: &Cq, recv: &Cq) -> Qp {
        let qpn = self.number();
        self.qp_of(w, send, recv, qpn, 0).0
    }

    pub fn move_to(&mut self, w: &mut World, qp: &Qp, state: u64) -> bool {
        !self.refused(
            w,
            command::MODIFY_QP,
            &[(8, 4, state << 24 | u64::from(qp.qpn)), (16, 4, 1)],
        )
    }

    /// INIT, RTR and RTS, towards a pair of another device (or the same).
    pub fn connect(&mut self, w: &mut World, qp: &Qp, gid: [u8; 16], peer: u32) {
        assert!(self.move_to(w, qp, 1));
        let [low, high] = [0, 8].map(|at| u64::from_le_bytes(gid[at..at + 8].try_into().unwrap()));
        let target = [
            (12, 4, peer.into()),
            (24, 4, 100),
            (52, 8, low),
            (60, 8, high),
        ];
        let head = [
            (8, 4, 2 << 24 | u64::from(qp.qpn)),
            (16, 4, 1 | 4 | 16 | 32),
        ];
        self.must(w, command::MODIFY_QP, &[&head[..], &target[..]].concat());
        self.must(
            w,
            command::MODIFY_QP,
            &[
                (8, 4, 3 << 24 | u64::from(qp.qpn)),
                (16, 4, 1 | 8),
                (28, 4, 100),
            ],
        );
    }

    /// To RTS at once, as the driver does when its TCP connection has said enough: the peer is named by that, by address and
    /// port of both ends.
    pub fn connect_iwarp(
        &mut self,
        w: &mut World,
        qp: &Qp,
        cookie: u64,
        own: (u32, u16),
        peer: (u32, u16),
    ) {
        let big = |value: u32| u64::from(value.swap_bytes());
        let port = |value: u16| u64::from(value.swap_bytes());
        let fields = [
            (8, 4, 2 << 24 | u64::from(qp.qpn)),
            (12, 4, cookie),
            (16, 4, big(peer.0)),
            (20, 4, big(own.0)),
            (24, 2, port(own.1)),
            (26, 2, port(peer.1)),
        ];
        self.must(w, command::MODIFY_QP, &fields);
    }

    /// A region of up to four pages; its key.
    pub fn region(&mut self, w: &mut World, at: u64, length: u64, rights: u8) -> u32 {
        let index = self.number();
        let first = at & !4095;
        let fields = [
            (8, 4, 1 << 31 | 7 << 20 | u64::from(index)),
            (12, 4, u64::from(PD) << 12 | u64::from(rights) << 1),
            (16, 8, at),
            (24, 4, length),
            (28, 4, 12 << 27 | 4),
            (32, 8, first),
            (40, 8, first + 0x1000),
            (48, 8, first + 0x2000),
            (56, 8, first + 0x3000),
        ];
        self.must(w, command::REG_MR, &fields);
        index << 8 | 7
    }

    /// A fast region with a table of its own for so many pages; its index and its table.
    pub fn fast_region(&mut self, w: &mut World, pages: u64) -> (u32, u64) {
        let (index, table) = (self.number(), self.take(pages * 8));
        let fields = [
            (8, 4, u64::from(index)),
            (12, 4, u64::from(PD) << 12 | 1 << 6 | u64::from(ALL) << 1),
            (28, 4, 12 << 27 | 1 << 20 | pages),
            (32, 8, table),
        ];
        self.must(w, command::REG_MR, &fields);
        (index, table)
    }

    /// Posts 32-byte entries, of which the first begins with 24 bytes after the header.
    pub fn post(&self, w: &mut World, qp: &mut Qp, op: Op, flags: u64, listed: u64, body: &[u8]) {
        let entries = (8 + body.len()).div_ceil(32) as u64;
        let index = qp.sq_pi;
        qp.sq_pi = qp.sq_pi.wrapping_add(entries as u16);
        let header = listed << 56
            | (entries - 1) << 52
            | u64::from(qp.qpn) << 32
            | (op as u64) << 27
            | flags
            | u64::from(qp.sq_pi);
        let mut bytes = Vec::from(header.to_le_bytes());
        bytes.extend(body);
        for (n, entry) in bytes.chunks(32).enumerate() {
            let slot = (u64::from(index) + n as u64) % QP_DEPTH;
            self.put(w, qp.sq + slot * 32, entry);
        }
        self.ring(w, qp);
    }

    pub fn ring(&self, w: &mut World, qp: &Qp) {
        let value = u64::from(qp.qpn) << 32 | u64::from(qp.sq_pi);
        self.put(w, qp.sq_record, &value.to_le_bytes());
        self.write64(w, reg::SEND_DOORBELLS + 95 * 4096 - 4096, value);
    }

    pub fn post_recv(&self, w: &mut World, qp: &mut Qp, at: u64, length: u32, key: u32) {
        let slot = u64::from(qp.rq_pi) % QP_DEPTH;
        qp.rq_pi = qp.rq_pi.wrapping_add(1);
        let first = u64::from(qp.qpn) << 32 | u64::from(qp.rq_pi);
        let words = [first, 0, at, u64::from(key) << 32 | u64::from(length)];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(w, qp.rq + slot * 32, &bytes);
        self.put(w, qp.rq_record, &first.to_le_bytes());
        self.write64(w, reg::RECV_DOORBELLS, first);
    }

    pub fn send(
        &self,
        w: &mut World,
        qp: &mut Qp,
        op: Op,
        flags: u64,
        word: [u8; 4],
        from: (u64, u32),
    ) {
        let mut body = Vec::from(word);
        body.extend(from.1.to_le_bytes());
        body.extend(sge(from.0, from.1, LOCAL_DMA_KEY));
        self.post(w, qp, op, flags, 1, &body);
    }

    pub fn write(&self, w: &mut World, qp: &mut Qp, op: Op, from: (u64, u32), to: (u64, u32)) {
        let mut body = vec![0xa1, 0xa2, 0xa3, 0xa4];
        body.extend(from.1.to_le_bytes());
        body.extend(to.1.to_le_bytes());
        body.extend(to.0.to_le_bytes());
        body.extend([0; 4]);
        body.extend(sge(from.0, from.1, LOCAL_DMA_KEY));
        self.post(w, qp, op, SIGNALLED, 1, &body);
    }

    pub fn read(&self, w: &mut World, qp: &mut Qp, sink: (u64, u32, u32), source: (u64, u32)) {
        let mut body = vec![0; 4];
        body.extend(sink.1.to_le_bytes());
        body.extend(sink.2.to_le_bytes());
        body.extend(sink.0.to_le_bytes());
        body.extend([0; 4]);
        body.extend(sge(source.0, sink.1, source.1));
        self.post(w, qp, Op::Read, SIGNALLED, 0, &body);
    }

    /// REG_MR of pages (inline, or in the region's table).
    pub fn register(
        &self,
        w: &mut World,
        qp: &mut Qp,
        stag: u32,
        range: (u64, u32),
        pages: &[u64],
        inline: bool,
    ) {
        let mut body = Vec::from(range.0.to_le_bytes());
        body.extend(range.1.to_le_bytes());
        body.extend(stag.to_le_bytes());
        let attributes = (pages.len() as u32) << 12 | u32::from(!inline) << 6 | u32::from(ALL) << 1;
        body.extend(attributes.to_le_bytes());
        body.extend([0; 4]);
        if inline {
            body.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
        }
        self.post(w, qp, Op::Register, SIGNALLED, 0, &body);
    }

    pub fn invalidate(&self, w: &mut World, qp: &mut Qp, stag: u32) {
        let mut body = vec![0; 24];
        body[12..16].copy_from_slice(&stag.to_le_bytes());
        self.post(w, qp, Op::LocalInvalidate, SIGNALLED, 0, &body);
    }
}

pub const SIGNALLED: u64 = 1 << 22;
pub const SOLICITED: u64 = 1 << 23;
pub const INLINE: u64 = 1 << 25;
/// What a receive's region needs.
pub const LOCAL: u8 = right::LOCAL_READ | right::LOCAL_WRITE;

pub fn sge(at: u64, length: u32, key: u32) -> Vec<u8> {
    [
        at.to_le_bytes(),
        (u64::from(key) << 32 | u64::from(length)).to_le_bytes(),
    ]
    .concat()
}

/// Two connected pairs, each with a CQ for both of its queues.
pub struct Pair {
    pub a: Driver,
    pub b: Driver,
    pub qa: Qp,
    pub qb: Qp,
    pub ca: Cq,
    pub cb: Cq,
}

pub fn pair(w: &mut World) -> Pair {
    let (mut a, mut b) = (Driver::probe(w, 0), Driver::probe(w, 1));
    let (ca, cb) = (a.cq(w), b.cq(w));
    // Of different numbers.
    b.number();
    let (na, nb) = (a.number(), b.number());
    let (qa, cookie_a) = a.qp_of(w, &ca, &ca, na, 0);
    let (qb, cookie_b) = b.qp_of(w, &cb, &cb, nb, 0);
    match w.devices[0].protocol {
        Protocol::Roce => {
            a.connect(w, &qa, b.gid, qb.qpn);
            b.connect(w, &qb, a.gid, qa.qpn);
        }
        Protocol::Iwarp => {
            let (one, two) = ((0x0a09_0001, 40_000), (0x0a09_0002, 7));
            a.connect_iwarp(w, &qa, cookie_b, one, two);
            b.connect_iwarp(w, &qb, cookie_a, two, one);
        }
    }
    Pair {
        a,
        b,
        qa,
        qb,
        ca,
        cb,
    }
}
