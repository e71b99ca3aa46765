//! Faults that a test can order: what goes wrong until it is taken back.

/// Zero and false everywhere: nothing goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Commands are not taken from their queue.
    pub hang_commands: bool,
    /// Senders to this device find no receive until then.
    pub not_ready_until: u64,
    /// So many completions never come.
    pub drop_completions: u32,
    /// Completions come so much later, in nanoseconds.
    pub completion_delay: u64,
    /// Nothing goes in or out.
    pub port_down: bool,
    /// So many registrations are refused, by command or by work request.
    pub refuse_registrations: u32,
}

impl Faults {
    pub fn refuses_registration(&mut self) -> bool {
        let refuses = self.refuse_registrations > 0;
        self.refuse_registrations -= u32::from(refuses);
        refuses
    }
}
