//! Orders by a unix socket: one JSON object a line, one a line back.

use crate::fault::DropOf;
use crate::server::Shared;
use crate::trace::What;
use crate::wire::Event;
use crate::world::{Device, Limits, World};
use serde::Deserialize;
use serde_json::{json, Value};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Everything: devices, queues, counters.
    State,
    /// The newest entries of the trace.
    Trace {
        last: usize,
    },
    HangCommands {
        device: usize,
        on: bool,
    },
    NotReady {
        device: usize,
        ms: u64,
    },
    DropCompletions {
        device: usize,
        count: u32,
        #[serde(default)]
        of: DropOf,
    },
    DelayCompletions {
        device: usize,
        ms: u64,
    },
    LoseInterrupts {
        device: usize,
        count: u32,
    },
    /// Without a number: every connected pair.
    QpFatal {
        device: usize,
        qpn: Option<u32>,
    },
    /// Without a number: the queues of every connected pair.
    CqError {
        device: usize,
        cqn: Option<u32>,
    },
    /// Without a key: every key that others may use.
    RevokeKey {
        device: usize,
        key: Option<u32>,
    },
    Port {
        device: usize,
        up: bool,
    },
    RemoveGid {
        device: usize,
        index: usize,
    },
    RefuseRegistrations {
        device: usize,
        count: u32,
    },
    Limit {
        device: usize,
        qps: Option<usize>,
        cqs: Option<usize>,
        regions: Option<usize>,
        handles: Option<usize>,
    },
    /// The device answers with ones from now on, as one that has fallen off its bus.
    Die {
        device: usize,
    },
    /// No more faults.
    Heal {
        device: usize,
    },
    /// The whole process ends, as if it had crashed.
    Exit,
}

impl Order {
    fn device(&self) -> Option<usize> {
        use Order::*;
        match *self {
            State | Trace { .. } | Exit => None,
            HangCommands { device, .. }
            | NotReady { device, .. }
            | DropCompletions { device, .. }
            | DelayCompletions { device, .. }
            | LoseInterrupts { device, .. }
            | QpFatal { device, .. }
            | CqError { device, .. }
            | RevokeKey { device, .. }
            | Port { device, .. }
            | RemoveGid { device, .. }
            | RefuseRegistrations { device, .. }
            | Limit { device, .. }
            | Die { device }
            | Heal { device } => Some(device),
        }
    }
}

/// A fault of a device begins or ends.
fn fault(
    world: &mut World,
    device: usize,
    name: &'static str,
    change: impl FnOnce(&mut Device),
) -> Result<Value, String> {
    change(&mut world.devices[device]);
    world.note(device, What::Fault(name));
    Ok(json!({"ok": true}))
}

