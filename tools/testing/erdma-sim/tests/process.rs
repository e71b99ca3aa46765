//! The process as QEMU and people meet it: the vfio-user socket, the control socket, and what it says.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;
use vfio_user::Client;

const PROGRAM: &str = env!("CARGO_BIN_EXE_erdma-sim");
const BAR: u32 = 0;
const CONFIG: u32 = 7;
const MSIX: u32 = 2;
/// SET_IRQS: eventfds that are to be triggered; and no data, which with no vectors takes all away.
const EVENTFD_TRIGGER: u32 = 1 << 2 | 1 << 5;
const NONE_TRIGGER: u32 = 1 | 1 << 5;
const QUERY_DEVICE: u64 = 0;
/// A guest's memory: the command queue's rings are at its beginning, a page each.
const BASE: u64 = 0x10_0000;
const SIZE: u64 = 0x10_0000;

/// A run with two devices, in a directory of its own; it ends with this.
struct Sim {
    child: Child,
    dir: PathBuf,
    said: BufReader<ChildStderr>,
}

impl Sim {
    fn start(test: &str) -> Sim {
        let dir = std::env::temp_dir().join(format!("erdma-sim-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let device = |n: u8| format!("{}/{n}.sock,mac=52:54:00:09:00:0{n}", dir.display());
        let mut child = Command::new(PROGRAM)
            .args(["run", "--device", &device(0), "--device", &device(1)])
            .args(["--control", &format!("{}/control", dir.display())])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut ready)
            .unwrap();
        assert_eq!(ready, "erdma-sim: ready\n");
        let said = BufReader::new(child.stderr.take().unwrap());
        Sim { child, dir, said }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("0.sock")
    }

    /// The next line that it says.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ctl(&self, order: &str) -> Output {
        let control = self.dir.join("control");
        Command::new(PROGRAM)
            .arg("ctl")
            .arg(control)
            .arg(order)
            .output()
            .unwrap()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// QEMU's part, with a guest that has used its memory before.
struct Machine {
    client: Client,
    memory: File,
}

impl Machine {
    fn new(sim: &Sim) -> Machine {
        let mut client = Client::new(&sim.socket()).unwrap();
        let path = sim.dir.join("memory");
        let memory = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .unwrap();
        memory.set_len(SIZE).unwrap();
        client.dma_map(0, BASE, SIZE, memory.as_raw_fd()).unwrap();
        Machine { client, memory }
    }

    fn read(&mut self, region: u32, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.client.region_read(region, at, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn write(&mut self, at: u64, value: u32) {
        self.client
            .region_write(BAR, at, &value.to_le_bytes())
            .unwrap();
    }

    /// The registers of the command queue and of the events, and "initialise".
    fn initialise(&mut self) {
        let page = |n: u32| BASE as u32 + n * 0x1000;
        for (at, value) in [
            (0x20, page(0)),
            (0x28, page(1)),
            (0x38, page(2)),
            (0x40, page(3)),
            (0x30, 64),
            (0x34, 64),
            (0x48, 64),
            (0x10, 2),
        ] {
            self.write(at, value);
        }
        assert_eq!(self.read(BAR, 0x14), 2, "done");
    }

    /// Arms the completions of commands.
    fn arm(&mut self) {
        let arm = 1u64 << 31;
        self.client
            .region_write(BAR, 0x300, &arm.to_le_bytes())
            .unwrap();
    }

    /// The first command, with this opcode: the reply, which is there when the doorbell is done with.
    fn first_command(&mut self, opcode: u64) -> [u8; 32] {
        let header = 3u64 << 52 | opcode << 16 | 4;
        self.memory.write_all_at(&header.to_le_bytes(), 0).unwrap();
        self.client
            .region_write(BAR, 0x200, &4u64.to_le_bytes())
            .unwrap();
        let mut reply = [0; 32];
        self.memory.read_exact_at(&mut reply, 0x1000).unwrap();
        reply
    }
}

#[test]
fn a_machine_finds_the_device_and_hears_of_its_first_command() {
    let sim = Sim::start("command");
    let mut machine = Machine::new(&sim);
    assert_eq!(machine.read(CONFIG, 0), 0x107f_1ded);
    assert_eq!(machine.read(BAR, 0xc), 1, "RoCEv2");
    assert_eq!(machine.read(BAR, 0x18), 0x0009_0000);
    assert_eq!(machine.read(BAR, 0x1c), 0x5254);
    machine.initialise();
    machine.arm();
    let reply = machine.first_command(QUERY_DEVICE);
    assert_eq!((reply[0] >> 7, reply[3]), (1, 0), "ours, and no error");

    // The interrupt was raised while there was none to send: it comes with the vector, and then no more.
    let (ours, theirs) = UnixStream::pair().unwrap();
    machine
        .client
        .set_irqs(MSIX, EVENTFD_TRIGGER, 0, 1, &[theirs.as_raw_fd()])
        .unwrap();
    drop(theirs);
    let mut bytes = [0; 8];
    (&ours).read_exact(&mut bytes).unwrap();
    assert_eq!(u64::from_ne_bytes(bytes), 1);
    machine
        .client
        .set_irqs(MSIX, NONE_TRIGGER, 0, 0, &[])
        .unwrap();
    assert_eq!((&ours).read(&mut bytes).unwrap(), 0, "its end is closed");
}

#[test]
fn resets_and_a_machine_that_goes_leave_a_new_device() {
    let mut sim = Sim::start("reset");
    let mut machine = Machine::new(&sim);
    // By register, by the guest's function-level reset, by the machine's own.
    let resets: [fn(&mut Machine); 3] = [
        |machine| machine.write(0x10, 1),
        |machine| {
            machine
                .client
                .region_write(CONFIG, 0x68, &0x8000u16.to_le_bytes())
                .unwrap()
        },
        |machine| machine.client.reset().unwrap(),
    ];
    for reset in resets {
        machine.initialise();
        reset(&mut machine);
        assert_ne!(machine.read(BAR, 0x14), 2);
        assert_eq!(machine.read(BAR, 0x20), 0);
    }
    machine.initialise();
    assert!(sim.ctl(r#"{"do":"die","device":0}"#).status.success());
    assert_eq!(machine.read(BAR, 0), u32::MAX);
    assert_eq!(machine.read(CONFIG, 0), u32::MAX);
    machine.client.shutdown().unwrap();
    drop(machine);
    // The next one finds it alive, and the memory of the one before is nobody's any more.
    let mut machine = Machine::new(&sim);
    assert_eq!(machine.read(BAR, 0), 1);
    machine.client.dma_unmap(BASE, SIZE / 2).unwrap();
    let line = sim.line();
    assert!(
        line.contains("QEMU unmaps 0x80000 bytes at 0x100000, which it has not mapped so"),
        "{line}"
    );
}

#[test]
fn what_it_does_not_know_is_a_line_each() {
    let mut sim = Sim::start("lines");
    let mut machine = Machine::new(&sim);
    machine.read(BAR, 0x400);
    let line = sim.line();
    assert!(
        line.contains("device 0: read of 4 bytes at 0x400 of BAR 0"),
        "{line}"
    );
    machine.write(0x404, 7);
    let line = sim.line();
    assert!(
        line.contains("device 0: write of 4 bytes at 0x404 of BAR 0"),
        "{line}"
    );
    machine.initialise();
    // There is no such command.
    let reply = machine.first_command(0x77);
    let line = sim.line();
    assert!(
        line.contains("device 0") && line.contains("command") && line.contains("119"),
        "{line}"
    );
    assert_ne!(reply[3], 0, "and an error to the driver");
}

/// Without `-object memory-backend-memfd` QEMU gives no file: nothing could ever work.
#[test]
fn memory_without_a_file_ends_it_with_a_line() {
    let mut sim = Sim::start("memory");
    let mut stream = UnixStream::connect(sim.socket()).unwrap();
    // DMA_MAP: id, command, length, flags, error; its own length, read and write, offset, address, size.
    let mut message = Vec::new();
    message.extend([1u16, 2].iter().flat_map(|v| v.to_le_bytes()));
    message.extend([48u32, 0, 0, 32, 3].iter().flat_map(|v| v.to_le_bytes()));
    message.extend([0, BASE, SIZE].iter().flat_map(|v| v.to_le_bytes()));
    // What is wrong with a ROM.
    let mut rom = message.clone();
    rom[20] = 1;
    rom[32..40].copy_from_slice(&0xc_0000u64.to_le_bytes());
    stream.write_all(&rom).unwrap();
    stream.read_exact(&mut [0; 16]).unwrap();
    stream.write_all(&message).unwrap();
    let line = sim.line();
    assert!(
        line.contains("guest memory at 0x100000, 0x100000 bytes, cannot be used: it is not shared"),
        "{line}"
    );
    assert_eq!(sim.child.wait().unwrap().code(), Some(1));
}

#[test]
fn top_shows_the_queues_and_ends_with_its_reader() {
    let sim = Sim::start("top");
    let mut machine = Machine::new(&sim);
    machine.initialise();
    let mut top = Command::new(PROGRAM)
        .arg("top")
        .arg(sim.dir.join("control"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(top.stdout.take().unwrap()).lines();
    let mut next = |wanted: &str| loop {
        let line = lines.next().unwrap().unwrap();
        if line.contains(wanted) {
            break line;
        }
    };
    let line = next("0 device 0");
    assert!(
        line.contains("Roce up") && line.contains("requests/s -"),
        "{line}"
    );
    assert!(next("1 device 1").contains("no driver"));
    // The second picture has rates; a dead device is seen as one.
    assert!(sim.ctl(r#"{"do":"die","device":0}"#).status.success());
    let line = next("0 device 0");
    assert!(
        line.contains("dead") && line.contains("requests/s 0"),
        "{line}"
    );
    drop(lines);
    let status = top.wait().unwrap();
    let mut said = String::new();
    top.stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert!(status.success() && said.is_empty(), "{status}: {said}");
}

#[test]
fn orders_that_are_refused_and_a_process_that_ends() {
    let mut sim = Sim::start("orders");
    for (order, why) in [
        (
            r#"{"do":"die","device":2}"#,
            "there is no device 2: there are 0 to 1",
        ),
        (r#"{"do":"dance"}"#, "unknown variant `dance`"),
        ("die", "no order"),
    ] {
        let output = sim.ctl(order);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            !output.status.success() && said.contains(why),
            "{order}: {said}"
        );
    }
    // Nothing answers any more: one line, too.
    let output = sim.ctl(r#"{"do":"exit"}"#);
    assert!(!output.status.success());
    assert_eq!(sim.line(), "erdma-sim: ordered to end");
    assert_eq!(sim.child.wait().unwrap().code(), Some(3));
    for output in [
        sim.ctl(r#"{"do":"state"}"#),
        Command::new(PROGRAM)
            .arg("top")
            .arg(Path::new("/nowhere"))
            .output()
            .unwrap(),
    ] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success()
                && said.starts_with("erdma-sim: error: control socket")
                && said.lines().count() == 1,
            "{said}"
        );
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_one_line() {
    for words in [
        &["run"][..],
        &["run", "--device", "/tmp/x"],
        &["run", "--device", "/tmp/x,mac=52:54"],
        &["run", "--device"],
        &["run", "--retries", "many"],
        &["walk"],
    ] {
        let output = Command::new(PROGRAM).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success()
                && said.starts_with("erdma-sim: ")
                && said.lines().count() == 1,
            "{words:?}: {said}"
        );
    }
}

/// A machine that stops in the middle of a message, or sends what no QEMU would, is one that has gone.
#[test]
fn a_broken_connection_is_survived() {
    let sim = Sim::start("broken");
    for bytes in [&[1u8, 0, 9, 0, 32][..], &[0xff; 64]] {
        let mut stream = UnixStream::connect(sim.socket()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let mut machine = Machine::new(&sim);
    machine.initialise();
}
