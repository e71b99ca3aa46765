//! What driver and device say to each other: the numbers and the places of fields, as the mainline driver has them.

/// Bits `high`..=`low` of a word.
pub const fn bits(word: u64, high: u32, low: u32) -> u64 {
    (word >> low) & (u64::MAX >> (63 - (high - low)))
}

/// Little-endian fields of a command or a work request at fixed places.
#[derive(Clone, Copy)]
pub struct Fields<'a, const N: usize>(pub &'a [u8; N]);

impl<const N: usize> Fields<'_, N> {
    fn take<const L: usize>(&self, at: usize) -> [u8; L] {
        // Places are constants of this crate: a wrong one fails in the first test.
        self.0[at..at + L].try_into().unwrap_or([0; L])
    }
    pub fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.take(at))
    }
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.take(at))
    }
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.take(at))
    }
    /// Bits of the 32-bit word at a place.
    pub fn bits(&self, at: usize, high: u32, low: u32) -> u32 {
        bits(self.u32(at).into(), high, low) as u32
    }
    pub fn bytes<const L: usize>(&self, at: usize) -> [u8; L] {
        self.take(at)
    }
}

/// The places in BAR 0.
pub mod reg {
    pub const VERSION: u64 = 0x0;
    pub const PROTOCOL: u64 = 0xc;
    pub const CONTROL: u64 = 0x10;
    pub const STATUS: u64 = 0x14;
    pub const MAC_LOW: u64 = 0x18;
    pub const MAC_HIGH: u64 = 0x1c;
    pub const CMDQ_SQ_ADDR_LOW: u64 = 0x20;
    pub const CMDQ_SQ_ADDR_HIGH: u64 = 0x24;
    pub const CMDQ_CQ_ADDR_LOW: u64 = 0x28;
    pub const CMDQ_CQ_ADDR_HIGH: u64 = 0x2c;
    pub const CMDQ_DEPTH: u64 = 0x30;
    pub const CMDQ_EQ_DEPTH: u64 = 0x34;
    pub const CMDQ_EQ_ADDR_LOW: u64 = 0x38;
    pub const CMDQ_EQ_ADDR_HIGH: u64 = 0x3c;
    pub const AEQ_ADDR_LOW: u64 = 0x40;
    pub const AEQ_ADDR_HIGH: u64 = 0x44;
    pub const AEQ_DEPTH: u64 = 0x48;
    pub const GROUPS: u64 = 0x4c;
    pub const AEQ_DOORBELL: u64 = 0x50;
    // 0x60 to 0x7f: where in memory the doorbells of those rings are recorded, too. Those of pairs and completion queues
    // are compared (`Device::check_record`), these are not.
    pub const STATISTICS: u64 = 0x80;
    pub const STATISTICS_END: u64 = 0xe8;
    /// The command queue's EQ, then the CEQs, 8 bytes each.
    pub const EQ_DOORBELLS: u64 = 0x100;
    pub const CMDQ_SQ_DOORBELL: u64 = 0x200;
    pub const CMDQ_CQ_DOORBELL: u64 = 0x300;
    /// Doorbells of queue pairs and completion queues, by pages.
    pub const SEND_DOORBELLS: u64 = 0x1000;
    pub const RECV_DOORBELLS: u64 = SEND_DOORBELLS + 384 * 1024;
    pub const CQ_DOORBELLS: u64 = RECV_DOORBELLS + 96 * 1024;
    pub const SIZE: u64 = 512 * 1024;

    pub const CONTROL_RESET: u32 = 1;
    pub const CONTROL_INIT: u32 = 2;
    pub const STATUS_RESET_DONE: u32 = 1;
    pub const STATUS_INIT_DONE: u32 = 2;
}

/// Commands, as (sub-module, opcode).
pub mod command {
    pub const QUERY_DEVICE: (u8, u8) = (0, 0);
    pub const CREATE_QP: (u8, u8) = (0, 1);
    pub const DESTROY_QP: (u8, u8) = (0, 2);
    pub const MODIFY_QP: (u8, u8) = (0, 3);
    pub const CREATE_CQ: (u8, u8) = (0, 4);
    pub const DESTROY_CQ: (u8, u8) = (0, 5);
    pub const REFLUSH: (u8, u8) = (0, 6);
    pub const REG_MR: (u8, u8) = (0, 8);
    pub const DEREG_MR: (u8, u8) = (0, 9);
    pub const SET_GID: (u8, u8) = (0, 14);
    pub const CREATE_AH: (u8, u8) = (0, 15);
    pub const DESTROY_AH: (u8, u8) = (0, 16);
    pub const QUERY_QP: (u8, u8) = (0, 17);
    pub const CREATE_EQ: (u8, u8) = (1, 0);
    pub const DESTROY_EQ: (u8, u8) = (1, 1);
    pub const QUERY_FW: (u8, u8) = (1, 2);
    pub const CONF_MTU: (u8, u8) = (1, 3);
    pub const GET_STATS: (u8, u8) = (1, 4);
    pub const CONF_DEVICE: (u8, u8) = (1, 5);
    pub const ALLOC_DB: (u8, u8) = (1, 8);
    pub const FREE_DB: (u8, u8) = (1, 9);
}

