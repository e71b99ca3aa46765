//! The device by its registers and rings, as a driver sees it, without a machine.

mod driver;
mod faults;
mod fuzz;
mod transfer;
