//! The vfio-user side: QEMU's messages, the lock, and the clock.

use crate::pci::{self, Config};
use crate::wire::reg;
use crate::world::World;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vfio_bindings::bindings::vfio::{
    vfio_region_info, VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

/// What all threads share.
pub struct Shared {
    state: Mutex<Locked>,
    wake: Condvar,
    start: Instant,
}

struct Locked {
    world: World,
    /// Until when the timers' thread sleeps.
    sleeps_until: u64,
}

impl Shared {
    pub fn new(world: World) -> Shared {
        Shared {
            state: Mutex::new(Locked {
                world,
                sleeps_until: u64::MAX,
            }),
            wake: Condvar::new(),
            start: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// A thread that panicked has said so; the others go on with what is there.
    fn lock(&self) -> MutexGuard<'_, Locked> {
        let mut locked = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        locked.world.now = self.now();
        locked
    }

    pub fn with<R>(&self, change: impl FnOnce(&mut World) -> R) -> R {
        let mut locked = self.lock();
        let result = change(&mut locked.world);
        if locked
            .world
            .next_due()
            .is_some_and(|due| due < locked.sleeps_until)
        {
            self.wake.notify_one();
        }
        result
    }

    /// Runs timers for ever.
    pub fn run_timers(&self) {
        let mut locked = self.lock();
        loop {
            locked.world.now = self.now();
            locked.world.run_timers();
            let due = locked.world.next_due().unwrap_or(u64::MAX);
            locked.sleeps_until = due;
            // At least a moment: the lock is others', too.
            let pause = Duration::from_nanos(
                due.saturating_sub(self.now())
                    .clamp(1_000, 3_600_000_000_000),
            );
            locked = self
                .wake
                .wait_timeout(locked, pause)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            locked.sleeps_until = 0;
        }
    }
}

const BAR: u32 = 0;
const MSIX_BAR: u32 = 2;
const CONFIG: u32 = 7;
const REGIONS: u32 = 9;
const MSIX: u32 = 2;
const IRQS: u32 = 5;
const IRQ_EVENTFD: u32 = 1;
/// Of SET_IRQS: no data at all, which takes every vector away.
const IRQ_DATA_NONE: u32 = 1;

struct Backend {
    shared: Arc<Shared>,
    device: usize,
    config: Config,
}

impl Backend {
    fn with<R>(&self, change: impl FnOnce(&mut World) -> R) -> R {
        self.shared.with(change)
    }

    fn reset_device(&mut self) {
        self.config = Config::default();
        self.with(|world| world.reset(self.device));
    }
}

/// The crate would answer an error with errno 0, which QEMU takes for success: so there is none to it, but one line.
impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        match region {
            BAR => self.with(|world| world.bar_read(self.device, offset, data)),
            CONFIG if self.with(|world| world.devices[self.device].dead) => data.fill(0xff),
            CONFIG => self.config.read(offset, data),
            // QEMU has the MSI-X table; nothing is ever pending here that it could not deliver.
            _ => data.fill(0),
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        match region {
            BAR => self.with(|world| world.bar_write(self.device, offset, data)),
            CONFIG if self.config.write(offset, data) => self.reset_device(),
            _ => {}
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        file: Option<File>,
    ) -> io::Result<()> {
        let writable = flags.contains(DmaMapFlags::WRITE);
        let result = self.with(|world| {
            let memory = &mut world.devices[self.device].memory;
            match file {
                Some(file) => memory.map_file(address, size, offset, file, writable),
                None if writable => Err("it is not shared: start QEMU with -object memory-backend-memfd,id=m,size=...,share=on \
                                         -machine memory-backend=m"
                    .into()),
                None => memory.map_nothing(address, size),
            }
        });
        if let Err(why) = result {
            log::error!(
                "device {}: guest memory at {address:#x}, {size:#x} bytes, cannot be used: {why}",
                self.device
            );
            std::process::exit(1);
        }
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        self.with(|world| {
            let d = &mut world.devices[self.device];
            if !d.memory.unmap(address, size) {
                d.complain(&format!(
                    "QEMU unmaps {size:#x} bytes at {address:#x}, which it has not mapped so"
                ));
            }
        });
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.reset_device();
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        files: Vec<File>,
    ) -> io::Result<()> {
        if index != MSIX {
            return Ok(());
        }
        self.with(|world| {
            let interrupts = &mut world.devices[self.device].interrupts;
            if flags & IRQ_DATA_NONE != 0 && count == 0 {
                return interrupts.remove_all();
            }
            let mut files = files.into_iter();
            for vector in (start..start.saturating_add(count)).take(crate::irq::VECTORS) {
                interrupts.set(vector as usize, files.next());
            }
        });
        Ok(())
    }
}

fn regions() -> Vec<ServerRegion> {
    let sized = |index| match index {
        BAR => reg::SIZE,
        MSIX_BAR => pci::MSIX_BAR_SIZE,
        CONFIG => pci::SIZE as u64,
        _ => 0,
    };
    (0..REGIONS)
        .map(|index| {
            let size = sized(index);
            let flags = if size > 0 {
                VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
            } else {
                0
            };
            let argsz = std::mem::size_of::<vfio_region_info>() as u32;
            let region_info = vfio_region_info {
                argsz,
                flags,
                index,
                size,
                ..Default::default()
            };
            ServerRegion {
                region_info,
                sparse_areas: Vec::new(),
                mmap_fd: None,
            }
        })
        .collect()
}

fn irqs() -> Vec<IrqInfo> {
    let count = |index| {
        if index == MSIX {
            crate::irq::VECTORS as u32
        } else {
            0
        }
    };
    (0..IRQS)
        .map(|index| IrqInfo {
            index,
            flags: IRQ_EVENTFD,
            count: count(index),
        })
        .collect()
}

/// The socket of a device.
pub fn bind(path: &Path) -> Result<Server, String> {
    let _ = std::fs::remove_file(path);
    Server::new(path, true, irqs(), regions()).map_err(|e| format!("{}: {e}", path.display()))
}

/// Serves one QEMU after the other.
pub fn serve(server: Server, shared: Arc<Shared>, device: usize) {
    let mut backend = Backend {
        shared,
        device,
        config: Config::default(),
    };
    loop {
        if let Err(error) = server.run(&mut backend) {
            log::warn!("device {device}: the connection to QEMU ended: {error}");
        }
        backend.reset_device();
        backend.with(|world| {
            let d = &mut world.devices[device];
            d.memory.clear();
            d.interrupts.remove_all();
            d.dead = false;
        });
    }
}