/// Operations of work requests and of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    Write = 0,
    Read = 1,
    Send = 2,
    SendImm = 3,
    Receive = 4,
    /// A receive that a write with immediate data has used.
    ReceiveWriteImm = 5,
    ReceiveInvalidate = 6,
    WriteImm = 9,
    ReceiveSendImm = 12,
    SendInvalidate = 13,
    Register = 14,
    LocalInvalidate = 15,
    ReadInvalidate = 16,
    CompareSwap = 17,
    FetchAdd = 18,
}

impl Op {
    /// What a work request of a send queue may ask for.
    pub fn request(number: u8) -> Option<Op> {
        Some(match number {
            0 => Op::Write,
            1 => Op::Read,
            2 => Op::Send,
            3 => Op::SendImm,
            9 => Op::WriteImm,
            13 => Op::SendInvalidate,
            14 => Op::Register,
            15 => Op::LocalInvalidate,
            16 => Op::ReadInvalidate,
            17 => Op::CompareSwap,
            18 => Op::FetchAdd,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Op::Write => "write",
            Op::Read => "read",
            Op::Send => "send",
            Op::SendImm => "send_imm",
            Op::Receive => "receive",
            Op::ReceiveWriteImm => "receive_write_imm",
            Op::ReceiveInvalidate => "receive_inv",
            Op::WriteImm => "write_imm",
            Op::ReceiveSendImm => "receive_send_imm",
            Op::SendInvalidate => "send_inv",
            Op::Register => "reg_mr",
            Op::LocalInvalidate => "local_inv",
            Op::ReadInvalidate => "read_inv",
            Op::CompareSwap => "compare_swap",
            Op::FetchAdd => "fetch_add",
        }
    }
}

/// What a completion says went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Syndrome {
    Success = 0,
    General = 1,
    RecvFormat = 2,
    RecvStag = 3,
    RecvAddress = 4,
    RecvRight = 5,
    RecvPd = 6,
    RecvWrap = 7,
    SendFormat = 8,
    SendStag = 10,
    SendAddress = 11,
    SendRight = 12,
    SendPd = 13,
    SendWrap = 14,
    Flushed = 15,
    RetryExceeded = 16,
}

/// Which queue a completion is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Queue {
    Send = 0,
    Recv = 1,
    Command = 2,
}

/// Kinds of asynchronous events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    QpFatal = 0,
    Access = 2,
    CqError = 3,
}

/// A completion, but for the owner bit, which is the ring's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    pub opcode: u8,
    pub queue: Queue,
    pub syndrome: u8,
    pub index: u32,
    pub qpn: u32,
    /// As the bytes are on the wire: immediate data, or the key that was invalidated.
    pub data: [u8; 4],
    pub size: u32,
    /// Of datagrams: network type, service level, who sent it.
    pub datagram: u32,
}

impl Completion {
    pub fn new(queue: Queue, op: Op, syndrome: Syndrome, index: u16, qpn: u32) -> Completion {
        Completion {
            opcode: op as u8,
            queue,
            syndrome: syndrome as u8,
            index: index.into(),
            qpn,
            data: [0; 4],
            size: 0,
            datagram: 0,
        }
    }

    /// The 32 bytes in the ring, big-endian.
    pub fn encode(&self, owner: bool) -> [u8; 32] {
        let header = u32::from(owner) << 31
            | u32::from(self.opcode) << 16
            | (self.queue as u32) << 8
            | u32::from(self.syndrome);
        let mut bytes = [0; 32];
        for (at, word) in [
            (0, header),
            (4, self.index),
            (8, self.qpn),
            (16, self.size),
            (28, self.datagram),
        ] {
            bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        bytes[12..16].copy_from_slice(&self.data);
        bytes
    }
}

/// The reply to a command: the same 32 bytes, with two words of response.
pub fn command_completion(
    owner: bool,
    opcode: u8,
    syndrome: u8,
    index: u32,
    response: (u64, u64),
) -> [u8; 32] {
    let header = u32::from(owner) << 31
        | u32::from(opcode) << 16
        | (Queue::Command as u32) << 8
        | u32::from(syndrome);
    let mut bytes = [0; 32];
    let words = [
        header,
        index,
        response.0 as u32,
        (response.0 >> 32) as u32,
        response.1 as u32,
        (response.1 >> 32) as u32,
    ];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_a_word() {
        assert_eq!(bits(0xdead_beef_0000_0000, 63, 48), 0xdead);
        assert_eq!(bits(u64::MAX, 63, 0), u64::MAX);
        assert_eq!(bits(0b1010, 1, 1), 1);
    }

    #[test]
    fn a_completion_is_big_endian_with_the_owner_on_top() {
        let mut c = Completion::new(
            Queue::Recv,
            Op::ReceiveSendImm,
            Syndrome::Success,
            0x1234,
            0x567,
        );
        c.data = [1, 2, 3, 4];
        c.size = 44;
        let bytes = c.encode(true);
        assert_eq!(bytes[..4], [0x80, 12, 1, 0]);
        assert_eq!(
            bytes[4..20],
            [0, 0, 0x12, 0x34, 0, 0, 5, 0x67, 1, 2, 3, 4, 0, 0, 0, 44]
        );
        assert_eq!(c.encode(false)[0], 0);
    }

    #[test]
    fn a_command_reply_has_the_low_word_first() {
        let bytes = command_completion(true, 1, 0, 8, (0x1122_3344_5566_7788, 9));
        assert_eq!(bytes[..4], [0x80, 1, 2, 0]);
        assert_eq!(
            bytes[8..16],
            [0x55, 0x66, 0x77, 0x88, 0x11, 0x22, 0x33, 0x44]
        );
    }
}