/// What is done, or why not.
pub fn obey(world: &mut World, order: Order) -> Result<Value, String> {
    if let Some(device) = order.device() {
        if device >= world.devices.len() {
            return Err(format!(
                "there is no device {device}: there are 0 to {}",
                world.devices.len() - 1
            ));
        }
    }
    let ms = 1_000_000;
    let now = world.now;
    match order {
        Order::State => Ok(state(world)),
        Order::Trace { last } => {
            Ok(json!({"ok": true, "trace": world.trace.tail(last).collect::<Vec<_>>()}))
        }
        Order::HangCommands { device, on } => {
            let result = fault(world, device, "hang_commands", |d| {
                d.faults.hang_commands = on
            });
            world.run_commands(device);
            result
        }
        Order::NotReady { device, ms: time } => fault(world, device, "not_ready", |d| {
            d.faults.not_ready_until = now.saturating_add(time.saturating_mul(ms))
        }),
        Order::DropCompletions { device, count, of } => {
            fault(world, device, "drop_completions", |d| {
                d.faults.drop_completions = count;
                d.faults.drop_of = of;
            })
        }
        Order::DelayCompletions { device, ms: time } => {
            fault(world, device, "delay_completions", |d| {
                d.faults.completion_delay = time.min(60_000) * ms
            })
        }
        Order::LoseInterrupts { device, count } => fault(world, device, "lose_interrupts", |d| {
            d.interrupts.lose = count
        }),
        Order::Port { device, up } => fault(world, device, "port", |d| d.faults.port_down = !up),
        Order::RefuseRegistrations { device, count } => {
            fault(world, device, "refuse_registrations", |d| {
                d.faults.refuse_registrations = count
            })
        }
        Order::Die { device } => fault(world, device, "die", |d| d.dead = true),
        Order::Heal { device } => {
            let result = fault(world, device, "heal", |d| {
                d.faults = Default::default();
                d.limits = Limits::all();
                d.interrupts.make_good();
            });
            world.run_commands(device);
            result
        }
        Order::Limit {
            device,
            qps,
            cqs,
            regions,
            handles,
        } => fault(world, device, "limit", |d| {
            let all = Limits::all();
            d.limits = Limits {
                qps: qps.unwrap_or(all.qps),
                cqs: cqs.unwrap_or(all.cqs),
                regions: regions.unwrap_or(all.regions),
                handles: handles.unwrap_or(all.handles),
            };
        }),
        Order::RemoveGid { device, index } => {
            match world.devices[device].gids.get(index) {
                Some(Some(_)) => {}
                _ => return Err(format!("device {device} has no GID {index}")),
            }
            fault(world, device, "remove_gid", |d| d.gids[index] = None)
        }
        Order::RevokeKey { device, key } => {
            let mut found = 0;
            let result = fault(world, device, "revoke_key", |d| {
                let wanted =
                    |index: u32, k: u8| key.is_none_or(|key| key == index << 8 | u32::from(k));
                let remote = crate::mr::right::REMOTE_WRITE | crate::mr::right::REMOTE_READ;
                let all: Vec<u32> = d
                    .regions
                    .iter()
                    .filter(|(i, r)| r.valid && r.rights & remote != 0 && wanted(*i, r.key))
                    .map(|(i, _)| i)
                    .collect();
                found = all.len();
                for index in all {
                    if let Some(region) = d.regions.by_index_mut(index) {
                        region.valid = false;
                    }
                }
            });
            if found == 0 {
                return Err(format!(
                    "device {device} has no such key that others may use"
                ));
            }
            result
        }
        Order::QpFatal { device, qpn } => {
            let wanted = |n: &u32| qpn.map_or(*n != 1, |qpn| qpn == *n);
            let mut all: Vec<u32> = world.devices[device]
                .qps
                .keys()
                .copied()
                .filter(wanted)
                .collect();
            all.sort_unstable();
            if all.is_empty() {
                return Err(format!("device {device} has no such QP"));
            }
            world.note(device, What::Fault("qp_fatal"));
            for qpn in &all {
                world.fatal(device, *qpn, Event::QpFatal);
            }
            Ok(json!({"ok": true, "qps": all}))
        }
        Order::CqError { device, cqn } => {
            let d = &mut world.devices[device];
            let used = d.qps.iter().filter(|(qpn, _)| **qpn != 1);
            let mut all: Vec<u32> = match cqn {
                Some(cqn) => vec![cqn],
                None => used
                    .flat_map(|(_, qp)| [qp.send.cqn, qp.recv.cqn])
                    .collect(),
            };
            all.sort_unstable();
            all.dedup();
            if all.is_empty() {
                return Err(format!("device {device} has no pair with a CQ"));
            }
            for cqn in &all {
                let queue = d
                    .cqs
                    .get_mut(cqn)
                    .ok_or(format!("device {device} has no CQ {cqn}"))?;
                queue.failed = true;
            }
            let users: Vec<u32> = d
                .qps
                .iter()
                .filter(|(_, qp)| all.contains(&qp.send.cqn) || all.contains(&qp.recv.cqn))
                .map(|(qpn, _)| *qpn)
                .collect();
            for cqn in all {
                d.async_event(Event::CqError, cqn);
            }
            world.note(device, What::Fault("cq_error"));
            for qpn in &users {
                world.fatal(device, *qpn, Event::QpFatal);
            }
            Ok(json!({"ok": true, "qps": users}))
        }
        Order::Exit => {
            log::warn!("ordered to end");
            std::process::exit(3);
        }
    }
}

