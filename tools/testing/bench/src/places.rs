//! Instructions by place: whose code ran for a request, counted by the plug-in of `places.c`.
//!
//! In the machine: programs between two marks, and the addresses of the modules' functions. On the host: which
//! function, and whose, an address is.

use crate::stack::Stack;
use crate::{is_chosen, messages, works};
use smc_selftest::{check, rig, spans, Context, Fail, Outcome};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Whose code, in the order of the table.
const PLACES: &[&str] = &[
    "smc",
    "rxe",
    "adapter's driver",
    "ib_core",
    "checksum",
    "copy",
    "TCP/IP, veth",
    "scheduler, locks, timers",
    "memory",
    "system calls, files",
    "programs",
    "rest",
];

/// Something to look at: its name, of how many requests or KiB it is.
struct Span {
    name: &'static str,
    run: fn(Stack) -> Outcome<f64>,
}

const SPANS: &[Span] = &[
    Span {
        name: "redis SET, 1 client, a request",
        run: |stack| works::redis_span(stack, 3000, 1),
    },
    Span {
        name: "redis SET, 64 clients, a request",
        run: |stack| works::redis_span(stack, 6000, 64),
    },
    Span {
        name: "1 B there and back, a request",
        run: messages::round_trip_span,
    },
    Span {
        name: "messages of 64 KiB, a KiB",
        run: messages::stream_span,
    },
    Span {
        name: "messages of 64 B, a message",
        run: messages::small_messages_span,
    },
    Span {
        name: "a connection each, 8 in flight, a connection",
        run: messages::connections_span,
    },
    Span {
        name: "a connection each, known to be short, a connection",
        run: messages::learnt_connections_span,
    },
];

/// In the machine; chosen spans only.
pub fn measure(stack: Stack, filter: &str) -> Outcome {
    stack.up()?;
    for span in SPANS.iter().filter(|span| is_chosen(span.name, filter)) {
        println!("{}", span.name);
        let count = (span.run)(stack).during(span.name)?;
        spans::tell(span.name, count);
    }
    spans::tell_symbols()?;
    stack.unload()?;
    rig::hosts_down()
}

/// A function: whose it is, and its name.
struct Symbol {
    place: usize,
    name: String,
}

fn place(name: &str) -> usize {
    PLACES
        .iter()
        .position(|place| *place == name)
        .unwrap_or(PLACES.len() - 1)
}

/// Whose an object of the kernel is.
fn place_of_object(object: &str, symbol: &str) -> usize {
    const COPIES: &[&str] = &[
        "arch/x86/lib/copy",
        "arch/x86/lib/mem",
        "arch/x86/lib/usercopy",
        "arch/x86/lib/clear",
        "lib/iov_iter",
        "lib/usercopy",
        "mm/usercopy",
    ];
    const SCHEDULER: &[&str] = &[
        "kernel/sched",
        "kernel/time",
        "kernel/locking",
        "kernel/workqueue",
        "kernel/softirq",
        "kernel/rcu",
        "kernel/irq",
        "arch/x86/kernel/apic",
        "arch/x86/kernel/tsc",
        "drivers/clocksource",
        "arch/x86/kernel/process",
        "kernel/futex",
        "lib/timerqueue",
        "lib/rbtree",
    ];
    const CALLS: &[&str] = &[
        "fs/",
        "arch/x86/entry",
        "net/socket",
        "kernel/entry",
        "io_uring",
        "security",
        "lib/string",
    ];
    let is = |list: &[&str]| list.iter().any(|start| object.starts_with(start));
    place(
        if symbol.contains("crc32") || object.starts_with("lib/crc") {
            "checksum"
        } else if is(COPIES) || symbol.starts_with("rep_movs") || symbol.starts_with("memcpy") {
            "copy"
        } else if is(CALLS) {
            "system calls, files"
        } else if object.starts_with("net/") || object.starts_with("drivers/net") {
            "TCP/IP, veth"
        } else if is(SCHEDULER) {
            "scheduler, locks, timers"
        } else if object.starts_with("mm/") {
            "memory"
        } else {
            "rest"
        },
    )
}

/// Functions by address.
struct Symbols(BTreeMap<u64, Symbol>);

