//! PCI configuration space, as far as it is the device's: QEMU answers for BAR addresses and the MSI-X table itself.

use crate::irq::VECTORS;

const VENDOR: u16 = 0x1ded;
const DEVICE: u16 = 0x107f;
pub const SIZE: usize = 256;

const MSIX: usize = 0x40;
const PCIE: usize = 0x60;
const DEVICE_CAPABILITIES: usize = PCIE + 4;
const DEVICE_CONTROL: usize = PCIE + 8;
const FUNCTION_RESET: u32 = 1 << 28;
const BEGIN_RESET: u16 = 1 << 15;

/// The driver wants memory BARs 0 and 2 and no other: two of 64 bits.
const MEMORY_64: u32 = 4;
/// In BAR 2.
const PENDING_BITS: u32 = 0x800;
pub const MSIX_BAR_SIZE: u64 = 4096;

pub struct Config {
    bytes: [u8; SIZE],
}

impl Default for Config {
    fn default() -> Config {
        let mut config = Config { bytes: [0; SIZE] };
        let mut put =
            |at: usize, value: &[u8]| config.bytes[at..at + value.len()].copy_from_slice(value);
        put(0x00, &VENDOR.to_le_bytes());
        put(0x02, &DEVICE.to_le_bytes());
        // Status: there is a list of capabilities.
        put(0x06, &0x10u16.to_le_bytes());
        // Revision 1 of an Ethernet controller.
        put(0x08, &[1, 0, 0, 2]);
        put(0x10, &MEMORY_64.to_le_bytes());
        put(0x18, &MEMORY_64.to_le_bytes());
        put(0x2c, &VENDOR.to_le_bytes());
        put(0x2e, &DEVICE.to_le_bytes());
        put(0x34, &[MSIX as u8]);
        put(MSIX, &[0x11, PCIE as u8]);
        put(MSIX + 2, &(VECTORS as u16 - 1).to_le_bytes());
        put(MSIX + 4, &2u32.to_le_bytes());
        put(MSIX + 8, &(PENDING_BITS | 2).to_le_bytes());
        // PCI Express, version 2, an endpoint.
        put(PCIE, &[0x10, 0, 2, 0]);
        put(
            DEVICE_CAPABILITIES,
            &(FUNCTION_RESET | 1 << 15).to_le_bytes(),
        );
        config
    }
}

impl Config {
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (n, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).ok().and_then(|o| o.checked_add(n));
            *byte = at.and_then(|at| self.bytes.get(at)).copied().unwrap_or(0);
        }
    }

    /// Whether this begins a function-level reset, which the guest orders here and nowhere else.
    #[must_use]
    pub fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        for (n, byte) in data.iter().enumerate() {
            let Some(at) = usize::try_from(offset).ok().and_then(|o| o.checked_add(n)) else {
                return false;
            };
            // Command, interrupt line, and the controls of the capabilities.
            if matches!(at, 0x04..=0x05 | 0x3c)
                || at == MSIX + 3
                || (DEVICE_CONTROL..DEVICE_CONTROL + 2).contains(&at)
            {
                self.bytes[at] = *byte;
            }
        }
        let control =
            u16::from_le_bytes([self.bytes[DEVICE_CONTROL], self.bytes[DEVICE_CONTROL + 1]]);
        let begins = control & BEGIN_RESET != 0;
        if begins {
            *self = Config::default();
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_looks_for() {
        let mut bytes = [0; 4];
        let config = Config::default();
        config.read(0, &mut bytes);
        assert_eq!(bytes, [0xed, 0x1d, 0x7f, 0x10]);
        config.read(0xfe, &mut bytes);
        config.read(u64::MAX, &mut bytes);
        assert_eq!(bytes, [0; 4]);
    }

    #[test]
    fn a_function_level_reset_is_a_bit_in_the_device_control() {
        let mut config = Config::default();
        assert!(!config.write(4, &[6, 0]));
        assert!(!config.write(u64::MAX, &[1, 2]));
        assert!(!config.write(0, &[9, 9]), "read-only");
        assert!(config.write(DEVICE_CONTROL as u64, &[0, 0x80]));
        let mut command = [1; 2];
        config.read(4, &mut command);
        assert_eq!(command, [0, 0], "as after power-on");
    }
}
