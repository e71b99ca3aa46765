//! BAR 0: registers and doorbells.

use crate::ring::{Buffer, CompletionQueue, EventQueue};
use crate::trace::What;
use crate::wire::{bits, reg};
use crate::world::{CommandQueue, Protocol, World};

/// What a register says that a device which is not there has.
const GONE: u8 = 0xff;
const VERSION: u32 = 1;
/// Command and event rings are no deeper than this; the driver has 512 and 4,096.
const DEEPEST: u32 = 1 << 15;

impl World {
    pub fn bar_read(&mut self, device: usize, offset: u64, data: &mut [u8]) {
        let d = &mut self.devices[device];
        if d.dead {
            return data.fill(GONE);
        }
        data.fill(0);
        let word = |at: u64| -> Option<u32> {
            let mac = u64::from_be_bytes([
                0, 0, d.mac[0], d.mac[1], d.mac[2], d.mac[3], d.mac[4], d.mac[5],
            ]);
            Some(match at {
                reg::VERSION => VERSION,
                reg::PROTOCOL => u32::from(d.protocol == Protocol::Roce),
                reg::CONTROL => 0,
                reg::STATUS => d.registers.status,
                reg::MAC_LOW => mac as u32,
                reg::MAC_HIGH => (mac >> 32) as u32,
                reg::GROUPS => 0,
                reg::STATISTICS..reg::STATISTICS_END => 0,
                reg::CMDQ_SQ_ADDR_LOW..reg::STATISTICS => {
                    d.registers.words[(at - 0x20) as usize / 4]
                }
                _ => return None,
            })
        };
        let mut unknown = offset % 4 != 0 || data.len() % 4 != 0;
        if !unknown {
            for (n, part) in data.chunks_exact_mut(4).enumerate() {
                match word(offset.wrapping_add(n as u64 * 4)) {
                    Some(value) => part.copy_from_slice(&value.to_le_bytes()),
                    None => unknown = true,
                }
            }
        }
        if unknown {
            d.complain(&format!(
                "read of {} bytes at {offset:#x} of BAR 0, where there is no register",
                data.len()
            ));
        }
    }

    pub fn bar_write(&mut self, device: usize, offset: u64, data: &[u8]) {
        if self.devices[device].dead {
            return;
        }
        let value = match *data {
            [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            _ => return self.unknown_write(device, offset, data.len()),
        };
        if offset % data.len() as u64 != 0 {
            return self.unknown_write(device, offset, data.len());
        }
        self.devices[device].counters.doorbells += 1;
        match offset {
            reg::CONTROL => self.control(device, value as u32),
            reg::CMDQ_SQ_DOORBELL => self.command_doorbell(device, value as u16),
            reg::CMDQ_CQ_DOORBELL => self.command_cq_doorbell(device, value),
            reg::AEQ_DOORBELL => self.devices[device].async_doorbell(value),
            reg::EQ_DOORBELLS..0x200 => {
                self.devices[device].event_doorbell((offset - reg::EQ_DOORBELLS) as u32 / 8, value)
            }
            reg::CMDQ_SQ_ADDR_LOW..reg::STATISTICS => {
                let words = &mut self.devices[device].registers.words;
                let at = (offset - 0x20) as usize / 4;
                words[at] = value as u32;
                if data.len() == 8 {
                    words[at + 1] = (value >> 32) as u32;
                }
            }
            reg::SEND_DOORBELLS..reg::RECV_DOORBELLS => {
                self.send_doorbell(device, bits(value, 51, 32) as u32, value as u16)
            }
            reg::RECV_DOORBELLS..reg::CQ_DOORBELLS => {
                self.recv_doorbell(device, bits(value, 51, 32) as u32, value as u16)
            }
            reg::CQ_DOORBELLS..reg::SIZE => self.cq_doorbell(device, value),
            _ => self.unknown_write(device, offset, data.len()),
        }
    }

    fn unknown_write(&mut self, device: usize, offset: u64, length: usize) {
        self.devices[device].complain(&format!(
            "write of {length} bytes at {offset:#x} of BAR 0, where there is no register"
        ));
    }

    fn control(&mut self, device: usize, value: u32) {
        if value & reg::CONTROL_RESET != 0 {
            self.reset(device);
            self.devices[device].registers.status = reg::STATUS_RESET_DONE;
        }
        if value & reg::CONTROL_INIT != 0 {
            self.initialize(device);
        }
    }

    /// By the driver, by function-level reset, or by the machine's.
    pub fn reset(&mut self, device: usize) {
        self.note(device, What::Reset);
        let d = &mut self.devices[device];
        d.counters.resets += 1;
        d.reset();
    }

    /// The registers name the rings of commands and events: they begin to exist.
    fn initialize(&mut self, device: usize) {
        let d = &mut self.devices[device];
        let word = |at: u64| d.registers.words[(at - 0x20) as usize / 4];
        let address = |low: u64, high: u64| u64::from(word(low)) | u64::from(word(high)) << 32;
        let depths = [
            word(reg::CMDQ_DEPTH),
            word(reg::CMDQ_EQ_DEPTH),
            word(reg::AEQ_DEPTH),
        ];
        if depths
            .iter()
            .any(|depth| !depth.is_power_of_two() || *depth > DEEPEST || *depth < 4)
        {
            return d.complain(&format!("initialised with rings of {depths:?} entries: each must be a power of two from 4 to {DEEPEST}"));
        }
        d.async_events = Some(EventQueue::new(
            address(reg::AEQ_ADDR_LOW, reg::AEQ_ADDR_HIGH),
            depths[2],
            0,
        ));
        d.event_queues.insert(
            0,
            EventQueue::new(
                address(reg::CMDQ_EQ_ADDR_LOW, reg::CMDQ_EQ_ADDR_HIGH),
                depths[1],
                0,
            ),
        );
        let replies = Buffer::plain(address(reg::CMDQ_CQ_ADDR_LOW, reg::CMDQ_CQ_ADDR_HIGH));
        d.commands = Some(CommandQueue {
            address: address(reg::CMDQ_SQ_ADDR_LOW, reg::CMDQ_SQ_ADDR_HIGH),
            depth: depths[0],
            ci: 0,
            pi: 0,
            cq: CompletionQueue::new(replies, depths[0], 0),
        });
        d.registers.status = reg::STATUS_INIT_DONE;
    }

    fn cq_doorbell(&mut self, device: usize, value: u64) {
        let cqn = bits(value, 55, 32) as u32;
        let d = &mut self.devices[device];
        if let Some(record) = d.cqs.get(&cqn).map(|queue| queue.record) {
            d.check_record(format_args!("CQ {cqn}"), record, value, 24);
        }
        let Some(queue) = d.cqs.get_mut(&cqn) else {
            return d.complain(&format!("doorbell of CQ {cqn}, which does not exist"));
        };
        if queue.doorbell(value) {
            let (eqn, pi) = (queue.eqn, queue.pi);
            d.completion_event(eqn, cqn, pi);
        }
    }

    fn command_cq_doorbell(&mut self, device: usize, value: u64) {
        let d = &mut self.devices[device];
        let Some(commands) = &mut d.commands else {
            // The driver resets the device before it frees the interrupt, whose handler arms once more.
            return;
        };
        if commands.cq.doorbell(value) {
            let pi = commands.cq.pi;
            d.completion_event(0, 0, pi);
        }
    }
}