/// For people and tests: what there is.
fn state(world: &World) -> Value {
    let devices: Vec<Value> = world
        .devices
        .iter()
        .map(|d| {
            let mut qps: Vec<_> = d.qps.iter().collect();
            qps.sort_unstable_by_key(|(n, _)| **n);
            let qps: Vec<Value> = qps
                .iter()
                .map(|(n, qp)| {
                    json!({"qpn": n, "state": qp.state.name(), "peer": qp.target_qpn, "sq_pi": qp.send.pi, "sq_ci": qp.send.ci,
                        "rq_pi": qp.recv.pi, "rq_ci": qp.recv.ci, "scq": qp.send.cqn, "rcq": qp.recv.cqn, "sent": qp.sent,
                        "received": qp.received, "wait": qp.wait.map(|w| format!("{:?} {}", w.why, w.tries))})
                })
                .collect();
            let mut cqs: Vec<_> = d.cqs.iter().collect();
            cqs.sort_unstable_by_key(|(n, _)| **n);
            let cqs: Vec<Value> = cqs
                .iter()
                .map(|(n, q)| {
                    json!({"cqn": n, "eqn": q.eqn, "depth": q.depth, "pi": q.pi, "ci": q.ci, "armed": format!("{:?}", q.armed),
                        "events": q.events, "failed": q.failed})
                })
                .collect();
            let gids: Vec<String> = d
                .gids
                .iter()
                .enumerate()
                .filter_map(|(n, g)| g.map(|g| format!("{n}: {}", std::net::Ipv6Addr::from(g))))
                .collect();
            json!({"name": d.name, "protocol": format!("{:?}", d.protocol), "dead": d.dead, "port_up": d.reachable(),
                "memory": d.memory.reachable(), "initialised": d.commands.is_some(), "event_queues": d.event_queues.len(),
                "interrupts": d.interrupts.raised(), "interrupts_lost": d.interrupts.lost, "regions": d.regions.len(), "gids": gids,
                "mtu": d.mtu, "qps": qps, "cqs": cqs, "counters": d.counters})
        })
        .collect();
    json!({"ok": true, "seconds": world.now as f64 / 1e9, "devices": devices})
}

fn answer(shared: &Shared, line: &str) -> Value {
    let result = serde_json::from_str(line)
        .map_err(|e| format!("no order: {e}"))
        .and_then(|order: Order| shared.with(|world| obey(world, order)));
    result.unwrap_or_else(|why| json!({"ok": false, "error": why}))
}

fn converse(shared: &Shared, stream: UnixStream) -> std::io::Result<()> {
    let mut write = stream.try_clone()?;
    for line in BufReader::new(stream).lines() {
        writeln!(write, "{}", answer(shared, &line?))?;
    }
    Ok(())
}

/// Takes orders for ever.
pub fn listen(path: &Path, shared: &Arc<Shared>) -> Result<(), String> {
    let _ = std::fs::remove_file(path);
    let listener =
        UnixListener::bind(path).map_err(|e| format!("control socket {}: {e}", path.display()))?;
    let shared = shared.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = shared.clone();
            std::thread::spawn(move || converse(&shared, stream));
        }
    });
    Ok(())
}

/// The other side: one order, its answer.
pub fn ask(path: &Path, order: &str) -> Result<Value, String> {
    let fail = |e: std::io::Error| format!("control socket {}: {e}", path.display());
    let mut stream = UnixStream::connect(path).map_err(fail)?;
    writeln!(stream, "{order}").map_err(fail)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(fail)?;
    serde_json::from_str(&line)
        .map_err(|e| format!("control socket {}: no answer: {e}", path.display()))
}
