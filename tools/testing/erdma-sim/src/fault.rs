//! Faults that a test can order: what goes wrong until it is taken back.

use crate::wire::{Completion, Op, Queue};
use serde::Deserialize;

/// Zero and false everywhere: nothing goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Commands are not taken from their queue.
    pub hang_commands: bool,
    /// Senders to this device find no receive until then.
    pub not_ready_until: u64,
    /// So many completions of that kind never come.
    pub drop_completions: u32,
    pub drop_of: DropOf,
    /// Completions come so much later, in nanoseconds.
    pub completion_delay: u64,
    /// Nothing goes in or out.
    pub port_down: bool,
    /// So many registrations are refused, by command or by work request.
    pub refuse_registrations: u32,
}

/// Which completions a fault is about.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DropOf {
    #[default]
    All,
    /// Of messages and writes that a connected pair has sent.
    Sends,
    /// Of receives of a connected pair.
    Receives,
}

impl DropOf {
    fn covers(self, completion: &Completion) -> bool {
        // Number 1 is the general services' pair.
        let of = |queue| completion.qpn != 1 && completion.queue == queue;
        match self {
            DropOf::All => true,
            DropOf::Sends => of(Queue::Send) && completion.opcode != Op::Register as u8,
            DropOf::Receives => of(Queue::Recv),
        }
    }
}

impl Faults {
    pub fn drops(&mut self, completion: &Completion) -> bool {
        let drops = self.drop_completions > 0 && self.drop_of.covers(completion);
        self.drop_completions -= u32::from(drops);
        drops
    }

    pub fn refuses_registration(&mut self) -> bool {
        let refuses = self.refuse_registrations > 0;
        self.refuse_registrations -= u32::from(refuses);
        refuses
    }
}
