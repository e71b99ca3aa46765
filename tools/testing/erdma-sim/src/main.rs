//! An emulated eRDMA adapter: a device of QEMU's (`vfio-user-pci`) in a process of its own.
//!
//!   erdma-sim run --device SOCKET,mac=52:54:00:09:00:01[,iwarp] ... [--control SOCKET]
//!   erdma-sim ctl CONTROL JSON      one order, as {"do":"state"} or {"do":"port","device":0,"up":false}
//!   erdma-sim top CONTROL           the queues, live
//!
//! All devices of a process are on one wire: what one writes to another is copied between their machines' memories.
//! Documentation/erdma.rst tells how the device works, and how far it can be trusted.

mod bar;
mod command;
mod control;
mod engine;
mod fault;
mod irq;
mod memory;
mod mr;
mod pci;
mod qp;
mod ring;
mod server;
#[cfg(test)]
mod tests;
mod top;
mod trace;
mod wire;
mod world;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use world::{Device, Protocol, Settings, World};

const USAGE: &str = "usage: erdma-sim run --device SOCKET,mac=M[,iwarp] [--device ...] [--control SOCKET] [--not-ready-us N] \
                     [--ack-timeout-ms N] [--retries N] | erdma-sim ctl CONTROL JSON | erdma-sim top CONTROL";

/// Each line as it is.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        eprintln!("erdma-sim: {}", record.args());
    }
    fn flush(&self) {}
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|part| u8::from_str_radix(part, 16).ok())
        .collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// A device's socket, and what it is.
fn parse_device(text: &str) -> Result<(PathBuf, [u8; 6], Protocol), String> {
    let mut words = text.split(',');
    let path = PathBuf::from(words.next().unwrap_or_default());
    let (mut mac, mut protocol) = (None, Protocol::Roce);
    for word in words {
        match word.split_once('=') {
            Some(("mac", value)) => {
                mac = Some(parse_mac(value).ok_or(format!("'{value}' is no MAC address"))?)
            }
            None if word == "iwarp" => protocol = Protocol::Iwarp,
            _ => {
                return Err(format!(
                    "--device {text}: '{word}' is not known (mac=..., iwarp)"
                ))
            }
        }
    }
    let mac = mac.ok_or(format!(
        "--device {text}: give the MAC address of the machine's network device, mac=..."
    ))?;
    Ok((path, mac, protocol))
}

fn run(arguments: &[String]) -> Result<(), String> {
    let mut devices = Vec::new();
    let mut servers = Vec::new();
    let mut settings = Settings::default();
    let mut control = None;
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or(format!("{word}: its value is missing; {USAGE}"))?;
        let count = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{word} {value}: not a number"))
        };
        match word.as_str() {
            "--device" => {
                let (path, mac, protocol) = parse_device(value)?;
                devices.push(Device::new(
                    &format!("device {}", devices.len()),
                    mac,
                    protocol,
                ));
                servers.push(server::bind(&path)?);
            }
            "--control" => control = Some(PathBuf::from(value)),
            "--not-ready-us" => settings.not_ready = count()?.saturating_mul(1_000),
            "--ack-timeout-ms" => settings.ack_timeout = count()?.saturating_mul(1_000_000),
            "--retries" => {
                settings.retries = count()?
                    .try_into()
                    .map_err(|_| format!("{word} {value}: too many"))?
            }
            _ => return Err(format!("'{word}' is not known; {USAGE}")),
        }
    }
    if servers.is_empty() {
        return Err(format!("no device; {USAGE}"));
    }
    let shared = Arc::new(server::Shared::new(World::new(devices, settings)));
    if let Some(path) = control {
        control::listen(&path, &shared)?;
    }
    for (number, server) in servers.into_iter().enumerate() {
        let shared = shared.clone();
        std::thread::spawn(move || server::serve(server, shared, number));
    }
    println!("erdma-sim: ready");
    shared.run_timers();
    Ok(())
}

fn order(path: &Path, order: &str) -> Result<(), String> {
    let answer = control::ask(path, order)?;
    // Whoever reads may have enough.
    let _ = writeln!(std::io::stdout(), "{answer:#}");
    match answer["ok"].as_bool() {
        Some(true) => Ok(()),
        _ => Err("the order was refused".into()),
    }
}

fn watch(path: &Path) -> Result<(), String> {
    let mut before = None;
    loop {
        let now = control::ask(path, r#"{"do":"state"}"#)?;
        // Home, and clear what is below. Whoever looks may have seen enough.
        let mut out = std::io::stdout();
        let picture = top::render(&now, before.as_ref());
        if write!(out, "\x1b[H\x1b[J{picture}")
            .and_then(|()| out.flush())
            .is_err()
        {
            return Ok(());
        }
        before = Some(now);
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn main() -> ExitCode {
    // Only fails when there is a logger already.
    let _ = log::set_logger(&Lines);
    log::set_max_level(log::LevelFilter::Warn);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["run", ..] => run(&arguments[1..]),
        ["ctl", path, json] => order(Path::new(path), json),
        ["top", path] => watch(Path::new(path)),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("erdma-sim: error: {why}");
            ExitCode::FAILURE
        }
    }
}