impl Symbols {
    /// `kernel` has System.map and `places`, which names the object of each function.
    fn read(kernel: &Path, log: &str) -> Outcome<Symbols> {
        let text = std::fs::read_to_string(kernel.join("places")).during("places")?;
        let objects: HashMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        let mut all = BTreeMap::new();
        let map = std::fs::read_to_string(kernel.join("out/System.map")).during("System.map")?;
        for line in map.lines() {
            let mut words = line.split(' ');
            let (Some(at), Some("t" | "T" | "w" | "W"), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let at = u64::from_str_radix(at, 16)
                .map_err(|error| Fail(format!("System.map: {line}: {error}")))?;
            let object = objects.get(name).copied().unwrap_or_default();
            all.insert(
                at,
                Symbol {
                    place: place_of_object(object, name),
                    name: name.to_owned(),
                },
            );
        }
        for line in log.lines().filter_map(|line| line.strip_prefix("symbol\t")) {
            let (symbol, module) = line.rsplit_once('\t').unwrap_or((line, ""));
            let mut words = symbol.split(' ');
            let (Some(at), Some("t" | "T" | "w" | "W"), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let at = u64::from_str_radix(at, 16)
                .map_err(|error| Fail(format!("kallsyms: {line}: {error}")))?;
            let place = place(match module {
                "smc" | "smc_rs" => "smc",
                "rdma_rxe" => "rxe",
                "erdma" => "adapter's driver",
                "ib_core" | "ib_uverbs" => "ib_core",
                _ => "TCP/IP, veth",
            });
            all.insert(
                at,
                Symbol {
                    place,
                    name: format!("{} [{module}]", short(name)),
                },
            );
        }
        Ok(Symbols(all))
    }

    fn find(&self, at: u64) -> Option<&Symbol> {
        self.0.range(..=at).next_back().map(|(_, symbol)| symbol)
    }
}

/// A mangled name of Rust, its identifiers only.
fn short(name: &str) -> String {
    let Some(rest) = name.strip_prefix("_R") else {
        return name.to_owned();
    };
    let mut parts = Vec::new();
    let mut rest = rest;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[at..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let length: usize = rest[..end].parse().unwrap_or(0);
        rest = &rest[end..];
        // An underscore parts a number from an identifier that begins with a digit or one.
        let body = rest.strip_prefix('_').unwrap_or(rest);
        if length == 0 || length > body.len() || !body.is_char_boundary(length) {
            continue;
        }
        let word = &body[..length];
        if word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && word.chars().any(|c| c.is_ascii_lowercase())
            && length > 1
        {
            parts.push(word);
        }
        rest = &body[length..];
    }
    match parts.len() {
        0 => name.to_owned(),
        n => parts[n.saturating_sub(4)..].join("::"),
    }
}

/// What a stack has run in a span, for one request: by place, and by function.
struct Count {
    places: Vec<f64>,
    functions: BTreeMap<String, f64>,
}

/// On the host: reads DIR/{tcp,c,rust}.log and .places.
pub fn report(dir: &str, kernel: &str) -> Outcome {
    let dir = Path::new(dir);
    let mut stacks = Vec::new();
    for (file, title) in [("tcp", "TCP"), ("c", "C SMC-R"), ("rust", "smc_rs")] {
        let Ok(log) = std::fs::read_to_string(dir.join(format!("{file}.log"))) else {
            continue;
        };
        let symbols = Symbols::read(Path::new(kernel), &log)?;
        let text = std::fs::read_to_string(dir.join(format!("{file}.places"))).during(file)?;
        let names: Vec<(&str, f64)> = log
            .lines()
            .filter_map(|line| line.strip_prefix("span\t")?.split_once('\t'))
            .map(|(name, count)| (name, count.trim().parse().unwrap_or(1.0)))
            .collect();
        let spans: Vec<&str> = text.split("span\n").skip(1).collect();
        check!(
            spans.len() == names.len(),
            "{file}: {} spans counted, {} named",
            spans.len(),
            names.len()
        );
        let mut counts = Vec::new();
        for (text, (name, count)) in spans.iter().zip(&names) {
            let mut result = Count {
                places: vec![0.0; PLACES.len()],
                functions: BTreeMap::new(),
            };
            for line in text.lines() {
                let (at, instructions) = line.split_once(' ').unwrap_or((line, "0"));
                let instructions: f64 = instructions.parse().unwrap_or(0.0) / count;
                if at == "user" {
                    result.places[place("programs")] += instructions;
                    continue;
                }
                let at = u64::from_str_radix(at, 16)
                    .map_err(|error| Fail(format!("{line}: {error}")))?;
                if let Some(symbol) = symbols.find(at) {
                    result.places[symbol.place] += instructions;
                    *result
                        .functions
                        .entry(format!("{} ({})", symbol.name, PLACES[symbol.place]))
                        .or_default() += instructions;
                }
            }
            counts.push(((*name).to_owned(), result));
        }
        stacks.push((title, counts));
    }
    check!(!stacks.is_empty(), "no log in {}", dir.display());
    let mut text = String::new();
    let spans: Vec<String> = stacks[0].1.iter().map(|(name, _)| name.clone()).collect();
    for (number, name) in spans.iter().enumerate() {
        text += &format!("\nInstructions: {name}\n\n| place |");
        for (title, _) in &stacks {
            text += &format!(" {title} |");
        }
        text += &format!("\n|---|{}\n", "---:|".repeat(stacks.len()));
        for (at, place) in PLACES.iter().enumerate() {
            // Of two kinds of adapter there is one.
            if stacks
                .iter()
                .all(|(_, counts)| counts[number].1.places[at] == 0.0)
            {
                continue;
            }
            text += &format!("| {place} |");
            for (_, counts) in &stacks {
                text += &format!(" {:.0} |", counts[number].1.places[at]);
            }
            text += "\n";
        }
        text += "| all |";
        for (_, counts) in &stacks {
            text += &format!(" {:.0} |", counts[number].1.places.iter().sum::<f64>());
        }
        text += "\n";
    }
    print!("{text}");
    std::fs::write(dir.join("places.md"), &text)?;
    // The functions are for those who want to make it faster.
    for (title, counts) in &stacks {
        let mut text = String::new();
        for (name, count) in counts {
            text += &format!("\n{title}: {name}\n");
            let mut all: Vec<(&String, &f64)> = count.functions.iter().collect();
            all.sort_by(|a, b| b.1.total_cmp(a.1));
            for (function, instructions) in all.iter().take(200) {
                text += &format!("{instructions:>10.1}  {function}\n");
            }
        }
        std::fs::write(
            dir.join(format!("functions-{}.txt", title.replace(' ', "-"))),
            text,
        )?;
    }
    Ok(())
}
